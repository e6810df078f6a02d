//! What must not be taken: for every class of malformed packet the connection ends, with the reason
//! where the version has one, and nobody else is affected.
//!
//! The classes are those that decoders in use were seen to accept.

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Packet, ProtocolVersion,
    ProtocolVersion::{V5, V311},
    QoS, ReasonCode,
    ReasonCode::{MalformedPacket, ProtocolError, TopicFilterInvalid, TopicNameInvalid},
};

use super::harness::{Client, Device, Gateway, Login, connect, publish};

/// A connected device that has nothing to do with the trouble.
struct Bystander {
    client: Client,
    device: Device,
}

impl Bystander {
    async fn new(gateway: &Gateway, device: Device) -> Self {
        let mut client = Client::log_in(gateway, &Login::of(&device)).await;
        let own = format!("{}/{}/#", device.product, device.node);
        client.subscribe(&[&own], QoS::AtMostOnce).await;
        Self { client, device }
    }

    /// It is answered and takes a message.
    async fn is_well(&mut self, after: &str) {
        let topic = format!("{}/{}/echo", self.device.product, self.device.node);
        self.client
            .send(&publish(&topic, after.as_bytes(), None))
            .await;
        let messages = self.client.ping().await;
        assert_eq!(messages.len(), 1, "after {after}");
        assert_eq!(messages[0].payload, after.as_bytes());
    }
}

const PROTOCOL_ERRORS: &str =
    r#"headgate_connect_attempts_total{outcome="protocol_error",protocol="mqtt"}"#;
const VIOLATIONS: &str = r#"headgate_disconnects_total{protocol="mqtt",reason="protocol_error"}"#;

/// A CONNECT of 3.1.1 whose bytes are spoilt by `spoil`; its length is corrected afterwards.
fn spoilt_connect(device: &Device, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let good = connect(&Login::of(device));
    good.encode(V311, &mut bytes).expect("a good packet");
    let mut bytes = bytes.to_vec();
    spoil(&mut bytes);
    bytes[1] = u8::try_from(bytes.len() - 2).expect("short");
    bytes
}

