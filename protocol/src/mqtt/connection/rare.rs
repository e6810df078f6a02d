//! What most connections do not have most of the time: one allocation, made when it is needed.

use std::collections::VecDeque;

use super::{
    Connection, Message,
    aliases::{InboundAliases, OutboundAliases},
    in_flight::Entry,
    inbound::Unreleased,
};

#[derive(Debug)]
pub(super) struct Rare<T> {
    /// Messages that wait for the client's Receive Maximum.
    pub(super) waiting: VecDeque<Message<T>>,
    pub(super) waiting_bytes: usize,
    /// QoS 2 messages whose PUBREC came and whose PUBCOMP did not, in the order of the PUBRECs.
    pub(super) released: VecDeque<Entry<T>>,
    /// What an earlier connection had under way and this one has not sent again yet.
    pub(super) resuming: VecDeque<Entry<T>>,
    /// QoS 2 packets that the client has not released.
    pub(super) unreleased: Vec<Unreleased>,
    pub(super) inbound_aliases: InboundAliases,
    pub(super) outbound_aliases: OutboundAliases,
    /// For CONNACK.
    pub(super) assigned_client_id: Option<Box<str>>,
}

impl<T> Rare<T> {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.released.is_empty()
            && self.resuming.is_empty()
            && self.unreleased.is_empty()
            && self.inbound_aliases.is_empty()
            && self.outbound_aliases.is_empty()
            && self.assigned_client_id.is_none()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            released: VecDeque::new(),
            resuming: VecDeque::new(),
            unreleased: Vec::new(),
            inbound_aliases: InboundAliases::default(),
            outbound_aliases: OutboundAliases::default(),
            assigned_client_id: None,
        }
    }
}

impl<T> Connection<T> {
    pub(super) fn rare(&mut self) -> &mut Rare<T> {
        self.rare.get_or_insert_default()
    }

    pub(super) fn release_rare(&mut self) {
        self.rare.take_if(|rare| rare.is_empty());
    }
}
