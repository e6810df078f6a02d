//! Sessions that outlive their connections: of applications and devices, over disconnections, takeovers and kills.

use headgate_protocol::mqtt::{
    Packet, PacketId, ProtocolVersion, PubComp, PubRec, PubRel, Publish, QoS, ReasonCode,
};
use hyper::Method;

use crate::harness::{App, Client, Device, Gateway, Login, need, publish, run};

const WAITING: &str = "headgate_queue_messages";
const V311: ProtocolVersion = ProtocolVersion::V311;
const V5: ProtocolVersion = ProtocolVersion::V5;

fn of_app(app: &App) -> Login {
    Login::application(app, &format!("app:{}", app.id)).keeping(3_600)
}

fn of_device(device: &Device) -> Login {
    Login::of(device).over(V5).keeping(3_600)
}

/// Logs in, and says whether the session was there before.
async fn log_in(gateway: &Gateway, login: &Login) -> (Client, bool) {
    let mut client = Client::open(gateway).await;
    let connack = client.introduce(login).await;
    assert_eq!(connack.reason, ReasonCode::Success);
    (client, connack.session_present)
}

/// One that was there before.
async fn resume(gateway: &Gateway, login: &Login) -> Client {
    let (client, is_present) = log_in(gateway, login).await;
    assert!(is_present, "a session");
    client
}

/// A new one with these subscriptions.
async fn begin(gateway: &Gateway, login: &Login, filter: &str, qos: QoS) -> Client {
    let (mut client, is_present) = log_in(gateway, login).await;
    assert!(!is_present, "no session");
    let granted = client.subscribe(&[filter], qos).await;
    assert!(!granted[0].is_error(), "{granted:?}");
    client
}

