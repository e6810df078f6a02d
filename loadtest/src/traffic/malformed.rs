//! Packets that MQTT forbids, which a server must answer by closing the connection.
//!
//! Spec: MQTT 5.0 s4.13.1, MQTT 3.1.1 s4.8.

use bytes::{BufMut, BytesMut};
use headgate_protocol::mqtt::ProtocolVersion;

/// Appends the forbidden packet of number `which`.
pub(crate) fn write(which: u32, version: ProtocolVersion, out: &mut BytesMut) {
    match which % KINDS {
        // A packet type that is reserved.
        0 => out.put_slice(&[0x00, 0x00]),
        // PUBLISH with both bits of QoS set [MQTT-3.3.1-4].
        1 => out.put_slice(&[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01]),
        // A remaining length of five bytes.
        2 => out.put_slice(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]),
        // SUBSCRIBE with the wrong flags [MQTT-3.8.1-1].
        3 => out.put_slice(&[0x80, 0x02, 0x00, 0x01]),
        // A second CONNECT [MQTT-3.1.0-2].
        4 => {
            out.put_slice(&[0x10, if version.has_properties() { 14 } else { 13 }]);
            out.put_slice(b"\x00\x04MQTT");
            out.put_slice(&[version.level(), 0x02, 0x00, 0x3c]);
            if version.has_properties() {
                out.put_u8(0);
            }
            out.put_slice(b"\x00\x01a");
        }
        // UNSUBSCRIBE with the wrong flags [MQTT-3.10.1-1].
        _ => out.put_slice(&[0xa0, 0x02, 0x00, 0x01]),
    }
}

/// How many kinds there are.
pub(crate) const KINDS: u32 = 6;

#[cfg(test)]
mod tests {
    use headgate_protocol::mqtt::{Decoder, Limits, Packet, Role};

    use super::*;

    #[test]
    fn a_strict_decoder_refuses_all_but_the_second_connect() {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            for which in 0..KINDS {
                let mut decoder = Decoder::new(Role::Server, Limits::default());
                decoder.set_version(version);
                let mut bytes = BytesMut::new();
                write(which, version, &mut bytes);
                let decoded = decoder.decode(&mut bytes);
                if which == 4 {
                    assert!(
                        matches!(decoded, Ok(Some(Packet::Connect(_)))),
                        "{decoded:?}"
                    );
                } else {
                    assert!(decoded.is_err(), "{which}: {decoded:?}");
                }
            }
        }
    }
}
