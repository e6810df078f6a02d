//! Devices on other people's clients, against the real program: they get in by what they hold, and
//! talk to an application that sees them.

use serde_json::json;

use super::harness::{Device, Gateway, Library, Sdk};

/// The arguments that every client takes: where the gateway is and whom to trust.
fn place(gateway: &Gateway) -> [String; 3] {
    let port = gateway.ports.mqtts.expect("a listener").port();
    let ca = gateway.data_dir.join("tls/ca.pem");
    [
        "localhost".to_owned(),
        port.to_string(),
        ca.display().to_string(),
    ]
}

/// Starts a client and has it connect with the device's own secret.
async fn native(library: Library, gateway: &Gateway, device: &Device, version: &str) -> Sdk {
    let place = place(gateway);
    let mut sdk = Sdk::start(library, &place.each_ref().map(String::as_str));
    sdk.tell(&json!({
        "do": "connect", "client_id": device.id, "username": device.id, "password": device.secret, "version": version,
    }));
    assert!(sdk.connected().await, "{library:?}, MQTT {version}");
    sdk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_and_mqtt_js_talk_every_version_of_mqtt() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for library in [Library::Paho, Library::MqttJs] {
        for version in ["3.1", "3.1.1", "5"] {
            let mut sdk = native(library, &gateway, &device, version).await;
            sdk.tell(&json!({"do": "subscribe", "topic": "P/d1/echo"}));
            sdk.event("subscribed").await;
            sdk.tell(&json!({"do": "publish", "topic": "P/d1/echo", "payload": version}));
            assert_eq!(sdk.message("P/d1/echo").await, version.as_bytes());
        }
    }
    gateway.stop().await;
}
