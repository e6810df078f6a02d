//! CoAP with other people's clients: libcoap's `coap-client`, aiocoap and node-coap; and what docs/coap.md shows.

use std::{fs, path::Path};

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

/// Registers; gives the number of the registration.
async fn registered(own: u16, base: &str) -> String {
    let registered = ask(own, "post", &format!("{base}/rd?ep=n1&lt=600"), &[]).await;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&registered.stdout),
        registered.stderr
    );
    let (_, rd) = said
        .split_once("Location-Path:rd, Location-Path:")
        .expect("a location");
    rd.get(..16).expect("sixteen digits").to_owned()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
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
    let rd = registered(own, &base).await;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_coap_takes_a_resource_sends_a_file_and_watches() {
    let bytes = content(40_000);
    let (gateway, device, task) = with_work(&bytes).await;
    let work = tempfile::tempdir().expect("a directory");
    let sent = content(20_050);
    let path = work.path().join("log");
    fs::write(&path, &sent).expect("written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/coap_device.mjs");
    let port = gateway.ports.coap.expect("a listener").port().to_string();
    let (modules, path) = (library("package.json"), path.to_str().expect("UTF-8"));
    let own = free_port().to_string();
    let arguments = [script, &modules, "127.0.0.1", &port, "n1", path, &own];
    let ran = run("node", &arguments).await;
    assert!(ran.success, "{}", ran.stderr);
    let told: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(told["sha256"], sha256(&bytes), "{told}");
    assert_eq!(
        (&told["done"], &told["stored"], &told["commands"]),
        (&json!("2.04"), &json!("2.01"), &json!(["one", "two"])),
        "{told}"
    );
    gateway.delivery_in("delivered", &task, &device).await;
    assert_stored(&gateway, "by-node", &sent).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libcoaps_client_takes_a_resource_over_a_network_that_loses() {
    need(CLIENT);
    let bytes = content(1024 * 1024);
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let resource = gateway.resource("N", "firmware", &bytes).await;
    gateway.task(&resource, &[&device]).await;
    let base = format!("coap://{}", gateway.ports.coap.expect("a listener"));
    let (own, work) = (free_port(), tempfile::tempdir().expect("a directory"));
    let file = |name: &str| work.path().join(name).to_str().expect("UTF-8").to_owned();
    let rd = registered(own, &base).await;
    let (told, firmware) = (file("told"), file("firmware"));
    ask(own, "get", &format!("{base}/t?rd={rd}"), &["-o", &told])
        .await
        .ok();
    let told: Value = serde_json::from_slice(&fs::read(told).expect("written")).expect("JSON");
    let transfer = told["transfer"].as_str().expect("an id");
    // Each of these datagrams is lost, and comes again.
    let uri = format!("{base}/r/{transfer}?rd={rd}");
    let ran = ask(own, "get", &uri, &["-l", "3,8,600", "-o", &firmware]).await;
    let got = fs::read(firmware).expect("written");
    let end: Vec<&str> = ran.stderr.lines().rev().take(12).collect();
    assert!(
        ran.success && got == bytes,
        "{} bytes of {}; the client's last lines, latest first: {end:#?}",
        got.len(),
        bytes.len()
    );
    gateway.stop().await;
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/coap.md");

impl Gateway {
    /// Runs the commands of a section of the document as they stand there, but for this test's own places; gives what was
    /// printed.
    pub(crate) async fn obeys(
        &self,
        section: &str,
        work: &Path,
        places: &[(&str, String)],
    ) -> String {
        let text = fs::read_to_string(DOCUMENT).expect("a document");
        let heading = format!("\n## {section}\n");
        let (_, rest) = text.split_once(&heading).expect("the section");
        let (section, _) = rest.split_once("\n## ").expect("another section");
        let blocks = section.split("```sh\n").skip(1);
        let mut script: String = blocks
            .map(|block| block.split("```").next().unwrap_or_default())
            .collect();
        let data = format!("DATA={}", self.data_dir.display());
        let api = self.ports.http.expect("a listener").to_string();
        let fixed = [
            ("DATA=~/.local/state/headgate", data),
            ("127.0.0.1:8080", api),
        ];
        for (from, to) in fixed.iter().chain(places) {
            assert!(script.contains(from), "the document no longer says {from}");
            script = script.replace(from, to);
        }
        let path = work.join("by-hand.sh");
        let start = format!("set -eu -o pipefail\ncd {}\n", work.display());
        fs::write(&path, start + &script).expect("written");
        let ran = run("bash", &[path.to_str().expect("UTF-8")]).await;
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.success, "{printed}\n{}", ran.stderr);
        printed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_document_shows_is_run_as_it_stands_there() {
    for program in [CLIENT, "bash", "curl"] {
        need(program);
    }
    let gateway = Gateway::with_coap(|_| {}).await;
    let work = tempfile::tempdir().expect("a directory");
    let listener = gateway.ports.coap.expect("a listener").to_string();
    let places = [
        ("127.0.0.1:5683", listener),
        ("-p 61616", format!("-p {}", free_port())),
    ];
    let printed = gateway
        .obeys("A session in commands", work.path(), &places)
        .await;

    let read = |name: &str| fs::read(work.path().join(name)).expect(name);
    assert!(read("by-coap.bin") == read("firmware.bin"), "other bytes");
    assert!(printed.contains(r#""payload":"restart""#), "{printed}");
    let told: Value = serde_json::from_slice(&read("told.json")).expect("JSON");
    let transfer = told["transfer"].as_str().expect("an id");
    let delivery = gateway.get(&format!("/deliveries/{transfer}")).await;
    assert_eq!(delivery["state"], "delivered", "{printed}");
    // It was cut half-way, went on, and is listed once, as a whole.
    let standing: Value = serde_json::from_slice(&read("standing.json")).expect("JSON");
    let offset = standing["offset"].as_u64().expect("a number");
    assert!((4_000..20_000).contains(&offset), "{standing}");
    let listed: Value = serde_json::from_slice(&read("uploads.json")).expect("JSON");
    let items = listed["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "{listed}");
    assert_eq!(items[0]["state"], "stored", "{listed}");
    assert_stored(&gateway, "log", &read("log.bin")).await;
    gateway.stop().await;
}
