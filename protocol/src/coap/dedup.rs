//! What has been received: a message that comes again is answered as before and not acted on again.
//!
//! An entry lives for `EXCHANGE_LIFETIME` (confirmable) or `NON_LIFETIME`, or until it is answered by something that is
//! made anew: carrying that request out twice does what carrying it out once does. Both the number of entries and the
//! bytes of kept replies are bounded; at the bound the oldest entry goes first.  Spec: RFC 7252 s4.2, s4.3 and s4.5.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::MessageId;

/// Messages that were received lately.
#[derive(Debug)]
pub(super) struct Received<K> {
    entries: BTreeMap<(K, MessageId), Entry>,
    /// In the order of their ends, one queue for each lifetime.
    confirmable: VecDeque<(Instant, K, MessageId)>,
    others: VecDeque<(Instant, K, MessageId)>,
    reply_bytes: usize,
    max_entries: usize,
    max_reply_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    ends: Instant,
    reply: Reply,
}

/// What a message was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Nothing yet, or nothing at all.
    None,
    /// This datagram.
    Datagram(Bytes),
}

impl<K: Copy + Ord> Received<K> {
    pub(super) const fn new(max_entries: usize, max_reply_bytes: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            confirmable: VecDeque::new(),
            others: VecDeque::new(),
            reply_bytes: 0,
            max_entries,
            max_reply_bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// What was answered to this message, if it was received before.
    pub(super) fn find(&self, now: Instant, peer: K, id: MessageId) -> Option<&Reply> {
        let entry = self.entries.get(&(peer, id))?;
        (entry.ends > now).then_some(&entry.reply)
    }

    /// Takes note of a message that has not been received before.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        peer: K,
        id: MessageId,
        lifetime: Duration,
        is_confirmable: bool,
    ) {
        self.expire(now);
        let is_full = |all: &Self| {
            // What was forgotten before its time still stands in a queue.
            let queued = all.confirmable.len() + all.others.len();
            all.entries.len() >= all.max_entries || queued >= all.max_entries.saturating_mul(2)
        };
        while is_full(self) && self.evict() {}
        let ends = now + lifetime;
        let entry = Entry {
            ends,
            reply: Reply::None,
        };
        self.remove(peer, id, None);
        self.entries.insert((peer, id), entry);
        let queue = if is_confirmable {
            &mut self.confirmable
        } else {
            &mut self.others
        };
        queue.push_back((ends, peer, id));
    }

    /// Keeps what the message was answered with.
    pub(super) fn set_reply(&mut self, peer: K, id: MessageId, reply: Reply) {
        let Some(entry) = self.entries.get_mut(&(peer, id)) else {
            return;
        };
        self.reply_bytes = self.reply_bytes.saturating_sub(entry.reply.bytes());
        self.reply_bytes = self.reply_bytes.saturating_add(reply.bytes());
        entry.reply = reply;
        while self.reply_bytes > self.max_reply_bytes && self.evict() {}
    }

