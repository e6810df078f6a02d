//! Handshakes: from the first hello of a stranger to a session.

use std::{net::SocketAddr, time::Instant};

use zeroize::Zeroizing;

use super::{Event, Identity, Server, SessionId, Spare, transport_id};
use crate::{
    MAX_KEY_BYTES,
    context::{Context, Progress},
    error::{CloseReason, DtlsError, HandshakeFailure},
    handshake::{Handshake, Step},
    random,
    record::{CID_BYTES, Record},
    sessions::{ListId, Live, State},
};

impl Server {
    /// Goes on with a handshake that waits for the key of its identity; `None`: there is no such identity, which the
    /// peer sees as it would see another key.
    pub fn provide_key(&mut self, now: Instant, session: SessionId, key: Option<&[u8]>) {
        let Some(index) = self.sessions.find(session) else {
            return;
        };
        let known = key.filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        let key = if let Some(key) = known {
            Zeroizing::new(key.to_vec())
        } else {
            let mut nobodys = Zeroizing::new(vec![0; 16]);
            if random::fill(&mut nobodys).is_err() {
                return self.abandon(index);
            }
            nobodys
        };
        let slot = self.sessions.slot(index);
        let address = slot.address;
        let State::Handshake(handshake) = &mut slot.state else {
            return;
        };
        let step = handshake.provide_key(now, key);
        let datagrams = handshake.context.take_output();
        self.transmit(address, datagrams);
        self.act(now, index, step);
    }

    /// A `ClientHello` that belongs to no handshake.
    pub(super) fn handle_hello(
        &mut self,
        now: Instant,
        from: SocketAddr,
        random: [u8; 32],
        hello: &[u8],
    ) {
        self.settings.rotate_cookies(now);
        let Ok(mut spare) = self.take_spare(now, from) else {
            return;
        };
        let progress = spare.context.take_hello(now, hello);
        let datagrams = spare.context.take_output();
        if progress != Progress::Pending {
            // What the library objects to in a stranger's hello is not answered: it may be someone else's.
            if progress == Progress::CookieSent {
                self.counters.cookies += 1;
                self.transmit(from, datagrams);
            }
            return self.put_back(spare);
        }
        // It receives at its address.
        if !self.may_begin(now) || self.begin(now, from, random, spare).is_err() {
            self.counters.limited += 1;
        }
    }

    /// A record for a handshake.
    pub(super) fn continue_handshake(
        &mut self,
        now: Instant,
        from: SocketAddr,
        index: u32,
        record: &Record<'_>,
    ) {
        let slot = self.sessions.slot(index);
        let address = slot.address;
        // Nothing is authentic yet: a handshake stays where it was begun.
        if address != from {
            return;
        }
        let State::Handshake(handshake) = &mut slot.state else {
            return;
        };
        let step = handshake.take(now, record);
        let datagrams = handshake.context.take_output();
        self.transmit(address, datagrams);
        self.act(now, index, step);
    }

    /// Goes on with handshakes whose time has come.
    pub(super) fn handle_handshake_timeouts(&mut self, now: Instant) {
        for session in self.wheel.expire(now) {
            let Some(index) = self.sessions.find(session) else {
                continue;
            };
            let slot = self.sessions.slot(index);
            let address = slot.address;
            let State::Handshake(handshake) = &mut slot.state else {
                continue;
            };
            let step = handshake.handle_timeout(now);
            let datagrams = handshake.context.take_output();
            self.transmit(address, datagrams);
            self.act(now, index, step);
            self.watch(index);
        }
    }

    /// Gives up a handshake; nobody is told.
    pub(super) fn drop_handshake(&mut self, index: u32) {
        let address = self.sessions.slot(index).address;
        self.leave_handshakes(index, address);
        self.forget(index);
    }

    /// Gives up a handshake and says so to the owner.
    fn abandon(&mut self, index: u32) {
        let session = self.sessions.id(index);
        let peer = self.sessions.slot(index).address;
        self.drop_handshake(index);
        self.tell(Event::Failed {
            session,
            identity: None,
            failure: HandshakeFailure::Abandoned,
            peer,
        });
    }

    /// A context at its start, for this peer; it offers the Connection ID of the next free slot.
    fn take_spare(&mut self, now: Instant, peer: SocketAddr) -> Result<Spare, DtlsError> {
        let mut spare = if let Some(spare) = self.spare.take() {
            spare
        } else {
            let mut tail = [0; 2];
            random::fill(&mut tail).map_err(|_none| DtlsError::NotConnected)?;
            Spare {
                context: Context::new(&self.settings, self.config.mtu, now)?,
                cid_tail: u16::from_be_bytes(tail),
            }
        };
        let index = self.sessions.next_free().ok_or(DtlsError::NotConnected)?;
        let cid = self.cid(index, spare.cid_tail);
        spare.context.offer_cid(&cid)?;
        spare.context.set_transport_id(&transport_id(peer))?;
        Ok(spare)
    }

    fn put_back(&mut self, mut spare: Spare) {
        if spare.context.reset().is_ok() {
            self.spare = Some(spare);
        }
    }

