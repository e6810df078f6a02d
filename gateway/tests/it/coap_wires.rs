//! One delivery on two wires: begun by MQTT and ended by CoAP over DTLS, and the other way round.

use headgate_protocol::coap::{Code, Szx};
use serde_json::json;

use super::harness::{Client, Coap, Device, Gateway, content, json_of};

const SIZE: usize = 200_000;
/// Where the wire is changed: chunks of MQTT are 15 blocks.
const HALF: usize = 92_160;
const SECRET: &str = "00112233445566778899aabbccddeeff";

/// A device that may come by either wire, with a delivery.
async fn stage(bytes: &[u8]) -> (Gateway, Device, String) {
    let gateway = Gateway::with(|config| {
        config.coaps.listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let product = json!({"transports": {"mqtt": true, "coap": true}});
    gateway.product("W", &product).await;
    let body = json!({
        "product_id": "W", "node_id": "w1", "secret": SECRET, "psk_encoding": "hex",
    });
    gateway.post("/devices", &body).await;
    let device = Device {
        id: "W_w1".to_owned(),
        node: "w1".to_owned(),
        product: "W".to_owned(),
        secret: SECRET.to_owned(),
    };
    let resource = gateway.resource("W", "firmware", bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    (gateway, device, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_began_by_mqtt_ends_by_coap() {
    let bytes = content(SIZE);
    let (gateway, device, task) = stage(&bytes).await;
    let mut client = Client::listening(&gateway, &device).await;
    let announced = client.announced().await;
    client.want(&device, &announced.transfer, 0, 2).await;
    let mut have = Vec::new();
    client.take_until(&mut have, HALF).await;
    client.ping().await;
    drop(client);

    let mut coap = Coap::secure(&gateway, "w1", SECRET).await;
    coap.register("w1").await;
    let told = json_of(&coap.get("t").await);
    assert_eq!(told["transfer"], json!(announced.transfer), "the same one");
    assert!(told["acked"].as_u64() >= Some(61_440), "{told}");
    have.truncate(HALF);
    let rest = coap
        .fetch(&announced.transfer, (HALF as u64, u64::MAX), Szx::MAX)
        .await;
    have.extend(rest);
    assert!(have == bytes, "other bytes");
    let path = format!("t/{}", announced.transfer);
    let done = coap.post(&path, &json!({"state": "done"})).await;
    assert_eq!(done.code, Code::CHANGED);
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_began_by_coap_ends_by_mqtt() {
    let bytes = content(SIZE);
    let (gateway, device, task) = stage(&bytes).await;
    let mut coap = Coap::secure(&gateway, "W_w1", SECRET).await;
    coap.register("w1").await;
    let told = json_of(&coap.get("t").await);
    let transfer = told["transfer"].as_str().expect("an id").to_owned();
    let mut have = coap.fetch(&transfer, (0, HALF as u64), Szx::MAX).await;

    let mut client = Client::listening(&gateway, &device).await;
    let announced = client.announced().await;
    assert_eq!(announced.transfer, transfer, "the same one");
    let at = have.len();
    client.want(&device, &transfer, at as u64, 8).await;
    client.take_until(&mut have, SIZE).await;
    assert!(have == bytes, "other bytes");
    let receipt = client.report(&device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}
