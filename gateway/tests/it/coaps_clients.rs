//! CoAP over DTLS with other people's clients: libcoap's on `OpenSSL` and on `GnuTLS`, aiocoap on tinydtls, python-mbedtls, and
//! `openssl s_client`.

use std::{fs, time::Duration};

use hyper::Method;
use serde_json::{Value, json};

use super::{
    coaps::{KEY, Secured},
    harness::{Gateway, Printed, content, library, need, run, run_for, sha256},
};

const CLIENTS: [&str; 2] = ["coap-client-openssl", "coap-client-gnutls"];

impl Gateway {
    fn coaps(&self, path: &str) -> String {
        let address = self.ports.coaps.expect("a listener");
        format!("coaps://{address}/{path}")
    }
}

/// Asks with a client of libcoap.
async fn ask(client: &str, identity: &str, key: &str, more: &[&str]) -> Printed {
    need(client);
    let fixed = ["-B", "10", "-u", identity, "-k", key];
    run(client, &[&fixed, more].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libcoaps_clients_take_a_resource_and_watch() {
    let gateway = Gateway::with_coaps(|_| {}).await;
    let device = gateway.secured().await;
    let work = tempfile::tempdir().expect("a directory");
    let file = |name: &str| work.path().join(name).to_str().expect("UTF-8").to_owned();
    let (told, firmware) = (file("told"), file("firmware"));
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let bytes = content(1024 * 1024 + number);
        let name = format!("firmware-{number}");
        let resource = gateway.resource("S", &name, &bytes).await;
        let task = gateway.task(&resource, &[&device]).await;
        let uri = gateway.coaps("t");
        ask(client, "s1", KEY, &["-o", &told, &uri]).await.ok();
        let told: Value = serde_json::from_slice(&fs::read(&told).expect("written")).expect("JSON");
        let transfer = told["transfer"].as_str().expect("an id");
        let uri = gateway.coaps(&format!("r/{transfer}"));
        ask(client, &device.id, KEY, &["-o", &firmware, &uri])
            .await
            .ok();
        assert!(
            fs::read(&firmware).expect("written") == bytes,
            "other bytes"
        );
        let uri = gateway.coaps(&format!("t/{transfer}"));
        let done = ["-m", "post", "-t", "50", "-e", r#"{"state":"done"}"#, &uri];
        ask(client, "s1", KEY, &done).await.ok();
        gateway.delivery_in("delivered", &task, &device).await;
        let watched = ask(client, "s1", KEY, &["-s", "1", &gateway.coaps("t")]).await;
        assert_eq!(watched.ok().trim_ascii(), b"{}");
    }
    gateway
        .metric_is(
            r#"headgate_connect_attempts_total{outcome="accepted",protocol="coaps"}"#,
            8.0,
        )
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libcoaps_client_takes_a_large_resource_over_a_network_that_loses() {
    let client = CLIENTS[0];
    need(client);
    let gateway = Gateway::with_coaps(|_| {}).await;
    let device = gateway.secured().await;
    let bytes = content(1024 * 1024);
    let resource = gateway.resource("S", "firmware", &bytes).await;
    gateway.task(&resource, &[&device]).await;
    let mut known = Secured::new(&gateway, "s1", KEY.as_bytes());
    assert!(known.connect());
    let (_, told) = known.get("t").expect("an answer");
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    let transfer = told["transfer"].as_str().expect("an id");
    let work = tempfile::tempdir().expect("a directory");
    let firmware = work.path().join("firmware");
    let uri = gateway.coaps(&format!("r/{transfer}"));
    // Each of these datagrams is lost, one of the handshake too, and comes again.
    let arguments = [
        "-B",
        "60",
        "-u",
        "s1",
        "-k",
        KEY,
        "-l",
        "2,10,600",
        "-o",
        firmware.to_str().expect("UTF-8"),
        &uri,
    ];
    run_for(Duration::from_mins(1), client, &arguments)
        .await
        .ok();
    assert!(
        fs::read(&firmware).expect("written") == bytes,
        "other bytes"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aiocoap_on_tinydtls_takes_a_resource_sends_a_file_and_watches() {
    let bytes = content(40_000);
    let gateway = Gateway::with_coaps(|_| {}).await;
    let device = gateway.secured().await;
    let resource = gateway.resource("S", "firmware", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let path = format!("/devices/{}/messages", device.id);
    for payload in ["one", "two"] {
        let body = json!({"topic": "S/s1/cmd", "payload": payload, "qos": 1});
        let sent = gateway.api(Method::POST, &path, Some(&body)).await;
        assert!(sent.status < 300, "{}", sent.text());
    }
    let work = tempfile::tempdir().expect("a directory");
    let sent = content(20_050);
    let path = work.path().join("log");
    fs::write(&path, &sent).expect("written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/coap_device.py");
    let address = gateway.ports.coaps.expect("a listener").to_string();
    let arguments = [script, &address, "s1", path.to_str().expect("UTF-8"), KEY];
    let ran = run(&library("coaps/bin/python3"), &arguments).await;
    assert!(ran.success, "{}", ran.stderr);
    let told: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(told["sha256"], sha256(&bytes), "{told}");
    assert_eq!(
        (&told["done"], &told["stored"]),
        (&json!("2.04 Changed"), &json!("2.01 Created")),
        "{told}"
    );
    assert_eq!(
        (&told["command"]["payload"], &told["watched"]["payload"]),
        (&json!("one"), &json!("two")),
        "{told}"
    );
    gateway.delivery_in("delivered", &task, &device).await;
    let listed = gateway.get("/uploads?device=S_s1").await;
    assert_eq!(listed["items"][0]["state"], "stored", "{listed}");
    gateway.stop().await;
}

/// What the device on python-mbedtls was answered by each suite.
async fn asked_by_mbedtls(gateway: &Gateway, shown: [&str; 3], suites: &[&str]) -> Value {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/clients/mbedtls_device.py"
    );
    let address = gateway.ports.coaps.expect("a listener").to_string();
    let arguments = [&[script, &address][..], &shown, suites].concat();
    let ran = run(&library("coaps/bin/python3"), &arguments).await;
    assert!(ran.success, "{}", ran.stderr);
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

/// An answer 2.05 with an empty object in JSON.
fn is_nothing_waiting(told: &Value, suite: &str) -> bool {
    let answer = told[suite].as_str().expect("told");
    answer.starts_with(&format!("{suite} 60450001")) && answer.ends_with("ff7b7d")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_mbedtls_is_let_in_by_every_suite_with_a_key() {
    let suites = [
        "TLS-PSK-WITH-AES-128-CCM-8",
        "TLS-PSK-WITH-AES-128-CCM",
        "TLS-PSK-WITH-AES-128-GCM-SHA256",
        "TLS-PSK-WITH-AES-128-CBC-SHA256",
        "TLS-PSK-WITH-AES-128-CBC-SHA",
    ];
    let key = hex::encode(KEY);
    let shown = ["psk", "s1", &key];
    let gateway = Gateway::with_coaps(|_| {}).await;
    gateway.secured().await;
    let told = asked_by_mbedtls(&gateway, shown, &suites).await;
    for suite in &suites[..4] {
        assert!(is_nothing_waiting(&told, suite), "{told}");
    }
    assert!(!is_nothing_waiting(&told, suites[4]), "{told}");
    let dir = gateway.stop().await;
    let gateway = Gateway::start_in(dir, |config| {
        config.coaps.listen = Some(([127, 0, 0, 1], 0).into());
        config.coaps.legacy_suites = true;
    })
    .await;
    let told = asked_by_mbedtls(&gateway, shown, &suites[4..]).await;
    assert!(is_nothing_waiting(&told, suites[4]), "{told}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_mbedtls_is_let_in_by_every_suite_with_a_certificate() {
    let work = tempfile::tempdir().expect("a directory");
    let own = made(work.path(), "gateway");
    let device = made(work.path(), "known");
    let gateway = Gateway::with_coaps(|config| {
        config.certificate = Some(own.pem.clone().into());
        config.key = Some(own.key.into());
    })
    .await;
    gateway
        .secured_by(&json!({"fingerprint": device.fingerprint}), "x509")
        .await;
    let suites = [
        "TLS-ECDHE-ECDSA-WITH-AES-128-CCM-8",
        "TLS-ECDHE-ECDSA-WITH-AES-128-CCM",
        "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256",
        "TLS-ECDHE-ECDSA-WITH-AES-128-CBC-SHA256",
    ];
    let shown = ["certificate", &device.pem, &device.key];
    let told = asked_by_mbedtls(&gateway, shown, &suites).await;
    for suite in suites {
        assert!(is_nothing_waiting(&told, suite), "{told}");
    }
    gateway.stop().await;
}

/// Files of a self-signed certificate and its key.
struct Made {
    pem: String,
    key: String,
    fingerprint: String,
}

fn made(directory: &std::path::Path, name: &str) -> Made {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    let file = |end: &str, text: String| {
        let path = directory.join(format!("{name}.{end}"));
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    Made {
        pem: file("pem", made.cert.pem()),
        key: file("key", made.signing_key.serialize_pem()),
        fingerprint: sha256(made.cert.der()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_secret_is_a_key_of_sixteen_bytes_and_openssl_speaks_every_suite() {
    need("openssl");
    let gateway = Gateway::with_coaps(|_| {}).await;
    let device = gateway.secured_by(&json!({}), "secret").await;
    assert_eq!(device.secret.len(), 32, "16 bytes in hexadecimal");
    let address = gateway.ports.coaps.expect("a listener").to_string();
    for suite in [
        "PSK-AES128-CCM8",
        "PSK-AES128-CCM",
        "PSK-AES128-GCM-SHA256",
        "PSK-AES128-CBC-SHA256",
    ] {
        let cipher = format!("{suite}:@SECLEVEL=0");
        let arguments = [
            "s_client",
            "-dtls1_2",
            "-connect",
            &address,
            "-psk_identity",
            "s1",
            "-psk",
            &device.secret,
            "-cipher",
            &cipher,
        ];
        let ran = run("openssl", &arguments).await;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            said.contains(&format!("Cipher is {suite}")),
            "{suite}: {said}"
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_finds_its_device_by_its_fingerprint() {
    let work = tempfile::tempdir().expect("a directory");
    let own = made(work.path(), "gateway");
    let known = made(work.path(), "known");
    let unknown = made(work.path(), "unknown");
    let gateway = Gateway::with_coaps(|config| {
        config.certificate = Some(own.pem.clone().into());
        config.key = Some(own.key.into());
    })
    .await;
    gateway
        .secured_by(&json!({"fingerprint": known.fingerprint}), "x509")
        .await;
    let uri = gateway.coaps("t");
    for client in CLIENTS {
        need(client);
        // Wrong after right and back: what one session showed says nothing of the next.
        for (device, is_known) in [(&known, true), (&unknown, false), (&known, true)] {
            let (pem, key) = (&device.pem, &device.key);
            let arguments = ["-B", "5", "-n", "-c", pem, "-j", key, "-R", &own.pem, &uri];
            let said = run(client, &arguments).await.stdout;
            // GnuTLS's client prints its doubts about certificates before it.
            let is_answered = said.trim_ascii().ends_with(b"{}");
            assert_eq!(is_answered, is_known, "{client} {pem}");
        }
    }
    let refused = r#"headgate_connect_attempts_total{outcome="refused",protocol="coaps"}"#;
    // One client or the other may try twice.
    gateway.metric_is_more_than(refused, 1.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_document_shows_begins_by_mqtt_and_ends_over_dtls() {
    for program in [CLIENTS[0], "bash", "curl", "mosquitto_sub", "mosquitto_rr"] {
        need(program);
    }
    let gateway = Gateway::with_coaps(|_| {}).await;
    let work = tempfile::tempdir().expect("a directory");
    let mqtt = gateway.ports.mqtts.expect("a listener").port();
    let coaps = gateway.ports.coaps.expect("a listener").to_string();
    let places = [("-p 8883", format!("-p {mqtt}")), ("127.0.0.1:5684", coaps)];
    let printed = gateway.obeys("Over DTLS", work.path(), &places).await;
    let read = |name: &str| fs::read(work.path().join(name)).expect(name);
    assert!(read("both.bin") == read("firmware.bin"), "other bytes");
    assert!(printed.contains(r#""acked":65536"#), "{printed}");
    let told: Value = serde_json::from_slice(&read("told.json")).expect("JSON");
    let transfer = told["transfer"].as_str().expect("an id");
    let delivery = gateway.get(&format!("/deliveries/{transfer}")).await;
    assert_eq!(delivery["state"], "delivered", "{printed}");
    gateway.stop().await;
}
