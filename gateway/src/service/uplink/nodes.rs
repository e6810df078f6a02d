//! What sessions of applications on other nodes are here, and what those of this node are there.
//!
//! A session that ends with its connection is known to the other nodes by what it subscribed to: there it is a sink that
//! sends a message on to the node with its client. A persistent one is known everywhere from the store.
//! Each node says of its own ([`Own`]) all of a session at a time, so that what is said twice or late does no harm.
//! Invariants: a message goes to another node once, with the names of all who are to get it there.

mod heard;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
};

use bytes::Bytes;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{QoS, RetainHandling, TopicFilter},
};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(super) use self::heard::connect;
use super::subscribers::{
    Ended, Offered, Receiver, Sink, SubscribeOptions, Subscriber, SubscriberId,
};
use crate::{
    model::{Handing, Message},
    service::cluster::Cluster,
    store::{
        StoreError,
        sessions::{NodeNumber, decode_message, encode_message},
    },
};

/// The sessions of this node that end with their connections, as other nodes are to know them.
#[derive(Default)]
pub(super) struct Own {
    state: Mutex<OwnState>,
    changed: Notify,
}

#[derive(Default)]
struct OwnState {
    sessions: HashMap<SubscriberId, OwnSession>,
    changed: HashSet<SubscriberId>,
}

struct OwnSession {
    app: AppId,
    filters: Vec<(TopicFilter, SubscribeOptions)>,
}

/// What other nodes have.
pub(super) struct Elsewhere {
    pub(super) cluster: Cluster,
    own: Arc<Own>,
    /// Sessions that end with their connections.
    sessions: Mutex<HashMap<(NodeNumber, SubscriberId), Subscriber>>,
    /// Applications whose messages are read as streams.
    streams: RwLock<HashMap<NodeNumber, HashSet<AppId>>>,
    /// What was said of streams last.
    said: Mutex<HashSet<AppId>>,
    /// Held while a session is read and told, so that what is newer comes later.
    telling: tokio::sync::Mutex<()>,
}

/// A session on another node.
struct RemoteSink {
    node: NodeNumber,
    id: SubscriberId,
}

impl Sink for RemoteSink {
    fn offer(&self, _message: &Arc<Message>, handing: Handing) -> Offered {
        Offered::Elsewhere(self.node, Receiver::Subscriber(self.id), handing)
    }

    // Its own node does the rest.
    fn revoke(&self, _is_revoked: &dyn Fn(&DeviceId) -> bool) {}

    fn bound(&self, _devices: &[DeviceId]) {}

    fn close(&self, _reason: Ended) {}
}

/// A session in the words of its node; without an application it is gone.
#[derive(Serialize, Deserialize)]
struct SessionWord {
    id: SubscriberId,
    app: Option<String>,
    filters: Vec<FilterWord>,
}

#[derive(Serialize, Deserialize)]
struct FilterWord {
    filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    handling: u8,
    identifier: Option<NonZeroU32>,
}

/// Who is to get the message behind it.
#[derive(Serialize, Deserialize)]
struct Addressed {
    app: String,
    to: To,
    qos: u8,
    retain: bool,
    ids: Vec<NonZeroU32>,
}

#[derive(Serialize, Deserialize)]
enum To {
    Subscriber(SubscriberId),
    Session(String),
    Streams,
}

/// A message that another node sent on, and who is to get it here.
pub(super) struct Forwarded {
    pub(super) message: Arc<Message>,
    pub(super) receivers: Vec<(AppId, Receiver, Handing)>,
}

