//! CoAP over datagrams: the message layer, block-wise transfers, observation and Echo.
//!
//! [`Endpoint`] is one end, server and client at once, and knows peers by a key of its caller's: an
//! address, or the security association behind it. [`Message`] is what travels; [`Block`],
//! [`Sequence`] and [`EchoKey`] are the values of options that need rules of their own.
//! Spec: RFC 7252, 7641, 7959, 7967, 9175.

mod block;
mod code;
mod codec;
mod dedup;
mod echo;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod message;
mod observe;
mod option;
mod options;
mod parameters;
mod random;
mod reliability;
#[cfg(test)]
mod tests;
mod timers;

pub use block::{Block, BlockError, Slice, Szx};
pub use code::Code;
pub use echo::EchoKey;
pub use endpoint::{
    Counters, Depths, Endpoint, Event, ExchangeId, Failure, Limits, NotSent, Output, Request,
    Response,
};
pub use error::{DecodeError, EncodeError, Violation};
pub use message::{Message, MessageId, MessageType, Token};
pub use observe::Sequence;
pub use option::{ContentFormat, OptionNumber};
pub use parameters::Parameters;
