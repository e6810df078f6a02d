//! Sessions at rest: they are frozen, thawed, and forgotten in the order of their last use.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::{Event, Server, export};
use crate::{
    context::Context,
    error::CloseReason,
    sessions::{ListId, Live, Slot, State},
};

/// What a live session takes, in bytes, about: the library's buffers, keys and our own.
const LIVE_BYTES: usize = 12 * 1024;
/// The most that is frozen of a session: with a certificate as long as the library takes.
const MAX_FROZEN_BYTES: usize = 8_192;
/// How long a session is kept in which nothing was ever said: its peer did not finish, or has made another one.
const SILENT_LIFETIME: Duration = Duration::from_mins(10);
/// Sessions that are frozen or forgotten in one go, so that datagrams have their turn too.
const PER_TURN: usize = 128;

impl Server {
    /// When [`Server::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let due = |list, after: Duration| {
            let used_at = self.sessions.first_used_at(list)?;
            // A second more, because the time of use was cut to seconds.
            Some(self.start + Duration::from_secs(u64::from(used_at) + 1) + after)
        };
        let all = [
            self.wheel.next(),
            due(ListId::Live, self.config.freeze_after),
            due(ListId::Fixed, self.lifetime(ListId::Fixed)),
            due(ListId::Silent, self.lifetime(ListId::Silent)),
            due(ListId::Frozen, self.lifetime(ListId::Frozen)),
        ];
        all.into_iter().flatten().min()
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_handshake_timeouts(now);
        for _ in 0..PER_TURN {
            let Some(index) = self.at_rest(now, ListId::Live, self.config.freeze_after) else {
                break;
            };
            if !self.freeze(index) {
                self.sessions.set_list(index, Some(ListId::Fixed));
            }
        }
        for list in [ListId::Fixed, ListId::Silent, ListId::Frozen] {
            for _ in 0..PER_TURN {
                let Some(index) = self.at_rest(now, list, self.lifetime(list)) else {
                    break;
                };
                self.end(index, CloseReason::Expired);
            }
        }
        self.heap.give_back(now);
    }

    /// How long a session of this list is kept without any record.
    fn lifetime(&self, list: ListId) -> Duration {
        match list {
            ListId::Silent => SILENT_LIFETIME.min(self.config.session_lifetime),
            _ => self.config.session_lifetime,
        }
    }

    /// Makes a session live; `false`: there is none.
    pub(super) fn wake(&mut self, now: Instant, index: u32) -> bool {
        let slot = self.sessions.slot(index);
        let cell = match std::mem::replace(&mut slot.state, State::Free) {
            State::Frozen(cell) => cell,
            other => {
                let is_live = matches!(other, State::Live(_));
                slot.state = other;
                return is_live;
            }
        };
        // Used up: what was frozen is wiped before the session sends anything, so that no nonce comes twice.
        let frozen = Zeroizing::new(self.sessions.arena.get(&cell).to_vec());
        self.sessions.arena.free(cell);
        let loaded = export::split_identity(&frozen).and_then(|(identity, saved)| {
            let context = Context::load(&self.settings, self.config.mtu, now, saved).ok()?;
            Some(Live { context, identity })
        });
        let Some(live) = loaded else {
            self.end(index, CloseReason::Error(0));
            return false;
        };
        self.sessions.slot(index).state = State::Live(Box::new(live));
        self.counters.thawed += 1;
        self.touch(now, index);
        true
    }

    /// Notes that a live session was used, and makes room for it.
    pub(super) fn touch(&mut self, now: Instant, index: u32) {
        let secs = self.secs(now);
        let slot = self.sessions.slot(index);
        slot.used_at = secs;
        let State::Live(live) = &slot.state else {
            return;
        };
        let list = if live.context.can_be_saved() {
            ListId::Live
        } else if live.context.is_silent() {
            ListId::Silent
        } else {
            ListId::Fixed
        };
        self.sessions.set_list(index, Some(list));
        self.make_room(index);
    }

    /// Keeps to the bound of bytes, at the cost of any session but this one.
    fn make_room(&mut self, used: u32) {
        while self.bytes() > self.config.max_bytes {
            let live = self
                .sessions
                .first(ListId::Live)
                .filter(|first| *first != used);
            match live {
                Some(live) if self.freeze(live) => {}
                Some(live) => self.sessions.set_list(live, Some(ListId::Fixed)),
                None if self.evict_but(Some(used)) => {}
                None => return,
            }
        }
    }

    /// Forgets the session that was not used for longest.
    pub(super) fn evict(&mut self) {
        self.evict_but(None);
    }

    fn evict_but(&mut self, used: Option<u32>) -> bool {
        let lists = [ListId::Frozen, ListId::Fixed, ListId::Silent, ListId::Live];
        let firsts = lists.into_iter().filter_map(|list| {
            let first = self
                .sessions
                .first(list)
                .filter(|first| Some(*first) != used)?;
            Some((self.sessions.get(first)?.used_at, first))
        });
        let Some((_, index)) = firsts.min() else {
            return false;
        };
        self.counters.evicted += 1;
        self.end(index, CloseReason::Evicted);
        true
    }

    /// Freezes a session; `false`: it cannot be.
    pub(super) fn freeze(&mut self, index: u32) -> bool {
        let slot = self.sessions.slot(index);
        let State::Live(live) = &mut slot.state else {
            return false;
        };
        if !live.context.can_be_saved() {
            return false;
        }
        let mut frozen = Zeroizing::new(vec![0; MAX_FROZEN_BYTES]);
        let at = export::put_identity(&live.identity, &mut frozen);
        let Some(length) = at.and_then(|at| Some(at + live.context.save(&mut frozen[at..]).ok()?))
        else {
            return false;
        };
        slot.state = State::Free;
        self.heap.freed(LIVE_BYTES);
        let Some(cell) = self.sessions.arena.put(&frozen[..length]) else {
            self.end(index, CloseReason::Evicted);
            return true;
        };
        self.sessions.slot(index).state = State::Frozen(cell);
        self.sessions.set_list(index, Some(ListId::Frozen));
        self.counters.frozen += 1;
        true
    }

    /// Has the peer of a live session know that it ends.
    pub(super) fn say_goodbye(&mut self, now: Instant, index: u32) {
        let slot = self.sessions.slot(index);
        if let State::Live(live) = &mut slot.state {
            live.context.say_goodbye(now);
            let (peer, datagrams) = (slot.address, live.context.take_output());
            self.transmit(peer, datagrams);
        }
    }

    /// Ends a session and says so to the owner.
    pub(super) fn end(&mut self, index: u32, reason: CloseReason) {
        let session = self.sessions.id(index);
        self.forget(index);
        self.tell(Event::Closed { session, reason });
    }

    /// Empties a slot.
    pub(super) fn forget(&mut self, index: u32) {
        match self.sessions.release(index) {
            State::Frozen(cell) => self.sessions.arena.free(cell),
            State::Live(_) | State::Handshake(_) => self.heap.freed(LIVE_BYTES),
            State::Free => {}
        }
    }

    /// What sessions and handshakes take, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let contexts = (self.sessions.live() + self.handshakes.len()) * LIVE_BYTES;
        contexts + self.sessions.arena.bytes() + self.sessions.used() * size_of::<Slot>()
    }

    /// The first of a list, where it was not used for so long.
    fn at_rest(&self, now: Instant, list: ListId, rest: Duration) -> Option<u32> {
        let used_at = u64::from(self.sessions.first_used_at(list)?);
        let until = self.start + Duration::from_secs(used_at + 1) + rest;
        (until <= now).then(|| self.sessions.first(list))?
    }
}
