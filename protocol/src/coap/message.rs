//! One message: type, code, identifier, token, options and payload, and what is asked of the options.

use std::fmt;

use bytes::Bytes;

use super::{Code, ContentFormat, OptionNumber, options::Options};

/// How a message is transmitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// Wants an acknowledgement.
    Confirmable,
    /// Wants none.
    NonConfirmable,
    /// Acknowledges, and may carry the response.
    Acknowledgement,
    /// Says that a message could not be processed.
    Reset,
}

/// Matches acknowledgements with messages, and finds duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u16);

/// Matches responses with requests: up to eight bytes of the client's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token {
    bytes: [u8; Self::MAX_BYTES],
    len: u8,
}

impl Token {
    /// The longest token.
    pub const MAX_BYTES: usize = 8;

    /// A token of these bytes; `None` where there are more than [`Token::MAX_BYTES`].
    pub fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        Some(Self {
            bytes,
            len: u8::try_from(token.len()).ok()?,
        })
    }

    /// How many bytes it has.
    pub(super) const fn len(&self) -> u8 {
        self.len
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", hex::encode(self.as_bytes()))
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// How it is transmitted.
    pub kind: MessageType,
    /// What it is.
    pub code: Code,
    /// Its identifier.
    pub id: MessageId,
    /// The token of its exchange.
    pub token: Token,
    /// The payload; none where it is empty.
    pub payload: Bytes,
    pub(super) options: Options,
}

impl Message {
    /// A message without options and payload.
    pub fn new(kind: MessageType, code: Code, id: MessageId, token: Token) -> Self {
        Self {
            kind,
            code,
            id,
            token,
            payload: Bytes::new(),
            options: Options::default(),
        }
    }

    /// An empty message: an acknowledgement, a Reset or a ping.
    pub fn empty(kind: MessageType, id: MessageId) -> Self {
        Self::new(kind, Code::EMPTY, id, Token::default())
    }

    /// Adds an option behind those of its number.
    pub fn add(&mut self, number: OptionNumber, value: impl AsRef<[u8]>) {
        self.options.add(number, value.as_ref());
    }

    /// Adds an option whose value is a number, in as few bytes as it needs. [RFC 7252 s3.2]
    pub fn add_uint(&mut self, number: OptionNumber, value: u32) {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.add(number, bytes.get(zeros..).unwrap_or_default());
    }

    /// Takes an option out, all of it.
    pub fn remove(&mut self, number: OptionNumber) {
        self.options.remove(number);
    }

    /// Takes all options out.
    pub(super) fn clear_options(&mut self) {
        self.options.clear();
    }

    /// Bytes of its datagram.
    pub fn encoded_bytes(&self) -> usize {
        const HEADER: usize = 4;
        let payload = usize::from(!self.payload.is_empty()) + self.payload.len();
        HEADER + usize::from(self.token.len()) + self.options.encoded_bytes() + payload
    }

    /// The values of an option, in their order.
    pub fn all(&self, number: OptionNumber) -> impl Iterator<Item = &[u8]> {
        self.options
            .iter()
            .filter(move |(known, _)| *known == number)
            .map(|(_, value)| value)
    }

    /// The value of an option of which there is one; of several the first.
    pub fn first(&self, number: OptionNumber) -> Option<&[u8]> {
        self.all(number).next()
    }

    /// The value of an option that is a number; `None` where it is absent or has more than four bytes.
    pub fn uint(&self, number: OptionNumber) -> Option<u32> {
        let value = self.first(number)?;
        (value.len() <= 4).then(|| {
            value
                .iter()
                .fold(0, |sum: u32, byte| (sum << 8) | u32::from(*byte))
        })
    }

    /// The format of the payload.
    pub fn content_format(&self) -> Option<ContentFormat> {
        let number = self.uint(OptionNumber::CONTENT_FORMAT)?;
        u16::try_from(number).ok().map(ContentFormat)
    }

    /// The format that the client wants.
    pub fn accept(&self) -> Option<ContentFormat> {
        let number = self.uint(OptionNumber::ACCEPT)?;
        u16::try_from(number).ok().map(ContentFormat)
    }

    /// The segments of the path; `None` where one is not UTF-8. [RFC 7252 s5.10.1]
    pub fn path(&self) -> Option<Vec<&str>> {
        self.all(OptionNumber::URI_PATH)
            .map(|segment| std::str::from_utf8(segment).ok())
            .collect()
    }

    /// The value of `key=value` in the query; of several the first.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.all(OptionNumber::URI_QUERY).find_map(|argument| {
            let (name, value) = std::str::from_utf8(argument).ok()?.split_once('=')?;
            (name == key).then_some(value)
        })
    }

    /// The first critical option that a receiver which knows `known` must not act on: one that it does not know,
    /// one whose length is out of range, or one too many. [RFC 7252 s5.4.1, s5.4.3, s5.4.5]
    pub fn bad_option(&self, known: &[OptionNumber]) -> Option<OptionNumber> {
        let mut before = None;
        self.options.iter().find_map(|(number, value)| {
            let is_another = before.replace(number) == Some(number);
            let is_good = || {
                let rule = number.rule().filter(|_| known.contains(&number))?;
                let fits = (rule.min_bytes..=rule.max_bytes).contains(&value.len());
                (fits && (rule.is_repeatable || !is_another)).then_some(())
            };
            (number.is_critical() && is_good().is_none()).then_some(number)
        })
    }
}
