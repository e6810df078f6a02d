//! Sending slots: how many devices are sent to at the same instant.
//!
//! Few devices at a time keep their copies of the data in the processor's cache and in little
//! socket memory. A slot covers a turn: batches that follow each other as they are acknowledged,
//! up to `slot_bytes`; then it goes to whoever waits longest. A device that has not acknowledged
//! enough for its next batch within `hold` has lost its slot, and one that is known to answer later
//! than that gives it back with the write, so slots never limit what slow links carry.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::handle::SessionHandle;

/// The sending slots of a node.
#[derive(Debug)]
pub struct SendingSlots {
    capacity: usize,
    hold: Duration,
    slot_bytes: u64,
    state: Mutex<State>,
    /// Somebody began to wait: slots that are held too long must be taken back.
    contended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Given slots, the longest held first.
    held: VecDeque<(u64, Instant)>,
    waiting: VecDeque<Arc<SessionHandle>>,
    tickets: u64,
}

/// The right to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    pub(super) fn from_grant(ticket: u64) -> Self {
        Self(ticket)
    }
}

impl SendingSlots {
    /// `capacity` slots, each for `slot_bytes`, and lost by who lets `hold` pass between two batches.
    pub fn new(capacity: usize, hold: Duration, slot_bytes: u64) -> Self {
        Self {
            capacity,
            hold,
            slot_bytes,
            state: Mutex::default(),
            contended: Notify::new(),
        }
    }

    /// How long a slot is held at most without a batch.
    pub fn hold(&self) -> Duration {
        self.hold
    }

    /// What is sent in one turn, in bytes.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// A slot, or a place in the queue: the session is signalled when its turn has come.
    pub fn acquire(&self, session: &Arc<SessionHandle>, now: Instant) -> Option<Ticket> {
        let mut state = self.state.lock();
        if state.held.len() < self.capacity && state.waiting.is_empty() {
            return Some(Ticket(state.give(now)));
        }
        let first = state.waiting.is_empty();
        state.waiting.push_back(Arc::clone(session));
        drop(state);
        if first {
            self.contended.notify_one();
        }
        None
    }

    /// Goes on with a slot for another batch; `false` where it was taken back meanwhile.
    pub fn renew(&self, ticket: Ticket, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some(at) = state.held.iter().position(|(held, _)| *held == ticket.0) else {
            return false;
        };
        state.held.remove(at);
        state.held.push_back((ticket.0, now));
        true
    }

    /// Gives a slot back; one that was taken back already is no matter.
    pub fn release(&self, ticket: Ticket, now: Instant) {
        let mut state = self.state.lock();
        if let Some(at) = state.held.iter().position(|(held, _)| *held == ticket.0) {
            state.held.remove(at);
            self.serve(&mut state, now);
        }
    }

    /// Forgets that the session waits.
    pub fn leave(&self, session: &SessionHandle) {
        self.state
            .lock()
            .waiting
            .retain(|waiting| !std::ptr::eq(Arc::as_ptr(waiting), session));
    }

    /// Takes back what is held too long, for as long as somebody waits; until it is dropped.
    pub async fn run(&self) {
        loop {
            self.contended.notified().await;
            while self.reclaim(Instant::now()) {
                tokio::time::sleep(self.hold / 2).await;
            }
        }
    }

    /// Takes back what is held too long; says whether somebody still waits.
    fn reclaim(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        while state
            .held
            .front()
            .is_some_and(|(_, since)| now.duration_since(*since) >= self.hold)
        {
            state.held.pop_front();
        }
        self.serve(&mut state, now);
        !state.waiting.is_empty()
    }

    fn serve(&self, state: &mut State, now: Instant) {
        while state.held.len() < self.capacity
            && let Some(session) = state.waiting.pop_front()
        {
            session.grant_slot(state.give(now));
        }
    }
}

impl State {
    fn give(&mut self, now: Instant) -> u64 {
        self.tickets += 1;
        self.held.push_back((self.tickets, now));
        self.tickets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::handle::tests::handle;

    const HOLD: Duration = Duration::from_millis(20);
    const TURN: u64 = 1 << 20;

    fn session() -> Arc<SessionHandle> {
        Arc::new(handle())
    }

    #[test]
    fn slots_go_to_those_who_wait_in_order() {
        let slots = SendingSlots::new(1, HOLD, TURN);
        let now = Instant::now();
        let (second, third) = (session(), session());
        let ticket = slots.acquire(&session(), now).expect("free");
        assert_eq!(slots.acquire(&second, now), None);
        assert_eq!(slots.acquire(&third, now), None);
        slots.release(ticket, now);
        let given = Ticket::from_grant(second.take_slot().expect("its turn"));
        assert_eq!(third.take_slot(), None);
        slots.release(given, now);
        assert!(third.take_slot().is_some());
    }

    #[test]
    fn a_slot_held_too_long_is_taken_back_and_its_late_return_is_no_matter() {
        let slots = SendingSlots::new(1, HOLD, TURN);
        let now = Instant::now();
        let late = slots.acquire(&session(), now).expect("free");
        let waiting = session();
        assert_eq!(slots.acquire(&waiting, now), None);
        assert!(slots.reclaim(now + HOLD / 2), "still waiting");
        assert!(!slots.reclaim(now + HOLD));
        assert!(waiting.take_slot().is_some());
        slots.release(late, now + HOLD);
        assert_eq!(
            slots.acquire(&session(), now + HOLD),
            None,
            "no slot came from nowhere"
        );
    }

    #[test]
    fn a_slot_that_is_used_again_is_not_taken_back() {
        let slots = SendingSlots::new(1, HOLD, TURN);
        let now = Instant::now();
        let ticket = slots.acquire(&session(), now).expect("free");
        let waiting = session();
        assert_eq!(slots.acquire(&waiting, now), None);
        assert!(slots.renew(ticket, now + HOLD / 2));
        assert!(slots.reclaim(now + HOLD), "held since the renewal only");
        assert_eq!(waiting.take_slot(), None);
        assert!(!slots.reclaim(now + HOLD * 2));
        assert!(waiting.take_slot().is_some());
        assert!(!slots.renew(ticket, now + HOLD * 2), "it was taken back");
    }

    #[test]
    fn one_that_left_gets_no_slot() {
        let slots = SendingSlots::new(1, HOLD, TURN);
        let now = Instant::now();
        let ticket = slots.acquire(&session(), now).expect("free");
        let gone = session();
        assert_eq!(slots.acquire(&gone, now), None);
        slots.leave(&gone);
        slots.release(ticket, now);
        assert_eq!(gone.take_slot(), None);
        assert!(slots.acquire(&session(), now).is_some());
    }
}
