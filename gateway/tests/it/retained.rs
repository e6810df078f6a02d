//! Retained messages, as devices and applications see them.

use bytes::Bytes;
use headgate_protocol::mqtt::{
    Packet, PacketId, Properties, ProtocolVersion, Publish, QoS, ReasonCode, RetainHandling,
    Subscribe, Subscription,
};
use hyper::Method;
use serde_json::json;

use crate::harness::{App, Client, Device, Gateway, Login};

async fn application(gateway: &Gateway, app: &App) -> Client {
    let client_id = format!("app:{}", app.id);
    Client::log_in(gateway, &Login::application(app, &client_id)).await
}

async fn device(gateway: &Gateway, device: &Device) -> Client {
    Client::log_in(gateway, &Login::of(device).over(ProtocolVersion::V5)).await
}

/// Has a message retained; gives the acknowledgement's reason.
pub(super) async fn retain(
    client: &mut Client,
    topic: &str,
    payload: &str,
    expiry: Option<u32>,
) -> ReasonCode {
    let packet_id = client.packet_id();
    let payload = Bytes::from(payload.to_owned());
    let mut publish = Publish::new(topic.parse().expect("a topic"), payload);
    publish.packet_id = Some(packet_id);
    publish.qos = QoS::AtLeastOnce;
    publish.retain = true;
    publish.properties = expiry.map(|secs| {
        Box::new(Properties {
            message_expiry_interval_secs: Some(secs),
            ..Properties::default()
        })
    });
    client.send(&Packet::Publish(publish)).await;
    loop {
        if let Packet::PubAck(ack) = client.answer().await.expect("an open connection")
            && ack.packet_id == packet_id
        {
            return ack.reason;
        }
    }
}

/// Subscribes with options; gives what came before the next PINGRESP, as topic, payload and RETAIN.
pub(super) async fn subscribed(
    client: &mut Client,
    filter: &str,
    change: impl FnOnce(&mut Subscription),
    identifier: Option<u32>,
) -> Vec<(String, String, bool)> {
    let mut asked = Subscription::new(filter.parse().expect("a filter"), QoS::AtLeastOnce);
    change(&mut asked);
    let properties = identifier.map(|id| {
        Box::new(Properties {
            subscription_identifiers: vec![id.try_into().expect("not 0")],
            ..Properties::default()
        })
    });
    let packet_id: PacketId = client.packet_id();
    let subscribe = Subscribe {
        packet_id,
        filters: [asked].into_iter().collect(),
        properties,
    };
    client.send(&Packet::Subscribe(Box::new(subscribe))).await;
    let mut messages = client.ping().await;
    messages.extend(client.ping().await);
    let mut came: Vec<_> = messages.iter().map(seen).collect();
    came.sort();
    came
}

fn seen(publish: &Publish) -> (String, String, bool) {
    let payload = String::from_utf8_lossy(&publish.payload).into_owned();
    (publish.topic.to_string(), payload, publish.retain)
}

fn kept(topic: &str, payload: &str) -> (String, String, bool) {
    (topic.to_owned(), payload.to_owned(), true)
}

