//! Requests about a transfer that are not served: each gets a clear answer, the connection stays.

use headgate_protocol::mqtt::QoS;
use serde_json::{Value, json};

use super::{
    harness::{Client, Login, content},
    transfer::Scene,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_answered() {
    let bytes = content(100_000);
    let mut scene = Scene::new(&bytes).await;
    let transfer = scene.transfer().to_owned();
    let get = |more: Value| {
        let mut ask = json!({"type": "get_chunks", "transfer": transfer});
        let fields = more.as_object().into_iter().flatten();
        fields.for_each(|(key, value)| ask[key] = value.clone());
        ask.to_string()
    };
    let cases = [
        (get(json!({"offset": 100_001, "window": 4})), "out_of_range"),
        (
            get(json!({"offset": 0, "missing": "80", "chunk_size": 100_000})),
            "out_of_range",
        ),
        (get(json!({"offset": i64::MAX, "count": 1})), "out_of_range"),
        (get(json!({"offset": -1, "window": 4})), "bad_request"),
        (get(json!({"offset": 0})), "bad_request"),
        (get(json!({"window": 0})), "bad_request"),
        (get(json!({"window": 33})), "bad_request"),
        (get(json!({"count": 65})), "bad_request"),
        (get(json!({"window": 1, "count": 1})), "bad_request"),
        (get(json!({"missing": "0"})), "bad_request"),
        (get(json!({"missing": "zz"})), "bad_request"),
        (get(json!({"missing": "00".repeat(1025)})), "bad_request"),
        (get(json!({"window": 1, "chunk_size": 255})), "bad_request"),
        (
            get(json!({"window": 1, "chunk_size": 131_073})),
            "bad_request",
        ),
        (
            get(json!({"window": 1, "transfer": "0000000000000"})),
            "unknown_transfer",
        ),
        (
            get(json!({"window": 1, "transfer": "../../etc/passwd"})),
            "unknown_transfer",
        ),
        (
            get(json!({"window": 1, "transfer": "x".repeat(5000)})),
            "unknown_transfer",
        ),
        (
            json!({"type": "get_chunks", "window": 1}).to_string(),
            "bad_request",
        ),
        (
            json!({"type": "stop_chunks", "transfer": "0"}).to_string(),
            "unknown_transfer",
        ),
        (
            json!({"type": "get_manifest", "transfer": "0"}).to_string(),
            "unknown_transfer",
        ),
        (json!({"type": "make_coffee"}).to_string(), "bad_request"),
        ("{\"type\": \"get_chunks\",".to_owned(), "bad_request"),
        ("[]".to_owned(), "bad_request"),
        ("\u{0}".to_owned(), "bad_request"),
        (String::new(), "bad_request"),
        ("[".repeat(100_000), "bad_request"),
    ];
    for (ask, code) in cases {
        scene
            .client
            .publish(&scene.device.up(), ask.as_bytes())
            .await;
        let refused = scene.client.told().await;
        assert_eq!(refused["type"], "transfer_error", "{refused}");
        assert_eq!(refused["code"], code, "{refused}");
        assert!(
            refused["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        let named = refused["transfer"].as_str().expect("text");
        assert!(named.chars().count() <= 32, "{named}");
    }
    assert_eq!(scene.client.ping().await, []);
    let got = scene.client.take_all(&scene.device, &scene.announced).await;
    assert!(got == bytes, "the delivery goes on");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_of_another_device_is_unknown() {
    let mut scene = Scene::new(b"content").await;
    let other = scene.gateway.device("P", "d2").await;
    let mut thief = Client::listening(&scene.gateway, &other).await;
    let transfer = scene.transfer().to_owned();
    for kind in ["get_chunks", "get_manifest", "stop_chunks"] {
        let mut ask = json!({"type": kind, "transfer": transfer});
        if kind == "get_chunks" {
            ask["window"] = 1.into();
        }
        let refused = thief.exchange(&other, &ask).await;
        assert_eq!(refused["code"], "unknown_transfer", "{kind}");
    }
    // A report about it is taken for an old one, and changes nothing.
    thief.report(&other, &transfer, "done").await;
    scene.client.ping().await;
    let (task, device) = (&scene.task, &scene.device);
    scene.gateway.delivery_in("pushed", task, device).await;
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_listen_gets_no_chunks() {
    let scene = Scene::new(b"content").await;
    let mut deaf = Client::log_in(&scene.gateway, &Login::of(&scene.device)).await;
    deaf.subscribe(&[&scene.device.down()], QoS::AtLeastOnce)
        .await;
    for how in ["window", "count"] {
        let mut ask = json!({"type": "get_chunks", "transfer": scene.transfer()});
        ask[how] = 1.into();
        deaf.tell(&scene.device, &ask).await;
        let refused = loop {
            let told = deaf.told().await;
            if told["type"] != "download" {
                break told;
            }
        };
        assert_eq!(refused["code"], "not_subscribed", "{how}");
    }
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn done_at_ten_percent_fails_the_delivery() {
    let mut scene = Scene::new(&content(153_600)).await;
    let transfer = scene.transfer().to_owned();
    let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": 0, "count": 1});
    scene.client.tell(&scene.device, &ask).await;
    scene.client.chunk().await;
    let receipt = scene.client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], -1);
    assert_eq!(
        receipt["result_msg"],
        "incomplete: 15360 of 153600 bytes were sent"
    );
    let delivery = scene.gateway.delivery(&scene.task, &scene.device).await;
    assert_eq!(
        (&delivery["state"], &delivery["reason"]),
        (&json!("failed"), &json!("incomplete"))
    );
    let refused = scene.client.exchange(&scene.device, &ask).await;
    assert_eq!(refused["code"], "unknown_transfer");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_was_replaced_is_stale() {
    let bytes = content(20_000);
    let mut scene = Scene::new(&bytes).await;
    scene.client.take_all(&scene.device, &scene.announced).await;
    let transfer = scene.transfer().to_owned();
    scene.client.report(&scene.device, &transfer, "done").await;
    let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": 0, "window": 1});
    let refused = scene.client.exchange(&scene.device, &ask).await;
    assert_eq!(refused["code"], "unknown_transfer", "it is over");
    let path = format!("/resources/{}/content", scene.resource);
    let newer = scene
        .gateway
        .ask(
            hyper::Method::PUT,
            &path,
            "application/octet-stream",
            b"newer".as_slice().into(),
        )
        .await
        .ok(200);
    assert_eq!(newer["version"], 2);
    let refused = scene.client.exchange(&scene.device, &ask).await;
    assert_eq!(refused["code"], "stale_version");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_delivery_stays_cancelled() {
    let mut scene = Scene::new(&content(400_000)).await;
    let transfer = scene.transfer().to_owned();
    scene.client.acknowledges = false;
    scene.client.want(&scene.device, &transfer, 0, 2).await;
    let ids = [
        scene.client.message().await.packet_id,
        scene.client.message().await.packet_id,
    ];
    let delivery = format!("/deliveries/{transfer}");
    scene.gateway.act(&format!("{delivery}/cancel")).await;
    let told = scene.client.told().await;
    assert_eq!(
        told,
        json!({"type": "cancel_download", "transfer": transfer, "name": "firmware"})
    );
    scene.client.acknowledges = true;
    for id in ids.into_iter().flatten() {
        scene.client.acknowledge(id).await;
    }
    assert_eq!(scene.client.ping().await, [], "no chunk follows");
    let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": 0, "window": 1});
    let refused = scene.client.exchange(&scene.device, &ask).await;
    assert_eq!(refused["code"], "canceled");
    let receipt = scene.client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0);
    let stands = scene.gateway.get(&delivery).await;
    assert_eq!(
        (&stands["state"], &stands["reason"]),
        (&json!("failed"), &json!("canceled"))
    );
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_makes_no_sense_changes_nothing() {
    let mut scene = Scene::new(b"content").await;
    let transfer = scene.transfer().to_owned();
    scene
        .gateway
        .delivery_in("pushed", &scene.task, &scene.device)
        .await;
    for progress in [
        json!({"state": "downloading", "percent": 250}),
        json!({"state": "downloading", "percent": -1}),
        json!({"state": "downloading", "percent": "most"}),
        json!({"state": "flying"}),
        json!({}),
        Value::Null,
    ] {
        let report = json!({
            "type": "report_download_progress", "transfer": transfer, "progress": progress,
        });
        let refused = scene.client.exchange(&scene.device, &report).await;
        assert_eq!(refused["type"], "transfer_error", "{progress}");
        assert_eq!(refused["code"], "bad_request", "{progress}");
    }
    assert_eq!(scene.state().await, "pushed");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_while_the_task_is_paused() {
    let bytes = content(400_000);
    let mut scene = Scene::new(&bytes).await;
    let transfer = scene.transfer().to_owned();
    scene.client.acknowledges = false;
    scene.client.want(&scene.device, &transfer, 0, 2).await;
    let first = [scene.client.message().await, scene.client.message().await];
    let task = format!("/tasks/{}", scene.task);
    scene.gateway.act(&format!("{task}/pause")).await;
    scene.client.acknowledges = true;
    for message in &first {
        let id = message.packet_id.expect("QoS 1");
        scene.client.acknowledge(id).await;
    }
    assert_eq!(scene.client.ping().await, [], "held");
    scene.gateway.act(&format!("{task}/resume")).await;
    let mut have = bytes[..30_720].to_vec();
    scene.client.take_until(&mut have, bytes.len()).await;
    assert!(have == bytes, "it goes on where it stood");
    let receipt = scene.client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0);
    scene.gateway.stop().await;
}
