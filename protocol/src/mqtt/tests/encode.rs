//! Packets that cannot exist are not written.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use smallvec::smallvec;

use super::*;

/// Checks that the packet is refused and the buffer left alone.
fn check_unwritten(packet: &Packet, version: ProtocolVersion, error: EncodeError) {
    let mut buf = BytesMut::from(&b"before"[..]);
    assert_eq!(packet.encode(version, &mut buf), Err(error), "{packet:?}");
    assert_eq!(&buf[..], b"before");
    assert_eq!(packet.encoded_len(version), Err(error), "{packet:?}");
}

fn publish() -> Publish {
    Publish::new("a".parse().unwrap(), Bytes::new())
}

#[test]
fn publish_needs_a_packet_id_exactly_above_qos_0() {
    for (packet, error) in [
        (
            Publish {
                packet_id: Some(id(1)),
                ..publish()
            },
            EncodeError::PacketIdUnexpected,
        ),
        (
            Publish {
                qos: QoS::AtLeastOnce,
                ..publish()
            },
            EncodeError::PacketIdMissing,
        ),
        (
            Publish {
                qos: QoS::ExactlyOnce,
                ..publish()
            },
            EncodeError::PacketIdMissing,
        ),
        (
            Publish {
                dup: true,
                ..publish()
            },
            EncodeError::DupWithQoS0,
        ),
        (
            Publish {
                topic: TopicName::aliased(),
                ..publish()
            },
            EncodeError::TopicNameMissing,
        ),
    ] {
        for version in VERSIONS {
            check_unwritten(&Packet::Publish(packet.clone()), version, error);
        }
    }
}

#[test]
fn a_topic_alias_is_nothing_before_5_0() {
    let topic_alias = NonZeroU16::new(1);
    let alias = Some(Box::new(Properties {
        topic_alias,
        ..Properties::default()
    }));
    let aliased = Publish {
        topic: TopicName::aliased(),
        properties: alias,
        ..publish()
    };
    let packet = Packet::Publish(aliased);
    check_unwritten(
        &packet,
        ProtocolVersion::V311,
        EncodeError::TopicNameMissing,
    );
}

#[test]
fn properties_are_left_out_before_5_0() {
    let alias = Properties {
        topic_alias: NonZeroU16::new(1),
        ..Properties::default()
    };
    let rich = Publish {
        properties: Some(Box::new(alias)),
        ..publish()
    };
    let mut buf = BytesMut::new();
    Packet::Publish(rich)
        .encode(ProtocolVersion::V311, &mut buf)
        .unwrap();
    assert_eq!(&buf[..], b"\x30\x03\x00\x01a");
}

#[test]
fn properties_stand_only_where_they_belong() {
    let method_missing = Properties {
        authentication_data: Some(Bytes::new()),
        ..Properties::default()
    };
    let too_much_qos = Properties {
        maximum_qos: Some(QoS::ExactlyOnce),
        ..Properties::default()
    };
    let alias = Properties {
        topic_alias: NonZeroU16::new(1),
        ..Properties::default()
    };
    let connack = |all| {
        Packet::ConnAck(ConnAck {
            properties: Some(Box::new(all)),
            ..ConnAck::accepted(false)
        })
    };
    for (packet, error) in [
        (
            connack(method_missing),
            EncodeError::PropertyNotAllowed { id: 0x16 },
        ),
        (
            connack(too_much_qos),
            EncodeError::PropertyOutOfRange { id: 0x24 },
        ),
        (connack(alias), EncodeError::PropertyNotAllowed { id: 0x23 }),
    ] {
        check_unwritten(&packet, ProtocolVersion::V5, error);
    }
}

#[test]
fn subscription_identifiers_have_a_range_and_a_number() {
    let subscribe = |numbers: &[u32]| {
        let numbers = numbers
            .iter()
            .map(|number| NonZeroU32::new(*number).unwrap());
        let all = Properties {
            subscription_identifiers: numbers.collect(),
            ..Properties::default()
        };
        let filters = smallvec![Subscription::new("a".parse().unwrap(), QoS::AtMostOnce)];
        let properties = Some(Box::new(all));
        Packet::Subscribe(Box::new(Subscribe {
            packet_id: id(1),
            filters,
            properties,
        }))
    };
    let error = EncodeError::PropertyOutOfRange { id: 0x0b };
    check_unwritten(&subscribe(&[268_435_456]), ProtocolVersion::V5, error);
    let error = EncodeError::PropertyNotAllowed { id: 0x0b };
    check_unwritten(&subscribe(&[1, 2]), ProtocolVersion::V5, error);
}

