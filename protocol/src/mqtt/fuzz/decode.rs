//! Streams of bytes for the decoder.

use bytes::BytesMut;

use crate::mqtt::{
    ConnAck, Connect, DecodeError, Decoder, Limits, Packet, Properties, ProtocolVersion, Role,
};

/// Decodes a stream whole and in pieces, which must come to the same, and writes every packet again,
/// which must be read as the same packet.
///
/// The first byte of `data` chooses: bits 0 and 1 the version, bit 2 the end, bit 3 whether the
/// connection was opened before, the rest the size of the pieces.
///
/// # Panics
/// When the codec is wrong.
pub fn decode(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else {
        return;
    };
    let version = match choice & 0b11 {
        0 => ProtocolVersion::V31,
        1 => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    let role = if choice & 0b100 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let decoder = if choice & 0b1000 == 0 {
        opened(role, version)
    } else {
        fresh(role, version)
    };

    let whole = run(decoder.clone(), stream, stream.len().max(1));
    let pieces = run(decoder, stream, usize::from(choice >> 4) + 1);
    assert_eq!(whole, pieces, "whole and in pieces");

    for packet in whole.packets {
        let version = whole.version.unwrap_or(version);
        let opens = matches!(packet, Packet::Connect(_) | Packet::ConnAck(_));
        let decoder = if opens {
            fresh(role, version)
        } else {
            opened(role, version)
        };
        let mut buf = BytesMut::new();
        assert_eq!(packet.encode(version, &mut buf), Ok(()), "{packet:?}");
        let again = run(decoder, &buf, buf.len());
        assert_eq!(
            (again.packets, again.error),
            (vec![packet], None),
            "written and read again"
        );
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    packets: Vec<Packet>,
    error: Option<DecodeError>,
    version: Option<ProtocolVersion>,
}

fn run(mut decoder: Decoder, stream: &[u8], piece: usize) -> Outcome {
    let (mut packets, mut error) = (Vec::new(), None);
    let mut buf = BytesMut::new();
    'stream: for bytes in stream.chunks(piece) {
        buf.extend_from_slice(bytes);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(refusal) => {
                    error = Some(refusal);
                    break 'stream;
                }
            }
        }
    }
    Outcome {
        packets,
        error,
        version: decoder.version(),
    }
}

fn fresh(role: Role, version: ProtocolVersion) -> Decoder {
    let mut decoder = Decoder::new(role, Limits::default());
    if role == Role::Client {
        decoder.set_version(version);
    }
    decoder
}

/// A decoder past CONNECT or CONNACK, with an authentication method where there may be one.
fn opened(role: Role, version: ProtocolVersion) -> Decoder {
    let mut connect = Connect::new(version, "c");
    if version.has_properties() {
        let authentication_method = Some("m".into());
        let properties = Properties {
            authentication_method,
            ..Properties::default()
        };
        connect.properties = Some(Box::new(properties));
    }
    let opening = match role {
        Role::Server => Packet::Connect(Box::new(connect)),
        Role::Client => Packet::ConnAck(ConnAck::accepted(false)),
    };
    let mut decoder = fresh(role, version);
    let mut buf = BytesMut::new();
    assert_eq!(opening.encode(version, &mut buf), Ok(()));
    assert_eq!(decoder.decode(&mut buf), Ok(Some(opening)));
    decoder
}
