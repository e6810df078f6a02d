//! Stores that fail over, lose what they wrote, or are slow, under two nodes.

use std::time::Duration;

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use serde_json::json;

use super::{Cluster, has, lists};
use crate::{
    faults::cluster::by_way_of,
    harness::{Client, Device, Gateway, Login, Proxy, Target, content, until},
};

const V5: ProtocolVersion = ProtocolVersion::V5;
const SIZE: usize = 200_000;
const HALF: usize = 92_160;

/// Waits until a node says that it is not ready, for this reason, and counts it.
async fn misses(node: &Gateway, store: &str) {
    until("not ready", || async {
        let told = node.ops("/readyz").await;
        (told.status == 503 && told.text().contains(store)).then_some(())
    })
    .await;
    let up = format!("headgate_store_up{{store=\"{store}\"}}");
    node.metric_is(&up, 0.0).await;
}

async fn is_ready(node: &Gateway) {
    until("ready", || async {
        (node.ops("/readyz").await.status == 200).then_some(())
    })
    .await;
}

/// Reports until that is recorded, as a device does.
async fn reports(client: &mut Client, device: &Device, transfer: &str) {
    for _ in 0..1_000 {
        let receipt = client.report(device, transfer, "done").await;
        if receipt["result_code"] == 0 {
            return;
        }
        let told = receipt["result_msg"].as_str().expect("a text");
        assert!(told.starts_with("try again"), "{receipt}");
    }
    unreachable!("it is not recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_fails_over_keeps_what_was_acknowledged_and_is_used_at_once() {
    let mut cluster = Cluster::new();
    let standby = cluster.stores.postgres.standby();
    let registry = Proxy::start(vec![Target::Unix(cluster.stores.postgres.socket())]).await;
    let url = by_way_of(&registry, &cluster.stores.database);
    let more = [("HEADGATE__REGISTRY__URL", url)];
    let (a, b) = (
        cluster.node_with("a", &more).await,
        cluster.node_with("b", &more).await,
    );
    let [d, e] = a.devices(["d", "e"]).await;
    let bytes = content(SIZE);
    let resource = a.resource("P", "firmware", &bytes).await;
    let task = a.task(&resource, &[&d, &e]).await;
    let mut at_a = Client::listening(&a, &d).await;
    let mut at_b = Client::listening(&b, &e).await;
    let (told_d, told_e) = (at_a.announced().await, at_b.announced().await);
    at_b.want(&e, &told_e.transfer, 0, 2).await;
    let mut have = Vec::new();
    at_b.take_until(&mut have, HALF).await;
    assert!(at_a.take_all(&d, &told_d).await == bytes);
    let receipt = at_a.report(&d, &told_d.transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    // Acknowledged, and then the server is gone for good.
    cluster.stores.postgres.die();
    for node in [&a, &b] {
        misses(node, "registry").await;
    }
    // Bytes go on without it.
    at_b.take_until(&mut have, SIZE).await;
    assert!(have == bytes, "the bytes differ");
    standby.promote();
    registry.lead_to(vec![Target::Unix(standby.socket())]);
    registry.cut(false);
    reports(&mut at_b, &e, &told_e.transfer).await;
    for node in [&a, &b] {
        is_ready(node).await;
        for device in [&d, &e] {
            let ended = node.delivery_in("delivered", &task, device).await;
            assert_eq!(ended["attempt"], 1, "none was begun anew");
        }
    }
    // Changes go there too, and hold on both nodes.
    a.act("/devices/P_e/freeze").await;
    assert_eq!(at_b.closed().await, None, "3.1.1 is told nothing");
    let told = b.get("/devices/P_e").await;
    assert_eq!(told["enabled"], json!(false));
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_slow_holds_up_what_is_not_in_memory_and_nothing_else() {
    let mut cluster = Cluster::new();
    let endpoint = cluster.stores.s3.endpoint();
    let place = endpoint.trim_start_matches("http://");
    let bucket = Proxy::start(vec![Target::Tcp(place.parse().expect("an address"))]).await;
    let more = [(
        "HEADGATE__BLOBS__ENDPOINT",
        format!("http://{}", bucket.address()),
    )];
    let a = cluster.node_with("a", &more).await;
    let b = cluster.node("b").await;
    let [d, e] = a.devices(["d", "e"]).await;
    let app = a.app("app", &[&d]).await;
    let bytes = content(SIZE);
    // By way of the other node, so that this one has nothing of it in memory.
    let resource = b.resource("P", "firmware", &bytes).await;
    let task = b.task(&resource, &[&d, &e]).await;
    let mut device = Client::listening(&a, &d).await;
    let told = device.announced().await;
    // Longer than the store is given for an answer.
    bucket.delay(Duration::from_secs(8));
    device.want(&d, &told.transfer, 0, 8).await;
    misses(&a, "blobs").await;
    // Everything else goes on meanwhile, here and at the other node.
    let mut hears = Client::log_in(&a, &Login::application(&app, "app:app")).await;
    hears.subscribe(&["P/d/x"], QoS::AtLeastOnce).await;
    assert_eq!(device.publish("P/d/x", b"1").await, ReasonCode::Success);
    assert_eq!(&hears.message().await.payload[..], b"1");
    let mut other = Client::listening(&b, &e).await;
    let theirs = other.announced().await;
    assert!(other.take_all(&e, &theirs).await == bytes);
    reports(&mut other, &e, &theirs.transfer).await;
    assert_eq!(b.ops("/readyz").await.status, 200);
    bucket.delay(Duration::ZERO);
    is_ready(&a).await;
    // It came in the end, or the device was told to ask again.
    let mut device = Client::listening(&a, &d).await;
    let told = device.announced().await;
    assert!(device.take_all(&d, &told).await == bytes);
    reports(&mut device, &d, &told.transfer).await;
    a.delivery_in("delivered", &task, &d).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_fail_over_and_lose_writes_double_nothing_and_lose_no_delivery() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let devices = a.devices(["d", "e", "f"]).await;
    let [moves, sleeps, takes] = &devices;
    let app = a.app("app", &[moves, sleeps]).await;
    cluster.age();
    let bytes = content(SIZE);
    let resource = a.resource("P", "firmware", &bytes).await;
    let task = a.task(&resource, &[takes]).await;
    let mut taking = Client::listening(&a, takes).await;
    let told = taking.announced().await;
    let login = Login::of(moves).over(V5).keeping(600);
    let mut device = Client::log_in(&a, &login).await;
    device.subscribe(&["P/d/down"], QoS::AtLeastOnce).await;
    let mut hears = Client::log_in(&b, &Login::application(&app, "app:app")).await;
    hears.subscribe(&["P/d/up"], QoS::AtLeastOnce).await;
    // Waits for a device that is away: the replica has it.
    assert_eq!(hears.publish("P/e/x", b"kept").await, ReasonCode::Success);
    let replica = cluster.stores.redis.copy();
    // From here on everything is lost: that the device moved, and what it had and has acknowledged.
    let mut device_at_b = Client::log_in(&b, &login).await;
    assert_eq!(device.closed().await, Some(ReasonCode::SessionTakenOver));
    assert_eq!(hears.publish("P/d/down", b"1").await, ReasonCode::Success);
    assert_eq!(&device_at_b.message().await.payload[..], b"1");
    device_at_b.ping().await;
    taking.want(takes, &told.transfer, 0, 8).await;
    let mut have = Vec::new();
    taking.take_until(&mut have, HALF).await;
    cluster.stores.redis.fail_over(&replica);
    for node in [&a, &b] {
        lists(node, &[("a", "ready"), ("b", "ready")]).await;
        is_ready(node).await;
    }
    // Both say again who is with them. Of the session that moved, the store knows less than its client does: that one
    // comes again, and goes on with what is there.
    let said = device_at_b.closed().await;
    assert_eq!(said, Some(ReasonCode::SessionTakenOver));
    let mut device_at_b = Client::open(&b).await;
    assert!(device_at_b.introduce(&login).await.session_present);
    has(&a, "b", "devices", 1).await;
    let shown = until("where it is", || async {
        let shown = a
            .api(hyper::Method::GET, "/devices/P_d/session", None)
            .await;
        (shown.status == 200).then(|| shown.ok(200))
    })
    .await;
    assert_eq!(shown["node"], "b");
    // The delivery never noticed, and is recorded.
    taking.take_until(&mut have, SIZE).await;
    assert!(have == bytes, "the bytes differ");
    reports(&mut taking, takes, &told.transfer).await;
    a.delivery_in("delivered", &task, takes).await;
    // Messages find their way, each once, and none of before comes again.
    for payload in [b"2", b"3"] {
        while hears.publish("P/d/down", payload).await != ReasonCode::Success {}
        assert_eq!(&device_at_b.message().await.payload[..], payload);
    }
    assert!(device_at_b.ping().await.is_empty());
    // What the replica had is there.
    let mut sleeper = Client::log_in(&a, &Login::of(sleeps).over(V5)).await;
    sleeper.subscribe(&["P/e/x"], QoS::AtLeastOnce).await;
    assert_eq!(&sleeper.message().await.payload[..], b"kept");
    b.stop().await;
    a.stop().await;
}
