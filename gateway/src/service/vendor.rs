//! What vendors' platforms do for their devices besides carrying data.
//!
//! A session hands over what a device says to its platform and does what comes back: send an
//! answer, nothing, or treat it as data. A service that the gateway has is an arm of
//! [`huawei::ask`]; whatever it has not goes to the applications.

pub mod huawei;
mod requests;
pub mod tencent;

pub use self::requests::{NotExpected, Requests, Waiting};

/// What is done about a message to the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The device is told this.
    Answer {
        /// Where it hears it.
        topic: String,
        /// The message.
        payload: Vec<u8>,
    },
    /// It was meant for the platform and needs no answer.
    Taken,
    /// It is about transfers: each of these is served by the session.
    Transfers(Vec<huawei::Transfer>),
    /// It is data, for applications.
    Data,
}
