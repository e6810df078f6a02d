//! The nodes that share a store of sessions: leases, and messages from one to another.
//!
//! A node is known by its name to operators and by a number here, which is new with each lease. Invariants: of all nodes of
//! a name one has a lease; messages to a node arrive in the order of their telling, each with the next number, or are
//! missed, which the numbers show.

use std::{fmt, time::Duration};

use bytes::Bytes;
use headgate_protocol::identity::DeviceId;

use super::redis::RedisSessions;
use crate::store::StoreError;

/// A node's number: another one with each lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNumber(pub(super) i64);

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node that is to take part.
#[derive(Clone, Debug)]
pub struct NodeEntry {
    /// Its name, which no other node has.
    pub name: String,
    /// What tells it from another node that was given the same name, and stays the same over its starts.
    pub instance: String,
    /// How long it is taken for alive after it was heard.
    pub lease: Duration,
    /// Messages that may wait for it.
    pub inbox_messages: usize,
}

/// A node as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its number.
    pub number: NodeNumber,
    /// Its name.
    pub name: String,
    /// What it said of itself.
    pub record: Vec<u8>,
    /// Whether it has its lease.
    pub is_alive: bool,
}

/// What a node learns when it renews its lease.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// How many messages wait for it.
    pub waiting: usize,
    /// Every node, those too that died and have not been seen off.
    pub nodes: Vec<NodeRow>,
}

/// What a node was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// One more than that of the message before.
    pub seq: u64,
    /// By whom.
    pub from: NodeNumber,
    /// What it is about.
    pub kind: String,
    /// The number of a question that is answered when it is done; 0: none.
    pub ask: u64,
    /// What is said.
    pub body: Bytes,
}

/// The nodes of a store; a clone is another handle on it.
#[derive(Clone, Debug)]
pub struct NodeStore {
    pub(super) store: RedisSessions,
}

impl NodeStore {
    /// This node's number.
    pub fn number(&self) -> NodeNumber {
        self.store.node_number()
    }

    /// Takes a lease again, under a new number, which says so of itself; `Some`: another node of this name has one for so
    /// long.
    ///
    /// # Errors
    /// What the store says.
    pub async fn join(&self, record: &[u8]) -> Result<Option<Duration>, StoreError> {
        self.store.join(record).await
    }

    /// Renews the lease; messages up to `seen` are forgotten.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where it has ended; else what the store says.
    pub async fn beat(&self, record: &[u8], seen: &str) -> Result<Beat, StoreError> {
        self.store.beat(record, seen).await
    }

    /// Gives the lease up.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn part(&self) -> Result<(), StoreError> {
        self.store.part().await
    }

    /// Tells nodes something; none are all others. Gives those that will hear it, as far as they stay alive.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn tell(
        &self,
        nodes: &[NodeNumber],
        kind: &str,
        ask: u64,
        body: &[u8],
    ) -> Result<Vec<NodeNumber>, StoreError> {
        self.store.tell(nodes, kind, ask, body).await
    }

    /// Which nodes hold the sessions of these devices, in their order.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn holders(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<NodeNumber>>, StoreError> {
        self.store.holders(devices).await
    }

    /// Whether this node is to see a dead one off: of all nodes one is, and another one should that die too.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn may_see_off(&self, node: NodeNumber) -> Result<bool, StoreError> {
        self.store.may_see_off(node).await
    }

    /// A dead node has been seen off: it is no more.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn bury(&self, node: NodeNumber) -> Result<(), StoreError> {
        self.store.bury(node).await
    }

    /// What this node was told after `seen`, and what it has seen then; waits a few seconds for it.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Safe: what was not seen is told again.
    pub async fn listen(&self, seen: &str) -> Result<(Vec<Told>, Option<String>), StoreError> {
        self.store.listen(seen).await
    }
}
