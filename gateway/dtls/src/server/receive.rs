//! What comes: which peer's a record is, and what is done with it.

use std::{net::SocketAddr, time::Instant};

use super::{Event, Server};
use crate::{
    client::DATA_BUFFER_BYTES,
    context::Received,
    error::CloseReason,
    record::{APPLICATION_DATA, CID_BYTES, Record, records},
    sessions::State,
};

impl Server {
    /// Takes a datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let mut is_empty = true;
        for record in records(datagram) {
            is_empty = false;
            self.handle_record(now, from, &record);
        }
        self.counters.unknown += u64::from(is_empty);
    }

    fn handle_record(&mut self, now: Instant, from: SocketAddr, record: &Record<'_>) {
        let slot = match record.cid {
            Some(cid) => {
                let found = self.find_cid(cid);
                self.counters.unknown += u64::from(found.is_none());
                found
            }
            None => self.slot_at(now, from, record),
        };
        let Some(index) = slot else {
            return;
        };
        if matches!(self.sessions.slot(index).state, State::Handshake(_)) {
            self.continue_handshake(now, from, index, record);
        } else {
            self.receive(now, from, index, record);
        }
    }

    /// The slot that is named by one of our Connection IDs.
    pub(super) fn find_cid(&self, cid: [u8; CID_BYTES]) -> Option<u32> {
        let [n0, n1, worker, s0, s1, s2, t0, t1] = cid;
        let index = u32::from_be_bytes([0, s0, s1, s2]);
        let is_here =
            u16::from_be_bytes([n0, n1]) == self.config.node && worker == self.config.worker;
        let found = self.sessions.get(index).filter(|slot| {
            is_here
                && slot.cid_tail == u16::from_be_bytes([t0, t1])
                && !matches!(slot.state, State::Free)
        });
        found.map(|_| index)
    }

    /// The slot of whoever is at this address. A `ClientHello` that belongs to no handshake begins one.
    fn slot_at(&mut self, now: Instant, from: SocketAddr, record: &Record<'_>) -> Option<u32> {
        let handshake = self.handshakes.get(&from).copied();
        if let Some(random) = record.client_hello_random() {
            if let Some(index) = handshake
                && let State::Handshake(handshake) = &self.sessions.slot(index).state
                && handshake.random == random
            {
                return Some(index);
            }
            self.handle_hello(now, from, random, record.bytes);
            return None;
        }
        let session = self.sessions.at_address(from);
        // While a peer makes a new session its old one still counts.
        let found = if record.content == APPLICATION_DATA {
            session
        } else {
            handshake.or(session)
        };
        self.counters.unknown += u64::from(found.is_none());
        found
    }

    /// A record of a session.
    fn receive(&mut self, now: Instant, from: SocketAddr, index: u32, record: &Record<'_>) {
        if !self.wake(now, index) {
            return;
        }
        let session = self.sessions.id(index);
        let slot = self.sessions.slot(index);
        let State::Live(live) = &mut slot.state else {
            return;
        };
        let mut buffer = [0; DATA_BUFFER_BYTES];
        let received = live.context.receive(now, record.bytes, &mut buffer);
        let datagrams = live.context.take_output();
        if matches!(received, Received::Data(_)) && record.number > slot.newest {
            slot.newest = record.number;
            // [RFC 9146 s6]: authentic, and newer than all before it. Whoever is sent from an earlier address sends
            // something newer from it.
            if slot.has_cid && slot.address != from {
                slot.address = from;
                self.counters.moved += 1;
            }
        }
        let peer = slot.address;
        self.transmit(peer, datagrams);
        match received {
            Received::Data(bytes) => {
                let data = buffer[..bytes].to_vec();
                self.tell(Event::Data {
                    session,
                    data,
                    peer: from,
                });
                self.touch(now, index);
            }
            Received::Nothing => self.counters.rejected += 1,
            Received::Closed => self.end(index, CloseReason::Peer),
            Received::Failed(code) => self.end(index, CloseReason::Error(code)),
        }
    }
}
