//! A message that a client leaves for the case that its connection breaks.

use std::time::Duration;

use headgate_protocol::identity::{AppId, DeviceId};

use super::{Message, Millis};

/// Whose will: each session has at most one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WillKey {
    /// A device's, whatever its `ClientId`.
    Device(DeviceId),
    /// An application's, by its whole `ClientId`.
    Application(AppId, Box<str>),
}

/// What is to be published.  Spec: MQTT 5.0 s3.1.2.5, s3.1.3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The message, but for its times.
    pub message: Message,
    /// How long it lives once it is published.
    pub expiry: Option<Duration>,
    /// How long it is held back, in case that the client comes back.
    pub delay: Duration,
}

impl Will {
    /// The message, published at `now`.
    pub fn publish(&self, now: Millis) -> Message {
        let mut message = self.message.clone();
        message.at = now;
        message.properties.expires_at = self.expiry.map(|expiry| now.after(expiry));
        message
    }

    /// About what it takes to keep, in bytes.
    pub fn size(&self) -> usize {
        const ENTRY_BYTES: usize = 400;
        ENTRY_BYTES + self.message.size()
    }
}
