//! The nodes that share a store of sessions: leases, and messages from one to another.
//!
//! A node is known by its name to operators and by a number here, which is new with each lease. Invariants: of all nodes of
//! a name one has a lease; messages to a node arrive in the order of their telling, each with the next number, or are
//! missed, which the numbers show.

use std::{fmt, time::Duration};

use bytes::Bytes;
use headgate_protocol::{
    identity::DeviceId,
    mqtt::{TopicFilter, TopicName},
};

use serde::Deserialize;

use super::{
    KeptSubscription, RetainedEntry, SessionKey, StoredWill,
    redis::{
        RedisSessions, form,
        persistent::{key, subscription},
        retained::entry_of,
    },
};
use crate::{
    model::{Id, Message, Millis},
    store::StoreError,
};

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
    /// What time it is to the server.
    pub time: Millis,
    /// Which process answers, by a name of its own; empty where it does not say. Another one than before, after a restart
    /// or in a replica's place, may lack what was written last.
    pub process: String,
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

/// A client is with another node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// Whose session it has.
    pub key: SessionKey,
    /// The epoch of its claim there.
    pub epoch: i64,
    /// Whether it goes on with the session that it had.
    pub is_present: bool,
}

/// Where the client of a persistent session of an application is, or that the session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSession {
    /// Its id.
    pub id: Id,
    /// Whose it is.
    pub key: SessionKey,
    /// The node with its client.
    pub node: Option<NodeNumber>,
}

/// What a persistent session of an application is subscribed to has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resubscribed {
    /// The session.
    pub id: Id,
    /// The subscription, or its filter where it has ended.
    pub change: Result<KeptSubscription, TopicFilter>,
}

/// What another node has done to retained messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetainedTold {
    /// It keeps one.
    Kept(RetainedEntry),
    /// It keeps one no more.
    Removed(DeviceId, TopicName),
    /// It keeps none of a device.
    Forgotten(DeviceId),
}

impl RetainedTold {
    /// Reads what the store told.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn read(body: &[u8]) -> Result<Self, StoreError> {
        let body: RetainedBody = json(body)?;
        Ok(match &*body.what {
            "set" => {
                let field = format!("{}\n{}", body.device, body.topic);
                Self::Kept(entry_of(&field, &body.entry)?)
            }
            "remove" => Self::Removed(
                form::parsed("device", &body.device)?,
                form::parsed("topic", &body.topic)?,
            ),
            _ => Self::Forgotten(form::parsed("device", &body.device)?),
        })
    }
}

#[derive(Deserialize)]
struct RetainedBody {
    what: String,
    device: String,
    topic: String,
    entry: String,
}

#[derive(Deserialize)]
struct CameBody {
    name: String,
    app: String,
    epoch: String,
    present: bool,
}

#[derive(Deserialize)]
struct AppBody {
    id: String,
    name: String,
    app: String,
    #[serde(default)]
    node: String,
}

#[derive(Deserialize)]
struct SubscribedBody {
    id: String,
    filter: String,
    options: String,
}

impl Came {
    /// Reads what the store told.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn read(body: &[u8]) -> Result<Self, StoreError> {
        let body: CameBody = json(body)?;
        Ok(Self {
            key: key(&body.name, &body.app)?,
            epoch: form::parsed("epoch", &body.epoch)?,
            is_present: body.present,
        })
    }
}

impl AppSession {
    /// Reads what the store told.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn read(body: &[u8]) -> Result<Self, StoreError> {
        let body: AppBody = json(body)?;
        Ok(Self {
            id: form::id(&body.id)?,
            key: key(&body.name, &body.app)?,
            node: body.node.parse().ok().map(NodeNumber),
        })
    }
}

impl Resubscribed {
    /// Reads what the store told.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn read(body: &[u8]) -> Result<Self, StoreError> {
        let body: SubscribedBody = json(body)?;
        let change = if body.options.is_empty() {
            Err(form::parsed("filter", &body.filter)?)
        } else {
            Ok(subscription(&body.filter, &body.options)?)
        };
        Ok(Self {
            id: form::id(&body.id)?,
            change,
        })
    }
}

/// A message as nodes tell it to each other.
///
/// # Errors
/// [`StoreError::Corrupt`] for one that cannot be written.
pub fn encode_message(message: &Message) -> Result<Vec<u8>, StoreError> {
    form::encode(message)
}

/// Reads what [`encode_message`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_message(body: &[u8]) -> Result<Message, StoreError> {
    form::decode(body)
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(|error| form::corrupt("told", error))
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

    /// Its place among the nodes, 1 to 65,535: no two that live have the same, and a name keeps it over its starts. It
    /// stands in the Connection IDs of DTLS.
    pub fn place(&self) -> u16 {
        self.store.place()
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

    /// Takes a bounded number of a dead node's clients to be nowhere; says how many.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn reap(&self, node: NodeNumber) -> Result<usize, StoreError> {
        self.store.reap(node).await
    }

    /// Takes over a bounded number of a dead node's wills.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn adopt(&self, node: NodeNumber) -> Result<Vec<StoredWill>, StoreError> {
        self.store.adopt(node).await
    }

    /// Says again, with a new number, which clients this node has: with their epochs, and their sessions where these are
    /// kept. Gives of each whether that is still so.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn reclaim(
        &self,
        clients: &[(SessionKey, i64, Option<Id>)],
    ) -> Result<Vec<bool>, StoreError> {
        self.store.reclaim(clients).await
    }

    /// Has the node that has a device hand it a message that is not kept; says whether another node has it.
    ///
    /// # Errors
    /// As of [`NodeStore::beat`].
    pub async fn once(&self, message: &Message) -> Result<bool, StoreError> {
        self.store.once(message).await
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