    /// Forgets a message: the same again is a new one.
    pub(super) fn forget(&mut self, peer: K, id: MessageId) {
        self.remove(peer, id, None);
        // Most are answered at once.
        for queue in [&mut self.confirmable, &mut self.others] {
            queue.pop_back_if(|(_, of, last)| (*of, *last) == (peer, id));
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for confirmable in [true, false] {
            while let Some((ends, peer, id)) = self.front(confirmable) {
                if ends > now {
                    break;
                }
                self.pop(confirmable);
                self.remove(peer, id, Some(ends));
            }
        }
    }

    /// When something is to be forgotten next.
    pub(super) fn next_end(&self) -> Option<Instant> {
        [self.front(true), self.front(false)]
            .into_iter()
            .flatten()
            .map(|(ends, ..)| ends)
            .min()
    }

    /// Forgets the entry that ends first; says whether there was one.
    fn evict(&mut self) -> bool {
        let first = [true, false]
            .into_iter()
            .filter_map(|confirmable| Some((self.front(confirmable)?, confirmable)))
            .min_by_key(|((ends, ..), _)| *ends);
        let Some(((ends, peer, id), confirmable)) = first else {
            return false;
        };
        self.pop(confirmable);
        self.remove(peer, id, Some(ends));
        true
    }

    fn front(&self, confirmable: bool) -> Option<(Instant, K, MessageId)> {
        let queue = if confirmable {
            &self.confirmable
        } else {
            &self.others
        };
        queue.front().copied()
    }

    fn pop(&mut self, confirmable: bool) {
        let queue = if confirmable {
            &mut self.confirmable
        } else {
            &mut self.others
        };
        queue.pop_front();
        if queue.is_empty() && queue.capacity() > 1_024 {
            *queue = VecDeque::new();
        }
    }

    /// Removes an entry, where an end is given only the one that ends then: a later one may have its key.
    fn remove(&mut self, peer: K, id: MessageId, ends: Option<Instant>) {
        let key = (peer, id);
        let known = self.entries.get(&key);
        if known.is_some_and(|entry| ends.is_none_or(|ends| entry.ends == ends))
            && let Some(entry) = self.entries.remove(&key)
        {
            self.reply_bytes = self.reply_bytes.saturating_sub(entry.reply.bytes());
        }
    }
}

impl Reply {
    fn bytes(&self) -> usize {
        match self {
            Self::Datagram(datagram) => datagram.len(),
            Self::None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    fn datagram(bytes: usize) -> Reply {
        Reply::Datagram(vec![0; bytes].into())
    }

    #[test]
    fn entries_end_and_take_their_bytes_with_them() {
        let start = crate::coap::tests::epoch();
        let mut received = Received::new(100, 1_000);
        received.insert(start, 'a', MessageId(1), LIFETIME, true);
        received.set_reply('a', MessageId(1), datagram(30));
        received.insert(start, 'a', MessageId(2), LIFETIME / 2, false);
        assert_eq!(received.find(start, 'a', MessageId(1)), Some(&datagram(30)));
        assert_eq!(received.find(start, 'b', MessageId(1)), None);
        assert_eq!(received.find(start, 'a', MessageId(2)), Some(&Reply::None));
        assert_eq!(received.next_end(), Some(start + LIFETIME / 2));
        received.expire(start + LIFETIME / 2);
        assert_eq!((received.len(), received.reply_bytes()), (1, 30));
        let end = start + LIFETIME;
        assert_eq!(received.find(end, 'a', MessageId(1)), None, "over");
        received.expire(end);
        assert_eq!((received.len(), received.reply_bytes()), (0, 0));
        assert_eq!(received.next_end(), None);
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_behind() {
        let start = crate::coap::tests::epoch();
        let mut received = Received::new(10, 100);
        for id in 0..1_000 {
            received.insert(start, (), MessageId(id), LIFETIME, id % 2 == 0);
            received.forget((), MessageId(id));
        }
        assert_eq!((received.len(), received.next_end()), (0, None));
        // Out of order something stays in a queue, and no more than twice the bound.
        for id in 0..1_000 {
            received.insert(start, (), MessageId(id), LIFETIME, true);
            if id > 0 {
                received.forget((), MessageId(id - 1));
            }
        }
        assert_eq!(received.find(start, (), MessageId(999)), Some(&Reply::None));
        assert_eq!(received.find(start, (), MessageId(998)), None);
        assert_eq!((received.len(), received.confirmable.len()), (1, 20));
    }

    #[test]
    fn the_oldest_goes_at_either_bound() {
        let start = crate::coap::tests::epoch();
        let mut received = Received::new(3, 100);
        for id in 0..5 {
            let now = start + Duration::from_secs(id.into());
            received.insert(now, (), MessageId(id), LIFETIME, true);
            received.set_reply((), MessageId(id), datagram(20));
        }
        assert_eq!((received.len(), received.reply_bytes()), (3, 60));
        assert_eq!(received.find(start, (), MessageId(1)), None);
        received.set_reply((), MessageId(4), datagram(90));
        assert_eq!((received.len(), received.reply_bytes()), (1, 90));
    }
}
