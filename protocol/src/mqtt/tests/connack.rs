//! CONNACK.

use hex_literal::hex;

use super::*;

#[test]
fn return_codes_become_reasons() {
    for (code, reason) in [
        (0, ReasonCode::Success),
        (1, ReasonCode::UnsupportedProtocolVersion),
        (2, ReasonCode::ClientIdentifierNotValid),
        (3, ReasonCode::ServerUnavailable),
        (4, ReasonCode::BadUserNameOrPassword),
        (5, ReasonCode::NotAuthorized),
    ] {
        let expected = ConnAck::refused(reason);
        for sender in [SERVER_31, SERVER_311] {
            check(
                sender,
                &[0x20, 2, 0, code],
                Ok(Packet::ConnAck(expected.clone())),
            );
        }
    }
}

#[test]
fn every_reason_that_5_0_lists_has_a_return_code() {
    for reason in ReasonCode::ALL
        .iter()
        .filter(|code| code.is_allowed_in(PacketType::ConnAck))
    {
        let packet = Packet::ConnAck(ConnAck::refused(*reason));
        let mut buf = BytesMut::new();
        packet.encode(ProtocolVersion::V311, &mut buf).unwrap();
        assert_eq!(&buf[..3], hex!("20 02 00"));
        assert_eq!(buf[3] != 0, reason.is_error(), "{reason:?}");
        assert!(buf[3] <= 5, "{reason:?}");
    }
}

#[test]
fn a_session_may_be_present() {
    let present = Packet::ConnAck(ConnAck::accepted(true));
    check(SERVER_311, &hex!("20 02 01 00"), Ok(present.clone()));
    check(SERVER_5, &hex!("20 03 01 00 00"), Ok(present));
}

#[test]
fn session_present_is_not_written_where_it_has_no_place() {
    for (version, reason) in [
        (ProtocolVersion::V31, ReasonCode::Success),
        (ProtocolVersion::V311, ReasonCode::NotAuthorized),
        (ProtocolVersion::V5, ReasonCode::NotAuthorized),
    ] {
        let connack = ConnAck {
            session_present: true,
            ..ConnAck::refused(reason)
        };
        let mut buf = BytesMut::new();
        Packet::ConnAck(connack).encode(version, &mut buf).unwrap();
        assert_eq!(buf[2], 0, "{version} {reason}");
    }
}

#[test]
fn the_limits_of_a_server_are_read() {
    let bytes = hex!("20 0e 00 00 0b 24 00 25 00 28 00 29 00 13 003c");
    let properties = Properties {
        maximum_qos: Some(QoS::AtMostOnce),
        retain_available: Some(false),
        wildcard_subscription_available: Some(false),
        subscription_identifiers_available: Some(false),
        server_keep_alive_secs: Some(60),
        ..Properties::default()
    };
    let connack = ConnAck {
        properties: Some(Box::new(properties)),
        ..ConnAck::accepted(false)
    };
    check_accepted(SERVER_5, &bytes, &Packet::ConnAck(connack));
}

pub(super) const REFUSED: &[Refused] = &[
    (SERVER_311, &hex!("20 02 02 00"), "MQTT-3.2.2-1"),
    (SERVER_5, &hex!("20 03 80 00 00"), "MQTT-3.2.2-1"),
    (SERVER_31, &hex!("20 02 01 00"), "MQTT-3.2.2-1"),
    (SERVER_311, &hex!("20 02 01 05"), "MQTT-3.2.2-6"),
    (SERVER_5, &hex!("20 03 01 87 00"), "MQTT-3.2.2-6"),
    (SERVER_311, &hex!("20 02 00 06"), "MQTT-3.2.2-8"),
    (SERVER_311, &hex!("20 02 00 87"), "MQTT-3.2.2-8"),
    (SERVER_5, &hex!("20 03 00 01 00"), "MQTT-3.2.2-8"),
    (SERVER_5, &hex!("20 03 00 8e 00"), "MQTT-3.2.2-8"),
    (SERVER_5, &hex!("20 02 00 00"), "MQTT-2.1.4"),
    (SERVER_311, &hex!("20 00"), "MQTT-2.1.4"),
    (SERVER_311, &hex!("20 01 00"), "MQTT-2.1.4"),
    (SERVER_311, &hex!("20 03 00 00 00"), "MQTT-2.1.4"),
    (SERVER_311, &hex!("21 02 00 00"), "MQTT-2.1.3-1"),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
