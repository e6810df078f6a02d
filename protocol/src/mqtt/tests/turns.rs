//! Who may send what, and when.

use hex_literal::hex;

use super::*;

/// The rules that need more than one packet, or none, to be broken; broken below.
pub(super) const BROKEN: &[Violation] = &[
    Violation::FirstPacketNotConnect,
    Violation::SecondConnect,
    Violation::FirstPacketNotConnAck,
    Violation::SecondConnAck,
    Violation::ServerPacketFromClient,
    Violation::ClientPacketFromServer,
    Violation::AuthNotStarted,
];

fn refuses(mut decoder: Decoder, bytes: &[u8], violation: Violation) {
    let result = decoder.decode(&mut BytesMut::from(bytes));
    assert_eq!(
        result,
        Err(DecodeError::Violation(violation)),
        "{bytes:02x?}"
    );
}

fn first_byte(packet_type: PacketType) -> u8 {
    let flags = match packet_type {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    packet_type.number() << 4 | flags
}

#[test]
fn nothing_but_connect_opens_a_connection() {
    for packet_type in PacketType::ALL {
        let byte = [first_byte(packet_type)];
        match packet_type {
            PacketType::Connect => {
                assert_eq!(
                    fresh(CLIENT_5).decode(&mut BytesMut::from(&byte[..])),
                    Ok(None)
                );
            }
            _ => refuses(fresh(CLIENT_5), &byte, Violation::FirstPacketNotConnect),
        }
    }
}

#[test]
fn the_first_byte_alone_is_enough_to_refuse_other_protocols() {
    // "GET / HTTP/1.1", a TLS ClientHello, an SSH banner.
    refuses(fresh(CLIENT_311), b"G", Violation::FirstPacketNotConnect);
    refuses(
        fresh(CLIENT_311),
        &hex!("16"),
        Violation::ReservedHeaderFlags,
    );
    refuses(fresh(CLIENT_311), b"S", Violation::FirstPacketNotConnect);
}

#[test]
fn a_second_connect_is_refused() {
    for sender in [CLIENT_31, CLIENT_311, CLIENT_5] {
        refuses(opened(sender), &hex!("10"), Violation::SecondConnect);
    }
}

#[test]
fn a_server_refuses_what_only_servers_send() {
    for sender in [CLIENT_31, CLIENT_311, CLIENT_5] {
        for byte in [0x20, 0x90, 0xb0, 0xd0] {
            refuses(opened(sender), &[byte], Violation::ServerPacketFromClient);
        }
    }
}

#[test]
fn a_client_refuses_what_only_clients_send() {
    for sender in [SERVER_31, SERVER_311, SERVER_5] {
        for byte in [0x10, 0x82, 0xa2, 0xc0] {
            refuses(opened(sender), &[byte], Violation::ClientPacketFromServer);
        }
    }
    for sender in [SERVER_31, SERVER_311] {
        refuses(
            opened(sender),
            &hex!("e0"),
            Violation::ClientPacketFromServer,
        );
    }
}

#[test]
fn connack_comes_first_and_once_from_a_server() {
    refuses(
        fresh(SERVER_311),
        &hex!("30"),
        Violation::FirstPacketNotConnAck,
    );
    refuses(
        fresh(SERVER_5),
        &hex!("e0"),
        Violation::FirstPacketNotConnAck,
    );
    refuses(opened(SERVER_311), &hex!("20"), Violation::SecondConnAck);
}

#[test]
fn auth_may_come_before_connack_but_not_open_the_connection() {
    let mut decoder = fresh(SERVER_5);
    let mut buf = BytesMut::from(&hex!("f0 06 18 04 15 0001 6d")[..]);
    assert!(matches!(
        decoder.decode(&mut buf),
        Ok(Some(Packet::Auth(_)))
    ));
    refuses(decoder, &hex!("30"), Violation::FirstPacketNotConnAck);
}

#[test]
fn auth_needs_a_method_in_connect() {
    let mut decoder = fresh(CLIENT_5);
    let mut buf = BytesMut::from(&hex!("10 0e 0004 4d515454 05 02 003c 00 0001 61")[..]);
    decoder.decode(&mut buf).unwrap().unwrap();
    refuses(decoder, &hex!("f0 00"), Violation::AuthNotStarted);
}

#[test]
fn a_client_must_know_its_version() {
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let result = decoder.decode(&mut BytesMut::from(&hex!("20 02 00 00")[..]));
    assert_eq!(result, Err(DecodeError::VersionNotSet));
}
