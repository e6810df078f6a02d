//! What nodes have in common: retained messages, failed logins, products, wills, devices by CoAP; and what a node missed.

use headgate_protocol::{
    coap::{Code, Szx},
    mqtt::{Packet, ProtocolVersion, QoS, ReasonCode},
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{Cluster, has, lists};
use crate::{
    cli::{headgate, text},
    harness::{
        Client, Coap, Gateway, Login, Proxy, Site, Target, connect, content, json_of, log_of, until,
    },
    retained::{retain, subscribed},
    wills::delayed,
};

const V5: ProtocolVersion = ProtocolVersion::V5;
/// Counts what a node was told by others.
const TOLD: &str = "headgate_cluster_messages_total";

async fn says(site: &Site, login: &Login) -> ReasonCode {
    let mut client = Client::open(site).await;
    client.introduce(login).await.reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retained_message_is_one_for_all_nodes() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let app = a.app("app", &[&d]).await;
    let mut hears = Client::log_in(&b, &Login::application(&app, "app:app")).await;
    let mut device = Client::log_in(&a, &Login::of(&d).over(V5)).await;
    for payload in ["on", "off"] {
        retain(&mut device, "P/d/state", payload, None).await;
        let kept = [("P/d/state".to_owned(), payload.to_owned(), true)];
        let mut tries = 0;
        while subscribed(&mut hears, "P/+/state", |_| {}, None).await != kept {
            tries += 1;
            assert!(tries < 1_000, "{payload} is not known there");
        }
    }
    // The device takes it back where it is by then.
    let mut device = Client::log_in(&b, &Login::of(&d).over(V5)).await;
    retain(&mut device, "P/d/state", "", None).await;
    let mut hears = Client::log_in(&a, &Login::application(&app, "app:app:2")).await;
    let mut tries = 0;
    while !subscribed(&mut hears, "P/+/state", |_| {}, None)
        .await
        .is_empty()
    {
        tries += 1;
        assert!(tries < 1_000, "it is still known there");
    }
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_count_on_every_node() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let wrong = Login {
        password: "wrong-secret".to_owned(),
        ..Login::of(&d).over(V5)
    };
    let mut told = b.metric(TOLD).await;
    while says(&a, &wrong).await != ReasonCode::ConnectionRateExceeded {}
    // They are told twice a second, so at once or with two tellings.
    loop {
        b.metric_is_more_than(TOLD, told).await;
        told = b.metric(TOLD).await;
        if says(&b, &wrong).await == ReasonCode::ConnectionRateExceeded {
            break;
        }
    }
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_product_holds_on_every_node_when_it_is_answered() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let policy = json!({"topic_policy": {"publish": ["fleet/+"], "subscribe": ["fleet/#"]}});
    a.product("P", &policy).await;
    let d = a.device("P", "d").await;
    let login = Login::of(&d).over(V5);
    let mut device = Client::log_in(&b, &login).await;
    let said = device.publish("fleet/x", b"1").await;
    assert_eq!(said, ReasonCode::NoMatchingSubscribers);
    let narrower = json!({"name": "P"});
    let changed = a.api(Method::PUT, "/products/P", Some(&narrower)).await;
    changed.ok(200);
    let said = device.publish("fleet/x", b"2").await;
    assert_eq!(said, ReasonCode::NotAuthorized);
    // A device that is gone is gone everywhere, and so is its product.
    a.api(Method::DELETE, "/devices/P_d", None).await.ok(204);
    let told = device.closed().await;
    assert_eq!(told, Some(ReasonCode::AdministrativeAction));
    a.api(Method::DELETE, "/products/P", None).await.ok(204);
    assert!(says(&b, &login).await.is_error());
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_that_is_held_back_outlives_the_node_and_is_withdrawn_elsewhere() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d, e] = a.devices(["d", "e"]).await;
    let app = a.app("app", &[&d, &e]).await;
    let mut listener = Client::log_in(&a, &Login::application(&app, "app:app")).await;
    listener.subscribe(&["#"], QoS::AtLeastOnce).await;
    let mut left = Vec::new();
    for (device, payload, delay) in [(&d, "late", 1), (&e, "never", 600)] {
        let login = Login::of(device).over(V5).keeping(600);
        let topic = format!("P/{}/gone", device.node);
        let mut client = Client::open(&b).await;
        client.speak(V5);
        client.send(&delayed(&login, &topic, payload, delay)).await;
        assert_eq!(client.connack().await.reason, ReasonCode::Success);
        left.push(client);
    }
    until("the wills' storing", || async {
        let kept = cluster.stores.redis.command(&["HLEN", "{headgate}:will"]);
        (kept == "2").then_some(())
    })
    .await;
    let _dir = b.kill().await;
    assert_eq!(&listener.message().await.payload[..], b"late");
    // Who comes again in time, wherever, has not gone.
    let mut back = Client::log_in(&a, &Login::of(&e).over(V5).keeping(600)).await;
    back.ping().await;
    until("no will", || async {
        let kept = cluster.stores.redis.command(&["HLEN", "{headgate}:will"]);
        (kept == "0").then_some(())
    })
    .await;
    assert!(listener.ping().await.is_empty());
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_by_coap_is_with_the_node_that_it_registered_with_last() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let device = a.unsecured("n1", &Value::Null).await;
    let _first = Coap::registered(&a, "n1").await;
    has(&b, "a", "devices", 1).await;
    let mut second = Coap::registered(&b, "n1").await;
    has(&b, "a", "devices", 0).await;
    has(&a, "b", "devices", 1).await;
    // What is for it finds it there.
    let bytes = content(3_000);
    let resource = a.resource("N", "r", &bytes).await;
    let task = a.task(&resource, &[&device]).await;
    let told = loop {
        let told = json_of(&second.get("t").await);
        if told["transfer"].is_string() {
            break told;
        }
    };
    let transfer = told["transfer"].as_str().expect("an id");
    let got = second.fetch(transfer, (0, u64::MAX), Szx::MAX).await;
    assert!(got == bytes, "the bytes differ");
    let done = second
        .post(&format!("t/{transfer}"), &json!({"state": "done"}))
        .await;
    assert_eq!(done.code, Code::CHANGED);
    a.delivery_in("delivered", &task, &device).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_sent_elsewhere_and_a_node_is_stopped_from_the_command_line() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [d] = a.devices(["d"]).await;
    let login = Login::of(&d).over(V5);
    let asked = |words: &'static [&'static str]| {
        let directory = a.data_dir.to_str().expect("UTF-8").to_owned();
        async move {
            let asking = move || {
                let with = words.iter().copied().chain(["--data-dir", &directory]);
                let output = headgate(&with.collect::<Vec<_>>(), &[]);
                (output.status.code(), text(&output.stderr).to_owned())
            };
            spawn_blocking(asking).await.expect("no panic")
        }
    };
    let mut device = Client::log_in(&b, &login).await;
    has(&a, "b", "devices", 1).await;
    let (code, told) = asked(&["node", "evacuate", "b", "--per-second", "100"]).await;
    assert_eq!(code, Some(0), "{told}");
    let told = device.closed().await;
    assert_eq!(told, Some(ReasonCode::UseAnotherServer));
    let mut device = Client::log_in(&b, &login).await;
    let (code, told) = asked(&["node", "drain", "b"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(device.closed().await.is_some());
    b.ended().await;
    lists(&a, &[("a", "ready")]).await;
    let (code, _) = asked(&["node", "drain", "b"]).await;
    assert_ne!(code, Some(0), "it is gone");
    a.stop().await;
}

/// A node that reaches the sessions by way of something that can be cut.
async fn apart(cluster: &mut Cluster, name: &str) -> (Gateway, Proxy) {
    let url = cluster.stores.redis.url();
    let (who, place) = url.rsplit_once('@').expect("credentials");
    let place = Target::Tcp(place.parse().expect("an address"));
    let proxy = Proxy::start(vec![place]).await;
    let url = format!("{who}@{}", proxy.address());
    let more = [("HEADGATE__SESSIONS__URL", url)];
    (cluster.node_with(name, &more).await, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_a_change_ends_who_may_not_go_on() {
    let mut cluster = Cluster::new();
    let a = cluster.node("a").await;
    let (b, to_redis) = apart(&mut cluster, "b").await;
    let [frozen, reset, untouched] = a.devices(["d", "e", "f"]).await;
    let app = a.app("app", &[&untouched]).await;
    cluster.age();
    let mut clients = Vec::new();
    for device in [&frozen, &reset, &untouched] {
        let mut client = Client::log_in(&b, &Login::of(device).over(V5)).await;
        client.ping().await;
        clients.push(client);
    }
    let mut disabled = Client::log_in(&b, &Login::application(&app, "app:app")).await;
    disabled.subscribe(&["#"], QoS::AtLeastOnce).await;
    to_redis.cut(true);
    a.act("/devices/P_d/freeze").await;
    let body = json!({"which": "primary", "disconnect": true});
    a.api(Method::POST, "/devices/P_e/secret", Some(&body))
        .await
        .ok(200);
    let body = json!({"enabled": false});
    a.api(Method::PATCH, "/apps/app", Some(&body)).await.ok(200);
    for client in &mut clients {
        client.ping().await;
    }
    to_redis.mend();
    let administrative = Some(ReasonCode::AdministrativeAction);
    assert_eq!(clients[0].closed().await, administrative);
    assert_eq!(clients[1].closed().await, administrative);
    assert_eq!(disabled.closed().await, administrative);
    clients[2].ping().await;
    assert!(says(&b, &Login::of(&frozen).over(V5)).await.is_error());
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_of_a_device_that_was_unbound_unheard_is_not_delivered() {
    let mut cluster = Cluster::new();
    let a = cluster.node("a").await;
    let (b, to_redis) = apart(&mut cluster, "b").await;
    let [gone, stays] = a.devices(["d", "e"]).await;
    let app = a.app("app", &[&gone, &stays]).await;
    cluster.age();
    // One message at a time: the others wait, in memory and of the kept session in the store.
    let mut hears = Vec::new();
    for (name, secs) in [("1", 0), ("2", 600)] {
        let mut login = Login::application(&app, &format!("app:app:{name}")).over(V5);
        if secs > 0 {
            login = login.keeping(secs);
        }
        let mut client = Client::open(&b).await;
        client.speak(V5);
        client.send(&one_at_a_time(&login)).await;
        assert_eq!(client.connack().await.reason, ReasonCode::Success);
        client.subscribe(&["#"], QoS::AtLeastOnce).await;
        client.acknowledges = false;
        hears.push(client);
    }
    let mut first = Client::log_in(&b, &Login::of(&stays).over(V5)).await;
    let mut second = Client::log_in(&b, &Login::of(&gone).over(V5)).await;
    first.publish("P/e/x", b"1").await;
    second.publish("P/d/x", b"2").await;
    first.publish("P/e/x", b"3").await;
    let mut unacknowledged = Vec::new();
    for client in &mut hears {
        let message = client.message().await;
        assert_eq!(&message.payload[..], b"1");
        unacknowledged.push(message.packet_id.expect("QoS 1"));
    }
    lists(&a, &[("a", "ready"), ("b", "ready")]).await;
    // Taken for dead, it is not told.
    to_redis.cut(true);
    lists(&a, &[("a", "ready")]).await;
    a.api(Method::DELETE, "/apps/app/devices/P_d", None)
        .await
        .ok(204);
    let before = b.metric("headgate_cluster_missed_total").await;
    to_redis.mend();
    b.metric_is_more_than("headgate_cluster_missed_total", before)
        .await;
    let log = log_of(&b.data_dir);
    until("the look at bindings", || async {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.contains("unbound unheard").then_some(())
    })
    .await;
    for (client, packet_id) in hears.iter_mut().zip(unacknowledged) {
        client.acknowledge(packet_id).await;
        assert_eq!(&client.message().await.payload[..], b"3");
    }
    b.stop().await;
    a.stop().await;
}

/// A CONNECT of a client that takes one message at QoS 1 at a time.
fn one_at_a_time(login: &Login) -> Packet {
    let Packet::Connect(mut packet) = connect(login) else {
        unreachable!("a CONNECT")
    };
    let properties = packet.properties.get_or_insert_default();
    properties.receive_maximum = Some(std::num::NonZeroU16::MIN);
    Packet::Connect(packet)
}
