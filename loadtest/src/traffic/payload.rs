//! What a message says of itself: who sent it, which one it is, and when it was due.
//!
//! 24 bytes in front, filled up to the size asked for. The time is the wall clock's in
//! microseconds, so that a listener in another process of the same machine can take the difference.
//! Invariants: a message of anybody else is never mistaken for one of this run.

use bytes::{BufMut, BytesMut};

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Keeps runs apart that use the same topics.
    pub(crate) run: u32,
    /// The device's position in the swarm.
    pub(crate) device: u32,
    /// Which message of the device, from 0.
    pub(crate) seq: u64,
    /// When it was due, microseconds since 1970.
    pub(crate) due_micros: u64,
}

impl Head {
    /// Bytes of a head: the shortest message.
    pub(crate) const BYTES: usize = 24;

    /// Appends a message of `size` bytes.
    pub(crate) fn write(self, size: usize, out: &mut BytesMut) {
        out.put_u32(self.run);
        out.put_u32(self.device);
        out.put_u64(self.seq);
        out.put_u64(self.due_micros);
        out.put_bytes(b'.', size.saturating_sub(Self::BYTES));
    }

    /// Reads a message; `None` where it is none of `run`.
    pub(crate) fn read(payload: &[u8], run: u32) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk()?;
        let (device, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (due, _) = rest.split_first_chunk()?;
        let head = Self {
            run: u32::from_be_bytes(*number),
            device: u32::from_be_bytes(*device),
            seq: u64::from_be_bytes(*seq),
            due_micros: u64::from_be_bytes(*due),
        };
        (head.run == run).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        let head = Head {
            run: 7,
            device: 99_999,
            seq: u64::MAX - 1,
            due_micros: 1_795_237_200_123_456,
        };
        for size in [0, 24, 25, 4_096] {
            let mut out = BytesMut::new();
            head.write(size, &mut out);
            assert_eq!(out.len(), size.max(24));
            assert_eq!(Head::read(&out, 7), Some(head));
            assert_eq!(Head::read(&out, 8), None);
        }
        assert_eq!(Head::read(&[0; 23], 0), None);
    }
}
