//! Codes: methods and responses.  Spec: RFC 7252 s3 and s12.1, RFC 7959 s2.9, RFC 8132, RFC 8516.

use std::fmt;

/// A method, a response code or the code of an empty message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u8);

impl Code {
    /// 0.00: an empty message.
    pub const EMPTY: Self = Self::of(0, 0);
    /// 0.01
    pub const GET: Self = Self::of(0, 1);
    /// 0.02
    pub const POST: Self = Self::of(0, 2);
    /// 0.03
    pub const PUT: Self = Self::of(0, 3);
    /// 0.04
    pub const DELETE: Self = Self::of(0, 4);
    /// 2.01
    pub const CREATED: Self = Self::of(2, 1);
    /// 2.02
    pub const DELETED: Self = Self::of(2, 2);
    /// 2.03
    pub const VALID: Self = Self::of(2, 3);
    /// 2.04
    pub const CHANGED: Self = Self::of(2, 4);
    /// 2.05
    pub const CONTENT: Self = Self::of(2, 5);
    /// 2.31
    pub const CONTINUE: Self = Self::of(2, 31);
    /// 4.00
    pub const BAD_REQUEST: Self = Self::of(4, 0);
    /// 4.01
    pub const UNAUTHORIZED: Self = Self::of(4, 1);
    /// 4.02
    pub const BAD_OPTION: Self = Self::of(4, 2);
    /// 4.03
    pub const FORBIDDEN: Self = Self::of(4, 3);
    /// 4.04
    pub const NOT_FOUND: Self = Self::of(4, 4);
    /// 4.05
    pub const METHOD_NOT_ALLOWED: Self = Self::of(4, 5);
    /// 4.06
    pub const NOT_ACCEPTABLE: Self = Self::of(4, 6);
    /// 4.08
    pub const REQUEST_ENTITY_INCOMPLETE: Self = Self::of(4, 8);
    /// 4.09
    pub const CONFLICT: Self = Self::of(4, 9);
    /// 4.12
    pub const PRECONDITION_FAILED: Self = Self::of(4, 12);
    /// 4.13
    pub const REQUEST_ENTITY_TOO_LARGE: Self = Self::of(4, 13);
    /// 4.15
    pub const UNSUPPORTED_CONTENT_FORMAT: Self = Self::of(4, 15);
    /// 5.00
    pub const INTERNAL_SERVER_ERROR: Self = Self::of(5, 0);
    /// 5.03
    pub const SERVICE_UNAVAILABLE: Self = Self::of(5, 3);
    /// 5.05
    pub const PROXYING_NOT_SUPPORTED: Self = Self::of(5, 5);

    /// `class.detail`: a class of 0 to 7, a detail of 0 to 31; higher bits are dropped.
    pub const fn of(class: u8, detail: u8) -> Self {
        Self((class << 5) | (detail & 0x1f))
    }

    /// The code of this byte of a header.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte of a header.
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// 0: request; 2, 4 and 5: response; 1, 3, 6 and 7 are reserved or belong to other transports.
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// Whether it is a method, known or not.
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether it is a response code, known or not.
    pub const fn is_response(self) -> bool {
        matches!(self.class(), 2 | 4 | 5)
    }

    /// Whether it says that a request was carried out.
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.0 & 0x1f)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