#[tokio::test]
async fn an_application_gets_the_last_one_of_each_topic_when_it_subscribes() {
    let gateway = Gateway::start().await;
    let [d, e] = gateway.devices(["d", "e"]).await;
    let app = gateway.app("a", &[&d]).await;
    let (mut of_d, mut of_e) = (device(&gateway, &d).await, device(&gateway, &e).await);
    for (topic, payload) in [
        ("P/d/state", "old"),
        ("P/d/state", "new"),
        ("P/d/gone", "x"),
        ("P/d/gone", ""),
    ] {
        let reason = retain(&mut of_d, topic, payload, None).await;
        assert!(!reason.is_error(), "{reason}");
    }
    retain(&mut of_e, "P/e/state", "foreign", None).await;
    let mut app = application(&gateway, &app).await;
    let expected = [kept("P/d/state", "new")];
    assert_eq!(subscribed(&mut app, "#", |_| {}, None).await, expected);
    // Retain Handling: again, not again, never.
    assert_eq!(subscribed(&mut app, "#", |_| {}, None).await, expected);
    let if_new = |asked: &mut Subscription| asked.retain_handling = RetainHandling::SendIfNew;
    assert_eq!(subscribed(&mut app, "#", if_new, None).await, []);
    assert_eq!(subscribed(&mut app, "+/d/#", if_new, None).await, expected);
    let never = |asked: &mut Subscription| asked.retain_handling = RetainHandling::DoNotSend;
    assert_eq!(subscribed(&mut app, "P/#", never, None).await, []);
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_on_its_way_keeps_retain_only_for_whoever_wants_it_so() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut plain = application(&gateway, &app).await;
    let mut login = Login::application(&app, "app:a:2");
    let mut as_published = Client::log_in(&gateway, &login).await;
    login.client_id = "app:a:3".to_owned();
    subscribed(&mut plain, "P/d/#", |_| {}, None).await;
    let wants = |asked: &mut Subscription| asked.retain_as_published = true;
    subscribed(&mut as_published, "P/d/#", wants, Some(7)).await;
    subscribed(&mut as_published, "P/+/state", |_| {}, Some(300)).await;
    let mut client = device(&gateway, &d).await;
    retain(&mut client, "P/d/state", "1", None).await;
    assert!(!plain.message().await.retain);
    let message = as_published.message().await;
    assert!(message.retain, "one of the subscriptions wants it");
    let ids = message
        .properties
        .expect("properties")
        .subscription_identifiers;
    let ids: Vec<u32> = ids.into_iter().map(Into::into).collect();
    assert_eq!(ids, [7, 300], "one message for both");
    assert!(as_published.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn an_acknowledged_one_survives_a_kill_and_an_expired_one_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &[]).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = device(&gateway, &d).await;
    for n in 0..50 {
        retain(&mut client, &format!("P/d/{n:02}"), "x", None).await;
    }
    retain(&mut client, "P/d/short", "x", Some(1)).await;
    let gateway = Gateway::process(gateway.kill().await, &[]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let mut app = application(&gateway, &app).await;
    let came = subscribed(&mut app, "P/+/+", |_| {}, None).await;
    let expected: Vec<_> = (0..50).map(|n| kept(&format!("P/d/{n:02}"), "x")).collect();
    assert_eq!(came, expected);
    gateway.stop().await;
}

#[tokio::test]
async fn it_comes_with_a_binding_and_goes_with_its_device() {
    let gateway = Gateway::start().await;
    let [d, e] = gateway.devices(["d", "e"]).await;
    let of_app = gateway.app("a", &[&e]).await;
    let mut client = device(&gateway, &d).await;
    retain(&mut client, "P/d/state", "1", None).await;
    let mut app = application(&gateway, &of_app).await;
    assert_eq!(subscribed(&mut app, "#", |_| {}, Some(5)).await, []);
    let body = json!({ "device_id": d.id });
    let bound = gateway.api(Method::POST, "/apps/a/devices", Some(&body));
    bound.await.ok(200);
    let message = app.message().await;
    assert_eq!(seen(&message), kept("P/d/state", "1"));
    let ids = message
        .properties
        .expect("properties")
        .subscription_identifiers;
    assert_eq!(ids.len(), 1);
    let path = format!("/devices/{}", d.id);
    gateway.api(Method::DELETE, &path, None).await.ok(204);
    assert_eq!(subscribed(&mut app, "#", |_| {}, None).await, []);
    gateway.metric_is("headgate_retained_messages", 0.0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_gets_what_is_retained_on_its_own_topics() {
    let gateway = Gateway::start().await;
    let [d, e] = gateway.devices(["d", "e"]).await;
    let app = gateway.app("a", &[&d, &e]).await;
    let mut app = application(&gateway, &app).await;
    let mut client = device(&gateway, &d).await;
    retain(&mut client, "P/d/own", "1", None).await;
    retain(&mut app, "P/e/settings", "foreign", None).await;
    let setting = json!({ "topic": "P/d/settings", "payload": "2", "qos": 0, "retain": true });
    let answer = gateway
        .api(Method::POST, "/devices/P_d/messages", Some(&setting))
        .await;
    answer.ok(202);
    // Old clients get them as they always did.
    let mut old = Client::log_in(&gateway, &Login::of(&d)).await;
    let came = subscribed(&mut old, "P/d/#", |_| {}, None).await;
    assert_eq!(came, [kept("P/d/own", "1"), kept("P/d/settings", "2")]);
    gateway.stop().await;
}

#[tokio::test]
async fn one_too_many_is_refused_and_an_old_client_s_is_dropped_and_counted() {
    let gateway = Gateway::with(|config| config.retained.max_per_device = 1).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = application(&gateway, &app).await;
    app.subscribe(&["P/d/#"], QoS::AtMostOnce).await;
    let mut client = device(&gateway, &d).await;
    assert_eq!(
        retain(&mut client, "P/d/1", "x", None).await,
        ReasonCode::Success
    );
    assert_eq!(
        retain(&mut client, "P/d/2", "x", None).await,
        ReasonCode::QuotaExceeded
    );
    let mut old = Client::log_in(&gateway, &Login::of(&d)).await;
    assert_eq!(
        retain(&mut old, "P/d/3", "x", None).await,
        ReasonCode::Success
    );
    assert_eq!(
        retain(&mut old, "P/d/1", "y", None).await,
        ReasonCode::Success
    );
    let dropped = r#"headgate_messages_dropped_total{reason="retained_full"}"#;
    gateway.metric_is(dropped, 2.0).await;
    let heard: Vec<_> = app.ping().await.iter().map(seen).collect();
    assert_eq!(heard.len(), 2, "what was refused, nobody heard: {heard:?}");
    gateway.stop().await;
}
