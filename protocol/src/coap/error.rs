//! What can be wrong with a datagram.

use thiserror::Error;

use super::MessageId;

/// Why a datagram is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{violation}")]
pub struct DecodeError {
    /// The rule that it breaks.
    pub violation: Violation,
    /// The confirmable message that is to be rejected with a Reset; `None`: it is ignored in silence.
    pub reject: Option<MessageId>,
}

/// A rule of the standard that a datagram breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// RFC 7252 s3: a header has four bytes.
    #[error("shorter than a header [RFC 7252 s3]")]
    TooShort,
    /// RFC 7252 s3: messages of other versions are ignored in silence.
    #[error("version {0} is not spoken [RFC 7252 s3]")]
    Version(u8),
    /// RFC 7252 s3: lengths 9 to 15 are reserved.
    #[error("token length {0} is reserved [RFC 7252 s3]")]
    TokenLength(u8),
    /// RFC 7252 s3: the token is a part of the message.
    #[error("the token reaches beyond the end [RFC 7252 s3]")]
    TokenTruncated,
    /// RFC 7252 s4.1: an empty message is four bytes and nothing else.
    #[error("an empty message with something in it [RFC 7252 s4.1]")]
    EmptyNotEmpty,
    /// RFC 7252 s3: classes 1, 6 and 7 are reserved, 3 is; 7 belongs to reliable transports.
    #[error("code class {0} is reserved [RFC 7252 s3]")]
    ReservedClass(u8),
    /// RFC 7252 s4.3 table 1: this type carries no such code.
    #[error("a message of this type carries no such code [RFC 7252 s4.3]")]
    TypeAndCode,
    /// RFC 7252 s3.1: a delta of 15 is the payload marker's or an error.
    #[error("option delta 15 is reserved [RFC 7252 s3.1]")]
    OptionDelta,
    /// RFC 7252 s3.1: a length of 15 is reserved.
    #[error("option length 15 is reserved [RFC 7252 s3.1]")]
    OptionLength,
    /// RFC 7252 s3.1: an option is a part of the message.
    #[error("an option reaches beyond the end [RFC 7252 s3.1]")]
    OptionTruncated,
    /// RFC 7252 s12.2: option numbers have 16 bits.
    #[error("an option number above 65535 [RFC 7252 s12.2]")]
    OptionNumber,
    /// RFC 7252 s3: a payload marker is followed by a payload.
    #[error("a payload marker without a payload [RFC 7252 s3]")]
    MarkerWithoutPayload,
}

/// Why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// It is larger than the caller allows.
    #[error("a message of {size_bytes} bytes is larger than {max_bytes}")]
    TooLarge {
        /// Bytes that it would have.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// An option's value is longer than a length can say.
    #[error("an option of {size_bytes} bytes is longer than 65804")]
    OptionTooLong {
        /// Bytes of the value.
        size_bytes: usize,
    },
}