    fn may_begin(&mut self, now: Instant) -> bool {
        let rate = f64::from(self.config.max_handshakes_per_second);
        let allowance = &mut self.allowance;
        let elapsed = now.saturating_duration_since(allowance.at).as_secs_f64();
        allowance.tokens = elapsed.mul_add(rate, allowance.tokens).min(rate.max(1.0));
        allowance.at = now;
        let is_allowed =
            allowance.tokens >= 1.0 && self.handshakes.len() < self.config.max_handshakes;
        if is_allowed {
            allowance.tokens -= 1.0;
        }
        is_allowed
    }

    /// Makes a peer's handshake of the context that took its hello.
    fn begin(
        &mut self,
        now: Instant,
        from: SocketAddr,
        random: [u8; 32],
        spare: Spare,
    ) -> Result<(), DtlsError> {
        let Spare {
            mut context,
            cid_tail,
        } = spare;
        let index = self
            .sessions
            .allocate(from, cid_tail)
            .ok_or(DtlsError::NotConnected)?;
        // The slot is that of the Connection ID, so that only now others may become free.
        if let Some(former) = self.handshakes.insert(from, index) {
            self.abandon(former);
        }
        if self.sessions.used() > self.config.max_sessions {
            self.evict();
        }
        self.counters.handshakes += 1;
        let step = match context.handshake(now, None) {
            Progress::Failed(code) => Step::Failed(HandshakeFailure::Protocol(code)),
            Progress::Pending | Progress::Done | Progress::CookieSent => Step::Pending,
        };
        let datagrams = context.take_output();
        let deadline = now + self.config.max_handshake_duration;
        let handshake = Handshake::new(context, random, deadline);
        self.sessions.slot(index).state = State::Handshake(Box::new(handshake));
        self.transmit(from, datagrams);
        self.watch(index);
        self.act(now, index, step);
        Ok(())
    }

    /// Has the wheel look after a handshake.
    fn watch(&mut self, index: u32) {
        let session = self.sessions.id(index);
        if let State::Handshake(handshake) = &mut self.sessions.slot(index).state {
            let at = handshake.timeout();
            self.wheel.set(at, session);
        }
    }

    fn act(&mut self, now: Instant, index: u32, step: Step) {
        let session = self.sessions.id(index);
        match step {
            Step::Pending => {}
            Step::KeyWanted(identity) => {
                let peer = self.sessions.slot(index).address;
                self.tell(Event::KeyWanted {
                    session,
                    identity,
                    peer,
                });
            }
            Step::Failed(failure) => {
                let slot = self.sessions.slot(index);
                let peer = slot.address;
                let State::Handshake(handshake) = &mut slot.state else {
                    return;
                };
                let identity = handshake.identity.take();
                self.drop_handshake(index);
                self.tell(Event::Failed {
                    session,
                    identity,
                    failure,
                    peer,
                });
            }
            Step::Done => self.on_connected(now, index),
        }
    }

    fn on_connected(&mut self, now: Instant, index: u32) {
        let session = self.sessions.id(index);
        let slot = self.sessions.slot(index);
        let address = slot.address;
        let State::Handshake(handshake) = std::mem::replace(&mut slot.state, State::Free) else {
            return;
        };
        let Handshake {
            mut context,
            identity,
            ..
        } = *handshake;
        let (suite, has_cid) = (context.suite(), context.has_cid());
        let identity = match (identity, context.fingerprint()) {
            (Some(identity), None) if suite.is_psk() => Identity::Psk(identity),
            (_, Some(fingerprint)) if !suite.is_psk() => Identity::Certificate(fingerprint),
            _ => {
                // Who it is was not shown: nobody is let in like that.
                return self.abandon(index);
            }
        };
        let certificate = context.take_certificate();
        let slot = self.sessions.slot(index);
        slot.has_cid = has_cid;
        slot.state = State::Live(Box::new(Live {
            context,
            identity: identity.clone(),
        }));
        self.leave_handshakes(index, address);
        if !has_cid {
            if let Some(former) = self.sessions.at_address(address) {
                self.end(former, CloseReason::Replaced);
            }
            self.sessions.bind_address(index);
        }
        self.sessions.set_list(index, Some(ListId::Silent));
        self.touch(now, index);
        self.tell(Event::Connected {
            session,
            identity,
            certificate,
            suite,
            has_cid,
            peer: address,
        });
    }

    fn leave_handshakes(&mut self, index: u32, address: SocketAddr) {
        if self.handshakes.get(&address) == Some(&index) {
            self.handshakes.remove(&address);
        }
    }

    /// Our Connection ID for the peer in this slot.
    pub(super) fn cid(&self, index: u32, tail: u16) -> [u8; CID_BYTES] {
        let ([n0, n1], [t0, t1]) = (self.config.node.to_be_bytes(), tail.to_be_bytes());
        let [_, s0, s1, s2] = index.to_be_bytes();
        [n0, n1, self.config.worker, s0, s1, s2, t0, t1]
    }
}
