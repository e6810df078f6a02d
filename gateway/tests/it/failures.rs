//! What other servers got wrong, tried on this one: rows of "Known failures of others" in
//! docs/conformance.md that no other test holds.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Connect, Packet,
    ProtocolVersion::{V5, V311},
    ReasonCode,
};
use hyper::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::harness::{Client, Gateway, Login, connect, resident_bytes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_2_half_connects_hold_little_memory() {
    const CONNECTIONS: u32 = 200;
    let gateway =
        Gateway::with(|config| config.mqtt.plain_listen = Some(([127, 0, 0, 1], 0).into())).await;
    let address = gateway.ports.mqtt.expect("a listener");
    // CONNECT of 8,000 bytes, of which all but the last come.
    let mut half = vec![0x10, 0xC0, 0x3E];
    half.extend(b"\x00\x04MQTT\x04\x02\x00\x3c");
    half.resize(8_000, b'x');
    let before = resident_bytes();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(&half).await.expect("sent");
        open.push(stream);
    }
    // Whoever comes after them is served.
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    client.ping().await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(
        grown < u64::from(CONNECTIONS) * 64 * 1024,
        "{grown} bytes for {CONNECTIONS} connections"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_5_no_integer_has_five_bytes() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for (what, digits) in [
        ("the length of a packet", "30 ffffffff01"),
        ("the length of properties", "30 0a 0003 612f62 ffffffff01"),
        (
            "a subscription identifier",
            "82 0f 0001 06 0b ffffffff01 0003 612f62 00",
        ),
    ] {
        let login = Login::of(&device).over(V5);
        let mut client = Client::log_in(&gateway, &login).await;
        client.send_hex(digits).await;
        let said = client.closed().await;
        assert_eq!(said, Some(ReasonCode::MalformedPacket), "{what}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_no_name_is_a_pattern() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for node in ["+", "#", "a/b", "a+b", "", "a\0b", "$share"] {
        let body = json!({"product_id": "P", "node_id": node});
        let answer = gateway.api(Method::POST, "/devices", Some(&body)).await;
        assert!(
            (400..500).contains(&answer.status),
            "{node:?}: {}",
            answer.status
        );
    }
    // Nor does one that names nobody open anything.
    for name in ["#", "+", "P_+", "P_#", "+/+"] {
        let login = Login {
            client_id: name.to_owned(),
            username: name.to_owned(),
            ..Login::of(&device)
        };
        let mut client = Client::open(&gateway).await;
        let connack = client.introduce(&login).await;
        assert!(connack.reason.is_error(), "{name}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_18_every_refusal_closes_the_socket() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let wrong = Login {
        password: "wrong".to_owned(),
        ..Login::of(&device)
    };
    let nameless = |version| Connect {
        clean_start: false,
        ..Connect::new(version, "")
    };
    let mut unknown_version = BytesMut::new();
    connect(&Login::of(&device))
        .encode(V311, &mut unknown_version)
        .expect("legal");
    unknown_version[8] = 9;
    let bytes = |packet: &Packet| {
        let mut bytes = BytesMut::new();
        packet.encode(V5, &mut bytes).expect("legal");
        bytes.to_vec()
    };
    for (what, version, bytes) in [
        ("a wrong secret", V311, bytes(&connect(&wrong))),
        (
            "a wrong secret",
            V5,
            bytes(&connect(&wrong.clone().over(V5))),
        ),
        (
            "no name",
            V311,
            bytes(&Packet::Connect(nameless(V311).into())),
        ),
        ("an unknown version", V311, unknown_version.to_vec()),
        ("no CONNECT", V311, vec![0xC0, 0]),
    ] {
        let mut client = Client::open(&gateway).await;
        client.speak(version);
        let begun = Instant::now();
        client.send_bytes(&bytes).await;
        while client.recv().await.is_some() {}
        assert!(begun.elapsed() < Duration::from_secs(2), "{what}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_a_session_is_taken_over_by_its_owner_alone() {
    let gateway = Gateway::start().await;
    let [first, second] = gateway.devices(["d1", "d2"]).await;
    let mut owner = Client::log_in(&gateway, &Login::of(&first)).await;
    // The name of another in CONNECT, with credentials that are good for oneself.
    let login = Login {
        client_id: first.id.clone(),
        ..Login::of(&second)
    };
    let mut other = Client::open(&gateway).await;
    other.introduce(&login).await;
    owner.ping().await;
    let (app, thief) = (
        gateway.app("app1", &[&first]).await,
        gateway.app("app2", &[]).await,
    );
    let mut owner = Client::log_in(&gateway, &Login::application(&app, "app:app1:x")).await;
    let mut other = Client::open(&gateway).await;
    let login = Login::application(&thief, "app:app1:x");
    assert!(other.introduce(&login).await.reason.is_error());
    owner.ping().await;
    gateway.stop().await;
}