/// Where the flags of a CONNECT stand: after type, length, "MQTT" with its length, and the level.
const CONNECT_FLAGS: usize = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_connect_ends_its_connection_only() {
    let gateway = Gateway::start().await;
    let [device, other] = gateway.devices(["d1", "d2"]).await;
    let mut bystander = Bystander::new(&gateway, other).await;
    let spoilt = |spoil: fn(&mut Vec<u8>)| spoilt_connect(&device, spoil);
    let cases = [
        ("the reserved flag", spoilt(|b| b[CONNECT_FLAGS] |= 1)),
        (
            "a password without a user name",
            spoilt(|b| b[CONNECT_FLAGS] &= 0x7f),
        ),
        ("bytes behind the password", spoilt(|b| b.extend([0, 0]))),
        ("a will of QoS 3", spoilt(|b| b[CONNECT_FLAGS] |= 0x1c)),
        (
            "a will without a message",
            spoilt(|b| b[CONNECT_FLAGS] |= 0x04),
        ),
        (
            "a will QoS without a will",
            spoilt(|b| b[CONNECT_FLAGS] |= 0x08),
        ),
        ("wrong flags of the packet", spoilt(|b| b[0] |= 2)),
        (
            "another protocol's name",
            spoilt(|b| b[4..8].copy_from_slice(b"HTTP")),
        ),
        ("an identifier that is no UTF-8", spoilt(|b| b[14] = 0xff)),
        ("an identifier with NUL", spoilt(|b| b[14] = 0)),
        (
            "a length of five bytes",
            vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
        ("another packet first", vec![0xc0, 0x00]),
        ("a packet of type 0", vec![0x00, 0x00]),
        (
            "words of another protocol",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ),
    ];
    for (count, (what, bytes)) in (1..).zip(&cases) {
        let mut client = Client::open(&gateway).await;
        client.send_bytes(bytes).await;
        assert_eq!(client.recv().await, None, "{what} is answered by nothing");
        gateway.metric_is(PROTOCOL_ERRORS, f64::from(count)).await;
        bystander.is_well(what).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_level_is_refused_with_its_code() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for level in [0, 2, 6, 0x83, 0x84] {
        let mut client = Client::open(&gateway).await;
        client.speak(V311);
        let bytes = spoilt_connect(&device, |bytes| bytes[8] = level);
        client.send_bytes(&bytes).await;
        let connack = client.connack().await;
        assert_eq!(connack.reason, ReasonCode::UnsupportedProtocolVersion);
        assert_eq!(client.recv().await, None);
    }
    gateway.stop().await;
}

/// What it is, its bytes for 3.1.1 and for 5, and the reason that 5 gives.
type Case = (&'static str, &'static str, &'static str, ReasonCode);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("SUBSCRIBE with wrong flags", "80 08 0001 0003 612f62 00", "80 09 0001 00 0003 612f62 00", MalformedPacket),
    ("SUBSCRIBE with identifier 0", "82 08 0000 0003 612f62 00", "82 09 0000 00 0003 612f62 00", ProtocolError),
    ("SUBSCRIBE without a filter", "82 02 0001", "82 03 0001 00", ProtocolError),
    ("SUBSCRIBE to an empty filter", "82 05 0001 0000 00", "82 06 0001 00 0000 00", TopicFilterInvalid),
    ("SUBSCRIBE to a/#/b", "82 0a 0001 0005 612f232f62 00", "82 0b 0001 00 0005 612f232f62 00", TopicFilterInvalid),
    ("SUBSCRIBE to a+", "82 07 0001 0002 612b 00", "82 08 0001 00 0002 612b 00", TopicFilterInvalid),
    ("SUBSCRIBE at QoS 3", "82 08 0001 0003 612f62 03", "82 09 0001 00 0003 612f62 03", ProtocolError),
    ("SUBSCRIBE with reserved bits", "82 08 0001 0003 612f62 40", "82 09 0001 00 0003 612f62 40", MalformedPacket),
    ("SUBSCRIBE that is cut", "82 05 0001 0003 61", "82 06 0001 00 0003 61", MalformedPacket),
    ("UNSUBSCRIBE with wrong flags", "a0 07 0001 0003 612f62", "a0 08 0001 00 0003 612f62", MalformedPacket),
    ("UNSUBSCRIBE without a filter", "a2 02 0001", "a2 03 0001 00", ProtocolError),
    ("PUBLISH to a/+", "30 05 0003 612f2b", "30 06 0003 612f2b 00", TopicNameInvalid),
    ("PUBLISH to a topic with NUL", "30 05 0003 610062", "30 06 0003 610062 00", MalformedPacket),
    ("PUBLISH of QoS 0 with DUP", "38 05 0003 612f62", "38 06 0003 612f62 00", MalformedPacket),
    ("PUBLISH of QoS 1 with identifier 0", "32 07 0003 612f62 0000", "32 08 0003 612f62 0000 00", ProtocolError),
    ("PUBLISH of QoS 3", "36 07 0003 612f62 0001", "36 08 0003 612f62 0001 00", MalformedPacket),
    ("PUBLISH to an empty topic", "30 02 0000", "30 03 0000 00", ProtocolError),
    ("PUBLISH to a topic that is no UTF-8", "30 04 0002 c328", "30 05 0002 c328 00", MalformedPacket),
    ("PUBLISH to a topic with a surrogate", "30 05 0003 eda080", "30 06 0003 eda080 00", MalformedPacket),
    ("PUBREL with wrong flags", "60 02 0001", "60 02 0001", MalformedPacket),
    ("PUBACK with identifier 0", "40 02 0000", "40 02 0000", ProtocolError),
    ("PUBACK that is cut", "40 01 00", "40 01 00", MalformedPacket),
    ("PINGREQ with a body", "c0 01 00", "c0 01 00", MalformedPacket),
    ("DISCONNECT with wrong flags", "e1 00", "e1 00", MalformedPacket),
    ("CONNACK from a client", "20 02 0000", "20 03 0000 00", ProtocolError),
    ("SUBACK from a client", "90 03 0001 00", "90 04 0001 00 00", ProtocolError),
    ("UNSUBACK from a client", "b0 02 0001", "b0 04 0001 00 00", ProtocolError),
    ("PINGRESP from a client", "d0 00", "d0 00", ProtocolError),
    ("a packet of type 0", "00 00", "00 00", MalformedPacket),
    ("AUTH without a method", "f0 00", "f0 00", ProtocolError),
    ("a length of five bytes", "30 ffffffff01", "30 ffffffff01", MalformedPacket),
];

/// What only MQTT 5 can get wrong.
#[rustfmt::skip]
const CASES_OF_5: &[(&str, &str, ReasonCode)] = &[
    ("a topic alias of 0", "30 09 0003 612f62 03 23 0000", ReasonCode::TopicAliasInvalid),
    ("a topic alias above ours", "30 09 0003 612f62 03 23 0011", ReasonCode::TopicAliasInvalid),
    ("a property twice", "30 0a 0003 612f62 04 0100 0100", ProtocolError),
    ("a property of another packet", "30 08 0003 612f62 02 2501", MalformedPacket),
    ("an unknown property", "30 08 0003 612f62 02 7f01", MalformedPacket),
    ("properties longer than the packet", "30 06 0003 612f62 05", MalformedPacket),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_packet_ends_its_session_only() {
    let gateway = Gateway::start().await;
    let [device, other] = gateway.devices(["d1", "d2"]).await;
    let mut bystander = Bystander::new(&gateway, other).await;
    let old = CASES.iter().map(|case| (V311, case.0, case.1, None));
    let new = CASES.iter().map(|case| (V5, case.0, case.2, Some(case.3)));
    let more = CASES_OF_5
        .iter()
        .map(|case| (V5, case.0, case.1, Some(case.2)));
    let mut wrong = Vec::new();
    for (count, (version, what, digits, reason)) in (1..).zip(old.chain(new).chain(more)) {
        let login = Login::of(&device).over(version);
        let mut client = Client::log_in(&gateway, &login).await;
        client.send_hex(digits).await;
        let said = client.closed().await;
        if said != reason {
            wrong.push(format!("{what}, {version:?}: {said:?}, not {reason:?}"));
        }
        gateway.metric_is(VIOLATIONS, f64::from(count)).await;
        bystander.is_well(what).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    gateway.metric_is(CONNECTIONS, 1.0).await;
    gateway.stop().await;
}

const CONNECTIONS: &str = r#"headgate_connections{auth="secret",protocol="mqtt"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connect_ends_the_session() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for (version, reason) in [(V311, None), (V5, Some(ProtocolError))] {
        let login = Login::of(&device).over(version);
        let mut client = Client::log_in(&gateway, &login).await;
        client.send(&connect(&login)).await;
        assert_eq!(client.closed().await, reason);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_packets_before_a_bad_one_are_acted_on() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device).over(V5)).await;
    // PINGREQ, PINGREQ, a packet of type 0, PINGREQ: one TLS record.
    client.send_hex("c000 c000 0000 c000").await;
    assert_eq!(client.recv().await, Some(Packet::PingResp));
    assert_eq!(client.recv().await, Some(Packet::PingResp));
    assert_eq!(client.closed().await, Some(MalformedPacket));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_any_bytes_is_read() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    for version in [V311, V5] {
        let mut client = Client::open(&gateway).await;
        client.speak(version);
        client.send(&with_binary_password(&device, version)).await;
        let expected = match version {
            V5 => ReasonCode::NotAuthorized,
            _ => ReasonCode::BadUserNameOrPassword,
        };
        assert_eq!(client.connack().await.reason, expected);
    }
    gateway.stop().await;
}

fn with_binary_password(device: &Device, version: ProtocolVersion) -> Packet {
    let packet = connect(&Login::of(device).over(version));
    let Packet::Connect(mut connect) = packet else {
        unreachable!("made as CONNECT")
    };
    connect.password = Some(vec![0xff, 0x00, 0xc3, 0x28].into());
    Packet::Connect(connect)
}
