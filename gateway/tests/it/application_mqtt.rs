//! Applications by MQTT: they hear their own devices and no others, and tell them what waits until
//! it is acknowledged.

use headgate_protocol::mqtt::{
    Disconnect, Packet, PacketId, Properties, ProtocolVersion, QoS, ReasonCode,
    ReasonCode::NotAuthorized,
};
use hyper::Method;
use serde_json::json;

use crate::harness::{App, Client, Device, Gateway, Login, publish, until};

async fn application(gateway: &Gateway, app: &App) -> Client {
    Client::log_in(
        gateway,
        &Login::application(app, &format!("app:{}", app.id)),
    )
    .await
}

async fn device(gateway: &Gateway, device: &Device) -> Client {
    Client::log_in(gateway, &Login::of(device).over(ProtocolVersion::V5)).await
}

#[tokio::test]
async fn wildcards_over_devices_yield_only_the_application_s_own() {
    let gateway = Gateway::start().await;
    let [mine, other] = gateway.devices(["mine", "other"]).await;
    let app = gateway.app("a", &[&mine]).await;
    let mut app = application(&gateway, &app).await;
    let granted = app
        .subscribe(&["#", "P/other/#", "+/+/data"], QoS::AtLeastOnce)
        .await;
    assert_eq!(granted, [ReasonCode::GrantedQoS1; 3]);
    let (mut mine, mut other) = (
        device(&gateway, &mine).await,
        device(&gateway, &other).await,
    );
    assert_eq!(
        other.publish("P/other/data", b"theirs").await,
        ReasonCode::NoMatchingSubscribers
    );
    assert_eq!(mine.publish("P/mine/data", b"1").await, ReasonCode::Success);
    let message = app.message().await;
    assert_eq!(
        (&message.payload[..], message.qos),
        (&b"1"[..], QoS::AtLeastOnce)
    );
    mine.publish("P/mine/data", b"2").await;
    assert_eq!(
        &app.message().await.payload[..],
        b"2",
        "once, however many filters match"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_publishes_to_its_own_devices_only() {
    let gateway = Gateway::start().await;
    let [mine, other] = gateway.devices(["mine", "other"]).await;
    let app = gateway.app("a", &[&mine]).await;
    let mut app = application(&gateway, &app).await;
    for topic in [
        "P/other/x",
        "P/nobody/x",
        "P/mine",
        "$resource/down/service/P/mine",
        "$SYS/x",
        "x",
    ] {
        assert_eq!(app.publish(topic, b"x").await, NotAuthorized, "{topic}");
    }
    let mut client = device(&gateway, &mine).await;
    client.subscribe(&["P/mine/#"], QoS::AtLeastOnce).await;
    assert_eq!(app.publish("P/mine/x", b"x").await, ReasonCode::Success);
    assert_eq!(&client.message().await.payload[..], b"x");
    let mut other = device(&gateway, &other).await;
    other.subscribe(&["P/other/#"], QoS::AtLeastOnce).await;
    assert!(other.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_waits_for_a_device_that_is_away() {
    let gateway = Gateway::start().await;
    let [away] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&away]).await;
    let mut app = application(&gateway, &app).await;
    for n in 0..100_u8 {
        assert_eq!(app.publish("P/d/x", &[n]).await, ReasonCode::Success);
    }
    let mut client = device(&gateway, &away).await;
    assert!(client.ping().await.is_empty(), "it has not subscribed");
    client.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    for n in 0..100_u8 {
        assert_eq!(client.message().await.payload[..], [n], "in order");
    }
    // Acknowledged means done: the next connection gets nothing.
    client.ping().await;
    let mut again = device(&gateway, &away).await;
    again.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    assert!(again.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = application(&gateway, &app).await;
    let mut client = device(&gateway, &d).await;
    client.acknowledges = false;
    client.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    app.publish("P/d/x", b"1").await;
    app.publish("P/d/x", b"2").await;
    let first = client.message().await;
    client.message().await;
    client.acknowledge(first.packet_id.expect("QoS 1")).await;
    client.ping().await;
    drop(client);
    let mut again = device(&gateway, &d).await;
    again.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    assert_eq!(&again.message().await.payload[..], b"2");
    assert!(again.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_that_acknowledges_nothing_holds_no_more_than_its_outbox() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = application(&gateway, &app).await;
    let mut client = device(&gateway, &d).await;
    client.acknowledges = false;
    client.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    for n in 0..500_u16 {
        let reason = app.publish("P/d/x", &n.to_be_bytes()).await;
        assert_eq!(reason, ReasonCode::Success, "{n}");
    }
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let message = client.message().await;
        waiting.push(message.packet_id.expect("QoS 1"));
    }
    assert!(client.ping().await.is_empty(), "64 may be under way");
    client.acknowledges = true;
    for packet_id in waiting {
        client.acknowledge(packet_id).await;
    }
    for n in 64..500_u16 {
        assert_eq!(client.message().await.payload[..], n.to_be_bytes());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn publishes_are_acknowledged_in_their_order_whoever_answers_first() {
    let gateway = Gateway::start().await;
    let [slow, quick] = gateway.devices(["slow", "quick"]).await;
    let app = gateway.app("a", &[&slow, &quick]).await;
    let mut app = application(&gateway, &app).await;
    let mut silent = device(&gateway, &slow).await;
    silent.acknowledges = false;
    silent.subscribe(&["P/slow/#"], QoS::AtLeastOnce).await;
    let mut client = device(&gateway, &quick).await;
    client.subscribe(&["P/quick/#"], QoS::AtLeastOnce).await;
    // As many as may be under way.
    let mut sent = Vec::new();
    for round in 0..16_u8 {
        for topic in ["P/slow/x", "P/quick/x"] {
            let packet_id = app.packet_id();
            app.send(&publish(topic, &[round], Some(packet_id))).await;
            sent.push(packet_id);
        }
    }
    for round in 0..16_u8 {
        assert_eq!(client.message().await.payload[..], [round], "in order");
    }
    for packet_id in sent {
        let Some(Packet::PubAck(ack)) = app.answer().await else {
            panic!("an acknowledgement")
        };
        assert_eq!(
            (ack.packet_id, ack.reason),
            (packet_id, ReasonCode::Success)
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_published_right_before_the_goodbye_is_handed_on() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    // Of MQTT 3.1.1, which knows no Receive Maximum.
    let login = Login::application(&app, "app:a").over(ProtocolVersion::V311);
    let mut app = Client::log_in(&gateway, &login).await;
    let mut client = device(&gateway, &d).await;
    client.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    let mut packets: Vec<Packet> = Vec::new();
    for n in 0..100_u8 {
        let packet_id = app.packet_id();
        packets.push(publish("P/d/x", &[n], Some(packet_id)));
    }
    packets.push(Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: None,
    }));
    app.send_together(&packets).await;
    for n in 0..100_u8 {
        assert_eq!(client.message().await.payload[..], [n]);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_mailbox_is_told_to_the_publisher() {
    let gateway = Gateway::with(|config| config.mailbox.max_messages = 2).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = application(&gateway, &app).await;
    for reason in [
        ReasonCode::Success,
        ReasonCode::Success,
        ReasonCode::QuotaExceeded,
    ] {
        assert_eq!(client.publish("P/d/x", b"x").await, reason);
    }
    let old = Login::application(&app, "app:a:old").over(ProtocolVersion::V311);
    let mut old = Client::log_in(&gateway, &old).await;
    assert_eq!(old.publish("P/d/x", b"x").await, ReasonCode::Success);
    gateway
        .metric_is(
            r#"headgate_messages_dropped_total{reason="mailbox_full"}"#,
            2.0,
        )
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn properties_go_through_and_the_expiry_shrinks() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = application(&gateway, &app).await;
    let sent = Properties {
        content_type: Some("text/plain".into()),
        response_topic: Some("P/d/answer".parse().expect("a topic")),
        correlation_data: Some(bytes::Bytes::from_static(b"7")),
        user: vec![("k".into(), "v".into())],
        message_expiry_interval_secs: Some(600),
        ..Properties::default()
    };
    let mut packet = publish("P/d/x", b"x", Some(PacketId::MIN));
    if let Packet::Publish(publish) = &mut packet {
        publish.properties = Some(Box::new(sent.clone()));
    }
    app.send(&packet).await;
    assert!(matches!(app.answer().await, Some(Packet::PubAck(_))));
    let mut client = device(&gateway, &d).await;
    client.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    let mut got = *client.message().await.properties.expect("properties");
    let left = got.message_expiry_interval_secs.take().expect("an expiry");
    assert!((570..=600).contains(&left), "{left}");
    let expected = Properties {
        message_expiry_interval_secs: None,
        ..sent
    };
    assert_eq!(got, expected);
    gateway.stop().await;
}

#[tokio::test]
async fn several_instances_are_connected_at_once_and_one_of_the_same_name_takes_over() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let one = Login::application(&app, "app:a:1");
    let mut first = Client::log_in(&gateway, &one).await;
    let mut second = Client::log_in(&gateway, &Login::application(&app, "app:a:2")).await;
    for client in [&mut first, &mut second] {
        client.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    }
    let mut d = device(&gateway, &d).await;
    d.publish("P/d/x", b"x").await;
    assert_eq!(&first.message().await.payload[..], b"x");
    assert_eq!(&second.message().await.payload[..], b"x");

    let mut again = Client::log_in(&gateway, &one).await;
    assert_eq!(first.closed().await, Some(ReasonCode::SessionTakenOver));
    assert!(again.ping().await.is_empty() && second.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_binding_that_is_taken_away_ends_the_flow_at_once() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = application(&gateway, &app).await;
    app.subscribe(&["P/#"], QoS::AtLeastOnce).await;
    let mut d = device(&gateway, &d).await;
    assert_eq!(d.publish("P/d/x", b"1").await, ReasonCode::Success);
    app.message().await;
    let unbound = gateway
        .api(Method::DELETE, "/apps/a/devices/P_d", None)
        .await;
    assert!(unbound.status < 300, "{}", unbound.text());
    assert_eq!(
        d.publish("P/d/x", b"2").await,
        ReasonCode::NoMatchingSubscribers
    );
    assert_eq!(app.publish("P/d/x", b"3").await, NotAuthorized);
    assert!(app.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_disabled_application_is_closed_and_stays_out() {
    let gateway = Gateway::start().await;
    let app = gateway.app("a", &[]).await;
    let mut client = application(&gateway, &app).await;
    let disable = json!({"enabled": false});
    let patched = gateway.api(Method::PATCH, "/apps/a", Some(&disable)).await;
    patched.ok(200);
    assert_eq!(
        client.closed().await,
        Some(ReasonCode::AdministrativeAction)
    );
    let mut client = Client::open(&gateway).await;
    let connack = client.introduce(&Login::application(&app, "app:a")).await;
    assert_eq!(connack.reason, NotAuthorized);
    gateway.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_application_get_the_same_answer() {
    let gateway = Gateway::start().await;
    let app = gateway.app("a", &[]).await;
    for (id, secret) in [("a", "hga_wrong"), ("nobody", app.secret.as_str())] {
        let login = Login::application(
            &App {
                id: id.to_owned(),
                secret: secret.to_owned(),
            },
            &format!("app:{id}"),
        );
        let mut client = Client::open(&gateway).await;
        let connack = client.introduce(&login).await;
        assert_eq!(connack.reason, NotAuthorized, "{id}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_that_takes_nothing_loses_messages_and_memory_stays_bounded() {
    let gateway = Gateway::with(|config| {
        config.applications.inbox_messages = 10;
    })
    .await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut app = application(&gateway, &app).await;
    app.acknowledges = false;
    app.subscribe(&["P/#"], QoS::AtLeastOnce).await;
    let mut d = device(&gateway, &d).await;
    for _ in 0..200 {
        d.publish("P/d/x", b"x").await;
    }
    // 64 under way, 10 in the inbox.
    let lost = r#"headgate_messages_dropped_total{reason="application_full"}"#;
    until("messages lost", || async {
        (gateway.metric(lost).await >= 126.0).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_holds_as_many_subscriptions_as_it_may() {
    let gateway = Gateway::with(|config| config.applications.max_subscriptions = 2).await;
    let app = gateway.app("a", &[]).await;
    let mut app = application(&gateway, &app).await;
    let granted = app.subscribe(&["a", "b", "c"], QoS::AtMostOnce).await;
    assert_eq!(
        granted,
        [
            ReasonCode::Success,
            ReasonCode::Success,
            ReasonCode::QuotaExceeded
        ]
    );
    gateway.stop().await;
}
