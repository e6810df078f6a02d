//! Datagrams to messages and back: coap-lite's codec behind the checks that it leaves to others.
//!
//! It takes versions other than 1, empty messages with a token or a payload, a payload marker without
//! a payload and reserved code classes; all of them are format errors and are refused here before it sees them.
//! Invariants: what [`Message::decode`] gives is well formed; sizes are checked before anything is made.
//! Spec: RFC 7252 s3.

use bytes::{Bytes, BytesMut};
use coap_lite::{Header as PacketHeader, Packet};

use super::{Code, DecodeError, EncodeError, Message, MessageId, MessageType, Token, Violation};

const HEADER_BYTES: usize = 4;
const PAYLOAD_MARKER: u8 = 0xff;
/// What an extended length can say.
const MAX_OPTION_BYTES: usize = 65_535 + 269;

impl Message {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`DecodeError`] with the rule that it breaks; a confirmable message is to be rejected.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let ignored = |violation| DecodeError {
            violation,
            reject: None,
        };
        let header = Header::read(datagram).map_err(ignored)?;
        header.check(datagram).map_err(|violation| DecodeError {
            violation,
            // A message that is not confirmable is ignored. [RFC 7252 s4.2, s4.3]
            reject: (header.kind == MessageType::Confirmable).then_some(header.id),
        })?;
        let mut packet =
            Packet::from_bytes(datagram).map_err(|_refused| ignored(Violation::Codec))?;
        let token = Token::new(packet.get_token()).ok_or_else(|| ignored(Violation::Codec))?;
        packet.set_token(Vec::new());
        packet.header = PacketHeader::new();
        Ok(Self {
            kind: header.kind,
            // Not the packet's: it forgets the numbers of codes that it does not know.
            code: header.code,
            id: header.id,
            token,
            payload: Bytes::from(std::mem::take(&mut packet.payload)),
            packet,
        })
    }

    /// Writes the datagram, of at most `max_bytes`.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, max_bytes: usize) -> Result<Bytes, EncodeError> {
        for (_, values) in self.packet.options() {
            for value in values {
                if value.len() > MAX_OPTION_BYTES {
                    return Err(EncodeError::OptionTooLong {
                        size_bytes: value.len(),
                    });
                }
            }
        }
        let options = self
            .packet
            .to_bytes_unlimited()
            .map_err(|_refused| EncodeError::Codec)?;
        // The packet has no token: its header is four bytes, and the options stand right behind.
        let options = options.get(HEADER_BYTES..).ok_or(EncodeError::Codec)?;
        let token = self.token.as_bytes();
        let marker = usize::from(!self.payload.is_empty());
        let size_bytes = HEADER_BYTES + token.len() + options.len() + marker + self.payload.len();
        if size_bytes > max_bytes {
            return Err(EncodeError::TooLarge {
                size_bytes,
                max_bytes,
            });
        }
        let mut datagram = BytesMut::with_capacity(size_bytes);
        let first = (VERSION << 6) | (bits(self.kind) << 4) | self.token.len();
        datagram.extend_from_slice(&[first, self.code.byte()]);
        datagram.extend_from_slice(&self.id.0.to_be_bytes());
        datagram.extend_from_slice(token);
        datagram.extend_from_slice(options);
        if marker == 1 {
            datagram.extend_from_slice(&[PAYLOAD_MARKER]);
            datagram.extend_from_slice(&self.payload);
        }
        Ok(datagram.freeze())
    }
}

const VERSION: u8 = 1;

fn bits(kind: MessageType) -> u8 {
    match kind {
        MessageType::Confirmable => 0,
        MessageType::NonConfirmable => 1,
        MessageType::Acknowledgement => 2,
        MessageType::Reset => 3,
    }
}

/// The four bytes that every message begins with.
struct Header {
    kind: MessageType,
    token_bytes: u8,
    code: Code,
    id: MessageId,
}

impl Header {
    fn read(datagram: &[u8]) -> Result<Self, Violation> {
        let &[first, code, high, low, ..] = datagram else {
            return Err(Violation::TooShort);
        };
        if first >> 6 != VERSION {
            return Err(Violation::Version(first >> 6));
        }
        let kind = match (first >> 4) & 0b11 {
            0 => MessageType::Confirmable,
            1 => MessageType::NonConfirmable,
            2 => MessageType::Acknowledgement,
            _ => MessageType::Reset,
        };
        Ok(Self {
            kind,
            token_bytes: first & 0x0f,
            code: Code::from_byte(code),
            id: MessageId(u16::from_be_bytes([high, low])),
        })
    }

    fn check(&self, datagram: &[u8]) -> Result<(), Violation> {
        if usize::from(self.token_bytes) > Token::MAX_BYTES {
            return Err(Violation::TokenLength(self.token_bytes));
        }
        let rest = datagram.get(HEADER_BYTES..).unwrap_or_default();
        if self.code == Code::EMPTY && !rest.is_empty() {
            return Err(Violation::EmptyNotEmpty);
        }
        if !(self.code == Code::EMPTY || self.code.is_request() || self.code.is_response()) {
            return Err(Violation::ReservedClass(self.code.class()));
        }
        let fits = match self.kind {
            MessageType::Confirmable => true,
            MessageType::NonConfirmable => self.code != Code::EMPTY,
            MessageType::Acknowledgement => !self.code.is_request(),
            MessageType::Reset => self.code == Code::EMPTY,
        };
        if !fits {
            return Err(Violation::TypeAndCode);
        }
        let options = rest
            .get(usize::from(self.token_bytes)..)
            .ok_or(Violation::TokenTruncated)?;
        check_options(options)
    }
}

/// Walks over options and payload.
fn check_options(mut rest: &[u8]) -> Result<(), Violation> {
    let mut number: u32 = 0;
    while let Some((&first, behind)) = rest.split_first() {
        if first == PAYLOAD_MARKER {
            return if behind.is_empty() {
                Err(Violation::MarkerWithoutPayload)
            } else {
                Ok(())
            };
        }
        let (delta, behind) = extended(first >> 4, behind, Violation::OptionDelta)?;
        let (length, behind) = extended(first & 0x0f, behind, Violation::OptionLength)?;
        number = number.saturating_add(delta);
        if number > u32::from(u16::MAX) {
            return Err(Violation::OptionNumber);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        rest = behind.get(length..).ok_or(Violation::OptionTruncated)?;
    }
    Ok(())
}

/// A delta or a length of four bits and what it is extended by. [RFC 7252 s3.1]
fn extended(nibble: u8, behind: &[u8], reserved: Violation) -> Result<(u32, &[u8]), Violation> {
    match (nibble, behind) {
        (15, _) => Err(reserved),
        (13, &[byte, ref behind @ ..]) => Ok((u32::from(byte) + 13, behind)),
        (14, &[high, low, ref behind @ ..]) => {
            let value = u32::from(u16::from_be_bytes([high, low]));
            Ok((value + 269, behind))
        }
        (13 | 14, _) => Err(Violation::OptionTruncated),
        (nibble, behind) => Ok((u32::from(nibble), behind)),
    }
}
