//! Limits of this end, which are not rules of the standard.

use hex_literal::hex;
use smallvec::smallvec;

use super::*;

fn encoded(packet: &Packet, version: ProtocolVersion) -> BytesMut {
    let mut buf = BytesMut::new();
    packet.encode(version, &mut buf).unwrap();
    buf
}

fn publish(topic: &str) -> BytesMut {
    let topic = topic.parse().unwrap();
    encoded(
        &Packet::Publish(Publish::new(topic, "".into())),
        ProtocolVersion::V311,
    )
}

fn subscribe(filters: &[&str]) -> BytesMut {
    let subscription = |filter: &&str| Subscription::new(filter.parse().unwrap(), QoS::AtMostOnce);
    let filters = filters.iter().map(subscription).collect();
    let packet = Subscribe {
        packet_id: id(1),
        filters,
        properties: None,
    };
    encoded(&Packet::Subscribe(Box::new(packet)), ProtocolVersion::V311)
}

fn refuses(bytes: &[u8], error: DecodeError, reason: ReasonCode) {
    assert_eq!(decode(CLIENT_311, bytes), Err(error));
    assert_eq!(error.reason_code(), reason);
}

#[test]
fn a_packet_too_large_is_refused_by_its_fixed_header() {
    // 262,144 bytes in all are the default limit: 4 of header and 262,140 of body.
    assert_eq!(decode(CLIENT_311, &hex!("30 fcff0f")), Ok(None));
    let error = DecodeError::TooLarge {
        size_bytes: 262_145,
        max_bytes: 262_144,
    };
    refuses(&hex!("30 fdff0f"), error, ReasonCode::PacketTooLarge);
}

#[test]
fn connect_has_a_limit_of_its_own() {
    // 8,192 bytes in all: 3 of header and 8,189 of body.
    assert_eq!(decode(CLIENT_311, &hex!("10 fd3f")), Ok(None));
    let error = DecodeError::TooLarge {
        size_bytes: 8193,
        max_bytes: 8192,
    };
    refuses(&hex!("10 fe3f"), error, ReasonCode::PacketTooLarge);
}

#[test]
fn long_topic_names_are_refused() {
    let (fits, exceeds) = ("x".repeat(255), "x".repeat(256));
    assert!(decode(CLIENT_311, &publish(&fits)).is_ok());
    let error = DecodeError::TopicNameTooLong {
        size_bytes: 256,
        max_bytes: 255,
    };
    refuses(&publish(&exceeds), error, ReasonCode::TopicNameInvalid);
}

#[test]
fn deep_topic_names_are_refused() {
    assert!(decode(CLIENT_311, &publish("1/2/3/4/5/6/7/8/9/10")).is_ok());
    let error = DecodeError::TopicNameTooDeep {
        levels: 11,
        max_levels: 10,
    };
    refuses(
        &publish("1/2/3/4/5/6/7/8/9/10/11"),
        error,
        ReasonCode::TopicNameInvalid,
    );
    refuses(&publish("//////////"), error, ReasonCode::TopicNameInvalid);
}

#[test]
fn long_and_deep_filters_are_refused() {
    let exceeds = "x".repeat(256);
    let error = DecodeError::TopicFilterTooLong {
        size_bytes: 256,
        max_bytes: 255,
    };
    refuses(
        &subscribe(&[&exceeds]),
        error,
        ReasonCode::TopicFilterInvalid,
    );
    assert!(decode(CLIENT_311, &subscribe(&["$share/g/1/2/3/4/5/6/7/8/9/#"])).is_ok());
    let error = DecodeError::TopicFilterTooDeep {
        levels: 11,
        max_levels: 10,
    };
    let deep = "$share/g/1/2/3/4/5/6/7/8/9/10/#";
    refuses(&subscribe(&[deep]), error, ReasonCode::TopicFilterInvalid);
}

#[test]
fn too_many_filters_are_refused() {
    assert!(decode(CLIENT_311, &subscribe(&["a"; 32])).is_ok());
    let error = DecodeError::TooManyFilters { max_filters: 32 };
    refuses(&subscribe(&["a"; 33]), error, ReasonCode::QuotaExceeded);
    let filters = (0..33).map(|_| "a".parse().unwrap()).collect();
    let unsubscribe = Unsubscribe {
        packet_id: id(1),
        filters,
        properties: None,
    };
    let packet = Packet::Unsubscribe(Box::new(unsubscribe));
    let bytes = encoded(&packet, ProtocolVersion::V311);
    refuses(&bytes, error, ReasonCode::QuotaExceeded);
}

#[test]
fn too_many_user_properties_are_refused() {
    let with = |count| {
        let user = vec![("".into(), "".into()); count];
        let properties = Some(Box::new(Properties {
            user,
            ..Properties::default()
        }));
        let filters = smallvec!["a".parse().unwrap()];
        let unsubscribe = Unsubscribe {
            packet_id: id(1),
            filters,
            properties,
        };
        encoded(
            &Packet::Unsubscribe(Box::new(unsubscribe)),
            ProtocolVersion::V5,
        )
    };
    assert!(decode(CLIENT_5, &with(64)).is_ok());
    let error = decode(CLIENT_5, &with(65)).unwrap_err();
    assert_eq!(
        error,
        DecodeError::TooManyUserProperties { max_properties: 64 }
    );
    assert_eq!(error.reason_code(), ReasonCode::QuotaExceeded);
}

#[test]
fn long_client_ids_are_refused() {
    let connect = Connect::new(ProtocolVersion::V311, "x".repeat(257));
    let bytes = encoded(&Packet::Connect(Box::new(connect)), ProtocolVersion::V311);
    let error = DecodeError::ClientIdTooLong {
        size_bytes: 257,
        max_bytes: 256,
    };
    refuses(&bytes, error, ReasonCode::ClientIdentifierNotValid);
}
