//! How others reach a session: a few signals and a short list, never a queue of work.
//!
//! A signal says that something waits; what waits is looked up by the session itself. So nothing
//! here grows with what is to be sent.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;

/// Cancelled transfers that a session has not told its device of; one more is dropped, and the
/// device learns of it when it asks for bytes.
const MAX_CANCELED: usize = 16;

const WAKE: u8 = 1;
const SLOT: u8 = 2;
const CLOSE: u8 = 4;
const CANCELED: u8 = 8;

/// Why a session is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The device connected again.
    Takeover,
    /// An operator wants it, or the device was frozen or deleted.
    Administrative,
    /// The node stops.
    Shutdown,
}

/// A transfer that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canceled {
    /// Its id.
    pub transfer: Box<str>,
    /// The resource's name.
    pub name: Box<str>,
}

/// One session as others see it.
#[derive(Debug)]
pub struct SessionHandle {
    /// Whose it is.
    pub device_id: DeviceId,
    /// Tells it from the device's earlier and later sessions on this node.
    pub epoch: u64,
    signals: AtomicU8,
    slot: AtomicU64,
    waker: AtomicWaker,
    details: Mutex<Details>,
}

#[derive(Debug, Default)]
struct Details {
    close: Option<CloseReason>,
    canceled: Vec<Canceled>,
}

/// What has been signalled since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals(u8);

impl Signals {
    /// Something waits for the device.
    pub fn has_wake(self) -> bool {
        self.0 & WAKE != 0
    }

    /// The sending slot that was waited for has been given.
    pub fn has_slot(self) -> bool {
        self.0 & SLOT != 0
    }

    /// The session is to end.
    pub fn has_close(self) -> bool {
        self.0 & CLOSE != 0
    }

    /// Transfers were cancelled.
    pub fn has_canceled(self) -> bool {
        self.0 & CANCELED != 0
    }
}

impl SessionHandle {
    /// A session of `device_id` that nobody has signalled.
    pub fn new(device_id: DeviceId, epoch: u64) -> Self {
        Self {
            device_id,
            epoch,
            signals: AtomicU8::new(0),
            slot: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            details: Mutex::default(),
        }
    }

    /// Says that something waits for the device.
    pub fn wake(&self) {
        self.signal(WAKE);
    }

    /// Ends the session.
    pub fn close(&self, reason: CloseReason) {
        self.details.lock().close.get_or_insert(reason);
        self.signal(CLOSE);
    }

    /// Says that a transfer is over.
    pub fn cancel(&self, canceled: Canceled) {
        {
            let mut details = self.details.lock();
            if details.canceled.len() >= MAX_CANCELED {
                return;
            }
            details.canceled.push(canceled);
        }
        self.signal(CANCELED);
    }

    /// Gives the session the sending slot that it waits for.
    pub(super) fn grant_slot(&self, ticket: u64) {
        self.slot.store(ticket, Ordering::Release);
        self.signal(SLOT);
    }

    /// The slot that was given, if it has not been taken.
    pub(super) fn take_slot(&self) -> Option<u64> {
        let ticket = self.slot.swap(0, Ordering::AcqRel);
        (ticket != 0).then_some(ticket)
    }

    /// Why the session is to end.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.details.lock().close
    }

    /// The transfers that were cancelled since the last look.
    pub(super) fn take_canceled(&self) -> Vec<Canceled> {
        std::mem::take(&mut self.details.lock().canceled)
    }

    /// Waits for a signal.
    pub fn poll_signals(&self, cx: &Context<'_>) -> Poll<Signals> {
        let signals = self.signals.swap(0, Ordering::AcqRel);
        if signals != 0 {
            return Poll::Ready(Signals(signals));
        }
        self.waker.register(cx.waker());
        // A signal may have come between the look and the registration.
        match self.signals.swap(0, Ordering::AcqRel) {
            0 => Poll::Pending,
            signals => Poll::Ready(Signals(signals)),
        }
    }

    fn signal(&self, bit: u8) {
        if self.signals.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn handle() -> SessionHandle {
        SessionHandle::new("d".parse().expect("legal"), 1)
    }

    #[test]
    fn signals_gather_until_they_are_looked_at() {
        let handle = handle();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(handle.poll_signals(&cx), Poll::Pending);
        handle.wake();
        handle.wake();
        handle.close(CloseReason::Takeover);
        handle.close(CloseReason::Shutdown);
        let Poll::Ready(signals) = handle.poll_signals(&cx) else {
            panic!("signalled")
        };
        assert!(signals.has_wake() && signals.has_close() && !signals.has_slot());
        assert_eq!(
            handle.close_reason(),
            Some(CloseReason::Takeover),
            "the first reason stands"
        );
        assert_eq!(handle.poll_signals(&cx), Poll::Pending);
    }

    #[test]
    fn cancellations_are_bounded() {
        let handle = handle();
        for n in 0..100 {
            handle.cancel(Canceled {
                transfer: n.to_string().into(),
                name: "r".into(),
            });
        }
        assert_eq!(handle.take_canceled().len(), MAX_CANCELED);
        assert!(handle.take_canceled().is_empty());
    }

    #[test]
    fn a_slot_is_taken_once() {
        let handle = handle();
        handle.grant_slot(7);
        assert_eq!(handle.take_slot(), Some(7));
        assert_eq!(handle.take_slot(), None);
    }
}
