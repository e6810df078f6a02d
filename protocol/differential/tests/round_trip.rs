//! What this codec writes, others read, and what they make of it and write again, this one reads as
//! the same packet.
//!
//! rmqtt-codec and rumqttc read and write MQTT 3.1.1 and 5.0 by themselves. Where one of them cannot
//! say something that the standard has, the packet has none of it; each such place is named.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    Connect, Decoder, Disconnect, Limits, Packet, PacketId, PayloadFormat, Properties,
    ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish, QoS, ReasonCode, RetainHandling,
    Role, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Will,
};
use proptest::prelude::*;
use tokio_util::codec::{Decoder as _, Encoder as _};

use ProtocolVersion::{V5, V311};

const MAX_BYTES: usize = 1 << 20;

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).expect("a QoS"))
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|value| PacketId::new(value).expect("not zero"))
}

fn text() -> impl Strategy<Value = Box<str>> {
    "[a-zäö€ ]{1,12}".prop_map(Into::into)
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zé$]{1,6}(/[a-z]{0,4}){0,3}"
}

fn filter() -> impl Strategy<Value = String> {
    (topic(), 0..4).prop_map(|(topic, kind)| match kind {
        0 => format!("{topic}/#"),
        1 => format!("+/{topic}/+"),
        2 => format!("$share/g/{topic}"),
        _ => topic,
    })
}

fn user() -> impl Strategy<Value = Vec<(Box<str>, Box<str>)>> {
    prop::collection::vec((text(), text()), 0..3)
}

/// What a message has beside topic and payload.
fn message_properties() -> impl Strategy<Value = Properties> {
    (
        any::<bool>(),
        prop::option::of(1..=u32::MAX),
        prop::option::of(text()),
        prop::option::of(topic()),
        prop::option::of(prop::collection::vec(any::<u8>(), 1..9)),
        user(),
    )
        .prop_map(
            |(is_text, expiry, kind, response, correlation, user)| Properties {
                // That a payload is bytes goes without saying for one of them.
                payload_format: is_text.then_some(PayloadFormat::Utf8),
                message_expiry_interval_secs: expiry,
                content_type: kind,
                response_topic: response.map(|topic| topic.parse().expect("a topic")),
                correlation_data: correlation.map(Bytes::from),
                user,
                ..Properties::default()
            },
        )
}

fn of(version: ProtocolVersion, properties: Properties) -> Option<Box<Properties>> {
    let says_something = properties != Properties::default();
    (version == V5 && says_something).then(|| Box::new(properties))
}

fn publish(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    (
        topic(),
        prop::collection::vec(any::<u8>(), 0..300),
        qos(),
        id(),
        any::<(bool, bool)>(),
        message_properties(),
        prop::option::of(1..=u16::MAX),
    )
        .prop_map(
            move |(topic, payload, qos, id, (dup, retain), mut properties, alias)| {
                properties.topic_alias = alias.and_then(NonZeroU16::new);
                let mut publish = Publish::new(topic.parse().expect("a topic"), payload.into());
                publish.qos = qos;
                publish.retain = retain;
                if qos != QoS::AtMostOnce {
                    publish.packet_id = Some(id);
                    publish.dup = dup;
                }
                publish.properties = of(version, properties);
                Packet::Publish(publish)
            },
        )
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let will = (topic(), text(), qos(), any::<bool>(), message_properties());
    (
        text(),
        any::<(bool, u16)>(),
        prop::option::of((text(), text())),
        prop::option::of(will),
        prop::option::of(1..=u32::MAX),
        prop::option::of(1..=u16::MAX),
    )
        .prop_map(
            move |(name, (clean, keep_alive), login, will, expiry, maximum)| {
                let mut connect = Connect::new(version, name);
                connect.clean_start = clean;
                connect.keep_alive_secs = keep_alive;
                // A name without a password is more than one of them can say.
                if let Some((username, password)) = login {
                    connect.username = Some(username);
                    connect.password = Some(Bytes::copy_from_slice(password.as_bytes()));
                }
                connect.will = will.map(|(topic, payload, qos, retain, properties)| Will {
                    topic: topic.parse().expect("a topic"),
                    payload: Bytes::copy_from_slice(payload.as_bytes()),
                    qos,
                    retain,
                    properties: of(version, properties),
                });
                let properties = Properties {
                    session_expiry_interval_secs: expiry,
                    receive_maximum: maximum.and_then(NonZeroU16::new),
                    ..Properties::default()
                };
                connect.properties = of(version, properties);
                Packet::Connect(Box::new(connect))
            },
        )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let one = (filter(), qos(), any::<(bool, bool)>(), 0..3).prop_map(
        move |(filter, qos, (no_local, retain_as_published), handling)| {
            let plain = Subscription::new(filter.parse().expect("a filter"), qos);
            if version != V5 {
                return plain;
            }
            Subscription {
                no_local: no_local && !plain.filter.is_shared(),
                retain_as_published,
                retain_handling: match handling {
                    0 => RetainHandling::Send,
                    1 => RetainHandling::SendIfNew,
                    _ => RetainHandling::DoNotSend,
                },
                ..plain
            }
        },
    );
    let number = prop::option::of(1..=0xFFF_FFFF_u32);
    (id(), prop::collection::vec(one, 1..4), number, user()).prop_map(
        move |(packet_id, filters, number, user)| {
            let properties = Properties {
                subscription_identifiers: number.and_then(NonZeroU32::new).into_iter().collect(),
                user,
                ..Properties::default()
            };
            Packet::Subscribe(Box::new(Subscribe {
                packet_id,
                filters: filters.into(),
                properties: of(version, properties),
            }))
        },
    )
}

