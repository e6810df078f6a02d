//! What frozen and ended sessions took goes back to the system.
//!
//! The C library's allocator keeps what lies below anything that is still in use, and buffers of sessions lie everywhere:
//! without being told it gives back next to nothing when thousands of them are frozen.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "malloc_trim is the C library's")
)]

use std::time::{Duration, Instant};

/// What is worth a walk over the whole heap.
const WORTHWHILE_BYTES: usize = 8 * 1024 * 1024;
/// The walk takes some 100 ms for a gigabyte: it is made at most this often.
const INTERVAL: Duration = Duration::from_secs(10);

/// What was freed and may still be kept by the allocator.
#[derive(Debug)]
pub(crate) struct Heap {
    freed_bytes: usize,
    told_at: Instant,
}

impl Heap {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            freed_bytes: 0,
            told_at: now,
        }
    }

    /// So many bytes were freed.
    pub(crate) const fn freed(&mut self, bytes: usize) {
        self.freed_bytes = self.freed_bytes.saturating_add(bytes);
    }

    /// Has the allocator give back what it keeps, where that is much.
    pub(crate) fn give_back(&mut self, now: Instant) {
        let is_due = now.saturating_duration_since(self.told_at) >= INTERVAL;
        if is_due && self.freed_bytes >= WORTHWHILE_BYTES {
            self.freed_bytes = 0;
            self.told_at = now;
            trim();
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: as the manual says; it takes the allocator's own locks and moves nothing.
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    let _nothing_given = malloc_trim(0);
}

/// Other C libraries give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
