//! PUBLISH.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Buf, Bytes};
use hex_literal::hex;

use super::*;

fn publish(topic: &str, payload: &'static [u8]) -> Publish {
    Publish::new(topic.parse().unwrap(), Bytes::from_static(payload))
}

fn accepts(sender: Sender, bytes: &[u8], expected: Publish) {
    check(sender, bytes, Ok(Packet::Publish(expected)));
}

#[test]
fn qos_dup_and_retain_are_read() {
    for sender in [CLIENT_31, CLIENT_311, SERVER_31, SERVER_311] {
        accepts(sender, &hex!("30 05 0001 61 6869"), publish("a", b"hi"));
        accepts(
            sender,
            &hex!("31 03 0001 61"),
            Publish {
                retain: true,
                ..publish("a", b"")
            },
        );
        let (qos, packet_id) = (QoS::AtLeastOnce, Some(id(7)));
        let expected = Publish {
            qos,
            packet_id,
            ..publish("a", b"hi")
        };
        accepts(sender, &hex!("32 07 0001 61 0007 6869"), expected);
        let (qos, packet_id) = (QoS::ExactlyOnce, Some(id(0xffff)));
        let expected = Publish {
            dup: true,
            qos,
            packet_id,
            ..publish("a", b"")
        };
        accepts(sender, &hex!("3c 05 0001 61 ffff"), expected);
    }
}

#[test]
fn a_topic_may_begin_with_any_character() {
    accepts(
        CLIENT_311,
        &hex!("30 06 0004 c3a92f31"),
        publish("é/1", b""),
    );
    accepts(
        CLIENT_5,
        &hex!("30 08 0005 f09f9a80 2f 00"),
        publish("🚀/", b""),
    );
    accepts(CLIENT_311, &hex!("30 03 0001 2f"), publish("/", b""));
    accepts(CLIENT_311, &hex!("30 04 0002 2f2f"), publish("//", b""));
    accepts(CLIENT_311, &hex!("30 03 0001 24"), publish("$", b""));
    accepts(CLIENT_311, &hex!("30 03 0001 20"), publish(" ", b""));
}

#[test]
fn properties_are_read() {
    let bytes = hex!("32 17 0001 61 0001 0e 01 01 02 0000003c 26 0001 6b 0001 76 0000 01");
    let properties = Properties {
        payload_format: Some(PayloadFormat::Utf8),
        message_expiry_interval_secs: Some(60),
        user: vec![("k".into(), "v".into())],
        ..Properties::default()
    };
    let expected = Publish {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(1)),
        properties: Some(Box::new(properties)),
        ..publish("a", &[0, 0, 1])
    };
    accepts(CLIENT_5, &bytes, expected);
}

#[test]
fn a_topic_alias_stands_for_an_empty_topic() {
    let topic_alias = NonZeroU16::new(5);
    let properties = Box::new(Properties {
        topic_alias,
        ..Properties::default()
    });
    let mut expected = Publish::new(TopicName::aliased(), Bytes::from_static(b"x"));
    expected.properties = Some(properties);
    accepts(CLIENT_5, &hex!("30 07 0000 03 23 0005 78"), expected);
}

#[test]
fn a_server_says_which_subscriptions_match() {
    let numbers = [1, 268_435_455].map(|number| NonZeroU32::new(number).unwrap());
    let subscription_identifiers = numbers.to_vec();
    let properties = Box::new(Properties {
        subscription_identifiers,
        ..Properties::default()
    });
    let expected = Publish {
        properties: Some(properties),
        ..publish("a", b"")
    };
    accepts(
        SERVER_5,
        &hex!("30 0b 0001 61 07 0b 01 0b ffffff7f"),
        expected,
    );
}

#[test]
fn the_payload_is_a_slice_of_the_read_buffer() {
    let mut decoder = opened(CLIENT_311);
    let mut buf = BytesMut::from(&hex!("30 05 0001 61 6869 40 02 0001")[..]);
    let payload_at = buf[5..].as_ptr();
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buf) else {
        panic!("no publish")
    };
    assert_eq!(publish.payload.as_ptr(), payload_at);
    assert_eq!(&publish.payload[..], b"hi");
    assert_eq!(buf.chunk(), hex!("40 02 0001"));
}

