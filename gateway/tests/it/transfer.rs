//! A resource on its way to a device, as the device sees it on the wire.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use headgate_protocol::mqtt::QoS;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::harness::{
    Announced, Client, Device, Gateway, Login, chunk_of, content, publish, sha256,
};

/// A gateway where a resource of these bytes waits for a device that listens and was told.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) device: Device,
    pub(crate) resource: String,
    pub(crate) task: String,
    pub(crate) client: Client,
    pub(crate) announced: Announced,
}

impl Scene {
    pub(crate) async fn new(bytes: &[u8]) -> Self {
        Self::in_gateway(Gateway::start().await, bytes).await
    }

    pub(crate) async fn in_gateway(gateway: Gateway, bytes: &[u8]) -> Self {
        let [device] = gateway.devices(["d1"]).await;
        let resource = gateway.resource("P", "firmware", bytes).await;
        let task = gateway.task(&resource, &[&device]).await;
        let mut client = Client::listening(&gateway, &device).await;
        let announced = client.announced().await;
        Self {
            gateway,
            device,
            resource,
            task,
            client,
            announced,
        }
    }

    pub(crate) fn transfer(&self) -> &str {
        &self.announced.transfer
    }

    /// Asks for pieces and gives those that come, with where they begin.
    async fn pieces(&mut self, ask: &Value, count: usize) -> Vec<(u64, Vec<u8>)> {
        let mut ask = ask.clone();
        ask["type"] = "get_chunks".into();
        ask["transfer"] = self.transfer().into();
        self.client.tell(&self.device, &ask).await;
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push(self.client.chunk().await);
        }
        assert_eq!(self.client.ping().await, [], "no more than was asked for");
        pieces
    }

    pub(crate) async fn state(&self) -> String {
        let delivery = self.gateway.delivery(&self.task, &self.device).await;
        delivery["state"].as_str().expect("a state").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_is_announced_taken_and_confirmed() {
    let bytes = content(200_000);
    let mut scene = Scene::new(&bytes).await;
    let told = &scene.announced.message;
    assert_eq!(told["name"], "firmware");
    assert_eq!(told["size"], 200_000);
    assert_eq!(told["sha256"], sha256(&bytes));
    assert_eq!(
        (&told["chunk_size"], &told["chunks"]),
        (&json!(15_360), &json!(14))
    );
    assert_eq!((&told["version"], &told["acked"]), (&json!(1), &json!(0)));
    let (task, device) = (&scene.task, &scene.device);
    scene.gateway.delivery_in("pushed", task, device).await;

    let got = scene.client.take_all(device, &scene.announced).await;
    assert!(got == bytes, "the bytes differ");
    scene.gateway.delivery_in("delivering", task, device).await;
    let receipt = scene
        .client
        .report(device, &scene.announced.transfer, "done")
        .await;
    assert_eq!(
        (&receipt["result_code"], &receipt["result_msg"]),
        (&json!(0), &json!("ok"))
    );
    // The answer comes after the record: nothing is waited for here.
    assert_eq!(scene.state().await, "delivered");
    let task = scene.gateway.get(&format!("/tasks/{task}")).await;
    assert_eq!(task["run"], "finished");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_asks_first_is_told_the_same_and_only_once() {
    let gateway = Gateway::with(|config| {
        config.delivery.announce_delay = std::time::Duration::from_mins(10);
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::listening(&gateway, &device).await;
    let ask = json!({"type": "get_download_task"});
    let nothing = client.exchange(&device, &ask).await;
    assert_eq!(nothing, json!({"type": "get_download_task_rsp"}));

    let resource = gateway.resource("P", "r", b"content").await;
    let task = gateway.task(&resource, &[&device]).await;
    // One that has asked is told of what comes later.
    let mut told = client.announced().await.message;
    let mut answer = client.exchange(&device, &ask).await;
    assert_eq!(answer["type"], "get_download_task_rsp");
    for message in [&mut told, &mut answer] {
        message["type"] = Value::Null;
        // Every address is signed anew.
        message["url"] = Value::Null;
    }
    assert_eq!(told, answer);
    gateway.delivery_in("pushed", &task, &device).await;

    let mut again = Client::listening(&gateway, &device).await;
    let answer = again.exchange(&device, &ask).await;
    assert_eq!(answer["transfer"], told["transfer"]);
    assert_eq!(again.ping().await, [], "not announced as well");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_any_size_and_place_are_what_was_asked_for() {
    let bytes = content(100_001);
    let mut scene = Scene::new(&bytes).await;
    // The ask, and the offset and length of each piece.
    let cases: [(Value, &[(u64, usize)]); 6] = [
        (
            json!({"offset": 777, "count": 3, "chunk_size": 1001}),
            &[(777, 1001), (1778, 1001), (2779, 1001)],
        ),
        (
            json!({"offset": 61_439, "count": 1, "chunk_size": 131_072}),
            &[(61_439, 38_562)],
        ),
        (
            json!({"offset": 99_999, "count": 64, "chunk_size": 256}),
            &[(99_999, 2)],
        ),
        (
            json!({"offset": 100, "missing": "0500", "chunk_size": 500}),
            &[(100, 500), (1100, 500)],
        ),
        (
            json!({"offset": 0, "missing": "0080", "chunk_size": 6667}),
            &[],
        ),
        (json!({"offset": 100_001, "window": 4}), &[]),
    ];
    for (ask, expected) in &cases[..4] {
        let pieces = scene.pieces(ask, expected.len()).await;
        for ((offset, piece), (at, len)) in pieces.iter().zip(*expected) {
            assert_eq!((*offset, piece.len()), (*at, *len), "{ask}");
            let from = usize::try_from(*at).expect("small");
            assert!(piece[..] == bytes[from..from + len], "{ask}: wrong bytes");
        }
    }
    for (ask, _) in &cases[4..5] {
        let mut ask = ask.clone();
        ask["type"] = "get_chunks".into();
        ask["transfer"] = scene.transfer().into();
        let refused = scene.client.exchange(&scene.device, &ask).await;
        assert_eq!(refused["code"], "out_of_range", "{ask}");
    }
    assert_eq!(
        scene.pieces(&cases[5].0, 0).await,
        [],
        "the end is no error"
    );
    // All of it, in the smallest chunks, from the cursor.
    scene
        .pieces(&json!({"offset": 0, "count": 1, "chunk_size": 256}), 1)
        .await;
    let mut have = Vec::new();
    let ask = json!({
        "type": "get_chunks", "transfer": scene.transfer(), "offset": 0, "window": 32,
        "chunk_size": "257",
    });
    scene.client.tell(&scene.device, &ask).await;
    scene.client.take_until(&mut have, bytes.len()).await;
    assert!(have == bytes, "the bytes differ");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_window_is_ever_under_way() {
    let mut scene = Scene::new(&content(40_000)).await;
    scene.client.acknowledges = false;
    let ask = json!({
        "type": "get_chunks", "transfer": scene.transfer(), "offset": 0, "window": 5,
        "chunk_size": 1000,
    });
    scene.client.tell(&scene.device, &ask).await;
    let mut under_way = Vec::new();
    let mut received = 0;
    while received < 40 {
        if under_way.is_empty() || received == 0 {
            let message = scene.client.message().await;
            under_way.push(message);
        }
        // Whatever the gateway sends unasked is here before the answer to a ping.
        under_way.extend(scene.client.ping().await);
        received += under_way.len();
        assert!(under_way.len() <= 5, "{} under way", under_way.len());
        for message in under_way.drain(..) {
            assert!(chunk_of(&message).is_some());
            scene
                .client
                .acknowledge(message.packet_id.expect("QoS 1"))
                .await;
        }
    }
    assert_eq!(received, 40);
    scene
        .gateway
        .metric_is("headgate_chunks_in_flight", 0.0)
        .await;
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_takes_a_batch_at_once_gets_larger_ones() {
    let mut scene = Scene::new(&content(1_000_000)).await;
    scene.client.acknowledges = false;
    let transfer = scene.transfer().to_owned();
    scene.client.want(&scene.device, &transfer, 0, 32).await;
    for chunks in [8, 17] {
        let mut under_way = Vec::new();
        for _ in 0..chunks {
            let message = scene.client.message().await;
            under_way.push(message.packet_id.expect("QoS 1"));
        }
        // Whatever the gateway sends beyond them is here before the answer to a ping.
        assert_eq!(scene.client.ping().await, []);
        scene.client.acknowledge_all(under_way).await;
    }
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_acknowledges_nothing_gets_its_window_and_is_still_answered() {
    let mut scene = Scene::new(&content(400_000)).await;
    scene.client.acknowledges = false;
    let transfer = scene.transfer().to_owned();
    scene.client.want(&scene.device, &transfer, 0, 4).await;
    for _ in 0..4 {
        scene.client.chunk().await;
    }
    assert_eq!(scene.client.ping().await, []);
    let ask = json!({"type": "get_manifest", "transfer": transfer});
    let manifest = scene.client.exchange(&scene.device, &ask).await;
    assert_eq!(manifest["type"], "manifest");
    scene
        .gateway
        .metric_is("headgate_chunks_in_flight", 4.0)
        .await;
    drop(scene.client);
    scene
        .gateway
        .metric_is("headgate_chunks_in_flight", 0.0)
        .await;
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_after_stop_until_asked_again() {
    let bytes = content(400_000);
    let mut scene = Scene::new(&bytes).await;
    scene.client.acknowledges = false;
    let transfer = scene.transfer().to_owned();
    scene.client.want(&scene.device, &transfer, 0, 2).await;
    let first = [scene.client.message().await, scene.client.message().await];
    let stop = json!({"type": "stop_chunks", "transfer": transfer});
    scene.client.tell(&scene.device, &stop).await;
    for message in first {
        let id = message.packet_id.expect("QoS 1");
        scene.client.acknowledge(id).await;
    }
    assert_eq!(scene.client.ping().await, []);
    scene.client.acknowledges = true;
    let mut have = bytes[..30_720].to_vec();
    scene.client.want(&scene.device, &transfer, 30_720, 8).await;
    scene.client.take_until(&mut have, bytes.len()).await;
    assert!(have == bytes, "the bytes differ");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_is_that_of_the_bytes() {
    let bytes = content(61_440 * 70 + 1);
    let mut scene = Scene::new(&bytes).await;
    let mut digests = Vec::new();
    for (from, count) in [(0, 64), (64, 7)] {
        let ask = json!({
            "type": "get_manifest", "transfer": scene.transfer(), "from": from, "count": 64,
        });
        let manifest = scene.client.exchange(&scene.device, &ask).await;
        assert_eq!(manifest["type"], "manifest");
        assert_eq!(manifest["digest_size"], 61_440);
        assert_eq!(
            (&manifest["from"], &manifest["count"]),
            (&json!(from), &json!(count))
        );
        let text = manifest["digests"].as_str().expect("base64");
        digests.extend(STANDARD.decode(text).expect("base64"));
    }
    let expected: Vec<u8> = bytes
        .chunks(61_440)
        .flat_map(|part| Sha256::digest(part).to_vec())
        .collect();
    assert!(digests == expected, "the digests differ");
    let beyond = json!({"type": "get_manifest", "transfer": scene.transfer(), "from": 71});
    let refused = scene.client.exchange(&scene.device, &beyond).await;
    assert_eq!(refused["code"], "out_of_range");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_may_take_acknowledgements_for_the_devices_word() {
    let gateway = Gateway::start().await;
    gateway.product("A", &json!({"confirm": "acked"})).await;
    let device = gateway.device("A", "d1").await;
    let bytes = content(100_000);
    let resource = gateway.resource("A", "r", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut client = Client::listening(&gateway, &device).await;
    let announced = client.announced().await;
    let got = client.take_all(&device, &announced).await;
    assert!(got == bytes, "the bytes differ");
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_that_come_after_the_next_request_count() {
    let gateway = Gateway::start().await;
    gateway.product("A", &json!({"confirm": "acked"})).await;
    let device = gateway.device("A", "d1").await;
    let resource = gateway.resource("A", "r", &content(2_000)).await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut client = Client::listening(&gateway, &device).await;
    let transfer = client.announced().await.transfer;
    client.acknowledges = false;
    let mut unacknowledged = Vec::new();
    for offset in [0, 1000] {
        let ask = json!({
            "type": "get_chunks", "transfer": transfer, "offset": offset, "count": 1,
            "chunk_size": 1000,
        });
        client.tell(&device, &ask).await;
        unacknowledged.push(client.message().await);
    }
    for message in unacknowledged {
        client.acknowledge(message.packet_id.expect("QoS 1")).await;
    }
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_come_at_qos_0_to_one_that_subscribed_so() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let bytes = content(200_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    let topics = [device.down(), device.chunks()];
    client
        .subscribe(&[&topics[0], &topics[1]], QoS::AtMostOnce)
        .await;
    let announced = client.announced().await;
    let window = json!({
        "type": "get_chunks", "transfer": announced.transfer, "offset": 0, "window": 4,
    });
    let refused = client.exchange(&device, &window).await;
    assert_eq!(refused["code"], "not_subscribed");
    let count = json!({
        "type": "get_chunks", "transfer": announced.transfer, "offset": 0, "count": 64,
    });
    client.tell(&device, &count).await;
    let mut have = Vec::new();
    client.take_until(&mut have, bytes.len()).await;
    assert!(have == bytes, "the bytes differ");
    // Reports without acknowledgement are answered, too.
    for state in ["downloading", "done"] {
        let report = json!({
            "type": "report_download_progress", "progress": {"state": state, "percent": "100"},
        });
        let packet = publish(&device.up(), report.to_string().as_bytes(), None);
        client.send(&packet).await;
        let receipt = client.told().await;
        assert_eq!(receipt["type"], "report_download_progress_rsp");
        assert_eq!(receipt["result_code"], 0, "{receipt}");
    }
    assert_eq!(gateway.delivery(&task, &device).await["state"], "delivered");
    gateway.stop().await;
}
