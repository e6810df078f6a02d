//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use std::num::NonZeroU32;

use hex_literal::hex;
use smallvec::smallvec;

use super::*;

fn subscription(filter: &str, qos: QoS) -> Subscription {
    Subscription::new(filter.parse().unwrap(), qos)
}

#[test]
fn filters_are_read_in_order() {
    let filters = smallvec![
        subscription("a/#", QoS::AtMostOnce),
        subscription("+", QoS::AtLeastOnce),
        subscription("é", QoS::ExactlyOnce),
    ];
    let expected = Subscribe {
        packet_id: id(10),
        filters,
        properties: None,
    };
    let expected = Packet::Subscribe(Box::new(expected));
    let bytes = hex!("82 11 000a 0003 612f23 00 0001 2b 01 0002 c3a9 02");
    check(CLIENT_31, &bytes, Ok(expected.clone()));
    check(CLIENT_311, &bytes, Ok(expected.clone()));
    let bytes = hex!("82 12 000a 00 0003 612f23 00 0001 2b 01 0002 c3a9 02");
    check(CLIENT_5, &bytes, Ok(expected));
}

#[test]
fn options_of_5_0_are_read() {
    let subscription = Subscription {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..subscription("a", QoS::AtLeastOnce)
    };
    let subscription_identifiers = vec![NonZeroU32::new(128).unwrap()];
    let properties = Properties {
        subscription_identifiers,
        ..Properties::default()
    };
    let expected = Subscribe {
        packet_id: id(1),
        filters: smallvec![subscription],
        properties: Some(Box::new(properties)),
    };
    let bytes = hex!("82 0a 0001 03 0b 8001 0001 61 2d");
    check(CLIENT_5, &bytes, Ok(Packet::Subscribe(Box::new(expected))));
}

#[test]
fn in_3_1_repeated_requests_have_the_dup_flag() {
    let filters = smallvec![subscription("a", QoS::AtMostOnce)];
    let expected = Subscribe {
        packet_id: id(1),
        filters,
        properties: None,
    };
    let bytes = hex!("8a 06 0001 0001 61 00");
    check_accepted(CLIENT_31, &bytes, &Packet::Subscribe(Box::new(expected)));
    let filters = smallvec!["a".parse().unwrap()];
    let expected = Unsubscribe {
        packet_id: id(1),
        filters,
        properties: None,
    };
    let bytes = hex!("aa 05 0001 0001 61");
    check_accepted(CLIENT_31, &bytes, &Packet::Unsubscribe(Box::new(expected)));
}

#[test]
fn shared_filters_are_accepted() {
    let filters = smallvec![subscription("$share/g/a/+", QoS::AtLeastOnce)];
    let expected = Subscribe {
        packet_id: id(1),
        filters,
        properties: None,
    };
    let bytes = hex!("82 12 0001 00 000c 24736861 72652f67 2f612f2b 01");
    check(CLIENT_5, &bytes, Ok(Packet::Subscribe(Box::new(expected))));
}

#[test]
fn suback_has_a_result_for_each_filter() {
    let reasons = smallvec![
        ReasonCode::Success,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
    ];
    let expected = Packet::SubAck(SubAck {
        packet_id: id(1),
        reasons,
        properties: None,
    });
    check(
        SERVER_31,
        &hex!("90 06 0001 00 01 02 80"),
        Ok(expected.clone()),
    );
    check(
        SERVER_311,
        &hex!("90 06 0001 00 01 02 80"),
        Ok(expected.clone()),
    );
    check(SERVER_5, &hex!("90 07 0001 00 00 01 02 80"), Ok(expected));
}

#[test]
fn before_5_0_every_refusal_of_a_filter_is_0x80() {
    let reasons = smallvec![ReasonCode::NotAuthorized, ReasonCode::GrantedQoS1];
    let suback = Packet::SubAck(SubAck {
        packet_id: id(1),
        reasons,
        properties: None,
    });
    let mut buf = BytesMut::new();
    suback.encode(ProtocolVersion::V311, &mut buf).unwrap();
    assert_eq!(&buf[..], hex!("90 04 0001 80 01"));
}

#[test]
fn unsubscribe_names_filters() {
    let filters = smallvec!["a/+".parse().unwrap(), "b".parse().unwrap()];
    let expected = Unsubscribe {
        packet_id: id(2),
        filters,
        properties: None,
    };
    let expected = Packet::Unsubscribe(Box::new(expected));
    check(
        CLIENT_311,
        &hex!("a2 0a 0002 0003 612f2b 0001 62"),
        Ok(expected.clone()),
    );
    check(
        CLIENT_5,
        &hex!("a2 0b 0002 00 0003 612f2b 0001 62"),
        Ok(expected),
    );
}

#[test]
fn unsuback_has_results_in_5_0_only() {
    let reasons = smallvec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    let expected = UnsubAck {
        packet_id: id(2),
        reasons,
        properties: None,
    };
    check(
        SERVER_5,
        &hex!("b0 05 0002 00 00 11"),
        Ok(Packet::UnsubAck(expected.clone())),
    );
    let expected = UnsubAck {
        reasons: smallvec![],
        ..expected
    };
    check(
        SERVER_31,
        &hex!("b0 02 0002"),
        Ok(Packet::UnsubAck(expected.clone())),
    );
    check(
        SERVER_311,
        &hex!("b0 02 0002"),
        Ok(Packet::UnsubAck(expected)),
    );
}

