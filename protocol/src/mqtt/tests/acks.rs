//! PUBACK, PUBREC, PUBREL, PUBCOMP and DISCONNECT: a reason, perhaps left out.

use hex_literal::hex;

use super::*;

/// Makes the acknowledgement whose first byte is given.
fn ack(first: u8, packet_id: PacketId, reason: ReasonCode, properties: Option<&str>) -> Packet {
    let properties = properties.map(|text| {
        Box::new(Properties {
            reason_string: Some(text.into()),
            ..Properties::default()
        })
    });
    match first {
        0x40 => Packet::PubAck(PubAck {
            packet_id,
            reason,
            properties,
        }),
        0x50 => Packet::PubRec(PubRec {
            packet_id,
            reason,
            properties,
        }),
        0x62 => Packet::PubRel(PubRel {
            packet_id,
            reason,
            properties,
        }),
        _ => Packet::PubComp(PubComp {
            packet_id,
            reason,
            properties,
        }),
    }
}

const FIRST_BYTES: [u8; 4] = [0x40, 0x50, 0x62, 0x70];

#[test]
fn an_acknowledgement_is_two_bytes_before_5_0_and_on_success() {
    for first in FIRST_BYTES {
        for sender in SENDERS {
            let expected = ack(first, id(0x0102), ReasonCode::Success, None);
            check(sender, &[first, 2, 1, 2], Ok(expected));
        }
    }
}

#[test]
fn a_reason_without_properties_may_end_the_packet() {
    for (first, code) in [(0x40, 0x97), (0x50, 0x10), (0x62, 0x92), (0x70, 0x92)] {
        let reason = ReasonCode::from_code(code).unwrap();
        let expected = ack(first, id(1), reason, None);
        check(CLIENT_5, &[first, 3, 0, 1, code], Ok(expected.clone()));
        check_accepted(SERVER_5, &[first, 4, 0, 1, code, 0], &expected);
    }
}

#[test]
fn properties_follow_the_reason() {
    for first in FIRST_BYTES {
        let expected = ack(first, id(1), ReasonCode::Success, Some("r"));
        let bytes = [first, 8, 0, 1, 0, 4, 0x1f, 0, 1, b'r'];
        check(CLIENT_5, &bytes, Ok(expected.clone()));
        check(SERVER_5, &bytes, Ok(expected));
    }
}

#[test]
fn in_3_1_a_repeated_pubrel_has_the_dup_flag() {
    let expected = ack(0x62, id(1), ReasonCode::Success, None);
    check_accepted(CLIENT_31, &hex!("6a 02 0001"), &expected);
}

#[test]
fn disconnect_says_why_in_5_0() {
    let normal = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    for sender in [CLIENT_31, CLIENT_311, CLIENT_5, SERVER_5] {
        check(sender, &hex!("e0 00"), Ok(normal.clone()));
    }
    let with_will = Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWill));
    check(CLIENT_5, &hex!("e0 01 04"), Ok(with_will.clone()));
    check_accepted(CLIENT_5, &hex!("e0 02 04 00"), &with_will);
    let taken_over = Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver));
    check(SERVER_5, &hex!("e0 01 8e"), Ok(taken_over));
    let expiry = Properties {
        session_expiry_interval_secs: Some(0),
        ..Properties::default()
    };
    let properties = Some(Box::new(expiry));
    let expected = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties,
    });
    check(CLIENT_5, &hex!("e0 07 00 05 11 00000000"), Ok(expected));
}

pub(super) const REFUSED: &[Refused] = &[
    // Packet identifier.
    (CLIENT_311, &hex!("40 02 0000"), "MQTT-2.2.1-3"),
    (CLIENT_5, &hex!("50 02 0000"), "MQTT-2.2.1-3"),
    (SERVER_311, &hex!("62 02 0000"), "MQTT-2.2.1-3"),
    (CLIENT_31, &hex!("70 02 0000"), "MQTT-2.2.1-3"),
    // Flags.
    (CLIENT_311, &hex!("42 02 0001"), "MQTT-2.1.3-1"),
    (CLIENT_311, &hex!("58 02 0001"), "MQTT-2.1.3-1"),
    (CLIENT_311, &hex!("60 02 0001"), "MQTT-3.6.1-1"),
    (CLIENT_311, &hex!("6a 02 0001"), "MQTT-3.6.1-1"),
    (CLIENT_5, &hex!("63 02 0001"), "MQTT-3.6.1-1"),
    (CLIENT_31, &hex!("64 02 0001"), "MQTT-3.6.1-1"),
    (SERVER_5, &hex!("71 02 0001"), "MQTT-2.1.3-1"),
    (CLIENT_311, &hex!("e1 00"), "MQTT-3.14.1-1"),
    (CLIENT_5, &hex!("e2 00"), "MQTT-3.14.1-1"),
    (CLIENT_31, &hex!("e8 00"), "MQTT-3.14.1-1"),
    // Length.
    (CLIENT_311, &hex!("40 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("40 01 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("40 03 0001 00"), "MQTT-2.1.4"),
    (CLIENT_31, &hex!("62 04 0001 00 00"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("40 05 0001 00 00 00"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("40 04 0001 00 01"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("e0 01 00"), "MQTT-2.1.4"),
    (CLIENT_5, &hex!("e0 03 00 00 00"), "MQTT-2.1.4"),
    // Reasons that belong elsewhere, or nowhere.
    (CLIENT_5, &hex!("40 03 0001 92"), "MQTT-3.4.2-1"),
    (CLIENT_5, &hex!("40 03 0001 01"), "MQTT-3.4.2-1"),
    (CLIENT_5, &hex!("50 03 0001 ff"), "MQTT-3.5.2-1"),
    (CLIENT_5, &hex!("62 03 0001 10"), "MQTT-3.6.2-1"),
    (SERVER_5, &hex!("70 03 0001 80"), "MQTT-3.7.2-1"),
    (CLIENT_5, &hex!("e0 01 01"), "MQTT-3.14.2-1"),
    (SERVER_5, &hex!("e0 01 85"), "MQTT-3.14.2-1"),
    // Properties that only the other end may send.
    (SERVER_5, &hex!("e0 07 00 05 11 00000000"), "MQTT-3.14.2-2"),
    (CLIENT_5, &hex!("e0 06 00 04 1c 0001 73"), "MQTT-2.2.2.2"),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
