//! Properties: every one of them in every packet.

use hex_literal::hex;

use super::*;

/// A block of properties in one kind of packet, from one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Connect,
    Will,
    ConnAck,
    PublishUp,
    PublishDown,
    Ack(u8),
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    DisconnectUp,
    DisconnectDown,
    Auth,
}

use Place::{
    Ack, Auth as InAuth, ConnAck as InConnAck, Connect as InConnect, DisconnectDown, DisconnectUp,
    PublishDown, PublishUp, SubAck as InSubAck, Subscribe as InSubscribe, UnsubAck as InUnsubAck,
    Unsubscribe as InUnsubscribe, Will as InWill,
};

const PLACES: [Place; 16] = [
    InConnect,
    InWill,
    InConnAck,
    PublishUp,
    PublishDown,
    Ack(0x40),
    Ack(0x50),
    Ack(0x62),
    Ack(0x70),
    InSubscribe,
    InSubAck,
    InUnsubscribe,
    InUnsubAck,
    DisconnectUp,
    DisconnectDown,
    InAuth,
];
const MESSAGES: &[Place] = &[InWill, PublishUp, PublishDown];
const RESULTS: &[Place] = &[
    InConnAck,
    Ack(0x40),
    Ack(0x50),
    Ack(0x62),
    Ack(0x70),
    InSubAck,
    InUnsubAck,
    DisconnectUp,
    DisconnectDown,
    InAuth,
];

/// Table 2-4 of MQTT 5.0: identifier, a value, where it may stand.
const TABLE: [(u8, &[u8], &[Place]); 27] = [
    (0x01, &hex!("01"), MESSAGES),
    (0x02, &hex!("00000001"), MESSAGES),
    (0x03, &hex!("0001 74"), MESSAGES),
    (0x08, &hex!("0001 72"), MESSAGES),
    (0x09, &hex!("0002 00ff"), MESSAGES),
    (0x0b, &hex!("7f"), &[PublishDown, InSubscribe]),
    (
        0x11,
        &hex!("ffffffff"),
        &[InConnect, InConnAck, DisconnectUp],
    ),
    (0x12, &hex!("0001 69"), &[InConnAck]),
    (0x13, &hex!("0000"), &[InConnAck]),
    (0x15, &hex!("0001 6d"), &[InConnect, InConnAck, InAuth]),
    (0x16, &hex!("0000"), &[InConnect, InConnAck, InAuth]),
    (0x17, &hex!("00"), &[InConnect]),
    (0x18, &hex!("00000000"), &[InWill]),
    (0x19, &hex!("01"), &[InConnect]),
    (0x1a, &hex!("0001 69"), &[InConnAck]),
    (0x1c, &hex!("0001 73"), &[InConnAck, DisconnectDown]),
    (0x1f, &hex!("0001 72"), RESULTS),
    (0x21, &hex!("0001"), &[InConnect, InConnAck]),
    (0x22, &hex!("0000"), &[InConnect, InConnAck]),
    (0x23, &hex!("0001"), &[PublishUp, PublishDown]),
    (0x24, &hex!("01"), &[InConnAck]),
    (0x25, &hex!("00"), &[InConnAck]),
    (0x26, &hex!("0001 6b 0000"), &PLACES),
    (0x27, &hex!("00000001"), &[InConnect, InConnAck]),
    (0x28, &hex!("00"), &[InConnAck]),
    (0x29, &hex!("00"), &[InConnAck]),
    (0x2a, &hex!("01"), &[InConnAck]),
];

/// Puts a block of properties, shorter than 128 bytes, into the packet.
fn packet(place: Place, block: &[u8]) -> (Sender, Vec<u8>) {
    let (sender, first, before, after): (_, _, &[u8], &[u8]) = match place {
        InConnect => (
            CLIENT_5,
            0x10,
            &hex!("0004 4d515454 05 02 003c"),
            &hex!("0001 61"),
        ),
        InWill => {
            let before = &hex!("0004 4d515454 05 06 003c 00 0001 61");
            (CLIENT_5, 0x10, before, &hex!("0001 77 0000"))
        }
        InConnAck => (SERVER_5, 0x20, &hex!("00 00"), &[]),
        PublishUp => (CLIENT_5, 0x30, &hex!("0001 61"), &hex!("78")),
        PublishDown => (SERVER_5, 0x30, &hex!("0001 61"), &hex!("78")),
        Ack(first) => (SERVER_5, first, &hex!("0001 00"), &[]),
        InSubscribe => (CLIENT_5, 0x82, &hex!("0001"), &hex!("0001 61 00")),
        InSubAck => (SERVER_5, 0x90, &hex!("0001"), &hex!("00")),
        InUnsubscribe => (CLIENT_5, 0xa2, &hex!("0001"), &hex!("0001 61")),
        InUnsubAck => (SERVER_5, 0xb0, &hex!("0001"), &hex!("00")),
        DisconnectUp => (CLIENT_5, 0xe0, &hex!("00"), &[]),
        DisconnectDown => (SERVER_5, 0xe0, &hex!("00"), &[]),
        InAuth => (CLIENT_5, 0xf0, &hex!("18"), &[]),
    };
    let block_len = u8::try_from(block.len()).unwrap();
    let body = [before, &[block_len], block, after].concat();
    let body_len = u8::try_from(body.len()).unwrap();
    assert!(body_len < 128);
    (sender, [&[first, body_len], &body[..]].concat())
}

