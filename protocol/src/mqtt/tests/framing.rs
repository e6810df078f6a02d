//! The fixed header: packet types, flags and the Remaining Length; PINGREQ and PINGRESP.

use hex_literal::hex;

use super::*;

#[test]
fn pings_are_empty() {
    for sender in [CLIENT_31, CLIENT_311, CLIENT_5] {
        check(sender, &hex!("c0 00"), Ok(Packet::PingReq));
    }
    for sender in [SERVER_31, SERVER_311, SERVER_5] {
        check(sender, &hex!("d0 00"), Ok(Packet::PingResp));
    }
}

#[test]
fn packets_are_taken_one_at_a_time() {
    let mut decoder = opened(CLIENT_311);
    let mut buf = BytesMut::from(&hex!("c0 00 30 04 0001 61 78 c0 00 40")[..]);
    assert_eq!(decoder.decode(&mut buf), Ok(Some(Packet::PingReq)));
    assert!(matches!(
        decoder.decode(&mut buf),
        Ok(Some(Packet::Publish(_)))
    ));
    assert_eq!(decoder.decode(&mut buf), Ok(Some(Packet::PingReq)));
    assert_eq!(decoder.decode(&mut buf), Ok(None));
    assert_eq!(&buf[..], hex!("40"));
}

#[test]
fn a_packet_that_claims_more_than_came_is_awaited_without_memory() {
    // Remaining Length 4096, three bytes sent.
    let mut decoder = opened(CLIENT_311);
    let mut buf = BytesMut::from(&hex!("30 8020 000161")[..]);
    let capacity = buf.capacity();
    assert_eq!(decoder.decode(&mut buf), Ok(None));
    assert_eq!((buf.len(), buf.capacity()), (6, capacity));
}

#[test]
fn the_longest_length_is_read_and_found_too_large() {
    let error = decode(CLIENT_311, &hex!("30 ffffff7f")).unwrap_err();
    let (size_bytes, max_bytes) = (268_435_460, 262_144);
    assert_eq!(
        error,
        DecodeError::TooLarge {
            size_bytes,
            max_bytes
        }
    );
}

pub(super) const REFUSED: &[Refused] = &[
    (CLIENT_311, &hex!("c0 01 00"), "MQTT-3.12"),
    (SERVER_5, &hex!("d0 01 00"), "MQTT-3.12"),
    // Long before the claimed 268 million bytes.
    (CLIENT_311, &hex!("c0 ffffff7f"), "MQTT-3.12"),
    (CLIENT_311, &hex!("c1 00"), "MQTT-2.1.3-1"),
    (SERVER_311, &hex!("d8 00"), "MQTT-2.1.3-1"),
    (CLIENT_31, &hex!("c2 00"), "MQTT-2.1.3-1"),
    // Remaining Length of five bytes, and padded ones.
    (CLIENT_311, &hex!("30 ffffffff"), "MQTT-1.5.5"),
    (CLIENT_5, &hex!("30 8080808001"), "MQTT-1.5.5"),
    (CLIENT_311, &hex!("10 ffffffff"), "MQTT-1.5.5"),
    (CLIENT_311, &hex!("c0 8000"), "MQTT-1.5.5-1"),
    (CLIENT_311, &hex!("30 858000 0001616869"), "MQTT-1.5.5-1"),
    (SERVER_5, &hex!("30 84808000 00016100"), "MQTT-1.5.5-1"),
    // Variable byte integers of properties.
    (CLIENT_5, &hex!("30 08 0001 61 8080808001"), "MQTT-1.5.5"),
    (CLIENT_5, &hex!("30 05 0001 61 8000"), "MQTT-1.5.5-1"),
    (
        CLIENT_5,
        &hex!("82 0d 0001 06 0b 8080808001 0001 61 00"),
        "MQTT-1.5.5",
    ),
    (
        CLIENT_5,
        &hex!("82 0a 0001 03 0b 8100 0001 61 00"),
        "MQTT-1.5.5-1",
    ),
    // Type 0, whatever follows.
    (CLIENT_311, &hex!("00 00"), "MQTT-2.1.2"),
    (SERVER_5, &hex!("0f 00"), "MQTT-2.1.2"),
];

#[test]
fn what_breaks_a_rule_is_refused() {
    check_refused(REFUSED);
}
