//! Many deliveries: in order for one device, within bounds for many, and again after a failure.

use headgate::config::Config;
use serde_json::json;

use super::{
    harness::{Client, Device, Gateway, content},
    transfer::Scene,
};

/// Takes what was announced and reports it done.
async fn take(client: &mut Client, device: &Device, expected: &[u8]) -> String {
    let announced = client.announced().await;
    let got = client.take_all(device, &announced).await;
    assert!(got == expected, "the bytes differ");
    let receipt = client.report(device, &announced.transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    announced.transfer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_of_one_device_come_one_after_the_other() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut tasks = Vec::new();
    let bytes = [content(50_000), content(70_000), content(1)];
    for (name, bytes) in ["a", "b", "c"].iter().zip(&bytes) {
        let resource = gateway.resource("P", name, bytes).await;
        tasks.push(gateway.task(&resource, &[&device]).await);
    }
    let mut client = Client::listening(&gateway, &device).await;
    for (task, bytes) in tasks.iter().zip(&bytes) {
        take(&mut client, &device, bytes).await;
        gateway.delivery_in("delivered", task, &device).await;
    }
    assert_eq!(client.ping().await, []);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_waits_until_the_task_has_a_place_for_it() {
    let gateway = Gateway::start().await;
    let [first, second] = gateway.devices(["d1", "d2"]).await;
    let bytes = content(20_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    let body = json!({
        "resource_id": resource, "device_ids": [first.id, second.id],
        "policy": {"max_in_progress": 1},
    });
    let task = gateway.post("/tasks", &body).await;
    let task = task["id"].as_str().expect("an id");
    let mut one = Client::listening(&gateway, &first).await;
    let announced = one.announced().await;
    let mut two = Client::listening(&gateway, &second).await;
    let nothing = two
        .exchange(&second, &json!({"type": "get_download_task"}))
        .await;
    assert_eq!(nothing, json!({"type": "get_download_task_rsp"}));
    one.take_all(&first, &announced).await;
    one.report(&first, &announced.transfer, "done").await;
    take(&mut two, &second, &bytes).await;
    gateway.delivery_in("delivered", task, &second).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delivery_is_tried_again_from_the_beginning() {
    let bytes = content(60_000);
    let mut scene = Scene::new(&bytes).await;
    let transfer = scene.transfer().to_owned();
    let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": 0, "count": 2});
    scene.client.tell(&scene.device, &ask).await;
    scene.client.chunk().await;
    scene.client.chunk().await;
    let report = json!({
        "type": "report_download_progress", "transfer": transfer,
        "progress": {"state": "fail", "result_code": -4, "result_msg": "flash is worn"},
    });
    let receipt = scene.client.exchange(&scene.device, &report).await;
    assert_eq!(receipt["result_code"], 0);
    let path = format!("/deliveries/{transfer}");
    let failed = scene.gateway.get(&path).await;
    assert_eq!(failed["state"], "failed");
    assert!(failed.to_string().contains("flash is worn"), "{failed}");

    scene.gateway.act(&format!("{path}/retry")).await;
    let announced = scene.client.announced().await;
    assert_eq!(announced.message["acked"], 0, "begins anew");
    let got = scene.client.take_all(&scene.device, &announced).await;
    assert!(got == bytes, "the bytes differ");
    let id = &announced.transfer;
    let receipt = scene.client.report(&scene.device, id, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    let delivered = scene.gateway.get(&path).await;
    assert_eq!(
        (&delivered["state"], &delivered["attempt"]),
        (&json!("delivered"), &json!(2))
    );
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_through_two_places_whatever_some_of_them_do() {
    const CROWD: usize = 24;
    let narrow = |config: &mut Config| {
        config.delivery.sending_slots = 2;
        config.delivery.slot_hold = std::time::Duration::from_millis(5);
        config.delivery.chunk_cache_bytes = 1 << 20;
    };
    let gateway = Gateway::with(narrow).await;
    gateway.product("P", &serde_json::Value::Null).await;
    let bytes = content(700_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    let mut devices = Vec::new();
    for n in 0..CROWD {
        devices.push(gateway.device("P", &format!("d{n}")).await);
    }
    let all: Vec<_> = devices.iter().collect();
    let task = gateway.task(&resource, &all).await;
    let taking = devices.iter().enumerate().map(async |(n, device)| {
        // One in three leaves in the middle of a batch and comes back; one in four stops first.
        let mut client = Client::listening(&gateway, device).await;
        let mut announced = client.announced().await;
        if n % 3 == 0 {
            client.want(device, &announced.transfer, 0, 32).await;
            client.chunk().await;
            client = Client::listening(&gateway, device).await;
            announced = client.announced().await;
        }
        if n % 4 == 0 {
            client.want(device, &announced.transfer, 0, 1).await;
            client.chunk().await;
            let stop = json!({"type": "stop_chunks", "transfer": announced.transfer});
            client.tell(device, &stop).await;
            client.ping().await;
        }
        let got = client.take_all(device, &announced).await;
        assert!(got == bytes, "{}: the bytes differ", device.id);
        let receipt = client.report(device, &announced.transfer, "done").await;
        assert_eq!(receipt["result_code"], 0, "{receipt}");
    });
    futures_util::future::join_all(taking).await;
    let stands = gateway.get(&format!("/tasks/{task}")).await;
    assert_eq!(stands["counts"]["delivered"], CROWD, "{stands}");
    assert_eq!(stands["run"], "finished");
    gateway.metric_is("headgate_chunks_in_flight", 0.0).await;
    gateway.stop().await;
}