#[test]
fn lists_are_not_empty() {
    let (packet_id, properties) = (id(1), None);
    let filters = smallvec![];
    let subscribe = Subscribe {
        packet_id,
        filters,
        properties: properties.clone(),
    };
    let filters = smallvec![];
    let unsubscribe = Unsubscribe {
        packet_id,
        filters,
        properties: properties.clone(),
    };
    let reasons = smallvec![];
    let suback = SubAck {
        packet_id,
        reasons,
        properties: properties.clone(),
    };
    let unsuback = UnsubAck {
        packet_id,
        reasons: smallvec![],
        properties,
    };
    for packet in [
        Packet::Subscribe(Box::new(subscribe)),
        Packet::Unsubscribe(Box::new(unsubscribe)),
        Packet::SubAck(suback),
        Packet::UnsubAck(unsuback),
    ] {
        let error = EncodeError::EmptyPayload(packet.packet_type());
        check_unwritten(&packet, ProtocolVersion::V5, error);
    }
}

#[test]
fn reasons_belong_to_their_packets() {
    let reason = ReasonCode::SessionTakenOver;
    let puback = Packet::PubAck(PubAck {
        reason,
        ..PubAck::new(id(1))
    });
    let packet_type = PacketType::PubAck;
    let error = EncodeError::ReasonNotAllowed {
        packet_type,
        reason,
    };
    check_unwritten(&puback, ProtocolVersion::V5, error);
    let connack = Packet::ConnAck(ConnAck::refused(reason));
    let packet_type = PacketType::ConnAck;
    let error = EncodeError::ReasonNotAllowed {
        packet_type,
        reason,
    };
    check_unwritten(&connack, ProtocolVersion::V311, error);
}

#[test]
fn connect_is_checked() {
    let version = ProtocolVersion::V311;
    let connect = |change: fn(&mut Connect)| {
        let mut connect = Connect::new(ProtocolVersion::V311, "a");
        change(&mut connect);
        Packet::Connect(Box::new(connect))
    };
    for (packet, error) in [
        (
            connect(|all| all.password = Some(Bytes::new())),
            EncodeError::PasswordWithoutUserName,
        ),
        (
            connect(|all| all.client_id = "a\0".into()),
            EncodeError::NullCharacter,
        ),
        (
            connect(|all| all.client_id = "a".repeat(65_536).into()),
            EncodeError::FieldTooLong { size_bytes: 65_536 },
        ),
    ] {
        check_unwritten(&packet, version, error);
    }
}

#[test]
fn auth_does_not_exist_before_5_0() {
    let auth = Packet::Auth(Auth {
        reason: ReasonCode::Success,
        properties: None,
    });
    let error = EncodeError::NotInVersion(PacketType::Auth);
    check_unwritten(&auth, ProtocolVersion::V311, error);
}

#[test]
fn auth_names_its_method() {
    let auth = Packet::Auth(Auth {
        reason: ReasonCode::Reauthenticate,
        properties: None,
    });
    check_unwritten(&auth, ProtocolVersion::V5, EncodeError::AuthMethodMissing);
}

#[test]
fn no_local_and_shared_exclude_each_other() {
    let shared = Subscription::new("$share/g/a".parse().unwrap(), QoS::AtMostOnce);
    let filters = smallvec![Subscription {
        no_local: true,
        ..shared
    }];
    let subscribe = Subscribe {
        packet_id: id(1),
        filters,
        properties: None,
    };
    let packet = Packet::Subscribe(Box::new(subscribe));
    check_unwritten(&packet, ProtocolVersion::V5, EncodeError::NoLocalOnShared);
}

#[test]
fn the_header_of_a_publish_is_checked() {
    let mut buf = BytesMut::new();
    let version = ProtocolVersion::V311;
    let mut header = |qos, packet_id, dup, len| {
        encode_publish_header(&mut buf, version, "a", qos, packet_id, dup, false, len)
    };
    assert_eq!(
        header(QoS::AtLeastOnce, None, false, 0),
        Err(EncodeError::PacketIdMissing)
    );
    assert_eq!(
        header(QoS::AtMostOnce, None, true, 0),
        Err(EncodeError::DupWithQoS0)
    );
    let len = 268_435_455 - 3;
    assert_eq!(header(QoS::AtMostOnce, None, false, len), Ok(()));
    let error = EncodeError::TooLarge {
        size_bytes: 268_435_456,
    };
    assert_eq!(header(QoS::AtMostOnce, None, false, len + 1), Err(error));
    assert_eq!(&buf[..], b"\x30\xff\xff\xff\x7f\x00\x01a");
}
