//! CoAP with other people's clients: libcoap's `coap-client` and aiocoap.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use super::harness::{Device, Gateway, Printed, content, library, need, run, sha256};

const CLIENT: &str = "coap-client-notls";

/// Asks with `coap-client`, from a port of the test's own: another port is another device's address.
async fn ask(port: u16, method: &str, uri: &str, more: &[&str]) -> Printed {
    let port = port.to_string();
    let fixed = ["-v", "6", "-B", "20", "-p", &port, "-m", method];
    run(CLIENT, &[&fixed, more, &[uri]].concat()).await
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("bound").port()
}

async fn with_work(bytes: &[u8]) -> (Gateway, Device, String) {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let resource = gateway.resource("N", "firmware", bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let path = format!("/devices/{}/messages", device.id);
    for payload in ["one", "two"] {
        let body = json!({"topic": "N/n1/cmd", "payload": payload, "qos": 1});
        let sent = gateway.api(Method::POST, &path, Some(&body)).await;
        assert!(sent.status < 300, "{}", sent.text());
    }
    (gateway, device, task)
}

async fn assert_stored(gateway: &Gateway, name: &str, bytes: &[u8]) {
    let listed = gateway.get("/uploads?device=N_n1").await;
    let items = listed["items"].as_array().expect("a list");
    let upload = items.iter().find(|upload| upload["name"] == name);
    let id = upload
        .and_then(|upload| upload["id"].as_str())
        .expect("it is listed");
    let stored = gateway
        .api(Method::GET, &format!("/uploads/{id}/content"), None)
        .await;
    assert!(stored.body == bytes, "other bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libcoaps_client_takes_a_resource_and_sends_a_file() {
    need(CLIENT);
    let bytes = content(100_000);
    let (gateway, device, task) = with_work(&bytes).await;
    let work = tempfile::tempdir().expect("a directory");
    let own = free_port();
    let base = format!("coap://{}", gateway.ports.coap.expect("a listener"));
    let registered = ask(own, "post", &format!("{base}/rd?ep=n1&lt=600"), &[]).await;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&registered.stdout),
        registered.stderr
    );
    let (_, rd) = said
        .split_once("Location-Path:rd, Location-Path:")
        .expect("a location");
    let rd = rd.get(..16).expect("sixteen digits").to_owned();

    let file = |name: &str| work.path().join(name).to_str().expect("UTF-8").to_owned();
    let (told, firmware, log) = (file("told"), file("firmware"), file("log"));
    ask(own, "get", &format!("{base}/t?rd={rd}"), &["-o", &told])
        .await
        .ok();
    let told: Value = serde_json::from_slice(&fs::read(told).expect("written")).expect("JSON");
    let transfer = told["transfer"].as_str().expect("an id");
    let uri = format!("{base}/r/{transfer}?rd={rd}");
    ask(own, "get", &uri, &["-o", &firmware]).await.ok();
    assert!(fs::read(firmware).expect("written") == bytes, "other bytes");
    let uri = format!("{base}/t/{transfer}?rd={rd}");
    ask(
        own,
        "post",
        &uri,
        &["-t", "50", "-e", r#"{"state":"done"}"#],
    )
    .await
    .ok();
    gateway.delivery_in("delivered", &task, &device).await;

    let sent = content(30_100);
    fs::write(&log, &sent).expect("written");
    // With Size1: of a query this client sends about 100 bytes and drops the rest.
    let uri = format!("{base}/u/log?rd={rd}&sha256={}", sha256(&sent));
    ask(own, "put", &uri, &["-b", "1024", "-f", &log])
        .await
        .ok();
    assert_stored(&gateway, "log", &sent).await;
    for expected in ["one", "two"] {
        let command = file(expected);
        ask(own, "get", &format!("{base}/c?rd={rd}"), &["-o", &command])
            .await
            .ok();
        let command = fs::read_to_string(command).expect("written");
        assert!(
            command.contains(&format!(r#""payload":"{expected}""#)),
            "{command}"
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aiocoap_takes_a_resource_sends_a_file_and_watches() {
    let bytes = content(40_000);
    let (gateway, device, task) = with_work(&bytes).await;
    let work = tempfile::tempdir().expect("a directory");
    let sent = content(20_050);
    let path = work.path().join("log");
    fs::write(&path, &sent).expect("written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/coap_device.py");
    let address = gateway.ports.coap.expect("a listener").to_string();
    let arguments = [script, &address, "n1", path.to_str().expect("UTF-8")];
    let ran = run(&library("python/bin/python3"), &arguments).await;
    assert!(ran.success, "{}", ran.stderr);
    let told: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(told["sha256"], sha256(&bytes));
    assert_eq!(told["done"], "2.04 Changed");
    assert_eq!(told["stored"], "2.01 Created");
    assert_eq!(
        (&told["command"]["payload"], &told["watched"]["payload"]),
        (&json!("one"), &json!("two"))
    );
    gateway.delivery_in("delivered", &task, &device).await;
    assert_stored(&gateway, "by-aiocoap", &sent).await;
    gateway.stop().await;
}
