//! Several listeners, load balancers in front of them, and those who take up places.

use std::{net::SocketAddr, time::Duration};

use bytes::BytesMut;
use headgate::config::{Config, ListenerConfig};
use headgate_protocol::mqtt::{Decoder, Limits, Packet, ProtocolVersion, ReasonCode, Role};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::harness::{Client, Device, Gateway, Login, PATIENCE, connect, until};

const PROXY_FAULTS: &str =
    r#"headgate_connect_attempts_total{outcome="failed_proxy",protocol="mqtt"}"#;
const NO_MQTT: &str =
    r#"headgate_connect_attempts_total{outcome="protocol_error",protocol="mqtt"}"#;
const NO_TLS: &str = r#"headgate_connect_attempts_total{outcome="failed_tls",protocol="mqtt"}"#;
const CROWDED: &str = r#"headgate_connect_attempts_total{outcome="crowded",protocol="mqtt"}"#;
const TIMEOUTS: &str = r#"headgate_connect_attempts_total{outcome="timeout",protocol="mqtt"}"#;
const HANDSHAKES: &str = "headgate_handshakes_in_flight";

/// A further listener on a free port, without TLS.
fn plain(change: impl FnOnce(&mut ListenerConfig)) -> impl FnOnce(&mut Config) {
    |config| {
        let mut listener = ListenerConfig::at(([127, 0, 0, 1], 0).into());
        listener.tls = false;
        change(&mut listener);
        config.listeners.push(listener);
    }
}

/// A connection from an address of the loopback.
async fn dial(address: SocketAddr, source: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("a loopback address");
    socket.connect(address).await.expect("it listens")
}