impl Own {
    /// What a session is subscribed to.
    pub(super) fn set(
        &self,
        id: SubscriberId,
        app: &AppId,
        filters: &HashMap<TopicFilter, SubscribeOptions>,
    ) {
        let filters = filters
            .iter()
            .map(|(filter, options)| (filter.clone(), *options));
        let session = OwnSession {
            app: app.clone(),
            filters: filters.collect(),
        };
        let mut state = self.state.lock();
        state.sessions.insert(id, session);
        state.changed.insert(id);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn remove(&self, id: SubscriberId) {
        let mut state = self.state.lock();
        if state.sessions.remove(&id).is_some() {
            state.changed.insert(id);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Something is to be said.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    fn ids(&self) -> Vec<SubscriberId> {
        self.state.lock().sessions.keys().copied().collect()
    }

    fn take_changed(&self) -> Vec<SubscriberId> {
        std::mem::take(&mut self.state.lock().changed)
            .into_iter()
            .collect()
    }

    fn put_back(&self, changed: &[SubscriberId]) {
        self.state.lock().changed.extend(changed);
    }

    fn word(&self, id: SubscriberId) -> Vec<u8> {
        let state = self.state.lock();
        let session = state.sessions.get(&id);
        let filters = session.map(|session| session.filters.as_slice());
        let word = SessionWord {
            id,
            app: session.map(|session| session.app.to_string()),
            filters: filters
                .unwrap_or_default()
                .iter()
                .map(FilterWord::of)
                .collect(),
        };
        drop(state);
        serde_json::to_vec(&word).unwrap_or_default()
    }
}

impl FilterWord {
    fn of((filter, options): &(TopicFilter, SubscribeOptions)) -> Self {
        Self {
            filter: filter.to_string(),
            qos: options.qos.bits(),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            handling: match options.retain_handling {
                RetainHandling::Send => 0,
                RetainHandling::SendIfNew => 1,
                RetainHandling::DoNotSend => 2,
            },
            identifier: options.identifier,
        }
    }

    fn read(&self) -> Option<(TopicFilter, SubscribeOptions)> {
        let options = SubscribeOptions {
            qos: QoS::from_bits(self.qos)?,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: match self.handling {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
            identifier: self.identifier,
        };
        Some((self.filter.parse().ok()?, options))
    }
}

impl Elsewhere {
    fn new(cluster: Cluster, own: Arc<Own>) -> Self {
        Self {
            cluster,
            own,
            sessions: Mutex::default(),
            streams: RwLock::default(),
            said: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
        }
    }

    /// Adds the nodes that have streams of these applications to those who are to get a message.
    pub(super) fn add_streams(
        &self,
        apps: &[AppId],
        to: &mut Vec<(NodeNumber, AppId, Receiver, Handing)>,
    ) {
        let streams = self.streams.read();
        for (node, read) in &*streams {
            let read = apps.iter().filter(|app| read.contains(*app));
            to.extend(read.map(|app| (*node, app.clone(), Receiver::Streams, Handing::default())));
        }
    }

    /// Has something of this node's streams said.
    pub(super) fn notify(&self) {
        self.own.notify();
    }

    fn forget(&self, node: NodeNumber) {
        let mut gone = Vec::new();
        {
            let mut sessions = self.sessions.lock();
            let keys: Vec<_> = sessions
                .keys()
                .filter(|(of, _)| *of == node)
                .copied()
                .collect();
            gone.extend(keys.iter().filter_map(|key| sessions.remove(key)));
        }
        // Dropped here, they end their subscriptions, with other locks.
        drop(gone);
        self.streams.write().remove(&node);
    }
}

/// What each node is told so that it hands a message out.
pub(super) fn forwards(
    message: &Message,
    to: Vec<(NodeNumber, AppId, Receiver, Handing)>,
) -> Result<Vec<(NodeNumber, Vec<u8>)>, StoreError> {
    if to.is_empty() {
        return Ok(Vec::new());
    }
    let mut by_node: HashMap<NodeNumber, Vec<Addressed>> = HashMap::new();
    for (node, app, receiver, handing) in to {
        by_node.entry(node).or_default().push(Addressed {
            app: app.to_string(),
            to: match receiver {
                Receiver::Subscriber(id) => To::Subscriber(id),
                Receiver::Session(id) => To::Session(id.to_string()),
                Receiver::Streams => To::Streams,
            },
            qos: handing.qos.bits(),
            retain: handing.retain,
            ids: handing.subscription_ids.to_vec(),
        });
    }
    let body = encode_message(message)?;
    let whole = by_node.into_iter().map(|(node, to)| {
        let mut whole = serde_json::to_vec(&to).unwrap_or_default();
        whole.push(b'\n');
        whole.extend_from_slice(&body);
        (node, whole)
    });
    Ok(whole.collect())
}

/// Reads what [`forwards`] made.
pub(super) fn forwarded(body: &Bytes) -> Result<Forwarded, StoreError> {
    let corrupt = || StoreError::Corrupt {
        column: "told",
        reason: "no message with receivers".to_owned(),
    };
    let end = body.iter().position(|byte| *byte == b'\n');
    let (head, message) = end
        .and_then(|end| body.split_at_checked(end))
        .ok_or_else(corrupt)?;
    let to: Vec<Addressed> = serde_json::from_slice(head).map_err(|_| corrupt())?;
    let message = decode_message(message.get(1..).unwrap_or_default())?;
    let receivers = to.into_iter().filter_map(|one| {
        let receiver = match one.to {
            To::Subscriber(id) => Receiver::Subscriber(id),
            To::Session(id) => Receiver::Session(id.parse().ok()?),
            To::Streams => Receiver::Streams,
        };
        let handing = Handing {
            qos: QoS::from_bits(one.qos)?,
            retain: one.retain,
            subscription_ids: one.ids.into(),
        };
        Some((one.app.parse().ok()?, receiver, handing))
    });
    Ok(Forwarded {
        receivers: receivers.collect(),
        message: Arc::new(message),
    })
}
