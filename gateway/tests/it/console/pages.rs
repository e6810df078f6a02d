//! Every page in a browser.

use std::{path::Path, time::Duration};

use futures_util::future::join_all;
use headgate_protocol::mqtt::{ProtocolVersion, QoS};
use serde_json::{Value, json};
use tokio::time::interval;

use super::{BROWSING, Gateway, browse};
use crate::harness::{Client, Device, Login, chunk_of, until_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_sign_in_and_out() {
    let gateway = Gateway::start().await;
    browse(&gateway, "sign_in.mjs", &[]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_shows_how_all_is() {
    let gateway = Gateway::start().await;
    browse(&gateway, "overview.mjs", &[]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_added_found_edited_replaced_and_deleted() {
    let gateway = Gateway::start().await;
    gateway.product("P", &Value::Null).await;
    browse(&gateway, "resources.mjs", &["P"]).await;
    gateway.stop().await;
}

/// Takes chunks up to a place, one for each question; asks again whenever it is told something else.
async fn take(client: &mut Client, device: &Device, transfer: &str, have: &mut usize, end: usize) {
    while *have < end {
        let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": *have, "count": 1});
        client.tell(device, &ask).await;
        // A chunk that was asked for twice comes twice.
        if let Some((offset, bytes)) = chunk_of(&client.message().await)
            && usize::try_from(offset).is_ok_and(|offset| offset == *have)
        {
            *have += bytes.len();
        }
    }
}

/// Takes the delivery that comes, but stops half-way until its task was paused and goes on again.
async fn take_with_a_pause(gateway: &Gateway, device: &Device) {
    let run = async |wanted: &'static str| {
        until_in(BROWSING, wanted, || async {
            let tasks = gateway.get("/tasks").await;
            (tasks["items"][0]["run"] == wanted).then_some(())
        })
        .await;
    };
    run("running").await;
    let mut client = Client::listening(gateway, device).await;
    let announced = client.announced().await;
    let size = usize::try_from(announced.message["size"].as_u64().expect("a size")).expect("small");
    let mut have = 0;
    take(
        &mut client,
        device,
        &announced.transfer,
        &mut have,
        size / 2,
    )
    .await;
    run("paused").await;
    run("running").await;
    take(&mut client, device, &announced.transfer, &mut have, size).await;
    client.report(device, &announced.transfer, "done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_made_watched_and_steered() {
    let gateway = Gateway::start().await;
    let [there, away] = gateway.devices(["meter-1", "valve-2"]).await;
    let resource = gateway.resource("P", "firmware", &vec![7; 300_000]).await;
    let arguments = [resource.as_str(), &there.node, &away.node];
    tokio::join!(
        browse(&gateway, "tasks.mjs", &arguments),
        take_with_a_pause(&gateway, &there),
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_devices_are_found_downloaded_and_deleted() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::listening(&gateway, &device).await;
    client
        .upload(&device, "log <b>1</b>.txt", &vec![7; 20_000])
        .await;
    browse(&gateway, "uploads.mjs", &[&device.id, "log <b>1</b>.txt"]).await;
    gateway.stop().await;
}

/// Someone who may only look.
const VIEWER: [&str; 2] = ["looker", "looks-at-pages"];

async fn viewer(gateway: &Gateway) {
    let [name, password] = VIEWER;
    let body = json!({"name": name, "role": "viewer", "password": password});
    gateway.post("/operators", &body).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn products_are_made_edited_and_deleted() {
    let gateway = Gateway::start().await;
    viewer(&gateway).await;
    browse(&gateway, "products.mjs", &VIEWER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_registered_found_edited_kicked_frozen_and_deleted() {
    const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/certificate/ec.pem");
    let gateway = Gateway::start().await;
    let kinds = json!({"auth_kinds": ["secret", "x509"]});
    gateway.product("P", &kinds).await;
    let (on, busy) = (
        gateway.device("P", "on").await,
        gateway.device("P", "busy").await,
    );
    let login = Login::of(&on).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    client.subscribe(&["P/on/#"], QoS::AtLeastOnce).await;
    let resource = gateway.resource("P", "firmware", b"bytes").await;
    gateway.task(&resource, &[&busy]).await;
    browse(&gateway, "devices.mjs", &[CERTIFICATE, &on.id, &busy.id]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_sent_watched_kept_and_deleted() {
    let gateway = Gateway::start().await;
    gateway.product("P", &Value::Null).await;
    viewer(&gateway).await;
    browse(&gateway, "batches.mjs", &VIEWER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_are_made_bound_disabled_and_deleted() {
    let gateway = Gateway::start().await;
    gateway.devices(["a", "b", "c"]).await;
    browse(&gateway, "applications.mjs", &[]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_tokens_audit_and_nodes_are_for_administrators() {
    let gateway = Gateway::start().await;
    viewer(&gateway).await;
    browse(&gateway, "access.mjs", &VIEWER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_device_are_seen_as_they_pass() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["on"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    let talk = async {
        let mut turn = interval(Duration::from_millis(100));
        loop {
            turn.tick().await;
            client
                .publish("P/on/up", b"{\"temperature\": 21} <b>")
                .await;
        }
    };
    let arguments = [device.id.as_str()];
    tokio::select! {
        () = browse(&gateway, "messages.mjs", &arguments) => {}
        () = talk => {}
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_worked_with_the_keyboard_alone() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    gateway.resource("P", "firmware", b"bytes").await;
    browse(&gateway, "keyboard.mjs", &[&device.id]).await;
    gateway.stop().await;
}

/// Comes when it is registered, takes what is delivered to it once there is such a file, and says that it is done.
async fn first_delivery(gateway: &Gateway, number: usize, sign: &Path) {
    let device = Device {
        id: format!("meter_m{number}"),
        node: format!("m{number}"),
        product: "meter".to_owned(),
        secret: format!("secret-of-meter-{number}"),
    };
    until_in(BROWSING, "the device", || async {
        let path = format!("/devices/{}", device.id);
        let known = gateway.api(hyper::Method::GET, &path, None).await;
        (known.status == 200).then_some(())
    })
    .await;
    let mut client = Client::listening(gateway, &device).await;
    let announced = client.announced().await;
    until_in(BROWSING, "somebody who watches", || async {
        sign.exists().then_some(())
    })
    .await;
    let size = usize::try_from(announced.message["size"].as_u64().expect("a size")).expect("small");
    take(&mut client, &device, &announced.transfer, &mut 0, size).await;
    client.report(&device, &announced.transfer, "done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_operator_gets_from_the_first_start_to_a_finished_roll_out() {
    const DEVICES: usize = 60;
    let gateway = Gateway::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("firmware.bin"), vec![0x5a; 600_000]).expect("a file");
    // The last one leaves the roll-out unfinished until the page has moved.
    let (watched, moved) = (dir.path().join("watched"), dir.path().join("moved"));
    let devices = (0..DEVICES).map(|number| {
        let is_last = number == DEVICES - 1;
        first_delivery(&gateway, number, if is_last { &moved } else { &watched })
    });
    let devices = join_all(devices);
    let count = DEVICES.to_string();
    let arguments = [dir.path().to_str().expect("a path"), &count];
    let ((), _devices) = tokio::join!(browse(&gateway, "first_day.mjs", &arguments), devices);
    gateway.stop().await;
}
