//! Fields as they stand on the wire: a cursor to read them and a sink to write them.
//!
//! Nothing is allocated by a length that the peer claims: the [`Reader`] borrows from what arrived.
//! Packets write themselves into any [`Sink`], first into [`Count`] (which checks every field and
//! gives the Remaining Length), then into the buffer.  Spec: MQTT 5.0 s1.5.

use bytes::{BufMut, BytesMut};

use super::{EncodeError, PacketId, Violation};

/// The largest value of a variable byte integer, 268,435,455.
pub(super) const MAX_VAR_INT: usize = 0x0FFF_FFFF;

/// Reads fields off the front of a packet's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn take(&mut self, len: usize) -> Result<&'a [u8], Violation> {
        match self.rest.split_at_checked(len) {
            Some((field, rest)) => {
                self.rest = rest;
                Ok(field)
            }
            None => Err(Violation::Truncated),
        }
    }

    const fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        match self.rest.split_first_chunk() {
            Some((field, rest)) => {
                self.rest = rest;
                Ok(*field)
            }
            None => Err(Violation::Truncated),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Violation> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn var_int(&mut self) -> Result<u32, Violation> {
        match var_int(self.rest)? {
            Some((value, len)) => {
                self.take(len)?;
                Ok(value)
            }
            None => Err(Violation::Truncated),
        }
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Violation> {
        // [MQTT-2.2.1-3]
        PacketId::new(self.u16()?).ok_or(Violation::PacketIdZero)
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Violation> {
        // [MQTT-1.5.4-1]: `from_utf8` refuses surrogates and overlong forms too.
        let text = str::from_utf8(self.binary()?).map_err(|_| Violation::IllFormedUtf8)?;
        // [MQTT-1.5.4-2]
        if text.as_bytes().contains(&0) {
            return Err(Violation::NullCharacter);
        }
        Ok(text)
    }

    /// Checks that nothing is left.
    pub(super) const fn finish(self) -> Result<(), Violation> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Violation::TrailingBytes)
        }
    }
}

/// Reads a variable byte integer at the front of `bytes`: its value and length, or `None` while
/// more bytes are needed to tell.
pub(super) fn var_int(bytes: &[u8]) -> Result<Option<(u32, usize)>, Violation> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]
            if *byte == 0 && index > 0 {
                return Err(Violation::VariableByteIntegerNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(Violation::VariableByteIntegerTooLong)
    }
}

/// The number of bytes of a variable byte integer.
const fn var_int_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Takes the fields of a packet in order.
pub(super) trait Sink {
    fn slice(&mut self, bytes: &[u8]);

    /// `value` must be at most [`MAX_VAR_INT`].
    fn var_int(&mut self, value: usize) -> Result<(), EncodeError>;

    fn string(&mut self, text: &str) -> Result<(), EncodeError>;

    fn u8(&mut self, value: u8) {
        self.slice(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.slice(&value.to_be_bytes());
    }

    fn packet_id(&mut self, id: PacketId) {
        self.u16(id.get());
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong {
            size_bytes: bytes.len(),
        })?;
        self.u16(len);
        self.slice(bytes);
        Ok(())
    }
}

/// Counts what would be written, checking every field on the way.
#[derive(Debug, Default)]
pub(super) struct Count {
    bytes: usize,
}

impl Count {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Sink for Count {
    fn slice(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
    }

    fn var_int(&mut self, value: usize) -> Result<(), EncodeError> {
        if value > MAX_VAR_INT {
            return Err(EncodeError::TooLarge { size_bytes: value });
        }
        self.bytes += var_int_len(value);
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), EncodeError> {
        // [MQTT-1.5.4-2]
        if text.as_bytes().contains(&0) {
            return Err(EncodeError::NullCharacter);
        }
        self.binary(text.as_bytes())
    }
}

impl Sink for BytesMut {
    fn slice(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    fn var_int(&mut self, value: usize) -> Result<(), EncodeError> {
        let too_large = |_| EncodeError::TooLarge { size_bytes: value };
        let mut rest = value;
        while rest >= 0x80 {
            self.put_u8(u8::try_from(rest & 0x7F).map_err(too_large)? | 0x80);
            rest >>= 7;
        }
        self.put_u8(u8::try_from(rest).map_err(too_large)?);
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), EncodeError> {
        self.binary(text.as_bytes())
    }
}
