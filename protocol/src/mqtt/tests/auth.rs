//! AUTH.

use bytes::Bytes;
use hex_literal::hex;

use super::*;

#[test]
fn a_step_names_its_method() {
    let properties = Properties {
        authentication_method: Some("m".into()),
        authentication_data: Some(Bytes::from_static(&[0xff])),
        ..Properties::default()
    };
    let reason = ReasonCode::ContinueAuthentication;
    let expected = Packet::Auth(Auth {
        reason,
        properties: Some(Box::new(properties)),
    });
    let bytes = hex!("f0 0a 18 08 15 0001 6d 16 0001 ff");
    check(CLIENT_5, &bytes, Ok(expected.clone()));
    check(SERVER_5, &bytes, Ok(expected));
}

#[test]
fn success_may_be_left_out() {
    let expected = Auth {
        reason: ReasonCode::Success,
        properties: None,
    };
    check(SERVER_5, &hex!("f0 00"), Ok(Packet::Auth(expected)));
}

pub(super) const REFUSED: &[Refused] = &[
    (CLIENT_5, &hex!("f1 00"), "MQTT-3.15.1-1"),
    (CLIENT_311, &hex!("f0 00"), "MQTT-2.1.2"),
    (SERVER_31, &hex!("f0 00"), "MQTT-2.1.2"),
    (CLIENT_5, &hex!("f0 06 01 04 15 0001 6d"), "MQTT-3.15.2-1"),
    (CLIENT_5, &hex!("f0 01 18"), "MQTT-3.15.2.2.2"),
    (CLIENT_5, &hex!("f0 02 18 00"), "MQTT-3.15.2.2.2"),
    (
        CLIENT_5,
        &hex!("f0 06 18 04 16 0001 ff"),
        "MQTT-3.1.2.11.10",
    ),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
