//! The pump of one transfer: which chunk goes next, and how many may be under way.
//!
//! A device starts it with `get_chunks`; without that nothing is ever pushed. The caller asks
//! [`Pump::is_ready`] whether a batch is worth a write, takes chunks with [`Pump::next_chunk`]
//! and reports acknowledgements with [`Pump::on_acknowledged`]. A window opens to its whole once the
//! link takes batches at once ([`Pump::on_written`]): what a slow one leaves has to be kept in memory.
//!
//! Invariant: no chunk makes the bytes in flight exceed the open window, unless it is larger and alone.

use super::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};

/// The most chunks that a device may let be unacknowledged.
pub const MAX_WINDOW: u8 = 32;
/// Bytes that may be under way before the link has shown that it takes more at once.
pub const FIRST_WINDOW_BYTES: u32 = 128 * 1024;
/// The most chunks that one request may ask for by `count`.
pub const MAX_COUNT: u8 = 64;
/// The most hexadecimal digits of a `missing` bitmap.
pub const MAX_BITMAP_DIGITS: usize = 2_048;

/// A piece of the resource: `len` bytes from `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first byte.
    pub offset: u64,
    /// Bytes; only the last chunk of a resource is shorter than the others.
    pub len: u32,
}

impl Chunk {
    /// The offset after the last byte.
    pub fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// Which bytes a `get_chunks` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Everything from the offset, at most this many chunks unacknowledged.
    Window(u8),
    /// This many chunks from the offset.
    Count(u8),
    /// The chunks whose bit is set, counted from the offset, least significant bit first.
    Missing(Box<[u8]>),
}

/// Why a `get_chunks` cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The offset, or a chunk that the bitmap names, lies beyond the end of the resource.
    #[error("the offset lies beyond the end of the resource")]
    OutOfRange,
    /// The chunk size is not within [`MIN_CHUNK_BYTES`] and [`MAX_CHUNK_BYTES`].
    #[error("the chunk size must be 256 to 131072 bytes")]
    ChunkSize,
}

/// What is to be sent of one transfer, and what of it is under way.
#[derive(Debug)]
pub struct Pump {
    size: u64,
    chunk_bytes: u32,
    /// The most that the window opens to.
    full_bytes: u32,
    /// How far it is open.
    window_bytes: u32,
    window_chunks: u16,
    plan: Plan,
    in_flight_bytes: u32,
    in_flight_chunks: u16,
    last_batch: LastBatch,
}

/// What is known of the chunks that were taken last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastBatch {
    /// They were not handed to the link.
    Unwritten,
    /// The link took them at once.
    Taken,
    /// There are none, or they have changed the window as they should.
    Counted,
}

#[derive(Debug)]
enum Plan {
    /// Chunks from `next` to `end`.
    Run { next: u64, end: u64 },
    /// Chunks whose bit is set: bit `next_bit` stands for the bytes from `base` + bit x chunk.
    Bits {
        base: u64,
        bits: Box<[u8]>,
        next_bit: u32,
    },
}

impl Pump {
    /// A pump for `ask` from `offset` of a resource of `size` bytes.
    ///
    /// `window_bytes` is the most that may be under way whatever the device asks for; a chunk
    /// larger than that goes alone. `receive_maximum` is the client's own limit in packets.
    ///
    /// # Errors
    /// [`AskError`] where the request cannot be served.
    pub fn start(
        size: u64,
        offset: u64,
        chunk_bytes: u32,
        ask: &Ask,
        window_bytes: u32,
        receive_maximum: u16,
    ) -> Result<Self, AskError> {
        if !(MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk_bytes) {
            return Err(AskError::ChunkSize);
        }
        if offset > size {
            return Err(AskError::OutOfRange);
        }
        let asked = match ask {
            Ask::Window(chunks) => u16::from(*chunks),
            Ask::Count(_) | Ask::Missing(_) => u16::from(MAX_WINDOW),
        };
        let plan = match ask {
            Ask::Window(_) => Plan::Run {
                next: offset,
                end: size,
            },
            Ask::Count(count) => {
                let wanted = u64::from(*count).saturating_mul(u64::from(chunk_bytes));
                Plan::Run {
                    next: offset,
                    end: offset.saturating_add(wanted).min(size),
                }
            }
            Ask::Missing(bits) => {
                let highest = highest_bit(bits);
                let reach = highest.map_or(0, |bit| {
                    u64::from(bit).saturating_mul(u64::from(chunk_bytes))
                });
                if highest.is_some() && offset.saturating_add(reach) >= size {
                    return Err(AskError::OutOfRange);
                }
                Plan::Bits {
                    base: offset,
                    bits: bits.clone(),
                    next_bit: 0,
                }
            }
        };
        let full_bytes = window_bytes
            .min(u32::from(asked).saturating_mul(chunk_bytes))
            .max(chunk_bytes);
        Ok(Self {
            size,
            chunk_bytes,
            full_bytes,
            window_bytes: full_bytes.min(FIRST_WINDOW_BYTES),
            window_chunks: asked.min(receive_maximum).max(1),
            plan,
            in_flight_bytes: 0,
            in_flight_chunks: 0,
            last_batch: LastBatch::Counted,
        })
    }