fn exactly_once(topic: &str, payload: &[u8], packet_id: PacketId, dup: bool) -> Packet {
    let Packet::Publish(publish) = publish(topic, payload, Some(packet_id)) else {
        unreachable!("it makes a PUBLISH")
    };
    Packet::Publish(Publish {
        qos: QoS::ExactlyOnce,
        dup,
        ..publish
    })
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

#[tokio::test]
async fn what_devices_say_waits_for_an_application_that_is_away() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = begin(&gateway, &of_app(&app), "#", QoS::AtLeastOnce).await;
    let mut device = Client::log_in(&gateway, &Login::of(&d).over(V5)).await;
    device.publish("P/d/x", b"there").await;
    assert_eq!(&client.message().await.payload[..], b"there");
    client.ping().await;
    drop(client);
    gateway
        .metric_is(
            "headgate_connections{auth=\"application\",protocol=\"mqtt\"}",
            0.0,
        )
        .await;
    for n in 0..100_u8 {
        assert_eq!(device.publish("P/d/x", &[n]).await, ReasonCode::Success);
    }
    assert!((gateway.metric(WAITING).await - 100.0).abs() < 0.5);
    let mut client = resume(&gateway, &of_app(&app)).await;
    for n in 0..100_u8 {
        assert_eq!(client.message().await.payload[..], [n], "in order");
    }
    // What comes while it reads what waits comes behind that.
    device.publish("P/d/x", b"last").await;
    assert_eq!(&client.message().await.payload[..], b"last");
    client.ping().await;
    gateway.metric_is(WAITING, 0.0).await;
    drop(client);
    let mut client = resume(&gateway, &of_app(&app)).await;
    assert!(client.ping().await.is_empty(), "it has had everything");
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_that_comes_back_is_subscribed_still() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    for login in [Login::of(&d).over(V311).keeping(0), of_device(&d)] {
        let (mut device, _) = log_in(&gateway, &login).await;
        device.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
        drop(device);
        let mut client = Client::log_in(&gateway, &Login::application(&app, "app:a")).await;
        assert_eq!(client.publish("P/d/x", b"x").await, ReasonCode::Success);
        let mut device = resume(&gateway, &login).await;
        assert_eq!(&device.message().await.payload[..], b"x");
        device.unsubscribe(&["P/d/#"]).await;
        drop(device);
        let mut device = resume(&gateway, &login).await;
        client.publish("P/d/x", b"y").await;
        assert!(device.ping().await.is_empty(), "it unsubscribed");
        device.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
        assert_eq!(&device.message().await.payload[..], b"y", "it waited");
        device.ping().await;
    }
    gateway
        .metric_is("headgate_persistent_sessions{kind=\"device\"}", 1.0)
        .await;
    // A clean start ends it, whatever the ClientId.
    let other = Login {
        client_id: "another".to_owned(),
        ..Login::of(&d)
    };
    assert!(!log_in(&gateway, &other).await.1);
    gateway
        .metric_is("headgate_persistent_sessions{kind=\"device\"}", 0.0)
        .await;
    assert!(!log_in(&gateway, &of_device(&d)).await.1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_clean_start_and_a_session_s_end_discard_what_waits() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut device = Client::log_in(&gateway, &Login::of(&d).over(V5)).await;
    let clean = Login::application(&app, "app:a");
    for is_clean in [true, false] {
        let client = begin(&gateway, &of_app(&app), "#", QoS::AtLeastOnce).await;
        drop(client);
        device.publish("P/d/x", b"x").await;
        gateway.metric_is(WAITING, 1.0).await;
        if is_clean {
            Client::log_in(&gateway, &clean).await;
        } else {
            // It is resumed, and ends with the connection.
            resume(&gateway, &clean.clone().keeping(0)).await;
        }
        gateway
            .metric_is("headgate_persistent_sessions{kind=\"application\"}", 0.0)
            .await;
        gateway.metric_is(WAITING, 0.0).await;
    }
    let brief = clean.keeping(1);
    drop(begin(&gateway, &brief, "#", QoS::AtLeastOnce).await);
    gateway
        .metric_is("headgate_persistent_sessions{kind=\"application\"}", 0.0)
        .await;
    assert!(!log_in(&gateway, &brief).await.1, "its time is over");
    gateway.stop().await;
}

#[tokio::test]
async fn a_takeover_sends_again_what_was_not_acknowledged_under_the_same_identifiers() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = begin(&gateway, &of_app(&app), "P/d/x", QoS::ExactlyOnce).await;
    client.acknowledges = false;
    let mut device = begin(&gateway, &of_device(&d), "P/d/down/#", QoS::AtLeastOnce).await;
    device.acknowledges = false;
    for n in 0..3_u8 {
        device.publish("P/d/x", &[n]).await;
    }
    device
        .send(&exactly_once("P/d/x", &[3], id(500), false))
        .await;
    assert!(matches!(device.answer().await, Some(Packet::PubRec(_))));
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.push(client.message().await);
    }
    client.acknowledge(sent[1].packet_id.expect("QoS 1")).await;
    client.ping().await;
    client.publish("P/d/down/x", b"1").await;
    let to_device = device.message().await;

    let mut again = resume(&gateway, &of_app(&app)).await;
    again.acknowledges = false;
    for one in [&sent[0], &sent[2], &sent[3]] {
        let second = again.message().await;
        assert!(second.dup);
        assert_eq!(
            second,
            Publish {
                dup: true,
                ..one.clone()
            }
        );
    }
    assert!(again.ping().await.is_empty());
    assert_eq!(client.closed().await, Some(ReasonCode::SessionTakenOver));
    let mut device = resume(&gateway, &of_device(&d)).await;
    let second = device.message().await;
    assert_eq!(
        second,
        Publish {
            dup: true,
            ..to_device
        }
    );
    assert!(device.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_of_a_device_that_is_bound_no_more_is_not_delivered() {
    let gateway = Gateway::start().await;
    let [d, other] = gateway.devices(["d", "other"]).await;
    let app = gateway.app("a", &[&d, &other]).await;
    drop(begin(&gateway, &of_app(&app), "#", QoS::AtLeastOnce).await);
    for device in [&d, &other] {
        let mut client = Client::log_in(&gateway, &Login::of(device).over(V5)).await;
        let topic = format!("P/{}/x", device.node);
        assert_eq!(client.publish(&topic, b"x").await, ReasonCode::Success);
    }
    let unbound = gateway.api(Method::DELETE, "/apps/a/devices/P_d", None);
    assert!(unbound.await.status < 300);
    let mut client = resume(&gateway, &of_app(&app)).await;
    assert_eq!(client.message().await.topic.as_str(), "P/other/x");
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_queue_refuses_devices_until_its_session_ends() {
    let gateway = Gateway::with(|config| {
        config.applications.queue_messages = 2;
        config.applications.queue_full_timeout = std::time::Duration::from_secs(1);
    })
    .await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    drop(begin(&gateway, &of_app(&app), "#", QoS::AtLeastOnce).await);
    let mut device = Client::log_in(&gateway, &Login::of(&d).over(V5)).await;
    for reason in [
        ReasonCode::Success,
        ReasonCode::Success,
        ReasonCode::QuotaExceeded,
    ] {
        assert_eq!(device.publish("P/d/x", b"x").await, reason);
    }
    let mut old = Client::log_in(&gateway, &Login::of(&d).over(V311)).await;
    assert_eq!(old.publish("P/d/x", b"x").await, ReasonCode::Success);
    let dropped = r#"headgate_messages_dropped_total{reason="queue_full"}"#;
    assert!((gateway.metric(dropped).await - 2.0).abs() < 0.5);
    gateway
        .metric_is(
            r#"headgate_messages_dropped_total{reason="session_ended"}"#,
            2.0,
        )
        .await;
    let mut device = Client::log_in(&gateway, &Login::of(&d).over(V5)).await;
    let reason = device.publish("P/d/x", b"x").await;
    assert_eq!(reason, ReasonCode::NoMatchingSubscribers);
    assert!(!log_in(&gateway, &of_app(&app)).await.1, "it is told");
    gateway.stop().await;
}

#[tokio::test]
async fn one_session_too_many_ends_with_its_connection() {
    let gateway = Gateway::with(|config| {
        config.sessions.max_persistent = 1;
        config.mqtt.max_session_expiry = std::time::Duration::from_mins(1);
    })
    .await;
    let [one, two] = gateway.devices(["one", "two"]).await;
    for (device, secs) in [(&one, 60), (&two, 0), (&one, 60)] {
        let mut client = Client::open(&gateway).await;
        let connack = client.introduce(&of_device(device)).await;
        assert_eq!(connack.reason, ReasonCode::Success);
        let told = connack
            .properties
            .expect("MQTT 5")
            .session_expiry_interval_secs;
        assert_eq!(told, Some(secs));
    }
    gateway
        .metric_is("headgate_persistent_sessions_refused_total", 1.0)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let gateway = Gateway::process(tempfile::tempdir().expect("a directory"), &[]).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    drop(begin(&gateway, &of_app(&app), "P/#", QoS::AtLeastOnce).await);
    let mut device = begin(&gateway, &of_device(&d), "P/d/down", QoS::AtLeastOnce).await;
    for n in 0..50_u8 {
        assert_eq!(device.publish("P/d/x", &[n]).await, ReasonCode::Success);
    }
    drop(device);
    let dir = gateway.kill().await;

    let gateway = Gateway::process(dir, &[]).await;
    let mut client = resume(&gateway, &of_app(&app)).await;
    for n in 0..50_u8 {
        assert_eq!(client.message().await.payload[..], [n], "in order");
    }
    client.ping().await;
    gateway.metric_is(WAITING, 0.0).await;
    assert_eq!(client.publish("P/d/down", b"y").await, ReasonCode::Success);
    // It is subscribed to that itself.
    assert_eq!(&client.message().await.payload[..], b"y");
    client.ping().await;
    gateway.metric_is(WAITING, 0.0).await;
    let dir = gateway.kill().await;

    let gateway = Gateway::process(dir, &[]).await;
    let mut device = resume(&gateway, &of_device(&d)).await;
    assert_eq!(&device.message().await.payload[..], b"y");
    let mut client = resume(&gateway, &of_app(&app)).await;
    assert!(client.ping().await.is_empty(), "it has had everything");
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_connected_device_does_not_acknowledge_is_stored_before_its_sender_is_told() {
    let gateway = Gateway::process(tempfile::tempdir().expect("a directory"), &[]).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = Client::log_in(&gateway, &Login::application(&app, "app:a")).await;
    let mut device = Client::log_in(&gateway, &Login::of(&d)).await;
    device.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    assert_eq!(client.publish("P/d/x", b"0").await, ReasonCode::Success);
    assert_eq!(&device.message().await.payload[..], b"0");
    device.ping().await;
    device.acknowledges = false;
    for n in 1..=9_u8 {
        assert_eq!(client.publish("P/d/x", &[n]).await, ReasonCode::Success);
    }
    let dir = gateway.kill().await;

    let gateway = Gateway::process(dir, &[]).await;
    let mut device = Client::log_in(&gateway, &Login::of(&d)).await;
    device.subscribe(&["P/d/#"], QoS::AtLeastOnce).await;
    for n in 1..=9_u8 {
        assert_eq!(device.message().await.payload[..], [n], "in order");
    }
    assert!(device.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_is_taken_exactly_once_over_a_kill() {
    let gateway = Gateway::process(tempfile::tempdir().expect("a directory"), &[]).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = begin(&gateway, &of_app(&app), "P/d/up/#", QoS::ExactlyOnce).await;
    let mut device = begin(&gateway, &of_device(&d), "P/d/down", QoS::ExactlyOnce).await;
    client.acknowledges = false;
    device.acknowledges = false;
    device
        .send(&exactly_once("P/d/up/x", b"up", id(7), false))
        .await;
    let received = until_pubrec(&mut device, id(7)).await;
    assert_eq!(received, ReasonCode::Success);
    client
        .send(&exactly_once("P/d/down", b"down", id(9), false))
        .await;
    let received = until_pubrec(&mut client, id(9)).await;
    assert_eq!(received, ReasonCode::Success);
    let dir = gateway.kill().await;

    // Neither knows that it was received.
    let gateway = Gateway::process(dir, &[]).await;
    let mut client = resume(&gateway, &of_app(&app)).await;
    let mut device = resume(&gateway, &of_device(&d)).await;
    client.acknowledges = false;
    device.acknowledges = false;
    device
        .send(&exactly_once("P/d/up/x", b"up", id(7), true))
        .await;
    let received = until_pubrec(&mut device, id(7)).await;
    assert_eq!(received, ReasonCode::Success);
    device.send(&Packet::PubRel(PubRel::new(id(7)))).await;
    until_pubcomp(&mut device, id(7)).await;
    client
        .send(&exactly_once("P/d/down", b"down", id(9), true))
        .await;
    let received = until_pubrec(&mut client, id(9)).await;
    assert_eq!(received, ReasonCode::Success);
    client.send(&Packet::PubRel(PubRel::new(id(9)))).await;
    until_pubcomp(&mut client, id(9)).await;
    let (up, down) = (client.message().await, device.message().await);
    assert_eq!((&up.payload[..], up.qos), (&b"up"[..], QoS::ExactlyOnce));
    assert_eq!(
        (&down.payload[..], down.qos),
        (&b"down"[..], QoS::ExactlyOnce)
    );
    assert!(client.ping().await.is_empty(), "once");
    assert!(device.ping().await.is_empty(), "once");
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_is_handed_over_exactly_once_over_a_kill() {
    let gateway = Gateway::process(tempfile::tempdir().expect("a directory"), &[]).await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut client = begin(&gateway, &of_app(&app), "P/d/up/#", QoS::ExactlyOnce).await;
    let mut device = begin(&gateway, &of_device(&d), "P/d/down", QoS::ExactlyOnce).await;
    client.acknowledges = false;
    device.acknowledges = false;
    for n in 0..2_u16 {
        device
            .send(&exactly_once("P/d/up/x", &[1], id(10 + n), false))
            .await;
        client
            .send(&exactly_once("P/d/down", &[1], id(10 + n), false))
            .await;
    }
    // Of two messages each the first is received, and its release comes; the second is left alone.
    let mut held = Vec::new();
    for peer in [&mut client, &mut device] {
        let (first, second) = (peer.message().await, peer.message().await);
        let first = first.packet_id.expect("QoS 2");
        peer.send(&Packet::PubRec(PubRec::new(first))).await;
        until_pubrel(peer, first).await;
        held.push((first, second));
    }
    let dir = gateway.kill().await;

    let gateway = Gateway::process(dir, &[]).await;
    for (login, (first, second)) in [of_app(&app), of_device(&d)].iter().zip(held) {
        let mut peer = resume(&gateway, login).await;
        peer.acknowledges = false;
        until_pubrel(&mut peer, first).await;
        peer.send(&Packet::PubComp(PubComp::new(first))).await;
        let again = peer.message().await;
        assert_eq!(
            again,
            Publish {
                dup: true,
                ..second.clone()
            }
        );
        let second = second.packet_id.expect("QoS 2");
        peer.send(&Packet::PubRec(PubRec::new(second))).await;
        until_pubrel(&mut peer, second).await;
        peer.send(&Packet::PubComp(PubComp::new(second))).await;
        assert!(peer.ping().await.is_empty());
    }
    gateway.metric_is(WAITING, 0.0).await;
    gateway.metric_is("headgate_mailbox_messages", 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_mosquitto_find_what_waited_for_them() {
    for program in ["mosquitto_sub", "mosquitto_pub"] {
        need(program);
    }
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let port = gateway.ports.mqtts.expect("a listener").port();
    let ca = gateway.data_dir.join("tls/ca.pem");
    let place = format!("-h localhost -p {port} --cafile {}", ca.display());
    let to_device = format!("{place} -i {0} -u {0} -P {1}", d.id, d.secret);
    let to_app = format!("{place} -i app:a:1 -u a -P {}", app.secret);
    for (version, keeps) in [("311", "-c"), ("5", "-c -x 3600")] {
        let receiver = format!("{to_app} -V {version} {keeps} -q 2 -t P/d/up");
        // Subscribed, and gone.
        mosquitto("sub", &format!("{receiver} -E")).await;
        for text in ["one", "two", "three"] {
            let sender = format!("{to_device} -V {version} -q 2 -t P/d/up -m {text}");
            mosquitto("pub", &sender).await;
        }
        let heard = mosquitto("sub", &format!("{receiver} -C 3 -W 20")).await;
        assert_eq!(heard, "one\ntwo\nthree\n", "{version}");
    }
    gateway.metric_is(WAITING, 0.0).await;
    gateway.stop().await;
}

/// What a client of mosquitto prints.
async fn mosquitto(which: &str, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let ran = run(&format!("mosquitto_{which}"), &arguments).await;
    assert!(ran.success, "{}", ran.stderr);
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

async fn until_pubrec(client: &mut Client, packet_id: PacketId) -> ReasonCode {
    loop {
        if let Packet::PubRec(rec) = client.answer().await.expect("an open connection")
            && rec.packet_id == packet_id
        {
            return rec.reason;
        }
    }
}

async fn until_pubrel(client: &mut Client, packet_id: PacketId) {
    loop {
        if let Packet::PubRel(rel) = client.answer().await.expect("an open connection")
            && rel.packet_id == packet_id
        {
            return;
        }
    }
}

async fn until_pubcomp(client: &mut Client, packet_id: PacketId) {
    loop {
        if let Packet::PubComp(comp) = client.answer().await.expect("an open connection")
            && comp.packet_id == packet_id
        {
            return;
        }
    }
}