/// Sends CONNECT behind other bytes; gives the reason of CONNACK, `None` where it was closed.
async fn introduce(tcp: &mut TcpStream, before: &[u8], device: &Device) -> Option<ReasonCode> {
    let mut bytes = BytesMut::from(before);
    let login = Login::of(device);
    connect(&login)
        .encode(ProtocolVersion::V311, &mut bytes)
        .expect("a good packet");
    tcp.write_all(&bytes).await.ok()?;
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    decoder.set_version(ProtocolVersion::V311);
    let mut buffer = BytesMut::new();
    loop {
        if let Ok(Some(Packet::ConnAck(connack))) = decoder.decode(&mut buffer) {
            return Some(connack.reason);
        }
        let read = timeout(PATIENCE, tcp.read_buf(&mut buffer)).await;
        if read.expect("in time").unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn address_of(gateway: &Gateway, device: &Device) -> String {
    let path = format!("/devices/{}/session", device.id);
    let session: Value = gateway.get(&path).await;
    session["address"].as_str().expect("an address").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_load_balancers_say_whose_connection_it_is_and_must() {
    let listed = plain(|listener| {
        listener.proxy_protocol = vec!["127.0.0.1".parse().expect("a network")];
    });
    let gateway = Gateway::with(listed).await;
    let [device] = gateway.devices(["d1"]).await;
    let at = gateway.ports.listeners[0];
    let text = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 8883\r\n";
    let binary = hex::decode("0d0a0d0a000d0a515549540a2111000fcb00710ac0000201dc0422b3040000")
        .expect("digits");

    for (header, client) in [
        (&text[..], "203.0.113.9:56324"),
        (&binary[..], "203.0.113.10:56324"),
    ] {
        let mut tcp = dial(at, [127, 0, 0, 1]).await;
        assert_eq!(
            introduce(&mut tcp, header, &device).await,
            Some(ReasonCode::Success)
        );
        assert_eq!(address_of(&gateway, &device).await, client);
    }

    // From a listed peer, and without a header or with a bad one.
    let mut tcp = dial(at, [127, 0, 0, 1]).await;
    assert_eq!(introduce(&mut tcp, b"", &device).await, None);
    let mut tcp = dial(at, [127, 0, 0, 1]).await;
    assert_eq!(
        introduce(&mut tcp, b"PROXY TCP4 nobody\r\n", &device).await,
        None
    );
    gateway.metric_is(PROXY_FAULTS, 2.0).await;

    // Others are asked for none, and are not believed if they send one.
    let mut tcp = dial(at, [127, 0, 0, 2]).await;
    assert_eq!(
        introduce(&mut tcp, b"", &device).await,
        Some(ReasonCode::Success)
    );
    assert!(
        address_of(&gateway, &device)
            .await
            .starts_with("127.0.0.2:")
    );
    let mut tcp = dial(at, [127, 0, 0, 2]).await;
    assert_eq!(introduce(&mut tcp, text, &device).await, None);
    gateway.metric_is(NO_MQTT, 1.0).await;
    gateway.metric_is(PROXY_FAULTS, 2.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_behind_a_load_balancer_cost_their_own_network_only() {
    let gateway = Gateway::with(|config| {
        plain(|listener| {
            listener.proxy_protocol = vec!["127.0.0.0/8".parse().expect("a network")];
        })(config);
        config.auth.source_failures = 2;
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let stranger = |n: u32| Device {
        id: format!("P_nobody{n}"),
        ..device.clone()
    };
    let from = |client: &str| format!("PROXY TCP4 {client} 192.0.2.1 1 8883\r\n");
    let at = gateway.ports.listeners[0];
    until("the network has to wait", || async {
        for n in 0..4 {
            let mut tcp = dial(at, [127, 0, 0, 1]).await;
            let header = from("203.0.113.9");
            // Closed before CONNECT is looked at.
            if introduce(&mut tcp, header.as_bytes(), &stranger(n))
                .await
                .is_none()
            {
                return Some(());
            }
        }
        None
    })
    .await;
    let mut tcp = dial(at, [127, 0, 0, 1]).await;
    let header = from("198.51.100.7");
    assert_eq!(
        introduce(&mut tcp, header.as_bytes(), &device).await,
        Some(ReasonCode::Success)
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_has_so_many_handshakes_and_leaves_room_for_others() {
    let gateway = Gateway::with(|config| {
        config.mqtt.max_handshakes = 4;
        config.mqtt.max_handshakes_per_network = 3;
        config.mqtt.handshake_timeout = Duration::from_secs(10);
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let at = gateway.ports.mqtts.expect("a listener");
    let mut idle = Vec::new();
    for n in 1..=3 {
        idle.push(dial(at, [127, 0, 0, n]).await);
    }
    gateway.metric_is(HANDSHAKES, 3.0).await;
    let mut turned_away = dial(at, [127, 0, 0, 4]).await;
    let closed = timeout(PATIENCE, turned_away.read(&mut [0; 1])).await;
    assert!(matches!(closed.expect("closed at once"), Ok(0) | Err(_)));
    gateway.metric_is(CROWDED, 1.0).await;

    // From another network there is a place.
    let mut other = Client::open_from(&gateway, [127, 0, 9, 1]).await;
    assert_eq!(
        other.introduce(&Login::of(&device)).await.reason,
        ReasonCode::Success
    );
    // The third of the network was one too many for half of all places: it had less time.
    let begun = std::time::Instant::now();
    gateway.metric_is(TIMEOUTS, 1.0).await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "no sooner than others"
    );
    drop(idle);
    gateway.metric_is(HANDSHAKES, 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_rate_wait_and_are_not_lost() {
    let gateway = Gateway::with(|config| config.mqtt.max_accept_rate = 20).await;
    let [device] = gateway.devices(["d1"]).await;
    let login = Login::of(&device);
    for _ in 0..12 {
        let mut client = Client::open(&gateway).await;
        assert_eq!(client.introduce(&login).await.reason, ReasonCode::Success);
    }
    gateway
        .metric_is_more_than("headgate_accept_delays_total", 2.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tls_is_closed_and_holds_up_nobody() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let at = gateway.ports.mqtts.expect("a listener");
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    let mut hello = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    hello.resize(5 + 16_384, 0);
    let endless: Vec<u8> = hello.iter().cycle().take(100_000).copied().collect();
    let junk = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd".to_vec(),
        vec![0xff; 70_000],
        endless,
    ];
    for bytes in &junk {
        let mut tcp = dial(at, [127, 0, 0, 1]).await;
        // It may be closed before it has taken all.
        let _closed = tcp.write_all(bytes).await;
        let mut answer = Vec::new();
        let _reset = timeout(PATIENCE, tcp.read_to_end(&mut answer))
            .await
            .expect("closed");
        // An alert, if anything.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");
        client.ping().await;
    }
    gateway.metric_is(NO_TLS, 4.0).await;
    gateway.stop().await;
}
