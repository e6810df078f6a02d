//! Wills: what a client leaves for the case that its connection breaks.

use bytes::Bytes;
use headgate_protocol::mqtt::{
    Connect, Disconnect, Packet, Properties, ProtocolVersion, Publish, QoS, ReasonCode, Will,
};
use hyper::Method;

use crate::harness::{App, Client, Device, Gateway, Login, Site, connect};

/// A CONNECT with a will of QoS 1.
fn with_will(
    login: &Login,
    topic: &str,
    payload: &str,
    change: impl FnOnce(&mut Connect),
) -> Packet {
    let Packet::Connect(mut packet) = connect(login) else {
        unreachable!("a CONNECT")
    };
    packet.will = Some(Will {
        topic: topic.parse().expect("a topic"),
        payload: Bytes::from(payload.to_owned()),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: None,
    });
    change(&mut packet);
    Packet::Connect(packet)
}

async fn introduce(site: &Site, login: &Login, packet: &Packet) -> (Client, ReasonCode) {
    let mut client = Client::open(site).await;
    client.speak(login.version);
    client.send(packet).await;
    let reason = client.connack().await.reason;
    (client, reason)
}

async fn leaving(site: &Site, device: &Device, payload: &str) -> Client {
    let login = Login::of(device).over(ProtocolVersion::V5);
    let packet = with_will(&login, &format!("P/{}/gone", device.node), payload, |_| {});
    let (client, reason) = introduce(site, &login, &packet).await;
    assert_eq!(reason, ReasonCode::Success);
    client
}

async fn listening(gateway: &Gateway, app: &App) -> Client {
    let client_id = format!("app:{}", app.id);
    let mut client = Client::log_in(gateway, &Login::application(app, &client_id)).await;
    client.subscribe(&["#"], QoS::AtLeastOnce).await;
    client
}

fn said(message: &Publish) -> (&str, &[u8]) {
    (message.topic.as_str(), &message.payload[..])
}

async fn leave(client: &mut Client, reason: ReasonCode) {
    let packet = Disconnect {
        reason,
        properties: None,
    };
    client.send(&Packet::Disconnect(packet)).await;
    client.closed().await;
}

