//! Nodes that die, and a store that forgets.

use headgate_protocol::mqtt::{Packet, ProtocolVersion, QoS, ReasonCode, Will};

use super::{Cluster, lists};
use crate::harness::{Client, Login, connect, until};

const V5: ProtocolVersion = ProtocolVersion::V5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_s_wills_are_sent_once_and_its_devices_come_elsewhere() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    let mut listener = Client::log_in(&a, &Login::application(&app, "app:app")).await;
    listener.subscribe(&["P/d/gone"], QoS::AtLeastOnce).await;
    let login = Login::of(&d).over(V5);
    let Packet::Connect(mut packet) = connect(&login) else {
        unreachable!("a CONNECT")
    };
    packet.will = Some(Will {
        topic: "P/d/gone".parse().expect("a topic"),
        payload: "gone".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: None,
    });
    let mut device = Client::open(&b).await;
    device.speak(V5);
    device.send(&Packet::Connect(packet)).await;
    assert_eq!(device.connack().await.reason, ReasonCode::Success);
    until("the will's storing", || async {
        let kept = cluster.stores.redis.command(&["HLEN", "{headgate}:will"]);
        (kept == "1").then_some(())
    })
    .await;
    let _dir = b.kill().await;
    // It waits for the device, and is kept while it does.
    assert_eq!(
        listener.publish("P/d/x", b"mail").await,
        ReasonCode::Success
    );
    let gone = listener.message().await;
    assert_eq!(&gone.payload[..], b"gone");
    a.metric_is("headgate_cluster_devices_reaped_total", 1.0)
        .await;
    lists(&a, &[("a", "ready")]).await;
    let mut device = Client::log_in(&a, &login).await;
    device.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    assert_eq!(&device.message().await.payload[..], b"mail");
    assert!(listener.ping().await.is_empty(), "once");
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgot_everything_is_told_again_who_is_where() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    cluster.age();
    let mut listener = Client::log_in(&b, &Login::application(&app, "app:app")).await;
    listener.subscribe(&["P/d/up"], QoS::AtLeastOnce).await;
    let mut device = Client::log_in(&a, &Login::of(&d).over(V5)).await;
    device.subscribe(&["P/d/x"], QoS::AtLeastOnce).await;
    cluster.stores.redis.command(&["FLUSHALL"]);
    for node in [&a, &b] {
        node.metric_is("headgate_cluster_leases_lost_total", 1.0)
            .await;
        lists(node, &[("a", "ready"), ("b", "ready")]).await;
    }
    until("the way there", || async {
        let held = cluster.stores.redis.command(&["HLEN", "{headgate}:dev"]);
        (held == "2").then_some(())
    })
    .await;
    assert_eq!(
        listener.publish("P/d/x", b"there").await,
        ReasonCode::Success
    );
    assert_eq!(&device.message().await.payload[..], b"there");
    while device.publish("P/d/up", b"back").await != ReasonCode::Success {}
    assert_eq!(&listener.message().await.payload[..], b"back");
    b.stop().await;
    a.stop().await;
}