pub(super) const REFUSED: &[Refused] = &[
    // Flags.
    (CLIENT_311, &hex!("80 06 0001 0001 61 00"), "MQTT-3.8.1-1"),
    (CLIENT_311, &hex!("8a 06 0001 0001 61 00"), "MQTT-3.8.1-1"),
    (CLIENT_31, &hex!("83 06 0001 0001 61 00"), "MQTT-3.8.1-1"),
    (CLIENT_311, &hex!("a0 05 0001 0001 61"), "MQTT-3.10.1-1"),
    (CLIENT_5, &hex!("aa 06 0001 00 0001 61"), "MQTT-3.10.1-1"),
    (SERVER_311, &hex!("92 03 0001 00"), "MQTT-2.1.3-1"),
    (SERVER_311, &hex!("b1 02 0001"), "MQTT-2.1.3-1"),
    // Packet identifier.
    (CLIENT_311, &hex!("82 06 0000 0001 61 00"), "MQTT-2.2.1-3"),
    (CLIENT_5, &hex!("a2 06 0000 00 0001 61"), "MQTT-2.2.1-3"),
    (SERVER_311, &hex!("90 03 0000 00"), "MQTT-2.2.1-3"),
    (SERVER_5, &hex!("b0 04 0000 00 00"), "MQTT-2.2.1-3"),
    // Empty lists.
    (CLIENT_311, &hex!("82 02 0001"), "MQTT-3.8.3-2"),
    (CLIENT_5, &hex!("82 03 0001 00"), "MQTT-3.8.3-2"),
    (CLIENT_311, &hex!("a2 02 0001"), "MQTT-3.10.3-2"),
    (CLIENT_5, &hex!("a2 03 0001 00"), "MQTT-3.10.3-2"),
    (SERVER_311, &hex!("90 02 0001"), "MQTT-3.9.3"),
    (SERVER_5, &hex!("b0 03 0001 00"), "MQTT-3.11.3"),
    // Filters.
    (CLIENT_311, &hex!("82 05 0001 0000 00"), "MQTT-4.7.3-1"),
    (CLIENT_311, &hex!("a2 04 0001 0000"), "MQTT-4.7.3-1"),
    (
        CLIENT_311,
        &hex!("82 0a 0001 0005 612f232f62 00"),
        "MQTT-4.7.1-1",
    ),
    (CLIENT_311, &hex!("82 07 0001 0002 6123 00"), "MQTT-4.7.1-1"),
    (CLIENT_5, &hex!("a2 07 0001 00 0002 2323"), "MQTT-4.7.1-1"),
    (CLIENT_311, &hex!("82 07 0001 0002 612b 00"), "MQTT-4.7.1-2"),
    (CLIENT_311, &hex!("a2 08 0001 0003 2b2f2b 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("82 07 0001 0002 6100 00"), "MQTT-1.5.4-2"),
    (CLIENT_311, &hex!("82 06 0001 0001 80 00"), "MQTT-1.5.4-1"),
    // $share//a, $share/g, $share/g/, $share/+/a
    (
        CLIENT_5,
        &hex!("82 0f 0001 00 0009 2473686172652f2f61 00"),
        "MQTT-4.8.2-1",
    ),
    (
        CLIENT_5,
        &hex!("82 0e 0001 00 0008 2473686172652f67 00"),
        "MQTT-4.8.2-2",
    ),
    (
        CLIENT_5,
        &hex!("82 0f 0001 00 0009 2473686172652f672f 00"),
        "MQTT-4.8.2-2",
    ),
    (
        CLIENT_5,
        &hex!("82 10 0001 00 000a 2473686172652f2b2f61 00"),
        "MQTT-4.8.2-2",
    ),
    // Options.
    (CLIENT_311, &hex!("82 06 0001 0001 61 03"), "MQTT-3.8.3.1"),
    (CLIENT_31, &hex!("82 06 0001 0001 61 03"), "MQTT-3.8.3.1"),
    (CLIENT_311, &hex!("82 06 0001 0001 61 04"), "MQTT-3.8.3-5"),
    (CLIENT_5, &hex!("82 07 0001 00 0001 61 40"), "MQTT-3.8.3-5"),
    (CLIENT_5, &hex!("82 07 0001 00 0001 61 80"), "MQTT-3.8.3-5"),
    (CLIENT_5, &hex!("82 07 0001 00 0001 61 30"), "MQTT-3.8.3.1"),
    (
        CLIENT_5,
        &hex!("82 10 0001 00 000a 2473686172652f672f61 04"),
        "MQTT-3.8.3-4",
    ),
    // Results.
    (SERVER_311, &hex!("90 03 0001 03"), "MQTT-3.9.3-2"),
    (SERVER_311, &hex!("90 03 0001 87"), "MQTT-3.9.3-2"),
    (SERVER_5, &hex!("90 04 0001 00 11"), "MQTT-3.9.3-2"),
    (SERVER_5, &hex!("b0 04 0001 00 01"), "MQTT-3.11.3-2"),
    // Fields missing or left over.
    (CLIENT_311, &hex!("82 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("82 05 0001 0001 61"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("82 07 0001 0001 61 00 00"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("82 02 0001"), "MQTT-2.1.4"),
    (SERVER_311, &hex!("b0 03 0001 00"), "MQTT-2.1.4"),
    (SERVER_5, &hex!("b0 02 0001"), "MQTT-2.1.4"),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