#[tokio::test]
async fn a_will_is_published_when_its_device_is_lost_and_not_when_it_takes_leave() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = listening(&gateway, &app).await;
    // Taken leave of.
    let mut client = leaving(&gateway, &d, "withdrawn").await;
    leave(&mut client, ReasonCode::Success).await;
    // Lost.
    drop(leaving(&gateway, &d, "lost").await);
    assert_eq!(said(&app.message().await), ("P/d/gone", &b"lost"[..]));
    // Asked for.
    let mut client = leaving(&gateway, &d, "asked for").await;
    leave(&mut client, ReasonCode::DisconnectWithWill).await;
    assert_eq!(said(&app.message().await).1, b"asked for");
    // The protocol was broken.
    let mut client = leaving(&gateway, &d, "broken").await;
    client
        .send(&connect(&Login::of(&d).over(ProtocolVersion::V5)))
        .await;
    client.closed().await;
    assert_eq!(said(&app.message().await).1, b"broken");
    // Taken over, and kicked.
    let _first = leaving(&gateway, &d, "taken over").await;
    let _second = leaving(&gateway, &d, "kicked").await;
    assert_eq!(said(&app.message().await).1, b"taken over");
    let path = format!("/devices/{}/session", d.id);
    gateway.api(Method::DELETE, &path, None).await.ok(204);
    assert_eq!(said(&app.message().await).1, b"kicked");
    assert!(app.ping().await.is_empty());
    gateway.metric_is("headgate_wills", 0.0).await;
    for (result, count) in [("published", 5.0), ("withdrawn", 1.0)] {
        let sample = format!(r#"headgate_wills_total{{result="{result}"}}"#);
        gateway.metric_is(&sample, count).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_will_is_published_when_the_keep_alive_ends() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = listening(&gateway, &app).await;
    let mut login = Login::of(&d);
    login.keep_alive_secs = 1;
    let packet = with_will(&login, "P/d/gone", "silent", |_| {});
    let (_client, _) = introduce(&gateway, &login, &packet).await;
    assert_eq!(said(&app.message().await).1, b"silent");
    gateway.stop().await;
}

#[tokio::test]
async fn a_will_on_a_topic_that_its_client_may_not_publish_on_is_refused() {
    let gateway = Gateway::start().await;
    let [d, e] = gateway.devices(["d", "e"]).await;
    let app = gateway.app("a", &[&d]).await;
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let login = Login::of(&d).over(version);
        for topic in ["P/e/gone", "x", "$resource/up/service/P/d"] {
            let packet = with_will(&login, topic, "x", |_| {});
            let (mut client, reason) = introduce(&gateway, &login, &packet).await;
            assert_eq!(reason, ReasonCode::NotAuthorized, "{topic}");
            client.closed().await;
        }
        let login = Login::application(&app, "app:a:2").over(version);
        let packet = with_will(&login, "P/e/gone", "x", |_| {});
        let (_, reason) = introduce(&gateway, &login, &packet).await;
        assert_eq!(reason, ReasonCode::NotAuthorized, "{}", e.id);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_leaves_a_will_for_its_device() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut device = Client::log_in(&gateway, &Login::of(&d)).await;
    device.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    let login = Login::application(&app, "app:a:1");
    let packet = with_will(&login, "P/d/alone", "1", |_| {});
    let (client, _) = introduce(&gateway, &login, &packet).await;
    drop(client);
    assert_eq!(said(&device.message().await), ("P/d/alone", &b"1"[..]));
    // Bound no more when it is lost: the device hears nothing.
    let (client, _) = introduce(&gateway, &login, &packet).await;
    let path = format!("/apps/a/devices/{}", d.id);
    gateway.api(Method::DELETE, &path, None).await.ok(204);
    drop(client);
    gateway
        .metric_is(r#"headgate_wills_total{result="failed"}"#, 1.0)
        .await;
    assert!(device.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn properties_of_a_will_are_those_of_its_message_and_it_is_retained() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let login = Login::of(&d).over(ProtocolVersion::V5);
    let properties = Properties {
        content_type: Some("text/plain".into()),
        response_topic: Some("P/d/answer".parse().expect("a topic")),
        correlation_data: Some(Bytes::from_static(b"\x00\x01")),
        user: vec![("a".into(), "b".into())],
        message_expiry_interval_secs: Some(600),
        ..Properties::default()
    };
    let packet = with_will(&login, "P/d/gone", "x", |connect| {
        let will = connect.will.as_mut().expect("a will");
        will.retain = true;
        will.properties = Some(Box::new(properties.clone()));
    });
    drop(introduce(&gateway, &login, &packet).await);
    gateway.metric_is("headgate_retained_messages", 1.0).await;
    let mut app = listening(&gateway, &app).await;
    let message = app.message().await;
    assert!(message.retain);
    let mut came = *message.properties.expect("properties");
    let left = came.message_expiry_interval_secs.take().expect("an expiry");
    assert!((590..=600).contains(&left), "{left}");
    let expected = Properties {
        message_expiry_interval_secs: None,
        ..properties
    };
    assert_eq!(came, expected);
    gateway.stop().await;
}

#[tokio::test]
async fn a_node_that_was_killed_publishes_the_wills_that_it_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &[]).await;
    let [d, e] = gateway.devices(["d", "e"]).await;
    let app = gateway.app("a", &[&d, &e]).await;
    let mut gone = leaving(&gateway, &e, "took leave").await;
    leave(&mut gone, ReasonCode::Success).await;
    let _lost = leaving(&gateway, &d, "killed").await;
    gateway.metric_is("headgate_wills", 1.0).await;
    gateway.metric_is("headgate_wills_unstored", 0.0).await;
    let settings = [("HEADGATE__WILL__AFTER_RESTART", "3s")];
    let gateway = Gateway::process(gateway.kill().await, &settings).await;
    let mut app = listening(&gateway, &app).await;
    assert_eq!(said(&app.message().await).1, b"killed");
    gateway.metric_is("headgate_wills", 0.0).await;
    assert!(app.ping().await.is_empty());
    gateway.stop().await;
}

/// A CONNECT whose will is held back for so long.
pub(super) fn delayed(login: &Login, topic: &str, payload: &str, delay: u32) -> Packet {
    with_will(login, topic, payload, |connect| {
        let will = connect.will.as_mut().expect("a will");
        will.properties = Some(Box::new(Properties {
            will_delay_interval_secs: Some(delay),
            ..Properties::default()
        }));
    })
}

#[tokio::test]
async fn a_will_is_held_back_for_its_delay_or_until_the_session_ends() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = listening(&gateway, &app).await;
    let login = Login::of(&d).over(ProtocolVersion::V5).keeping(600);
    // Back in time, also when it is taken over.
    let packet = delayed(&login, "P/d/gone", "back in time", 600);
    let (first, reason) = introduce(&gateway, &login, &packet).await;
    assert_eq!(reason, ReasonCode::Success);
    let (second, _) = introduce(&gateway, &login, &packet).await;
    drop((first, second));
    let withdrawn = r#"headgate_wills_total{result="withdrawn"}"#;
    gateway.metric_is(withdrawn, 1.0).await;
    // The delay ends before the session does.
    let packet = delayed(&login, "P/d/gone", "delayed", 1);
    let (third, _) = introduce(&gateway, &login, &packet).await;
    gateway.metric_is(withdrawn, 2.0).await;
    let begun = std::time::Instant::now();
    drop(third);
    assert_eq!(said(&app.message().await).1, b"delayed");
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1));
    // The session ends before the delay does.
    let short = Login::of(&d).over(ProtocolVersion::V5).keeping(1);
    let packet = delayed(&short, "P/d/gone", "session ended", 600);
    drop(introduce(&gateway, &short, &packet).await);
    assert_eq!(said(&app.message().await).1, b"session ended");
    // A clean start ends the session, and so the wait.
    let packet = delayed(&login, "P/d/gone", "clean start", 600);
    drop(introduce(&gateway, &login, &packet).await);
    let clean = Login::of(&d).over(ProtocolVersion::V5);
    introduce(&gateway, &clean, &connect(&clean)).await;
    assert_eq!(said(&app.message().await).1, b"clean start");
    gateway.stop().await;
}

#[tokio::test]
async fn one_will_too_many_turns_its_client_away() {
    let gateway = Gateway::with(|config| config.will.max_wills = 1).await;
    let [d, e] = gateway.devices(["d", "e"]).await;
    let _first = leaving(&gateway, &d, "x").await;
    let login = Login::of(&e).over(ProtocolVersion::V5);
    let packet = with_will(&login, "P/e/gone", "x", |_| {});
    let (_, reason) = introduce(&gateway, &login, &packet).await;
    assert_eq!(reason, ReasonCode::QuotaExceeded);
    let (_, reason) = introduce(&gateway, &login, &connect(&login)).await;
    assert_eq!(reason, ReasonCode::Success, "without one it may come");
    gateway.stop().await;
}
