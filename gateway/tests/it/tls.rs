//! Certificates that change while connections are open, listeners with their own, and TLS sessions
//! that go on.

use std::{fs, path::Path, sync::Arc, time::Duration};

use headgate::config::ListenerConfig;
use headgate_protocol::mqtt::{ProtocolVersion, ReasonCode};
use hyper::Method;
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use super::harness::{Authority, Client, Gateway, Identity, Login, Site, until};

const CHANGED: &str = r#"headgate_tls_reloads_total{result="changed"}"#;
const FAILED: &str = r#"headgate_tls_reloads_total{result="failed"}"#;

/// Writes a certificate and its key; the key first, so that for a moment they do not fit.
fn write(dir: &Path, [certificate, key]: &[String; 2]) {
    fs::write(dir.join("key.pem"), key).expect("written");
    fs::write(dir.join("certificate.pem"), certificate).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_served_and_open_connections_stay() {
    let files = tempfile::tempdir().expect("a directory");
    let (old, new) = (Authority::new(), Authority::new());
    write(files.path(), &old.server());
    let gateway = Gateway::with(|config| {
        // The shared one stays; this is a listener's own.
        let mut listener = ListenerConfig::at(([127, 0, 0, 1], 0).into());
        listener.certificate = Some(files.path().join("certificate.pem"));
        listener.key = Some(files.path().join("key.pem"));
        config.listeners.push(listener);
        config.tls.reload_interval = Some(Duration::from_millis(100));
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let own = own_listener(&gateway);
    let mut client = Client::open_with(&own, old.trusted()).await;
    let login = Login::of(&device);
    assert_eq!(client.introduce(&login).await.reason, ReasonCode::Success);

    // Files that cannot be used change nothing.
    fs::write(files.path().join("certificate.pem"), "no certificate").expect("written");
    gateway.metric_is_more_than(FAILED, 0.0).await;
    Client::open_with(&own, old.trusted()).await;
    gateway.metric_is(CHANGED, 0.0).await;

    write(files.path(), &new.server());
    gateway.metric_is(CHANGED, 1.0).await;
    assert!(Client::may_open(&own, old.trusted()).await.is_none());
    Client::open_with(&own, new.trusted()).await;
    client.ping().await;
    // The other listener's is what it was.
    Client::open(&gateway).await;
    gateway.stop().await;
}

/// The same place, its further listener in the place of the first one.
fn own_listener(gateway: &Gateway) -> Site {
    gateway.site_with(|site| site.ports.mqtts = Some(gateway.ports.listeners[0]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_has_the_certificates_read_again() {
    let files = tempfile::tempdir().expect("a directory");
    let (old, new) = (Authority::new(), Authority::new());
    write(files.path(), &old.server());
    let path = |name: &str| files.path().join(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let gateway = Gateway::process(
        tempfile::tempdir().expect("a directory"),
        &[
            ("HEADGATE__MQTT__LISTENER__0__ADDRESS", "127.0.0.1:0"),
            ("HEADGATE__MQTT__LISTENER__0__CERTIFICATE", &certificate),
            ("HEADGATE__MQTT__LISTENER__0__KEY", &key),
            ("HEADGATE__TLS__RELOAD_INTERVAL", "off"),
        ],
    )
    .await;
    let own = own_listener(&gateway);
    let mut client = Client::open_with(&own, old.trusted()).await;
    let before = client.server_certificate();
    write(files.path(), &new.server());
    gateway.signal(Signal::HUP);
    let after = until("the new certificate", || async {
        Client::may_open(&own, new.trusted()).await
    })
    .await;
    assert_ne!(after.server_certificate(), before);
    // Whoever was there before is still heard.
    client.send_hex("c000").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_session_is_looked_at_like_a_new_one() {
    let gateway = Gateway::with(|config| config.tls.tickets = true).await;
    gateway
        .product("P", &json!({"auth_kinds": ["x509", "secret"]}))
        .await;
    for (node, version) in [("d3", &TLS13), ("d2", &TLS12)] {
        let identity = Identity::self_signed();
        let body = json!({
            "product_id": "P", "node_id": node, "auth": "x509", "fingerprint": identity.fingerprint(),
        });
        gateway.post("/devices", &body).await;
        let device = format!("P_{node}");
        let login = Login {
            version: ProtocolVersion::V311,
            keep_alive_secs: 60,
            client_id: device.clone(),
            username: device.clone(),
            password: String::new(),
            keeps_secs: None,
        };
        // One configuration: it keeps the tickets.
        let tls = identity.tls_over(&gateway, version);
        for round in 0..3 {
            let mut client = Client::open_with(&gateway, Arc::clone(&tls)).await;
            assert_eq!(client.is_resumed(), round > 0, "{node} {round}");
            let connack = client.introduce(&login).await;
            assert_eq!(connack.reason, ReasonCode::Success, "{node} {round}");
            client.ping().await;
        }
        // The certificate of the ticket is nobody's any more.
        let path = format!("/devices/{device}");
        gateway.api(Method::DELETE, &path, None).await;
        let mut client = Client::open_with(&gateway, Arc::clone(&tls)).await;
        assert!(client.is_resumed(), "{node}");
        let connack = client.introduce(&login).await;
        assert_ne!(connack.reason, ReasonCode::Success, "{node}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tickets_every_handshake_is_whole() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for _ in 0..3 {
        let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
        client.ping().await;
        assert!(!client.is_resumed());
    }
    gateway.stop().await;
}
