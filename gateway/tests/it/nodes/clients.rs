//! Clients that go from node to node, and what operators do to them.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use serde_json::json;

use super::{Cluster, has, messages::is_heard};
use crate::harness::{Client, Login, publish};

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

/// Has a client be with another connection, of which the one that it has was not told yet.
fn claim_elsewhere(cluster: &Cluster, client: &str) {
    let redis = &cluster.stores.redis;
    let claim = redis.command(&["HGET", "{headgate}:dev", client]);
    let (node, epoch) = claim.split_once(' ').expect("a node and an epoch");
    let epoch: i64 = epoch.parse().expect("a number");
    let newer = format!("{node} {}", epoch + 1);
    redis.command(&["HSET", "{headgate}:dev", client, &newer]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_says_where_it_is_no_longer_is_refused_and_reaches_nobody() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    let direct = Login::application(&app, "app:app:direct");
    let mut direct = Client::log_in(&b, &direct).await;
    let mut device = Client::log_in(&a, &Login::of(&d).over(V5)).await;
    device.subscribe(&["P/d/down"], QoS::AtLeastOnce).await;
    direct.subscribe(&["P/d/up"], QoS::AtLeastOnce).await;
    is_heard(&mut device, "P/d/up").await;
    assert_eq!(&direct.message().await.payload[..], b"?");
    let kept = Login::application(&app, "app:app:kept").keeping(600);
    let mut kept = Client::log_in(&b, &kept).await;
    kept.subscribe(&["P/d/up"], QoS::AtLeastOnce).await;
    // Once the node knows this one it knows that one, too.
    kept.subscribe(&["P/d/later"], QoS::AtLeastOnce).await;
    is_heard(&mut device, "P/d/later").await;
    assert_eq!(&kept.message().await.payload[..], b"?");
    assert_eq!(device.publish("P/d/up", b"1").await, ReasonCode::Success);
    claim_elsewhere(&cluster, "d:P_d");
    assert_eq!(
        device.publish("P/d/up", b"2").await,
        ReasonCode::ImplementationSpecificError
    );
    // Nobody sends it again: late is better than never.
    device.send(&publish("P/d/up", b"3", None)).await;
    for listener in [&mut kept, &mut direct] {
        for said in [b"1", b"3"] {
            assert_eq!(&listener.message().await.payload[..], said);
        }
    }
    let sender = Login::application(&app, "app:app:sender").over(V5);
    let mut sender = Client::log_in(&a, &sender).await;
    claim_elsewhere(&cluster, "a:app:app:sender");
    let refused = sender.publish("P/d/down", b"4").await;
    assert!(refused.is_error(), "{refused:?}");
    assert!(device.ping().await.is_empty());
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
