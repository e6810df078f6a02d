//! Messages that were handed to a device's session and that it has not looked at yet.
//!
//! Bounded: what does not fit and is stored stays in the mailbox, and from then on everything that
//! is stored does, so that the session reads it there in order.

use std::{collections::VecDeque, sync::Arc};

use crate::service::uplink::Stored;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// Messages.
    pub messages: usize,
    /// Their bytes; one message may be larger than this.
    pub bytes: usize,
}

/// What waits for the session.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) queue: VecDeque<Arc<Stored>>,
    /// More waits in the mailbox.
    pub(super) is_behind: bool,
    bytes: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            messages: 64,
            bytes: 256 * 1024,
        }
    }
}

impl Inbox {
    /// Takes a message, if it may; says whether it did.
    pub(super) fn offer(&mut self, message: Arc<Stored>, limits: InboxLimits) -> bool {
        let bytes = self.bytes + message.message.size();
        let has_room =
            self.queue.is_empty() || (self.queue.len() < limits.messages && bytes <= limits.bytes);
        let is_stored = message.id.is_some();
        if !has_room || (is_stored && self.is_behind) {
            self.is_behind |= is_stored;
            return false;
        }
        self.bytes = bytes;
        self.queue.push_back(message);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.is_behind
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headgate_protocol::mqtt::QoS;

    use super::*;
    use crate::model::{DeviceName, Id, Message, MessageProperties, Millis};

    fn stored(id: Option<i64>, bytes: usize) -> Arc<Stored> {
        Arc::new(Stored {
            id: id.map(|id| Id::from_i64(id).expect("positive")),
            message: Arc::new(Message {
                device: DeviceName {
                    device_id: "P_d".parse().expect("legal"),
                    product_id: "P".parse().expect("legal"),
                    node_id: "d".parse().expect("legal"),
                },
                topic: "P/d/x".parse().expect("a topic"),
                payload: Bytes::from(vec![0; bytes]),
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: MessageProperties::default(),
                at: Millis::from_i64(1),
            }),
        })
    }

    const LIMITS: InboxLimits = InboxLimits {
        messages: 2,
        bytes: 100,
    };

    #[test]
    fn what_is_stored_waits_in_the_mailbox_once_one_of_it_had_to() {
        let mut inbox = Inbox::default();
        assert!(inbox.offer(stored(Some(1), 1), LIMITS));
        assert!(inbox.offer(stored(None, 1), LIMITS));
        assert!(!inbox.offer(stored(None, 1), LIMITS), "two are the limit");
        assert!(!inbox.is_behind, "what is not stored is lost");
        assert!(!inbox.offer(stored(Some(2), 1), LIMITS));
        assert!(inbox.is_behind);
        inbox.queue.clear();
        assert!(
            !inbox.offer(stored(Some(3), 1), LIMITS),
            "2 comes before it"
        );
        assert!(inbox.offer(stored(None, 1), LIMITS));
    }

    #[test]
    fn bytes_are_a_limit_but_for_one_message() {
        let mut inbox = Inbox::default();
        assert!(inbox.offer(stored(Some(1), 1_000), LIMITS));
        assert!(!inbox.offer(stored(Some(2), 1), LIMITS));
    }
}
