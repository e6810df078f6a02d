//! MQTT over WebSocket: other people's clients, and frames of every kind.

use bytes::BytesMut;
use headgate::config::{Config, ListenerConfig, Transport};
use headgate_protocol::mqtt::{
    Decoder, Limits, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Role,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::harness::{Gateway, Library, Login, PATIENCE, Sdk, connect, publish, subscribe};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
const REFUSED: &str =
    r#"headgate_connect_attempts_total{outcome="failed_websocket",protocol="mqtt"}"#;

/// A WebSocket listener beside the others.
fn with_web(tls: bool) -> impl FnOnce(&mut Config) {
    move |config| {
        config.listeners.push(ListenerConfig {
            tls,
            transport: Transport::WebSocket,
            ..ListenerConfig::at(([127, 0, 0, 1], 0).into())
        });
    }
}

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first];
    match u16::try_from(payload.len()).expect("short") {
        short @ 0..=125 => frame.push(0x80 | short.to_le_bytes()[0]),
        long => {
            frame.push(0x80 | 0x7e);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// A WebSocket by hand.
struct Web {
    tcp: TcpStream,
    raw: BytesMut,
    plain: BytesMut,
    decoder: Decoder,
    /// Payloads of pongs and of a goodbye.
    control: Vec<(u8, Vec<u8>)>,
}

impl Web {
    async fn open(gateway: &Gateway) -> Self {
        let mut web = Self::dial(gateway).await;
        web.tcp.write_all(REQUEST.as_bytes()).await.expect("sent");
        let head = web.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(head.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
        web
    }

    async fn dial(gateway: &Gateway) -> Self {
        let at = gateway.ports.listeners[0];
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        decoder.set_version(ProtocolVersion::V311);
        Self {
            tcp: TcpStream::connect(at).await.expect("it listens"),
            raw: BytesMut::new(),
            plain: BytesMut::new(),
            decoder,
            control: Vec::new(),
        }
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.raw.split_to(end + 4);
                return String::from_utf8(head.to_vec()).expect("text");
            }
            assert!(self.more().await, "closed: {:?}", self.raw);
        }
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.tcp.read_buf(&mut self.raw)).await;
        read.expect("in time").unwrap_or(0) > 0
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).await.expect("sent");
    }

    /// The next packet; `None` once the gateway has closed.
    async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.plain).expect("MQTT") {
                return Some(packet);
            }
            if !self.unframe() && !self.more().await {
                return None;
            }
        }
    }

    fn unframe(&mut self) -> bool {
        let (length, header) = match self.raw[..] {
            [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
            [_, 127, ..] => unreachable!("nothing here is so long"),
            [_, short, ..] => (usize::from(short), 2),
            _ => return false,
        };
        if self.raw.len() < header + length {
            return false;
        }
        let frame = self.raw.split_to(header + length);
        match frame[0] {
            0x82 => self.plain.extend_from_slice(&frame[header..]),
            other => self.control.push((other, frame[header..].to_vec())),
        }
        true
    }
}

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet
        .encode(ProtocolVersion::V311, &mut bytes)
        .expect("a good packet");
    bytes.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_need_not_fit_frames_and_pings_are_answered() {
    let gateway = Gateway::with(with_web(false)).await;
    let [device] = gateway.devices(["d1"]).await;
    let mut web = Web::open(&gateway).await;
    let hello = encoded(&connect(&Login::of(&device)));
    // CONNECT in a message of many frames, of a byte or none, a ping between them.
    let mut bytes = frame(0x02, &hello[..1]);
    for byte in &hello[1..] {
        bytes.extend(frame(0x00, &[*byte]));
        bytes.extend(frame(0x00, b""));
    }
    bytes.extend(frame(0x89, b"in between"));
    bytes.extend(frame(0x80, b""));
    // Two packets and the beginning of a third in one frame, its end in the next.
    let own = ["P/d1/echo"];
    let more = [
        encoded(&subscribe(PacketId::MIN, &own, QoS::AtLeastOnce)),
        encoded(&publish(own[0], b"one", Some(PacketId::MIN.next()))),
        encoded(&publish(own[0], &[7; 300], None)),
    ]
    .concat();
    bytes.extend(frame(0x82, &more[..more.len() - 50]));
    bytes.extend(frame(0x82, &more[more.len() - 50..]));
    for piece in bytes.chunks(3) {
        web.send(piece).await;
    }
    let Some(Packet::ConnAck(connack)) = web.packet().await else {
        unreachable!("CONNACK expected");
    };
    assert_eq!(connack.reason, ReasonCode::Success);
    let mut payloads = Vec::new();
    while payloads.len() < 2 {
        if let Packet::Publish(message) = web.packet().await.expect("open") {
            payloads.push(message.payload.len());
        }
    }
    payloads.sort_unstable();
    assert_eq!(payloads, [3, 300]);
    assert_eq!(web.control, [(0x8a, b"in between".to_vec())]);

    web.send(&frame(0x88, &1001_u16.to_be_bytes())).await;
    assert!(web.packet().await.is_none());
    assert_eq!(
        web.control.last(),
        Some(&(0x88, 1001_u16.to_be_bytes().to_vec()))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_not_allowed_end_the_connection_with_their_code() {
    let gateway = Gateway::with(with_web(false)).await;
    let [device] = gateway.devices(["d1"]).await;
    let hello = frame(0x82, &encoded(&connect(&Login::of(&device))));
    for (bad, code) in [
        (frame(0x81, b"text"), 1003_u16),
        (vec![0x82, 2, 0xc0, 0], 1002),
        (frame(0xc2, b""), 1002),
        (frame(0x80, b"continued"), 1002),
    ] {
        let mut web = Web::open(&gateway).await;
        web.send(&hello).await;
        assert!(matches!(web.packet().await, Some(Packet::ConnAck(_))));
        web.send(&bad).await;
        assert!(web.packet().await.is_none(), "{bad:02x?}");
        assert_eq!(web.control, [(0x88, code.to_be_bytes().to_vec())]);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_asks_for_no_websocket_is_answered_in_http() {
    let gateway = Gateway::with(with_web(false)).await;
    let swap = |from: &str, to: &str| REQUEST.replace(from, to);
    for (request, status) in [
        (swap("/mqtt", "/"), "404"),
        (swap("Upgrade: websocket\r\n", ""), "400"),
        (swap("Version: 13", "Version: 7"), "426"),
        (swap("Protocol: mqtt", "Protocol: chat"), "400"),
        ("\x10\x10 no HTTP".to_owned(), "400"),
    ] {
        let mut web = Web::dial(&gateway).await;
        web.send(request.as_bytes()).await;
        let head = web.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(!web.more().await, "it stays open");
    }
    gateway.metric_is(REFUSED, 5.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_and_mqtt_js_come_by_websocket_over_tls() {
    let gateway = Gateway::with(with_web(true)).await;
    let [device] = gateway.devices(["d1"]).await;
    let port = gateway.ports.listeners[0].port().to_string();
    let ca = gateway.data_dir.join("tls/ca.pem").display().to_string();
    let long = "0123456789".repeat(6_000);
    for library in [Library::Paho, Library::MqttJs] {
        for version in ["3.1.1", "5"] {
            let mut sdk = Sdk::start(library, &["localhost", &port, &ca]);
            sdk.tell(&json!({
                "do": "connect", "client_id": device.id, "username": device.id, "password": device.secret,
                "version": version, "websocket": true,
            }));
            assert!(sdk.connected().await, "{library:?}, MQTT {version}");
            sdk.tell(&json!({"do": "subscribe", "topic": "P/d1/echo"}));
            sdk.event("subscribed").await;
            for payload in ["short", &*long] {
                sdk.tell(&json!({"do": "publish", "topic": "P/d1/echo", "payload": payload}));
                assert_eq!(sdk.message("P/d1/echo").await, payload.as_bytes());
            }
        }
    }
    gateway.stop().await;
}
