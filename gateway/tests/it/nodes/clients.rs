//! Clients that go from node to node, and what operators do to them.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use serde_json::json;

use super::{Cluster, has};
use crate::harness::{Client, Login};

const V5: ProtocolVersion = ProtocolVersion::V5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_with_one_node_at_a_time_and_takes_its_session_along() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    let login = Login::of(&d).over(V5).keeping(600);
    let mut first = Client::open(&a).await;
    assert!(!first.introduce(&login).await.session_present);
    first.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    first.acknowledges = false;
    // Sent and not acknowledged, it is the next connection's.
    let mut sender = Client::log_in(&b, &Login::application(&app, "app:app")).await;
    assert_eq!(sender.publish("P/d/x", b"1").await, ReasonCode::Success);
    assert_eq!(&first.message().await.payload[..], b"1");
    let mut second = Client::open(&b).await;
    assert!(second.introduce(&login).await.session_present);
    assert_eq!(&second.message().await.payload[..], b"1");
    assert_eq!(first.closed().await, Some(ReasonCode::SessionTakenOver));
    assert_eq!(sender.publish("P/d/x", b"2").await, ReasonCode::Success);
    assert_eq!(&second.message().await.payload[..], b"2");
    second.ping().await;
    b.metric_is("headgate_session_takeovers_total", 1.0).await;
    // What was acknowledged there does not come again here; what came meanwhile does.
    drop(second);
    has(&a, "b", "devices", 0).await;
    assert_eq!(sender.publish("P/d/x", b"3").await, ReasonCode::Success);
    let mut third = Client::open(&a).await;
    assert!(third.introduce(&login).await.session_present);
    assert_eq!(&third.message().await.payload[..], b"3");
    assert!(third.ping().await.is_empty());
    // An operator sends it on, by way of any node.
    let all = json!({"percent": 100});
    let sent = b.api(Method::POST, "/nodes/a/evacuate", Some(&all)).await;
    sent.ok(202);
    assert_eq!(third.closed().await, Some(ReasonCode::UseAnotherServer));
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_does_holds_on_every_node_when_it_is_done() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d, e] = a.devices(["d", "e"]).await;
    let app = a.app("app", &[&d, &e]).await;
    let mut listener = Client::log_in(&b, &Login::application(&app, "app:app")).await;
    listener.subscribe(&["#"], QoS::AtLeastOnce).await;
    let mut device = Client::log_in(&b, &Login::of(&d).over(V5)).await;
    // Known there, with its bindings.
    device.publish("P/d/x", b"1").await;
    assert_eq!(&listener.message().await.payload[..], b"1");
    let path = "/apps/app/devices/P_d";
    a.api(Method::DELETE, path, None).await.ok(204);
    assert_eq!(
        device.publish("P/d/x", b"2").await,
        ReasonCode::NoMatchingSubscribers
    );
    assert!(listener.ping().await.is_empty());
    // Kicked, it may come again; frozen, it may not, nor with an old secret.
    a.api(Method::DELETE, "/devices/P_d/session", None)
        .await
        .ok(204);
    assert_eq!(
        device.closed().await,
        Some(ReasonCode::AdministrativeAction)
    );
    let mut device = Client::log_in(&b, &Login::of(&d).over(V5)).await;
    device.ping().await;
    a.act("/devices/P_d/freeze").await;
    assert_eq!(
        device.closed().await,
        Some(ReasonCode::AdministrativeAction)
    );
    let mut frozen = Client::open(&b).await;
    let told = frozen.introduce(&Login::of(&d).over(V5)).await;
    assert_eq!(told.reason, ReasonCode::NotAuthorized);
    let mut other = Client::log_in(&b, &Login::of(&e).over(V5)).await;
    other.ping().await;
    let reset = json!({"which": "primary", "disconnect": true});
    a.api(Method::POST, "/devices/P_e/secret", Some(&reset))
        .await
        .ok(200);
    assert_eq!(other.closed().await, Some(ReasonCode::AdministrativeAction));
    let mut outdated = Client::open(&b).await;
    let told = outdated.introduce(&Login::of(&e).over(V5)).await;
    assert_eq!(told.reason, ReasonCode::NotAuthorized);
    // An application that is disabled here goes there.
    let body = json!({"enabled": false});
    a.api(Method::PATCH, "/apps/app", Some(&body)).await.ok(200);
    assert_eq!(
        listener.closed().await,
        Some(ReasonCode::AdministrativeAction)
    );
    b.stop().await;
    a.stop().await;
}
