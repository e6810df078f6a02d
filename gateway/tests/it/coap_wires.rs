//! One delivery on two wires: begun by MQTT and ended by CoAP over DTLS, and the other way round.

use headgate_protocol::coap::Szx;
use serde_json::json;

use super::harness::{Client, Coap, Device, Gateway, content, json_of};

const SIZE: usize = 200_000;
/// Where the wire is changed: chunks of MQTT are 15 blocks.
const HALF: usize = 92_160;

/// A device that may come by either wire, with a delivery.
async fn stage(bytes: &[u8]) -> (Gateway, Device, String) {
    let gateway = Gateway::with(|config| {
        config.coaps.listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let device = gateway.two_wired().await;
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

    let mut coap = Coap::secure(&gateway, "w1", &device.secret).await;
    coap.register("w1").await;
    let told = json_of(&coap.get("t").await);
    assert_eq!(told["transfer"], json!(announced.transfer), "the same one");
    assert!(told["acked"].as_u64() >= Some(61_440), "{told}");
    have.truncate(HALF);
    coap.take_rest(&announced.transfer, have, &bytes).await;
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_began_by_coap_ends_by_mqtt() {
    let bytes = content(SIZE);
    let (gateway, device, task) = stage(&bytes).await;
    let mut coap = Coap::secure(&gateway, "W_w1", &device.secret).await;
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
