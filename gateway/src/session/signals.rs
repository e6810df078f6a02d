//! Signals to a session: bits that say that something waits, and the waker of whoever looks.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// One kind of signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Signal {
    /// A delivery waits for the device.
    Wake = 1,
    /// The sending slot that was waited for has been given.
    Slot = 1 << 1,
    /// The session is to end.
    Close = 1 << 2,
    /// Transfers were cancelled.
    Canceled = 1 << 3,
    /// The product's rules have changed.
    Rules = 1 << 4,
    /// Someone asks how the session is.
    Inspect = 1 << 5,
    /// Messages wait for the client.
    Mail = 1 << 6,
    /// Chunks were written, or uploads ended.
    Uploads = 1 << 7,
}

/// What has been signalled since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals(u8);

impl Signals {
    /// Nothing was signalled: the session has something to write all the same.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn has(self, signal: Signal) -> bool {
        self.0 & signal as u8 != 0
    }

    /// Whether the answer needs the client's address, which the socket knows.
    pub fn asks_for_address(self) -> bool {
        self.has(Signal::Inspect)
    }
}

/// Where signals gather until the session looks at them.
#[derive(Debug, Default)]
pub(super) struct SignalSet {
    bits: AtomicU8,
    waker: AtomicWaker,
}

impl SignalSet {
    pub(super) fn raise(&self, signal: Signal) {
        let bit = signal as u8;
        if self.bits.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Signals> {
        let signals = self.bits.swap(0, Ordering::AcqRel);
        if signals != 0 {
            return Poll::Ready(Signals(signals));
        }
        self.waker.register(cx.waker());
        // A signal may have come between the look and the registration.
        match self.bits.swap(0, Ordering::AcqRel) {
            0 => Poll::Pending,
            signals => Poll::Ready(Signals(signals)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn signals_gather_until_they_are_looked_at() {
        let set = SignalSet::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(set.poll(&cx), Poll::Pending);
        set.raise(Signal::Wake);
        set.raise(Signal::Wake);
        set.raise(Signal::Close);
        let Poll::Ready(signals) = set.poll(&cx) else {
            panic!("signalled")
        };
        assert!(signals.has(Signal::Wake) && signals.has(Signal::Close));
        assert!(!signals.has(Signal::Slot));
        assert_eq!(set.poll(&cx), Poll::Pending);
    }
}
