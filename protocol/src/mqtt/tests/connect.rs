//! CONNECT.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use hex_literal::hex;

use super::*;

fn connect(version: ProtocolVersion) -> Connect {
    Connect {
        keep_alive_secs: 60,
        ..Connect::new(version, "a")
    }
}

fn accepts(sender: Sender, bytes: &[u8], expected: Connect) {
    check(sender, bytes, Ok(Packet::Connect(Box::new(expected))));
}

#[test]
fn the_three_versions_are_told_apart() {
    let bytes = hex!("10 0f 0006 4d5149736470 03 02 003c 0001 61");
    accepts(CLIENT_31, &bytes, connect(ProtocolVersion::V31));
    let bytes = hex!("10 0d 0004 4d515454 04 02 003c 0001 61");
    accepts(CLIENT_311, &bytes, connect(ProtocolVersion::V311));
    let bytes = hex!("10 0e 0004 4d515454 05 02 003c 00 0001 61");
    accepts(CLIENT_5, &bytes, connect(ProtocolVersion::V5));
}

#[test]
fn a_password_is_any_bytes() {
    let bytes = hex!("10 16 0004 4d515454 04 c2 003c 0001 61 0001 75 0004 00fffe80");
    let username = Some("u".into());
    let password = Some(Bytes::from_static(&hex!("00fffe80")));
    let expected = Connect {
        username,
        password,
        ..connect(ProtocolVersion::V311)
    };
    accepts(CLIENT_311, &bytes, expected);
}

#[test]
fn a_password_without_user_name_is_legal_in_5_0() {
    let bytes = hex!("10 11 0004 4d515454 05 42 003c 00 0001 61 0001 ff");
    let password = Some(Bytes::from_static(&hex!("ff")));
    accepts(
        CLIENT_5,
        &bytes,
        Connect {
            password,
            ..connect(ProtocolVersion::V5)
        },
    );
}

#[test]
fn empty_user_name_and_password_are_not_absent() {
    let bytes = hex!("10 11 0004 4d515454 04 c2 003c 0001 61 0000 0000");
    let expected = Connect {
        username: Some("".into()),
        password: Some(Bytes::new()),
        ..connect(ProtocolVersion::V311)
    };
    accepts(CLIENT_311, &bytes, expected);
}

#[test]
fn a_will_has_topic_payload_qos_and_retain() {
    let bytes = hex!("10 14 0004 4d515454 04 36 003c 0001 61 0001 77 0002 6f6b");
    let will = Will {
        topic: "w".parse().unwrap(),
        payload: Bytes::from_static(b"ok"),
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: None,
    };
    let expected = Connect {
        will: Some(will),
        ..connect(ProtocolVersion::V311)
    };
    accepts(CLIENT_311, &bytes, expected);
}

#[test]
fn properties_of_connect_and_will_are_apart() {
    let bytes = hex!(
        "10 26 0004 4d515454 05 06 003c"
        "0d 11 0000000a 21 0014 27 00001000"
        "0001 61"
        "05 18 00000005 0001 77 0000"
    );
    let properties = Properties {
        session_expiry_interval_secs: Some(10),
        receive_maximum: NonZeroU16::new(20),
        maximum_packet_size: NonZeroU32::new(4096),
        ..Properties::default()
    };
    let will_properties = Properties {
        will_delay_interval_secs: Some(5),
        ..Properties::default()
    };
    let will = Will {
        topic: "w".parse().unwrap(),
        payload: Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Some(Box::new(will_properties)),
    };
    let expected = Connect {
        will: Some(will),
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5)
    };
    accepts(CLIENT_5, &bytes, expected);
}

#[test]
fn client_ids_of_any_characters_and_256_bytes_are_legal_in_every_version() {
    for version in VERSIONS {
        for client_id in [
            "x".repeat(256),
            "a/b+c#d".to_owned(),
            "é;中 \u{feff}".to_owned(),
        ] {
            let connect = Connect::new(version, client_id);
            let packet = Packet::Connect(Box::new(connect));
            let mut buf = BytesMut::new();
            packet.encode(version, &mut buf).unwrap();
            let sender = Sender {
                decoder: Role::Server,
                version,
            };
            check(sender, &buf, Ok(packet));
        }
    }
}

#[test]
fn an_empty_client_id_asks_for_one() {
    let bytes = hex!("10 0c 0004 4d515454 04 02 003c 0000");
    let nameless = |version| Connect {
        client_id: "".into(),
        ..connect(version)
    };
    accepts(CLIENT_311, &bytes, nameless(ProtocolVersion::V311));
    let bytes = hex!("10 0d 0004 4d515454 05 00 003c 00 0000");
    let expected = Connect {
        clean_start: false,
        ..nameless(ProtocolVersion::V5)
    };
    accepts(CLIENT_5, &bytes, expected);
}

#[test]
fn in_3_1_the_length_takes_precedence_over_the_credential_flags() {
    let bytes = hex!("10 0f 0006 4d5149736470 03 c2 003c 0001 61");
    let expected = Packet::Connect(Box::new(connect(ProtocolVersion::V31)));
    check_accepted(CLIENT_31, &bytes, &expected);
    let bytes = hex!("10 12 0006 4d5149736470 03 c2 003c 0001 61 0001 75");
    let named = Connect {
        username: Some("u".into()),
        ..connect(ProtocolVersion::V31)
    };
    check_accepted(CLIENT_31, &bytes, &Packet::Connect(Box::new(named)));
}

