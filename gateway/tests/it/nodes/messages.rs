//! Messages between devices and applications that are with different nodes.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};

use super::{Cluster, has};
use crate::harness::{App, Client, Device, Events, Gateway, Login, publish, until};

const V5: ProtocolVersion = ProtocolVersion::V5;

async fn application(node: &Gateway, app: &App, instance: &str) -> Client {
    let login = Login::application(app, &format!("app:{}:{instance}", app.id));
    Client::log_in(node, &login).await
}

async fn device(node: &Gateway, device: &Device) -> Client {
    Client::log_in(node, &Login::of(device).over(V5)).await
}

/// Publishes until somebody elsewhere has subscribed, which nodes learn of in a moment.
pub(super) async fn is_heard(device: &mut Client, topic: &str) {
    for _ in 0..1_000 {
        if device.publish(topic, b"?").await == ReasonCode::Success {
            return;
        }
        tokio::task::yield_now().await;
    }
    unreachable!("nobody hears it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_says_reaches_applications_on_every_node_once() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    // One that ends with its connection, and one that is kept.
    let mut clean = application(&b, &app, "clean").await;
    clean.subscribe(&["P/d/x"], QoS::AtLeastOnce).await;
    let login = Login::application(&app, "app:app:kept").keeping(600);
    let mut kept = Client::log_in(&b, &login).await;
    kept.subscribe(&["P/+/x"], QoS::AtLeastOnce).await;
    let mut says = device(&a, &d).await;
    is_heard(&mut says, "P/d/x").await;
    for n in 0..20_u8 {
        assert_eq!(says.publish("P/d/x", &[n]).await, ReasonCode::Success);
    }
    for client in [&mut clean, &mut kept] {
        let mut came = Vec::new();
        while came.len() < 20 {
            let message = client.message().await;
            came.extend((message.payload[..] != *b"?").then_some(message.payload[0]));
        }
        assert!(came.into_iter().eq(0..20), "each once, in order");
        assert!(client.ping().await.is_empty());
    }
    // What is said while it is away waits, wherever it comes again.
    drop(kept);
    has(&a, "b", "applications", 1).await;
    says.publish("P/d/x", b"later").await;
    assert_eq!(&clean.message().await.payload[..], b"later");
    let mut kept = Client::open(&a).await;
    assert!(kept.introduce(&login).await.session_present);
    assert_eq!(&kept.message().await.payload[..], b"later");
    // At QoS 0 too.
    says.send(&publish("P/d/x", b"now", None)).await;
    assert_eq!(&clean.message().await.payload[..], b"now");
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_application_says_reaches_its_device_wherever_that_is() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    let mut says = application(&b, &app, "1").await;
    let mut hears = device(&a, &d).await;
    hears.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    for n in 0..20_u8 {
        assert_eq!(says.publish("P/d/x", &[n]).await, ReasonCode::Success);
    }
    for n in 0..20 {
        assert_eq!(&hears.message().await.payload[..], [n]);
    }
    says.send(&publish("P/d/x", b"now", None)).await;
    assert_eq!(&hears.message().await.payload[..], b"now");
    assert!(hears.ping().await.is_empty());
    drop(hears);
    has(&b, "a", "devices", 0).await;
    says.publish("P/d/x", b"later").await;
    let mut hears = device(&b, &d).await;
    hears.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    assert_eq!(&hears.message().await.payload[..], b"later");
    hears.ping().await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_on_two_nodes_and_a_stream_take_each_message_once() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    let mut members = [
        application(&a, &app, "1").await,
        application(&b, &app, "2").await,
    ];
    for member in &mut members {
        let filter = ["$share/g/P/+/data"];
        member.subscribe(&filter, QoS::AtLeastOnce).await;
    }
    let mut stream = Events::open(&b, "/apps/app/messages", &format!("Bearer {}", b.token), "")
        .await
        .expect("a stream");
    let mut says = device(&a, &d).await;
    // Until both members are known where the device is.
    until("both members", || async {
        let told = b.metric("headgate_cluster_messages_total").await;
        (told > 0.0).then_some(())
    })
    .await;
    for n in 0..10_u8 {
        says.publish("P/d/data", &[n]).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        for member in &mut members {
            let came = member.ping().await;
            seen.extend(came.iter().map(|message| message.payload[0]));
        }
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..10), "each message once");
    assert_eq!(stream.message().await["topic"], "P/d/data");
    b.stop().await;
    a.stop().await;
}