    /// Whether a batch is worth a write now: there is something to send and half of the window is
    /// free.
    ///
    /// Few large writes cost a third less than many small ones, so a single free place is no
    /// reason to send.
    pub fn is_ready(&self) -> bool {
        self.peek().is_some_and(|chunk| self.has_room(chunk))
            && self.in_flight_bytes <= self.window_bytes / 2
            && self.in_flight_chunks <= self.window_chunks / 2
    }

    /// The next chunk if the window has room for it, without taking it.
    pub fn peek_within_window(&self) -> Option<Chunk> {
        self.peek().filter(|chunk| self.has_room(*chunk))
    }

    /// Takes the next chunk, if the window has room for it, and counts it as under way.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let chunk = self.peek_within_window()?;
        match &mut self.plan {
            Plan::Run { next, .. } => *next = chunk.end(),
            Plan::Bits {
                base,
                bits,
                next_bit,
            } => {
                let bit = next_set_bit(bits, *next_bit)?;
                debug_assert!(chunk.offset >= *base);
                *next_bit = bit.saturating_add(1);
            }
        }
        self.in_flight_bytes = self.in_flight_bytes.saturating_add(chunk.len);
        self.in_flight_chunks = self.in_flight_chunks.saturating_add(1);
        self.last_batch = LastBatch::Unwritten;
        Some(chunk)
    }

    /// Takes note that a chunk is no longer under way: acknowledged, or sent at QoS 0.
    ///
    /// The first one after a batch that the link took at once opens the window twice as far. Before it
    /// the new room would go as a batch of its own, and every further one be as small.
    pub fn on_acknowledged(&mut self, chunk: Chunk) {
        if self.last_batch == LastBatch::Taken {
            self.last_batch = LastBatch::Counted;
            self.window_bytes = self.window_bytes.saturating_mul(2).min(self.full_bytes);
        }
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(chunk.len);
        self.in_flight_chunks = self.in_flight_chunks.saturating_sub(1);
    }

    /// Takes note of a write, and whether the link took all of it at once.
    ///
    /// A link that did not is given no more at a time than at the start. Only the first write after a
    /// chunk counts: what the link takes later of the same batch says nothing new.
    pub fn on_written(&mut self, all_taken: bool) {
        if self.last_batch != LastBatch::Unwritten {
            return;
        }
        self.last_batch = if all_taken {
            LastBatch::Taken
        } else {
            self.window_bytes = self.full_bytes.min(FIRST_WINDOW_BYTES);
            LastBatch::Counted
        };
    }

    /// Whether nothing is left to send; chunks may still be under way.
    pub fn is_exhausted(&self) -> bool {
        self.peek().is_none()
    }

    /// Bytes sent and not yet acknowledged.
    pub fn in_flight_bytes(&self) -> u32 {
        self.in_flight_bytes
    }

    /// Chunks sent and not yet acknowledged.
    pub fn in_flight_chunks(&self) -> u16 {
        self.in_flight_chunks
    }

    /// The most bytes that this pump lets be under way as far as its window is open.
    pub fn window_bytes(&self) -> u32 {
        self.window_bytes
    }

    fn has_room(&self, chunk: Chunk) -> bool {
        // A chunk larger than the window still goes, alone.
        self.in_flight_chunks < self.window_chunks
            && (self.in_flight_bytes == 0
                || self.in_flight_bytes.saturating_add(chunk.len) <= self.window_bytes)
    }

    fn peek(&self) -> Option<Chunk> {
        let (offset, end) = match &self.plan {
            Plan::Run { next, end } => (*next, *end),
            Plan::Bits {
                base,
                bits,
                next_bit,
            } => {
                let bit = next_set_bit(bits, *next_bit)?;
                (
                    base.saturating_add(u64::from(bit).saturating_mul(u64::from(self.chunk_bytes))),
                    self.size,
                )
            }
        };
        let left = end.checked_sub(offset).filter(|left| *left > 0)?;
        let len = u32::try_from(left).map_or(self.chunk_bytes, |left| left.min(self.chunk_bytes));
        Some(Chunk { offset, len })
    }
}

/// Reads a `missing` bitmap: hexadecimal digits, two a byte, each byte least significant bit first.
///
/// `None` where it is empty, has an odd number of digits, one that is not hexadecimal, or more
/// than [`MAX_BITMAP_DIGITS`].
pub fn parse_bitmap(hex: &str) -> Option<Box<[u8]>> {
    let digits = hex.as_bytes();
    if digits.is_empty() || digits.len() > MAX_BITMAP_DIGITS {
        return None;
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(hex_value(*high)? << 4 | hex_value(*low)?))
        .collect()
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn next_set_bit(bits: &[u8], from: u32) -> Option<u32> {
    let mut index = usize::try_from(from / 8).ok()?;
    let mut byte = bits.get(index)? & (0xff_u8 << (from % 8));
    while byte == 0 {
        index += 1;
        byte = *bits.get(index)?;
    }
    u32::try_from(index)
        .ok()?
        .checked_mul(8)?
        .checked_add(byte.trailing_zeros())
}

fn highest_bit(bits: &[u8]) -> Option<u32> {
    let index = bits.iter().rposition(|byte| *byte != 0)?;
    let byte = bits.get(index)?;
    u32::try_from(index)
        .ok()?
        .checked_mul(8)?
        .checked_add(7 - byte.leading_zeros())
}

#[cfg(test)]
mod tests;