/// The property, after the authentication method where that must stand.
fn block(place: Place, property: u8, value: &[u8]) -> Vec<u8> {
    let needs_method = property == 0x16 || (place == InAuth && property != 0x15);
    let method: &[u8] = if needs_method {
        &hex!("15 0001 6d")
    } else {
        &[]
    };
    [method, &[property], value].concat()
}

#[test]
fn each_stands_where_the_standard_lists_it_and_nowhere_else() {
    for (property, value, allowed) in TABLE {
        for place in PLACES {
            let (sender, bytes) = packet(place, &block(place, property, value));
            match decode(sender, &bytes) {
                Ok(Some(packet)) => {
                    assert!(
                        allowed.contains(&place),
                        "{property:#04x} accepted in {place:?}"
                    );
                    let mut buf = BytesMut::new();
                    packet.encode(ProtocolVersion::V5, &mut buf).unwrap();
                    assert_eq!(buf, bytes, "{property:#04x} in {place:?}");
                }
                Err(DecodeError::Violation(violation)) => {
                    assert!(
                        !allowed.contains(&place),
                        "{property:#04x} in {place:?}: {violation}"
                    );
                    let expected = match (property, place) {
                        (0x0b, PublishUp) => Violation::SubscriptionIdFromClient,
                        (0x11, DisconnectDown) => Violation::SessionExpiryFromServer,
                        _ => Violation::PropertyNotAllowed,
                    };
                    assert_eq!(violation, expected, "{property:#04x} in {place:?}");
                }
                other => panic!("{property:#04x} in {place:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn none_but_two_may_repeat() {
    for (property, value, allowed) in TABLE {
        for place in allowed {
            let once = block(*place, property, value);
            let twice = [&once[..], &[property], value].concat();
            let (sender, bytes) = packet(*place, &twice);
            let repeats = property == 0x26 || (property, *place) == (0x0b, PublishDown);
            let expected = if repeats {
                None
            } else {
                Some(Violation::DuplicateProperty.into())
            };
            assert_eq!(
                decode(sender, &bytes).err(),
                expected,
                "{property:#04x} in {place:?}"
            );
        }
    }
}

#[test]
fn each_must_be_whole() {
    for (property, value, allowed) in TABLE {
        for place in allowed {
            for len in 0..value.len() {
                let (sender, bytes) = packet(*place, &block(*place, property, &value[..len]));
                check(sender, &bytes, Err("MQTT-2.1.4"));
            }
        }
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for (property, value, place) in [
        (0x01, &hex!("02")[..], PublishUp),
        (0x17, &hex!("02"), InConnect),
        (0x19, &hex!("ff"), InConnect),
        (0x24, &hex!("02"), InConnAck),
        (0x25, &hex!("02"), InConnAck),
        (0x28, &hex!("02"), InConnAck),
        (0x29, &hex!("02"), InConnAck),
        (0x2a, &hex!("02"), InConnAck),
        (0x21, &hex!("0000"), InConnect),
        (0x27, &hex!("00000000"), InConnect),
        (0x0b, &hex!("00"), InSubscribe),
    ] {
        let (sender, bytes) = packet(place, &block(place, property, value));
        check(sender, &bytes, Err("MQTT-2.2.2"));
    }
}

#[test]
fn identifiers_that_nothing_has_are_refused() {
    let listed: Vec<u8> = TABLE.iter().map(|(property, ..)| *property).collect();
    for property in (0..=0x7f).filter(|property| !listed.contains(property)) {
        let (sender, bytes) = packet(PublishUp, &[property, 0, 0, 0, 0]);
        check(sender, &bytes, Err("MQTT-2.2.2.2"));
    }
}

#[test]
fn strings_in_properties_are_checked() {
    for (value, clause) in [
        (&hex!("0001 80")[..], "MQTT-1.5.4-1"),
        (&hex!("0003 eda080"), "MQTT-1.5.4-1"),
        (&hex!("0001 00"), "MQTT-1.5.4-2"),
    ] {
        for (property, places) in [(0x03, MESSAGES), (0x08, MESSAGES), (0x1f, RESULTS)] {
            for place in places {
                let (sender, bytes) = packet(*place, &block(*place, property, value));
                check(sender, &bytes, Err(clause));
            }
        }
    }
}

pub(super) const REFUSED: &[Refused] = &[
    // A property of PUBACK that is of CONNECT, an unknown one, a repeated one, one out of range.
    (CLIENT_5, &hex!("40 07 0001 00 03 21 0001"), "MQTT-2.2.2.2"),
    (CLIENT_5, &hex!("40 06 0001 00 02 7f 00"), "MQTT-2.2.2.2"),
    (CLIENT_5, &hex!("40 06 0001 00 02 8001"), "MQTT-2.2.2.2"),
    (
        CLIENT_5,
        &hex!("30 08 0001 61 04 01 00 01 00"),
        "MQTT-2.2.2",
    ),
    (CLIENT_5, &hex!("30 06 0001 61 02 01 02"), "MQTT-2.2.2"),
    // Authentication data without a method.
    (
        CLIENT_5,
        &hex!("10 12 0004 4d515454 05 02 003c 04 16 0001 ff 0001 61"),
        "MQTT-3.1.2.11.10",
    ),
    // A block that ends inside a property, and one that is longer than its packet.
    (CLIENT_5, &hex!("30 05 0001 61 01 01"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("30 06 0001 61 7f 01 00"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("30 07 0001 61 ffffff7f"), "MQTT-2.1.4"),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
