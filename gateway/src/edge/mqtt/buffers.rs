//! The thread's buffers that connections read into.
//!
//! Invariants: a connection at rest has none; one that waits until what a message asks for is done has none either,
//! unless the message or what follows it is large.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::Packet;

/// What a connection reads into, while it reads.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// How many times as large a buffer may have grown and is still kept for the next connection.
const MAX_GROWN: usize = 16;
/// Buffers that a thread keeps.
const POOL: usize = 8;
/// The largest payload that is copied so that it does not keep the buffer, and the most of what follows it.
const MAX_COPIED: usize = 1024;

thread_local! {
    /// Read buffers that wait for the next connection of this thread that has something to say.
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A buffer to read into that begins with `tail`. A tail that is small moves into a buffer of the thread, which has grown
/// to what is read at once; it would grow to that again each time.
pub(super) fn buffer_behind(tail: BytesMut) -> BytesMut {
    if tail.capacity() > READ_BUFFER_BYTES * MAX_GROWN {
        return tail;
    }
    let pooled = BUFFERS.with_borrow_mut(Vec::pop);
    let mut buffer = pooled.unwrap_or_else(|| BytesMut::with_capacity(READ_BUFFER_BYTES));
    buffer.extend_from_slice(&tail);
    buffer
}

/// Gives a buffer back to the thread while a message that lay in it is acted on: it may wait for a commit, and ten thousand
/// devices wait at once. Its payload and what follows it, which is returned, are copied where they are small.
pub(super) fn give_back(buffer: BytesMut, current: &mut Packet) -> BytesMut {
    let Packet::Publish(publish) = current else {
        return buffer;
    };
    if publish.payload.len() > MAX_COPIED || buffer.len() > MAX_COPIED {
        return buffer;
    }
    publish.payload = Bytes::copy_from_slice(&publish.payload);
    let rest = BytesMut::from(&buffer[..]);
    pool(buffer);
    rest
}

/// Gives a buffer back to the thread.
pub(super) fn pool(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.try_reclaim(READ_BUFFER_BYTES) && buffer.capacity() <= READ_BUFFER_BYTES * MAX_GROWN {
        BUFFERS.with_borrow_mut(|pool| {
            if pool.len() < POOL {
                pool.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use headgate_protocol::mqtt::Publish;

    use super::*;

    fn pooled() -> usize {
        BUFFERS.with_borrow(Vec::len)
    }

    /// A message whose payload of so many bytes is the first of `bytes` in a buffer, and the rest of that.
    fn taken(payload_bytes: usize, bytes: usize) -> (Packet, BytesMut) {
        let mut buffer = buffer_behind(BytesMut::new());
        buffer.resize(bytes, 7);
        let payload = buffer.split_to(payload_bytes).freeze();
        let packet = Packet::Publish(Publish::new("a/b".parse().expect("a name"), payload));
        (packet, buffer)
    }

    #[test]
    fn a_buffer_is_the_threads_again_while_a_message_out_of_it_is_acted_on() {
        for rest_bytes in [0, 4, MAX_COPIED] {
            let (mut packet, rest) = taken(300, 300 + rest_bytes);
            assert_eq!(pooled(), 0);
            let rest = give_back(rest, &mut packet);
            assert_eq!(pooled(), 1);
            // Whoever reads next writes over it.
            let mut next = buffer_behind(BytesMut::new());
            next.extend_from_slice(&[1; READ_BUFFER_BYTES]);
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!((publish.payload.len(), rest.len()), (300, rest_bytes));
            assert!(
                publish
                    .payload
                    .iter()
                    .chain(&rest[..])
                    .all(|byte| *byte == 7)
            );
        }
    }

    #[test]
    fn a_large_payload_and_much_that_follows_keep_their_buffer() {
        for (payload_bytes, rest_bytes) in [(300, MAX_COPIED + 1), (MAX_COPIED + 1, 0)] {
            let (mut packet, rest) = taken(payload_bytes, payload_bytes + rest_bytes);
            let rest = give_back(rest, &mut packet);
            assert_eq!((pooled(), rest.len()), (0, rest_bytes));
        }
    }
}