fn acknowledgement(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    (id(), 0..7, any::<bool>(), filter()).prop_map(move |(packet_id, kind, fails, filter)| {
        let reason = if fails && version == V5 {
            ReasonCode::NotAuthorized
        } else {
            ReasonCode::Success
        };
        let properties = None;
        match kind {
            0 => Packet::PubAck(PubAck {
                packet_id,
                reason,
                properties,
            }),
            1 => Packet::PubRec(PubRec {
                packet_id,
                reason,
                properties,
            }),
            2 => Packet::PubRel(PubRel::new(packet_id)),
            3 => Packet::PubComp(PubComp::new(packet_id)),
            4 => Packet::SubAck(SubAck {
                packet_id,
                reasons: [ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError]
                    .into_iter()
                    .collect(),
                properties,
            }),
            5 => Packet::UnsubAck(UnsubAck {
                packet_id,
                reasons: (version == V5).then_some(reason).into_iter().collect(),
                properties,
            }),
            _ => Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id,
                filters: [filter.parse().expect("a filter")].into_iter().collect(),
                properties,
            })),
        }
    })
}

fn packet(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    prop_oneof![
        3 => publish(version),
        2 => connect(version),
        2 => subscribe(version),
        2 => acknowledgement(version),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::PingResp),
        1 => Just(Packet::Disconnect(Disconnect::new(ReasonCode::Success))),
    ]
}

fn written(version: ProtocolVersion, packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.encode(version, &mut bytes).expect("legal");
    bytes
}

/// Reads a packet at the end where it arrives, after what must come before it.
fn read(version: ProtocolVersion, mut bytes: BytesMut) -> Packet {
    let first = bytes[0] >> 4;
    let is_of_server = matches!(first, 9 | 11 | 13);
    let (role, opening) = if is_of_server {
        (
            Role::Client,
            Packet::ConnAck(headgate_protocol::mqtt::ConnAck::accepted(false)),
        )
    } else {
        (
            Role::Server,
            Packet::Connect(Box::new(Connect::new(version, "c"))),
        )
    };
    let mut decoder = Decoder::new(role, Limits::default());
    if is_of_server {
        decoder.set_version(version);
    }
    if first != 1 {
        let mut opening = written(version, &opening);
        decoder.decode(&mut opening).expect("legal").expect("whole");
    }
    let packet = decoder.decode(&mut bytes).expect("legal").expect("whole");
    assert!(bytes.is_empty(), "bytes are left");
    packet
}

fn by_rumqttc(version: ProtocolVersion, mut bytes: BytesMut) -> BytesMut {
    let mut again = BytesMut::new();
    if version == V5 {
        use rumqttc::v5::mqttbytes::v5::Packet;
        let packet = Packet::read(&mut bytes, None).expect("rumqttc reads it");
        packet.write(&mut again, None).expect("rumqttc writes it");
    } else {
        use rumqttc::mqttbytes::v4::Packet;
        let packet = Packet::read(&mut bytes, MAX_BYTES).expect("rumqttc reads it");
        packet
            .write(&mut again, MAX_BYTES)
            .expect("rumqttc writes it");
    }
    assert!(bytes.is_empty(), "rumqttc leaves bytes");
    again
}

fn by_rmqtt(version: ProtocolVersion, mut bytes: BytesMut) -> BytesMut {
    let max = u32::try_from(MAX_BYTES).expect("fits");
    let mut again = BytesMut::new();
    if version == V5 {
        let mut codec = rmqtt_codec::v5::Codec::new(max, max);
        let (packet, _) = codec
            .decode(&mut bytes)
            .expect("rmqtt reads it")
            .expect("whole");
        codec.encode(packet, &mut again).expect("rmqtt writes it");
    } else {
        let mut codec = rmqtt_codec::v3::Codec::new(max);
        let (packet, _) = codec
            .decode(&mut bytes)
            .expect("rmqtt reads it")
            .expect("whole");
        codec.encode(packet, &mut again).expect("rmqtt writes it");
    }
    assert!(bytes.is_empty(), "rmqtt leaves bytes");
    again
}

const fn is_no_disconnect(packet: &Packet) -> bool {
    !matches!(packet, Packet::Disconnect(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn rumqttc_agrees_on_3_1_1(packet in packet(V311)) {
        let again = by_rumqttc(V311, written(V311, &packet));
        prop_assert_eq!(read(V311, again), packet);
    }

    #[test]
    fn rumqttc_agrees_on_5(packet in packet(V5).prop_filter("rumqttc reads no short DISCONNECT", is_no_disconnect)) {
        let again = by_rumqttc(V5, written(V5, &packet));
        prop_assert_eq!(read(V5, again), packet);
    }

    #[test]
    fn rmqtt_agrees_on_3_1_1(packet in packet(V311)) {
        let again = by_rmqtt(V311, written(V311, &packet));
        prop_assert_eq!(read(V311, again), packet);
    }

    #[test]
    fn rmqtt_agrees_on_5(packet in packet(V5)) {
        let again = by_rmqtt(V5, written(V5, &packet));
        prop_assert_eq!(read(V5, again), packet);
    }
}
