//! Deliveries that are interrupted: by the device, by the network, by an operator, by kill -9.

use std::time::Duration;

use headgate::config::Config;
use headgate_protocol::mqtt::{QoS, ReasonCode};
use serde_json::{Value, json};

use super::{
    harness::{Client, Device, Gateway, Login, content, subscribe},
    transfer::Scene,
};

const SIZE: usize = 1_000_000;
/// What a chunk holds unless the device asks for another size.
const CHUNK: usize = 15_360;
const PAUSED: &str = "headgate_paused_connections";

/// Takes and acknowledges so many chunks, then stops the flow.
async fn take_part(client: &mut Client, device: &Device, transfer: &str, chunks: usize) -> Vec<u8> {
    let mut have = Vec::new();
    let ask = json!({
        "type": "get_chunks", "transfer": transfer, "offset": 0, "count": chunks,
    });
    client.tell(device, &ask).await;
    client.take_until(&mut have, chunks * CHUNK).await;
    client.ping().await;
    have
}

/// Asks for the rest from where the gateway thinks it stands.
async fn take_rest_from_cursor(
    client: &mut Client,
    device: &Device,
    transfer: &str,
    have: &mut Vec<u8>,
) {
    let ask = json!({"type": "get_chunks", "transfer": transfer, "window": 16});
    client.tell(device, &ask).await;
    client.take_until(have, SIZE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_cut_off_goes_on_from_its_cursor() {
    let bytes = content(SIZE);
    let mut scene = Scene::new(&bytes).await;
    let transfer = scene.transfer().to_owned();
    let mut have = take_part(&mut scene.client, &scene.device, &transfer, 20).await;
    drop(scene.client);
    let mut client = Client::listening(&scene.gateway, &scene.device).await;
    let announced = client.announced().await;
    assert_eq!(announced.transfer, transfer);
    assert_eq!(announced.message["acked"], 20 * CHUNK);
    // Nothing comes before it is asked for on this connection.
    assert_eq!(client.ping().await, []);
    take_rest_from_cursor(&mut client, &scene.device, &transfer, &mut have).await;
    assert!(have == bytes, "the bytes differ");
    let receipt = client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_goes_on_after_a_restart() {
    let bytes = content(SIZE);
    let mut scene = Scene::new(&bytes).await;
    let transfer = scene.transfer().to_owned();
    let mut have = take_part(&mut scene.client, &scene.device, &transfer, 20).await;
    let dir = scene.gateway.stop().await;

    let gateway = Gateway::start_in(dir, |_| {}).await;
    let stands = gateway.delivery(&scene.task, &scene.device).await;
    assert_eq!(stands["state"], "delivering");
    let mut client = Client::listening(&gateway, &scene.device).await;
    let announced = client.announced().await;
    assert_eq!(announced.transfer, transfer);
    assert_eq!(announced.message["acked"], 20 * CHUNK);
    take_rest_from_cursor(&mut client, &scene.device, &transfer, &mut have).await;
    assert!(have == bytes, "the bytes differ");
    let receipt = client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    gateway
        .delivery_in("delivered", &scene.task, &scene.device)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_goes_on_after_the_process_was_killed() {
    let bytes = content(SIZE);
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("HEADGATE__DELIVERY__ANNOUNCE_DELAY", "20ms")];
    let gateway = Gateway::process(dir, &settings).await;
    let mut scene = Scene::in_gateway(gateway, &bytes).await;
    let transfer = scene.transfer().to_owned();
    let mut have = take_part(&mut scene.client, &scene.device, &transfer, 20).await;
    scene
        .gateway
        .delivery_in("delivering", &scene.task, &scene.device)
        .await;
    let dir = scene.gateway.kill().await;
    scene.client.closed().await;

    let gateway = Gateway::process(dir, &settings).await;
    let stands = gateway.delivery(&scene.task, &scene.device).await;
    assert_eq!(stands["state"], "delivering");
    let mut client = Client::listening(&gateway, &scene.device).await;
    let announced = client.announced().await;
    assert_eq!(announced.transfer, transfer);
    // The device knows best where it stands; what it had before counts as sent.
    let from = u64::try_from(have.len()).expect("small");
    client.want(&scene.device, &transfer, from, 8).await;
    client.take_until(&mut have, SIZE).await;
    assert!(have == bytes, "the bytes differ");
    let receipt = client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    let delivery = gateway.delivery(&scene.task, &scene.device).await;
    assert_eq!(delivery["state"], "delivered");

    // What was answered is on the disk.
    let dir = gateway.kill().await;
    let gateway = Gateway::process(dir, &settings).await;
    let delivery = gateway.delivery(&scene.task, &scene.device).await;
    assert_eq!(delivery["state"], "delivered");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_killed_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &[]).await;
    gateway.product("P", &Value::Null).await;
    let address = gateway.ports.http.expect("a listener");
    let mut tcp = tokio::net::TcpStream::connect(address).await.expect("open");
    let head = format!(
        "POST /api/v1/resources HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 90000000\r\n\r\n\
         --x\r\nContent-Disposition: form-data; name=\"product\"\r\n\r\nP\r\n\
         --x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nhalf\r\n\
         --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
        gateway.token
    );
    let mut sent = head.into_bytes();
    sent.extend(content(3_000_000));
    tokio::io::AsyncWriteExt::write_all(&mut tcp, &sent)
        .await
        .expect("sent");
    let dir = gateway.kill().await;
    let gateway = Gateway::process(dir, &[]).await;
    let list = gateway.get("/resources").await;
    assert_eq!(list["items"], json!([]));
    gateway.resource("P", "half", b"whole").await;
    let blobs = gateway.data_dir.join("blobs");
    assert_eq!(files_below(&blobs), 1, "the half one is gone");
    gateway.stop().await;
}

fn files_below(path: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(path).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

/// A device that asks for a lot and then reads nothing, until bytes wait for it in the gateway.
async fn stalled_reader(gateway: &Gateway, device: &Device) -> Client {
    let mut client = Client::open_narrow(gateway).await;
    let connack = client.introduce(&Login::of(device)).await;
    assert_eq!(connack.reason, ReasonCode::Success);
    let (down, chunks) = (device.down(), device.chunks());
    client.subscribe(&[&down], QoS::AtLeastOnce).await;
    client.subscribe(&[&chunks], QoS::AtMostOnce).await;
    let transfer = client.announced().await.transfer;
    let ask = json!({
        "type": "get_chunks", "transfer": transfer, "offset": 0, "count": 64,
        "chunk_size": 131_072,
    });
    client.tell(device, &ask).await;
    gateway.metric_is(PAUSED, 1.0).await;
    client
}

/// A gateway with a resource too large for any socket's buffers, out to two devices.
async fn crowded(change: impl FnOnce(&mut Config)) -> (Gateway, [Device; 2], String, Vec<u8>) {
    let gateway = Gateway::with(change).await;
    let devices = gateway.devices(["d1", "d2"]).await;
    let bytes = content(8 << 20);
    let resource = gateway.resource("P", "large", &bytes).await;
    let task = gateway.task(&resource, &[&devices[0], &devices[1]]).await;
    (gateway, devices, task, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_read_holds_up_nobody() {
    let (gateway, [lazy, busy], task, bytes) = crowded(|config| {
        // All must pass through the one place that the lazy one takes first.
        config.delivery.sending_slots = 1;
    })
    .await;
    let lazy = stalled_reader(&gateway, &lazy).await;
    let mut client = Client::listening(&gateway, &busy).await;
    let announced = client.announced().await;
    let got = client.take_all(&busy, &announced).await;
    assert!(got == bytes, "the bytes differ");
    client.report(&busy, &announced.transfer, "done").await;
    gateway.delivery_in("delivered", &task, &busy).await;
    assert!((gateway.metric(PAUSED).await - 1.0).abs() < 0.5);
    drop(lazy);
    gateway.metric_is(PAUSED, 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_for_memory_goes_on_when_there_is_some() {
    let (gateway, [lazy, busy], _, bytes) = crowded(|config| {
        config.delivery.max_window_bytes_total = 16 * 1024;
        config.mqtt.stalled_timeout = Duration::from_secs(1);
    })
    .await;
    let mut lazy = stalled_reader(&gateway, &lazy).await;
    let mut client = Client::listening(&gateway, &busy).await;
    let announced = client.announced().await;
    // There is none until the lazy one is given up; this one says nothing meanwhile.
    let got = client.take_all(&busy, &announced).await;
    assert!(got == bytes, "the bytes differ");
    let stalled = r#"headgate_disconnects_total{protocol="mqtt",reason="stalled"}"#;
    gateway.metric_is(stalled, 1.0).await;
    lazy.closed().await;
    gateway.metric_is(PAUSED, 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_leaves_while_it_waits_takes_no_place_with_it() {
    let (gateway, devices, _, bytes) = crowded(|config| {
        config.delivery.sending_slots = 1;
        config.delivery.slot_hold = Duration::from_millis(100);
    })
    .await;
    let [first, second] = &devices;
    // It holds the only place: two chunks are out and not acknowledged.
    let mut holder = Client::listening(&gateway, first).await;
    let transfer = holder.announced().await.transfer;
    holder.acknowledges = false;
    holder.want(first, &transfer, 0, 2).await;
    holder.chunk().await;
    for _ in 0..20 {
        let mut waiting = Client::listening(&gateway, second).await;
        let transfer = waiting.announced().await.transfer;
        waiting.want(second, &transfer, 0, 1).await;
    }
    drop(holder);
    let mut client = Client::listening(&gateway, second).await;
    let announced = client.announced().await;
    let got = client.take_all(second, &announced).await;
    assert!(got == bytes, "the bytes differ");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_in_the_middle_of_a_transfer_leaves_nothing_behind() {
    let bytes = content(SIZE);
    let mut scene = Scene::new(&bytes).await;
    let transfer = scene.transfer().to_owned();
    for _ in 0..5 {
        scene.client.acknowledges = false;
        scene.client.want(&scene.device, &transfer, 0, 8).await;
        scene.client.chunk().await;
        let mut next = Client::log_in(&scene.gateway, &Login::of(&scene.device)).await;
        scene.client.closed().await;
        let id = next.packet_id();
        let (down, chunks) = (scene.device.down(), scene.device.chunks());
        next.send(&subscribe(id, &[&down, &chunks], QoS::AtLeastOnce))
            .await;
        scene.announced = next.announced().await;
        scene.client = next;
    }
    let got = scene.client.take_all(&scene.device, &scene.announced).await;
    assert!(got == bytes, "the bytes differ");
    scene.client.ping().await;
    let in_flight = "headgate_chunks_in_flight";
    scene.gateway.metric_is(in_flight, 0.0).await;
    scene.gateway.stop().await;
}
