//! Who is let in, who is not, and what becomes of those who waste our time.

use std::time::{Duration, Instant};

use headgate_protocol::mqtt::{
    Packet, PacketId,
    ProtocolVersion::{V5, V31, V311},
    QoS, ReasonCode,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::harness::{Client, Gateway, Login, PATIENCE, connect, resident_bytes, subscribe, until};

const CONNECTIONS: &str = r#"headgate_connections{auth="secret",protocol="mqtt"}"#;
const TIMEOUTS: &str = r#"headgate_connect_attempts_total{outcome="timeout",protocol="mqtt"}"#;
const REFUSED: &str = r#"headgate_connect_attempts_total{outcome="refused",protocol="mqtt"}"#;
const WRONG: &str = r#"headgate_auth_failures_total{reason="unknown_or_wrong"}"#;

/// 256 MB less one byte, the most that a fixed header can claim: a PUBLISH and a CONNECT.
const HUGE_PUBLISH: &str = "30 ffffff7f 0003 612f62";
const HUGE_CONNECT: &str = "10 ffffff7f 0004 4d515454 04 c2 003c";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_is_let_in() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for version in [V31, V311, V5] {
        let login = Login::of(&device).over(version);
        let mut client = Client::open(&gateway).await;
        let connack = client.introduce(&login).await;
        assert_eq!(connack.reason, ReasonCode::Success, "{version:?}");
        assert!(!connack.session_present);
        assert_eq!(connack.properties.is_some(), version == V5);
        client.ping().await;
        client.send_hex("e000").await;
        assert_eq!(client.closed().await, None);
    }
    gateway.metric_is(CONNECTIONS, 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_and_an_unknown_device_get_the_same_answer() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut failures = 0.0;
    for (version, expected) in [
        (V31, ReasonCode::BadUserNameOrPassword),
        (V311, ReasonCode::BadUserNameOrPassword),
        (V5, ReasonCode::NotAuthorized),
    ] {
        let good = Login::of(&device).over(version);
        let wrong = Login {
            password: "x".repeat(good.password.len()),
            ..good.clone()
        };
        let unknown = Login {
            username: "P_d9".to_owned(),
            ..good.clone()
        };
        for login in [wrong, unknown] {
            let mut client = Client::open(&gateway).await;
            // What follows at once is not acted on and takes nothing from the answer.
            client.speak(version);
            let next = subscribe(PacketId::MIN, &["P/d1/#"], QoS::AtMostOnce);
            client.send_together(&[connect(&login), next]).await;
            assert_eq!(client.connack().await.reason, expected, "{version:?}");
            assert_eq!(client.recv().await, None);
            failures += 1.0;
        }
    }
    gateway.metric_is(WRONG, failures).await;
    gateway.metric_is(REFUSED, failures).await;
    gateway.metric_is(CONNECTIONS, 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_waste_time_are_closed_and_hold_up_nobody() {
    let gateway = Gateway::with(|config| {
        config.mqtt.handshake_timeout = Duration::from_millis(700);
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let address = gateway.ports.mqtts.expect("a listener");
    let begun = Instant::now();
    let mut silent = TcpStream::connect(address).await.expect("it listens");
    let mut half = TcpStream::connect(address).await.expect("it listens");
    half.write_all(&[0x16, 0x03, 0x01]).await.expect("sent");
    let mut mute = Client::open(&gateway).await;
    let mut slow = Client::open(&gateway).await;
    slow.send_hex("10 20 0004 4d51").await;

    let mut other = Client::log_in(&gateway, &Login::of(&device)).await;
    other.ping().await;
    assert!(begun.elapsed() < Duration::from_millis(700), "held up");

    // One byte of CONNECT after the other, each before the deadline: that wins no time.
    let drip = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for byte in "5454 04 02 003c 00".split(' ') {
            tick.tick().await;
            let _closed = slow.try_send_bytes(byte.as_bytes()).await;
        }
        slow.closed().await
    };
    let mut rest = [0; 64];
    let (_, _, silent_got, half_got) = tokio::join!(
        tokio::time::timeout(PATIENCE, drip),
        mute.closed(),
        silent.read(&mut rest),
        async { half.read(&mut [0; 64]).await },
    );
    assert_eq!(silent_got.expect("closed"), 0);
    assert_eq!(half_got.expect("closed"), 0);
    gateway.metric_is(TIMEOUTS, 4.0).await;
    other.ping().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_may_come_byte_by_byte() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let login = Login::of(&device);
    let mut client = Client::open(&gateway).await;
    client.speak(V311);
    let mut bytes = bytes::BytesMut::new();
    connect(&login).encode(V311, &mut bytes).expect("encoded");
    for byte in &bytes {
        client.send_bytes(&[*byte]).await;
    }
    assert_eq!(client.connack().await.reason, ReasonCode::Success);
    // So may everything else: here two pings and the beginning of a third.
    for byte in [0xc0, 0x00, 0xc0, 0x00, 0xc0] {
        client.send_bytes(&[byte]).await;
    }
    assert_eq!(client.recv().await, Some(Packet::PingResp));
    assert_eq!(client.recv().await, Some(Packet::PingResp));
    client.send_bytes(&[0x00]).await;
    assert_eq!(client.recv().await, Some(Packet::PingResp));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_packet_is_refused_by_its_header() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut warm = Client::log_in(&gateway, &Login::of(&device)).await;
    warm.ping().await;
    let before = resident_bytes();
    for _ in 0..20 {
        let mut client = Client::open(&gateway).await;
        client.send_hex(HUGE_CONNECT).await;
        assert_eq!(client.recv().await, None);
        for (version, reason) in [(V311, None), (V5, Some(ReasonCode::PacketTooLarge))] {
            let login = Login::of(&device).over(version);
            let mut client = Client::log_in(&gateway, &login).await;
            client.send_hex(HUGE_PUBLISH).await;
            assert_eq!(client.closed().await, reason);
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    // Of sixty claims not one was believed; other tests may run in this process, too.
    assert!(grown < 200 << 20, "grown by {grown} bytes");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_uses_its_own_topics_only() {
    let gateway = Gateway::start().await;
    let [device, _] = gateway.devices(["d1", "d2"]).await;
    let foreign = [
        "#",
        "+/d1/#",
        "P/d2/#",
        "P/+/data",
        "$resource/down/service/P/d2",
        "é/#",
    ];
    for (version, refused) in [(V311, 0x80), (V5, 0x87)] {
        let login = Login::of(&device).over(version);
        let mut client = Client::log_in(&gateway, &login).await;
        let reasons = client.subscribe(&foreign, QoS::AtLeastOnce).await;
        let codes: Vec<_> = reasons.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes, [refused; 6], "{version:?}");
        let granted = client.subscribe(&["P/d1/é/#"], QoS::ExactlyOnce).await;
        assert_eq!(granted, [ReasonCode::GrantedQoS2]);

        // A topic that begins with no ASCII letter has ended other brokers.
        for topic in ["é/1", "P/d2/data", "$SYS/x", "$resource/down/service/P/d1"] {
            let said = client.publish(topic, b"x").await;
            let expected = match version {
                V5 => ReasonCode::NotAuthorized,
                _ => ReasonCode::Success,
            };
            assert_eq!(said, expected, "{topic} {version:?}");
        }
        assert_eq!(client.ping().await, [], "nothing of it comes back");
        assert_eq!(
            client.publish("P/d1/é/1", b"own").await,
            ReasonCode::Success
        );
        let message = client.message().await;
        assert_eq!(
            (message.topic.as_str(), &message.payload[..]),
            ("P/d1/é/1", &b"own"[..])
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_bounded() {
    let gateway = Gateway::with(|config| config.mqtt.max_subscriptions = 2).await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device).over(V5)).await;
    let granted = client
        .subscribe(&["P/d1/a", "P/d1/b"], QoS::AtMostOnce)
        .await;
    assert_eq!(granted, [ReasonCode::Success; 2]);
    let more = client.subscribe(&["P/d1/c"], QoS::AtMostOnce).await;
    assert_eq!(more, [ReasonCode::QuotaExceeded]);
    let known = client.subscribe(&["P/d1/a"], QoS::AtLeastOnce).await;
    assert_eq!(known, [ReasonCode::GrantedQoS1], "no new one");
    // More filters than that in one packet cannot be granted whatever they are.
    client
        .send(&subscribe(
            PacketId::MIN,
            &["P/d1/x", "P/d1/y", "P/d1/z"],
            QoS::AtMostOnce,
        ))
        .await;
    assert_eq!(client.closed().await, Some(ReasonCode::QuotaExceeded));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_again_takes_over() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for (version, reason) in [(V311, None), (V5, Some(ReasonCode::SessionTakenOver))] {
        let login = Login::of(&device).over(version);
        let mut first = Client::log_in(&gateway, &login).await;
        let mut second = Client::log_in(&gateway, &login).await;
        assert_eq!(first.closed().await, reason);
        second.ping().await;
        gateway.metric_is(CONNECTIONS, 1.0).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_takeovers_leaves_one_session() {
    const STORM: usize = 100;
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let login = Login::of(&device);
    let storm = (0..STORM).map(|_| async {
        let mut client = Client::open(&gateway).await;
        // One that was taken over before its CONNACK went out gets none.
        client.speak(V311);
        client.send(&connect(&login)).await;
        let _maybe = client.recv().await;
        client
    });
    let mut clients = futures_util::future::join_all(storm).await;
    gateway.metric_is(CONNECTIONS, 1.0).await;
    let mut alive = 0;
    for client in &mut clients {
        let open = client.try_send_bytes(&[0xc0, 0x00]).await.is_ok();
        if open && client.recv().await == Some(Packet::PingResp) {
            alive += 1;
        }
    }
    assert_eq!(alive, 1);
    gateway
        .metric_is("headgate_session_takeovers_total", 99.0)
        .await;
    drop(clients);
    gateway.metric_is(CONNECTIONS, 0.0).await;
    gateway
        .metric_is("headgate_handshakes_in_flight", 0.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_falls_silent_is_closed_after_one_and_a_half_keep_alives() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let login = Login {
        keep_alive_secs: 1,
        ..Login::of(&device).over(V5)
    };
    let mut client = Client::log_in(&gateway, &login).await;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..4 {
        tick.tick().await;
        client.ping().await;
    }
    let silent_since = Instant::now();
    assert_eq!(client.closed().await, Some(ReasonCode::KeepAliveTimeout));
    let silent = silent_since.elapsed();
    assert!(silent > Duration::from_millis(1_400), "{silent:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_connect_at_once_is_acted_on() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let login = Login::of(&device);
    let mut client = Client::open(&gateway).await;
    client.speak(V311);
    let mut packets = vec![
        connect(&login),
        subscribe(PacketId::MIN, &["P/d1/#"], QoS::AtMostOnce),
    ];
    // Far more than is acted on in one turn, in one TLS record.
    packets.extend(vec![Packet::PingReq; 1_000]);
    client.send_together(&packets).await;
    assert_eq!(client.connack().await.reason, ReasonCode::Success);
    assert!(matches!(client.recv().await, Some(Packet::SubAck(_))));
    for _ in 0..1_000 {
        assert_eq!(client.recv().await, Some(Packet::PingResp));
    }
    client.ping().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_frozen_or_deleted_loses_its_session() {
    let gateway = Gateway::start().await;
    let [frozen, deleted] = gateway.devices(["d1", "d2"]).await;
    for (device, method, body) in [
        (
            &frozen,
            hyper::Method::PATCH,
            Some(serde_json::json!({"enabled": false})),
        ),
        (&deleted, hyper::Method::DELETE, None),
    ] {
        let login = Login::of(device).over(V5);
        let mut client = Client::log_in(&gateway, &login).await;
        let path = format!("/devices/{}", device.id);
        gateway.api(method, &path, body.as_ref()).await;
        assert_eq!(
            client.closed().await,
            Some(ReasonCode::AdministrativeAction)
        );
        let again = Client::open(&gateway).await.introduce(&login).await;
        assert_eq!(again.reason, ReasonCode::NotAuthorized);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_told_that_the_gateway_stops() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device).over(V5)).await;
    gateway.drain();
    assert_eq!(client.closed().await, Some(ReasonCode::ServerShuttingDown));
    until("no listener", || async {
        let address = gateway.ports.mqtts.expect("a listener");
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    gateway.stop().await;
}
