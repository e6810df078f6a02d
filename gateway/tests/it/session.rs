//! What an operator sees of a connection, and its end by an operator.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use serde_json::json;

use crate::harness::{Client, Gateway, Login};

#[tokio::test]
async fn an_operator_sees_how_a_device_is_connected() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d"]).await;
    let path = "/devices/P_d/session";
    assert_eq!(gateway.api(Method::GET, path, None).await.status, 404);

    let login = Login::of(&device).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    client.subscribe(&["P/d/a/#"], QoS::AtLeastOnce).await;
    let session = gateway.get(path).await;
    assert_eq!(session["client_id"], "P_d");
    assert_eq!(session["protocol"], "mqtt-5");
    assert_eq!(session["keep_alive"], 60);
    assert_eq!(
        session["subscriptions"],
        json!([{"filter": "P/d/a/#", "qos": 1}])
    );
    let address = session["address"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!(session["outbox_messages"], 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_kicked_device_is_closed_and_may_come_back() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d"]).await;
    let login = Login::of(&device).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    let kick = gateway
        .api(Method::DELETE, "/devices/P_d/session", None)
        .await;
    kick.ok(204);
    assert_eq!(
        client.closed().await,
        Some(ReasonCode::AdministrativeAction)
    );
    let mut again = Client::log_in(&gateway, &login).await;
    assert!(again.ping().await.is_empty());
    let unknown = gateway
        .api(Method::DELETE, "/devices/nobody/session", None)
        .await;
    assert_eq!(unknown.status, 404);
    gateway.stop().await;
}
