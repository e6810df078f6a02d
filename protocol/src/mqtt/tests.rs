//! Tests of the codec as a whole: tables of accepted and refused bytes, one module per packet.

mod acks;
mod arbitrary;
mod auth;
mod connack;
mod connect;
mod encode;
mod framing;
mod hostile;
mod limits;
mod properties;
mod publish;
mod round_trip;
mod subscribe;
mod turns;

use std::collections::HashSet;

use bytes::BytesMut;

use super::*;

/// Who sent the bytes of a case; the decoder is at the other end.
#[derive(Clone, Copy, Debug)]
struct Sender {
    decoder: Role,
    version: ProtocolVersion,
}

const CLIENT_31: Sender = Sender {
    decoder: Role::Server,
    version: ProtocolVersion::V31,
};
const CLIENT_311: Sender = Sender {
    decoder: Role::Server,
    version: ProtocolVersion::V311,
};
const CLIENT_5: Sender = Sender {
    decoder: Role::Server,
    version: ProtocolVersion::V5,
};
const SERVER_31: Sender = Sender {
    decoder: Role::Client,
    version: ProtocolVersion::V31,
};
const SERVER_311: Sender = Sender {
    decoder: Role::Client,
    version: ProtocolVersion::V311,
};
const SERVER_5: Sender = Sender {
    decoder: Role::Client,
    version: ProtocolVersion::V5,
};

const SENDERS: [Sender; 6] = [
    CLIENT_31, CLIENT_311, CLIENT_5, SERVER_31, SERVER_311, SERVER_5,
];
const VERSIONS: [ProtocolVersion; 3] = [
    ProtocolVersion::V31,
    ProtocolVersion::V311,
    ProtocolVersion::V5,
];

/// Bytes that are refused, and the clause that they break.
type Refused = (Sender, &'static [u8], &'static str);

/// A decoder for what `sender` says first.
fn fresh(sender: Sender) -> Decoder {
    let mut decoder = Decoder::new(sender.decoder, Limits::default());
    if sender.decoder == Role::Client {
        decoder.set_version(sender.version);
    }
    decoder
}

/// A decoder for what `sender` says after the connection was opened, with an authentication
/// method where there may be one.
fn opened(sender: Sender) -> Decoder {
    let opening = match sender.decoder {
        Role::Server => {
            let mut connect = Connect::new(sender.version, "c");
            connect.properties = sender.version.has_properties().then(|| {
                let authentication_method = Some("m".into());
                Box::new(Properties {
                    authentication_method,
                    ..Properties::default()
                })
            });
            Packet::Connect(Box::new(connect))
        }
        Role::Client => Packet::ConnAck(ConnAck::accepted(false)),
    };
    let mut decoder = fresh(sender);
    let mut buf = BytesMut::new();
    opening.encode(sender.version, &mut buf).unwrap();
    assert_eq!(decoder.decode(&mut buf), Ok(Some(opening)));
    decoder
}

/// Decodes one packet, all at once and byte by byte, with the same result.
fn decode(sender: Sender, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    let opens = matches!(
        (sender.decoder, bytes[0] >> 4),
        (Role::Server, 1) | (Role::Client, 2)
    );
    let start = if opens { fresh(sender) } else { opened(sender) };

    let mut buf = BytesMut::from(bytes);
    let result = start.clone().decode(&mut buf);
    if matches!(result, Ok(Some(_))) {
        assert!(buf.is_empty(), "{} bytes left of {bytes:02x?}", buf.len());
    }

    let (mut decoder, mut buf) = (start, BytesMut::new());
    let mut dripped = Ok(None);
    for byte in bytes {
        assert_eq!(
            dripped,
            Ok(None),
            "packet came before its end: {bytes:02x?}"
        );
        buf.extend_from_slice(&[*byte]);
        dripped = decoder.decode(&mut buf);
        if dripped.is_err() {
            break;
        }
    }
    assert_eq!(dripped, result, "fed byte by byte: {bytes:02x?}");
    result
}

/// Checks what becomes of one packet: the packet, which must be written as the same bytes, or the
/// clause that is broken.
fn check(sender: Sender, bytes: &[u8], expected: Result<Packet, &str>) {
    match (decode(sender, bytes), expected) {
        (Ok(Some(packet)), Ok(expected)) => {
            assert_eq!(packet, expected, "{sender:?} {bytes:02x?}");
            let mut buf = BytesMut::new();
            packet.encode(sender.version, &mut buf).unwrap();
            assert_eq!(&buf[..], bytes, "written again: {packet:?}");
        }
        (Err(DecodeError::Violation(violation)), Err(clause)) => {
            assert_eq!(
                violation.clause(),
                clause,
                "{violation}: {sender:?} {bytes:02x?}"
            );
        }
        (actual, expected) => {
            panic!("{sender:?} {bytes:02x?}: {actual:?}, expected {expected:?}")
        }
    }
}

/// Checks that bytes which say a packet in another way than this codec writes it are accepted.
fn check_accepted(sender: Sender, bytes: &[u8], expected: &Packet) {
    assert_eq!(
        decode(sender, bytes).as_ref(),
        Ok(&Some(expected.clone())),
        "{bytes:02x?}"
    );
}

fn check_refused(table: &[Refused]) {
    for (sender, bytes, clause) in table {
        check(*sender, bytes, Err(clause));
    }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

#[test]
fn every_rule_is_broken_by_some_table() {
    let tables = [
        acks::REFUSED,
        auth::REFUSED,
        connack::REFUSED,
        connect::REFUSED,
        framing::REFUSED,
        properties::REFUSED,
        publish::REFUSED,
        subscribe::REFUSED,
    ];
    let mut broken: HashSet<_> = turns::BROKEN.iter().copied().collect();
    for (sender, bytes, _) in tables.into_iter().flatten() {
        if let Err(DecodeError::Violation(violation)) = decode(*sender, bytes) {
            broken.insert(violation);
        }
    }
    // Strings on the wire cannot be longer; only names made by a caller can.
    broken.insert(Violation::TopicTooLong);
    let missing: Vec<_> = Violation::ALL
        .iter()
        .filter(|rule| !broken.contains(rule))
        .collect();
    assert!(missing.is_empty(), "no test breaks {missing:?}");
}

#[test]
fn every_refusal_can_be_said_in_connack_or_disconnect() {
    for violation in Violation::ALL {
        let reason = violation.reason_code();
        let can_be_said = reason.is_allowed_in(PacketType::ConnAck)
            || reason.is_allowed_in(PacketType::Disconnect);
        assert!(can_be_said && reason.is_error(), "{violation}");
    }
}

#[test]
fn a_packet_fits_a_cache_line() {
    assert!(size_of::<Packet>() <= 64, "{}", size_of::<Packet>());
}