#[test]
fn other_levels_are_unsupported_not_violations() {
    for (bytes, level) in [
        (&hex!("10 0d 0004 4d515454 03 02 003c 0001 61")[..], 3),
        (&hex!("10 0d 0004 4d515454 06 02 003c 0001 61")[..], 6),
        (&hex!("10 0d 0004 4d515454 84 02 003c 0001 61")[..], 0x84),
        (&hex!("10 0f 0006 4d5149736470 04 02 003c 0001 61")[..], 4),
    ] {
        let error = decode(CLIENT_311, bytes).unwrap_err();
        assert_eq!(error, DecodeError::UnsupportedVersion { level });
        assert_eq!(error.reason_code().connect_return_code(), 1);
    }
}

#[test]
fn the_version_of_a_refused_connect_is_known() {
    let mut decoder = fresh(CLIENT_5);
    let mut buf = BytesMut::from(&hex!("10 0d 0004 4d515454 05 03 003c 00 0000")[..]);
    decoder.decode(&mut buf).unwrap_err();
    assert_eq!(decoder.version(), Some(ProtocolVersion::V5));
}

pub(super) const REFUSED: &[Refused] = &[
    // Protocol name.
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515458 04 02 003c 0001 61"),
        "MQTT-3.1.2-1",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 6d717474 04 02 003c 0001 61"),
        "MQTT-3.1.2-1",
    ),
    (
        CLIENT_311,
        &hex!("10 09 0000 04 02 003c 0001 61"),
        "MQTT-3.1.2-1",
    ),
    // Flags.
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 03 003c 0001 61"),
        "MQTT-3.1.2-3",
    ),
    (
        CLIENT_31,
        &hex!("10 0f 0006 4d5149736470 03 03 003c 0001 61"),
        "MQTT-3.1.2-3",
    ),
    (
        CLIENT_5,
        &hex!("10 0e 0004 4d515454 05 03 003c 00 0001 61"),
        "MQTT-3.1.2-3",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 0a 003c 0001 61"),
        "MQTT-3.1.2-11",
    ),
    (
        CLIENT_311,
        &hex!("10 12 0004 4d515454 04 1e 003c 0001 61 0001 77 0000"),
        "MQTT-3.1.2-12",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 1a 003c 0001 61"),
        "MQTT-3.1.2-12",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 22 003c 0001 61"),
        "MQTT-3.1.2-13",
    ),
    (
        CLIENT_311,
        &hex!("10 10 0004 4d515454 04 42 003c 0001 61 0001 70"),
        "MQTT-3.1.2-22",
    ),
    (
        CLIENT_31,
        &hex!("10 12 0006 4d5149736470 03 42 003c 0001 61 0001 70"),
        "MQTT-3.1.2-22",
    ),
    (
        CLIENT_311,
        &hex!("11 0d 0004 4d515454 04 02 003c 0001 61"),
        "MQTT-2.1.3-1",
    ),
    // ClientId.
    (
        CLIENT_311,
        &hex!("10 0c 0004 4d515454 04 00 003c 0000"),
        "MQTT-3.1.3-8",
    ),
    (
        CLIENT_31,
        &hex!("10 0e 0006 4d5149736470 03 02 003c 0000"),
        "MQTT-3.1.3-8",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 02 003c 0001 00"),
        "MQTT-1.5.4-2",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 02 003c 0001 ff"),
        "MQTT-1.5.4-1",
    ),
    // Overlong encoding of U+002F, and the surrogate U+D800.
    (
        CLIENT_311,
        &hex!("10 0e 0004 4d515454 04 02 003c 0002 c0af"),
        "MQTT-1.5.4-1",
    ),
    (
        CLIENT_311,
        &hex!("10 0f 0004 4d515454 04 02 003c 0003 eda080"),
        "MQTT-1.5.4-1",
    ),
    // Fields missing or left over.
    (CLIENT_311, &hex!("10 00"), "MQTT-2.1.4"),
    (CLIENT_311, &hex!("10 06 0004 4d515454"), "MQTT-2.1.4"),
    (
        CLIENT_311,
        &hex!("10 0a 0004 4d515454 04 02 003c"),
        "MQTT-2.1.4",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 02 003c 0002 61"),
        "MQTT-2.1.4",
    ),
    (
        CLIENT_311,
        &hex!("10 0d 0004 4d515454 04 c2 003c 0001 61"),
        "MQTT-2.1.4",
    ),
    (
        CLIENT_311,
        &hex!("10 10 0004 4d515454 04 c2 003c 0001 61 0001 75"),
        "MQTT-2.1.4",
    ),
    (
        CLIENT_311,
        &hex!("10 0e 0004 4d515454 04 02 003c 0001 61 00"),
        "MQTT-2.1.4",
    ),
    (
        CLIENT_31,
        &hex!("10 12 0006 4d5149736470 03 02 003c 0001 61 0001 75"),
        "MQTT-2.1.4",
    ),
    (
        CLIENT_5,
        &hex!("10 0d 0004 4d515454 05 02 003c 0001 61"),
        "MQTT-2.1.4",
    ),
    // Will topic.
    (
        CLIENT_311,
        &hex!("10 11 0004 4d515454 04 06 003c 0001 61 0000 0000"),
        "MQTT-4.7.3-1",
    ),
    (
        CLIENT_5,
        &hex!("10 13 0004 4d515454 05 06 003c 00 0001 61 00 0000 0000"),
        "MQTT-4.7.3-1",
    ),
    (
        CLIENT_311,
        &hex!("10 12 0004 4d515454 04 06 003c 0001 61 0001 23 0000"),
        "MQTT-3.3.2-2",
    ),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
