//! The thread's buffer that bytes pass through on their way out, and what a socket left behind.
//!
//! A connection borrows the buffer for one call and owns none. Invariants: no buffer is
//! borrowed across a wait; a [`Backlog`] that is empty owns no memory.

use std::{
    cell::RefCell,
    io::{self, Write},
};

/// A buffer that grew beyond this is not kept.
const MAX_KEPT: usize = 1024 * 1024;

thread_local! {
    static OUTGOING: RefCell<Outgoing> = const { RefCell::new(Outgoing { bytes: Vec::new(), filled: 0 }) };
}

/// Lends this thread's buffer for what goes, empty.
pub(super) fn with_outgoing<T>(use_it: impl FnOnce(&mut Outgoing) -> T) -> T {
    OUTGOING.with_borrow_mut(|outgoing| {
        outgoing.filled = 0;
        let result = use_it(outgoing);
        if outgoing.bytes.len() > MAX_KEPT {
            outgoing.bytes = Vec::new();
        }
        result
    })
}

/// Bytes on their way to a socket. Its memory is set once and written over, never cleared.
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    /// What is in it.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// The room behind what is in it, at least so much; [`Outgoing::advance`] says what was used.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let needed = self.filled + bytes;
        if self.bytes.len() < needed {
            self.bytes.resize(needed.next_power_of_two(), 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So much of the room was written to.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
        debug_assert!(self.filled <= self.bytes.len());
    }
}

/// What a socket did not take, in order; without memory when it is empty.
#[derive(Debug, Default)]
pub(super) struct Backlog(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let waiting = self.0.as_ref();
        waiting.map_or(0, |waiting| waiting.bytes.len() - waiting.taken)
    }

    /// Hands bytes to the socket, behind those that wait; what it does not take waits.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn send(&mut self, bytes: &[u8], socket: &mut impl Write) -> io::Result<()> {
        if let Some(waiting) = &mut self.0 {
            waiting.bytes.extend_from_slice(bytes);
            return self.flush(socket).map(|_| ());
        }
        let taken = write_some(bytes, socket)?;
        let left = bytes.get(taken..).unwrap_or_default();
        if !left.is_empty() {
            self.0 = Some(Box::new(Waiting {
                bytes: left.to_vec(),
                taken: 0,
            }));
        }
        Ok(())
    }

    /// Hands what waits to the socket as far as it goes; gives the bytes that it took.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let Some(waiting) = &mut self.0 else {
            return Ok(0);
        };
        let left = waiting.bytes.get(waiting.taken..).unwrap_or_default();
        let taken = write_some(left, socket)?;
        waiting.taken += taken;
        if waiting.taken == waiting.bytes.len() {
            self.0 = None;
        }
        Ok(taken)
    }
}

/// Writes until all is taken or the socket takes no more.
fn write_some(bytes: &[u8], socket: &mut impl Write) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(left) = bytes.get(taken..).filter(|left| !left.is_empty()) {
        match socket.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => taken += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}
