//! Datagrams to messages and back.
//!
//! Invariants: what [`Message::decode`] gives is well formed; sizes are checked before anything is made.
//! Spec: RFC 7252 s3.

use bytes::{Bytes, BytesMut};

use super::{
    Code, DecodeError, EncodeError, Message, MessageId, MessageType, Token, Violation,
    options::Options,
};

const HEADER_BYTES: usize = 4;
const PAYLOAD_MARKER: u8 = 0xff;

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
        header.read_rest(datagram).map_err(|violation| DecodeError {
            violation,
            // A message that is not confirmable is ignored. [RFC 7252 s4.2, s4.3]
            reject: (header.kind == MessageType::Confirmable).then_some(header.id),
        })
    }

    /// Writes the datagram, of at most `max_bytes`.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, max_bytes: usize) -> Result<Bytes, EncodeError> {
        let size_bytes = self.encoded_bytes();
        let mut datagram = BytesMut::with_capacity(size_bytes.min(max_bytes));
        let first = (VERSION << 6) | (bits(self.kind) << 4) | self.token.len();
        datagram.extend_from_slice(&[first, self.code.byte()]);
        datagram.extend_from_slice(&self.id.0.to_be_bytes());
        datagram.extend_from_slice(self.token.as_bytes());
        self.options.write(&mut datagram)?;
        if size_bytes > max_bytes {
            return Err(EncodeError::TooLarge {
                size_bytes,
                max_bytes,
            });
        }
        if !self.payload.is_empty() {
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

    /// Reads what follows the header.
    fn read_rest(&self, datagram: &[u8]) -> Result<Message, Violation> {
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
        let (token, options) = rest
            .split_at_checked(usize::from(self.token_bytes))
            .ok_or(Violation::TokenTruncated)?;
        let (options, payload) = Options::read(options)?;
        Ok(Message {
            kind: self.kind,
            code: self.code,
            id: self.id,
            token: Token::new(token).unwrap_or_default(),
            payload: Bytes::copy_from_slice(payload),
            options,
        })
    }
}
