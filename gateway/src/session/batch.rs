//! What goes to one device in one write: packet headers made here, payloads shared with everyone.
//!
//! A batch is filled by the session and encrypted by the edge. Its buffers are taken from the
//! thread that fills it and given back after the write, so that no connection owns any.

use std::{cell::RefCell, ops::Range};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Room for the headers of a large batch.
const HEAD_BYTES: usize = 4_096;
/// Batches that a thread keeps for the next use.
const POOL: usize = 8;

/// Packets to be written together.
#[derive(Debug, Default)]
pub struct Batch {
    head: BytesMut,
    parts: Vec<Span>,
    bytes: usize,
}

#[derive(Debug)]
struct Span {
    head: Range<usize>,
    payload: SmallVec<[Bytes; 2]>,
}

/// Bytes that belong together: a header, and a payload in at most a few slices.
#[derive(Debug)]
pub struct Part<'a> {
    /// The header, or whole packets without a shared payload.
    pub head: &'a [u8],
    /// The payload's slices, in order.
    pub payload: &'a [Bytes],
}

thread_local! {
    static POOLED: RefCell<Vec<Batch>> = const { RefCell::new(Vec::new()) };
}

impl Batch {
    /// An empty batch with this thread's buffers.
    pub fn take() -> Self {
        POOLED.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Gives the buffers to this thread for the next batch.
    pub fn give_back(mut self) {
        self.clear();
        if self.head.capacity() <= 16 * HEAD_BYTES {
            POOLED.with_borrow_mut(|pool| {
                if pool.len() < POOL {
                    pool.push(self);
                }
            });
        }
    }

    /// Drops what it holds: it is not to be written.
    pub fn clear(&mut self) {
        self.head.clear();
        self.parts.clear();
        self.bytes = 0;
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Adds packets that are already encoded.
    pub fn push_encoded(&mut self, packets: &[u8]) {
        if packets.is_empty() {
            return;
        }
        let start = self.head.len();
        self.head.extend_from_slice(packets);
        self.push_span(start, SmallVec::new());
    }

    /// Adds a packet whose header `encode` appends, and whose payload follows as it is.
    ///
    /// # Errors
    /// What `encode` gives; the batch is as before then.
    pub fn push_packet<E>(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
        payload: SmallVec<[Bytes; 2]>,
    ) -> Result<(), E> {
        let start = self.head.len();
        if self.head.capacity() == 0 {
            self.head.reserve(HEAD_BYTES);
        }
        if let Err(error) = encode(&mut self.head) {
            self.head.truncate(start);
            return Err(error);
        }
        self.push_span(start, payload);
        Ok(())
    }

    /// The parts in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.parts.iter().map(|span| Part {
            // Every span was made from the length of `head`, which only grows until it is cleared.
            head: self.head.get(span.head.clone()).unwrap_or_default(),
            payload: &span.payload,
        })
    }

    fn push_span(&mut self, start: usize, payload: SmallVec<[Bytes; 2]>) {
        let head = start..self.head.len();
        self.bytes += head.len() + payload.iter().map(Bytes::len).sum::<usize>();
        self.parts.push(Span { head, payload });
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    #[test]
    fn parts_come_out_as_they_went_in_and_payloads_are_not_copied() {
        let payload = Bytes::from(vec![7; 100]);
        let mut batch = Batch::take();
        batch.push_encoded(b"ping");
        let shared: SmallVec<[Bytes; 2]> = [payload.clone()].into_iter().collect();
        batch
            .push_packet(
                |head| -> Result<(), ()> {
                    head.put_slice(b"head");
                    Ok(())
                },
                shared,
            )
            .expect("encodes");
        assert_eq!(batch.len(), 108);
        let parts: Vec<_> = batch.parts().collect();
        assert_eq!((parts[0].head, parts[1].head), (&b"ping"[..], &b"head"[..]));
        assert_eq!(parts[1].payload[0].as_ptr(), payload.as_ptr());
    }

    #[test]
    fn a_packet_that_cannot_be_encoded_leaves_no_trace() {
        let mut batch = Batch::take();
        let result = batch.push_packet(
            |head| {
                head.put_slice(b"half");
                Err(())
            },
            SmallVec::new(),
        );
        assert_eq!(result, Err(()));
        assert!(batch.is_empty() && batch.parts().next().is_none());
    }
}