#[test]
fn the_header_alone_is_what_stands_before_the_payload() {
    for version in VERSIONS {
        for payload in [&b""[..], b"hi", &[0; 16_384]] {
            let (qos, packet_id) = (QoS::AtLeastOnce, Some(id(9)));
            let topic = "$resource/down/chunk/p/d/t/0".parse().unwrap();
            let publish = Publish {
                qos,
                packet_id,
                ..Publish::new(topic, Bytes::copy_from_slice(payload))
            };
            let mut whole = BytesMut::new();
            Packet::Publish(publish.clone())
                .encode(version, &mut whole)
                .unwrap();

            let mut header = BytesMut::new();
            publish.encode_header(version, &mut header).unwrap();
            assert_eq!([&header[..], payload].concat(), whole);

            let mut header = BytesMut::new();
            let (topic, len) = (&publish.topic, payload.len());
            encode_publish_header(
                &mut header,
                version,
                topic,
                qos,
                packet_id,
                false,
                false,
                len,
            )
            .unwrap();
            assert_eq!([&header[..], payload].concat(), whole);
        }
    }
}

pub(super) const REFUSED: &[Refused] = &[
    // Flags.
    (CLIENT_311, &hex!("36 05 0001 61 0001"), "MQTT-3.3.1-4"),
    (CLIENT_5, &hex!("3e 06 0001 61 0001 00"), "MQTT-3.3.1-4"),
    (CLIENT_311, &hex!("38 03 0001 61"), "MQTT-3.3.1-2"),
    (CLIENT_31, &hex!("38 03 0001 61"), "MQTT-3.3.1-2"),
    (SERVER_5, &hex!("39 04 0001 61 00"), "MQTT-3.3.1-2"),
    // Packet identifier.
    (CLIENT_311, &hex!("32 05 0001 61 0000"), "MQTT-2.2.1-3"),
    (CLIENT_5, &hex!("34 06 0001 61 0000 00"), "MQTT-2.2.1-3"),
    // Topic.
    (CLIENT_311, &hex!("30 02 0000"), "MQTT-4.7.3-1"),
    (CLIENT_311, &hex!("30 04 0000 7878"), "MQTT-4.7.3-1"),
    (CLIENT_5, &hex!("30 03 0000 00"), "MQTT-4.7.3-1"),
    (CLIENT_5, &hex!("30 05 0000 02 01 00"), "MQTT-4.7.3-1"),
    (CLIENT_311, &hex!("30 05 0003 612f2b"), "MQTT-3.3.2-2"),
    (CLIENT_311, &hex!("30 05 0003 612f23"), "MQTT-3.3.2-2"),
    (CLIENT_311, &hex!("30 04 0002 612b"), "MQTT-3.3.2-2"),
    (SERVER_5, &hex!("30 04 0001 23 00"), "MQTT-3.3.2-2"),
    (CLIENT_311, &hex!("30 05 0003 610062"), "MQTT-1.5.4-2"),
    (CLIENT_311, &hex!("30 03 0001 c3"), "MQTT-1.5.4-1"),
    (CLIENT_311, &hex!("30 05 0003 edbfbf"), "MQTT-1.5.4-1"),
    (CLIENT_5, &hex!("30 05 0002 c080 00"), "MQTT-1.5.4-1"),
    // Fields missing.
    (CLIENT_311, &hex!("30 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("30 01 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("30 03 0002 61"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("32 04 0001 61 00"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("30 03 0001 61"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("30 05 0001 61 03 01"), "MQTT-2.1.4"),
    // Properties of this packet alone.
    (CLIENT_5, &hex!("30 07 0001 61 03 23 0000"), "MQTT-3.3.2-8"),
    (
        CLIENT_5,
        &hex!("30 08 0001 61 04 08 0001 2b"),
        "MQTT-3.3.2-14",
    ),
    (CLIENT_5, &hex!("30 07 0001 61 03 08 0000"), "MQTT-4.7.3-1"),
    (CLIENT_5, &hex!("30 06 0001 61 02 0b 01"), "MQTT-3.3.4-6"),
    (SERVER_5, &hex!("30 06 0001 61 02 0b 00"), "MQTT-2.2.2"),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
