//! Tests that need the codec as a whole.

use bytes::BytesMut;
use hex_literal::hex;

use super::*;

fn decode(role: Role, version: Option<ProtocolVersion>, bytes: &[u8]) -> Vec<Packet> {
    let mut decoder = Decoder::new(role, Limits::default());
    if let Some(version) = version {
        decoder.set_version(version);
    }
    let mut buf = BytesMut::from(bytes);
    let mut packets = Vec::new();
    while let Some(packet) = decoder.decode(&mut buf).unwrap() {
        packets.push(packet);
    }
    packets
}

#[test]
fn a_packet_fits_a_cache_line() {
    assert!(size_of::<Packet>() <= 64, "{}", size_of::<Packet>());
}

#[test]
fn session_of_a_3_1_1_client() {
    let packets = decode(
        Role::Server,
        None,
        &hex!(
            "10 0d 0004 4d515454 04 02 003c 0001 61"
            "82 06 0001 0001 61 01"
            "32 08 0001 61 0002 78 79 7a"
            "40 02 0001 c0 00 e0 00"
        ),
    );
    assert_eq!(packets.len(), 6);
    let mut buf = BytesMut::new();
    for packet in &packets {
        packet.encode(ProtocolVersion::V311, &mut buf).unwrap();
    }
    assert_eq!(decode(Role::Server, None, &buf), packets);
}
