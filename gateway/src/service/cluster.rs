//! The nodes of one gateway as each of them sees the others: who lives, and what they tell each other.
//!
//! A node holds a lease and renews it. Others tell it things through a stream of its own ([`Cluster::tell`]), which it
//! reads in order and hands to whoever asked for that kind ([`Cluster::on`]); where it missed something, or lost its lease,
//! everybody who keeps what others change is told to forget it ([`Member::missed`]). A gateway with local sessions has
//! none of this. Invariants: what is told is a hint: the truth is in the stores; a handler asks no question
//! ([`Cluster::ask`]) and waits for nobody but the stores; what waits for a node is bounded by the store.

mod clock;
mod inbox;
mod lease;
mod query;
mod record;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use headgate_protocol::identity::DeviceId;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use self::query::Questions;
pub use self::{
    query::{Answers, MAX_ANSWER_BYTES},
    record::{NodeCheck, NodeRecord, PROTOCOL},
};
pub use crate::store::sessions::NodeNumber;
use crate::{
    config::ClusterConfig,
    model::{Id, Millis},
    store::{
        StoreError,
        sessions::{NodeRow, NodeStore, SessionKey, StoredWill},
    },
    telemetry::{
        health::{Check, Readiness},
        metrics::{ClusterMetrics, Metrics},
    },
};

/// A node that has its lease.
#[derive(Clone, Debug)]
pub struct LiveNode {
    /// By which the store knows it.
    pub number: NodeNumber,
    /// What it says of itself, its name among it.
    pub record: Arc<NodeRecord>,
}

/// What a node was told.
#[derive(Clone, Debug)]
pub struct Telling {
    /// By whom.
    pub from: NodeNumber,
    /// What is said: what the kind's own code makes of it.
    pub body: Bytes,
}

/// Takes what this node is told of one kind.
pub trait Handler: Send + Sync {
    /// Does what is said. The next message waits for it: it asks the stores at most, never another node.
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()>;
}

/// Keeps something that depends on which nodes there are, or on what they say.
pub trait Member: Send + Sync {
    /// A node is there that was not. Where it is to be told something, that is before anything else it is told from here.
    fn joined(&self, _node: NodeNumber) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// A node is not there any more.
    fn left(&self, _node: NodeNumber) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// What others said may have been missed: what is kept of it is to be asked for anew.
    fn missed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// This node has a new lease, after others may have taken it for dead, or the store forgot it.
    fn rejoined(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// A node has died, and this one is to see it off: its devices are nobody's. Called again for as long as it fails.
    fn died(&self, _node: NodeNumber) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// This node among the others. Cloning shares everything.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    store: NodeStore,
    name: String,
    config: ClusterConfig,
    /// Those that live, this one among them, by name.
    nodes: RwLock<Arc<[LiveNode]>>,
    /// Every node, as of the last beat.
    rows: Mutex<Vec<NodeRow>>,
    /// Which process of the store answered the first beat with this lease, and which the last.
    processes: Mutex<(Option<String>, String)>,
    /// There was a beat.
    changed: Notify,
    /// Since when other nodes have not been told of a change: they are to forget what they keep.
    unsaid: Mutex<Option<Millis>>,
    /// When this node had last heard everything that it was told, in ms since 1970.
    sure: AtomicI64,
    /// When it had its lease for certain, in ms since 1970: what is told to nodes without one is told to nobody.
    alive: AtomicI64,
    /// Since when changes may have been missed that nobody has looked for yet.
    doubt: Mutex<Option<Millis>>,
    doubted: Notify,
    /// This node has a new lease, and the members are to be told.
    has_rejoined: AtomicBool,
    handlers: RwLock<HashMap<&'static str, Arc<dyn Handler>>>,
    members: RwLock<Vec<Arc<dyn Member>>>,
    status: OnceLock<Box<dyn Fn() -> NodeRecord + Send + Sync>>,
    asked: Mutex<HashMap<u64, Asked>>,
    asks: AtomicU64,
    questions: Questions,
    /// The last message that was seen, of the stream of which number.
    seen: Mutex<(Option<NodeNumber>, String)>,
    check: Check,
    metrics: ClusterMetrics,
}

/// A question, and which nodes have not said that they are done.
struct Asked {
    waiting: Vec<NodeNumber>,
    done: Option<oneshot::Sender<()>>,
}

impl Cluster {
    /// A node that has just taken its lease; it hears nothing before [`Cluster::spawn`].
    pub fn new(
        store: NodeStore,
        name: String,
        config: ClusterConfig,
        readiness: &Readiness,
        metrics: &Metrics,
    ) -> Self {
        let inner = Inner {
            store,
            name,
            config,
            nodes: RwLock::new(Arc::default()),
            rows: Mutex::default(),
            processes: Mutex::default(),
            changed: Notify::new(),
            unsaid: Mutex::default(),
            sure: AtomicI64::new(Millis::now().as_i64()),
            alive: AtomicI64::new(0),
            doubt: Mutex::default(),
            doubted: Notify::new(),
            has_rejoined: AtomicBool::new(false),
            handlers: RwLock::default(),
            members: RwLock::default(),
            status: OnceLock::new(),
            asked: Mutex::default(),
            asks: AtomicU64::new(1),
            questions: Questions::new(),
            seen: Mutex::default(),
            check: readiness.check("cluster"),
            metrics: metrics.cluster.clone(),
        };
        inner.check.pass();
        Self {
            inner: Arc::new(inner),
        }
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// This node's number: another one after each loss of its lease.
    pub fn number(&self) -> NodeNumber {
        self.inner.store.number()
    }

    /// Its place among the nodes, as [`NodeStore::place`] says.
    pub fn place(&self) -> u16 {
        self.inner.store.place()
    }

    /// The nodes that live, this one among them, as they were at the last beat: by name.
    pub fn live(&self) -> Arc<[LiveNode]> {
        Arc::clone(&self.inner.nodes.read())
    }

    /// Which nodes hold these devices' sessions, in their order; asks the store once.
    ///
    /// # Errors
    /// What the store says.
    pub async fn holders(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<NodeNumber>>, StoreError> {
        self.inner.store.holders(devices).await
    }

    /// Says again which clients this node has, as [`NodeStore::reclaim`] does.
    ///
    /// # Errors
    /// What the store says.
    pub async fn reclaim(
        &self,
        clients: &[(SessionKey, i64, Option<Id>)],
    ) -> Result<Vec<bool>, StoreError> {
        self.inner.store.reclaim(clients).await
    }

    /// Takes some of a dead node's clients to be nowhere; says how many.
    ///
    /// # Errors
    /// What the store says.
    pub async fn reap(&self, node: NodeNumber) -> Result<usize, StoreError> {
        let gone = self.inner.store.reap(node).await?;
        self.inner.metrics.reaped.inc_by(gone as u64);
        Ok(gone)
    }

    /// Takes over some of a dead node's wills.
    ///
    /// # Errors
    /// What the store says.
    pub async fn adopt(&self, node: NodeNumber) -> Result<Vec<StoredWill>, StoreError> {
        self.inner.store.adopt(node).await
    }

    /// Says of what kind `handler` takes messages; before [`Cluster::spawn`].
    pub fn on(&self, kind: &'static str, handler: Arc<dyn Handler>) {
        self.inner.handlers.write().insert(kind, handler);
    }

    /// Has `member` told which nodes come and go; before [`Cluster::spawn`].
    pub fn enlist(&self, member: Arc<dyn Member>) {
        self.inner.members.write().push(member);
    }

    /// Tells one node something; says whether it lives.
    ///
    /// # Errors
    /// What the store says; nothing was told then.
    pub async fn tell(
        &self,
        node: NodeNumber,
        kind: &'static str,
        body: &[u8],
    ) -> Result<bool, StoreError> {
        let told = self.inner.store.tell(&[node], kind, 0, body).await?;
        Ok(!told.is_empty())
    }

    /// Tells all other nodes something.
    ///
    /// # Errors
    /// What the store says; nothing was told then.
    pub async fn tell_all(&self, kind: &'static str, body: &[u8]) -> Result<(), StoreError> {
        self.inner.store.tell(&[], kind, 0, body).await?;
        Ok(())
    }

    /// Has all other nodes forget what they keep, as soon as they can be told: they miss a change that was made just now.
    pub fn forget_later(&self) {
        earlier(&self.inner.unsaid, Millis::now());
    }

    /// Waits until changes may have been missed, and gives since when. Who fails to look for them says so by
    /// [`Cluster::doubt`].
    pub async fn doubted(&self) -> Millis {
        loop {
            let since = self.inner.doubt.lock().take();
            if let Some(since) = since {
                return since;
            }
            self.inner.doubted.notified().await;
        }
    }

    /// Changes since then may have been missed.
    pub fn doubt(&self, since: Millis) {
        earlier(&self.inner.doubt, since);
        self.inner.doubted.notify_one();
    }

    /// Tells all other nodes something and waits until each has done it, for as long as is configured; says whether all
    /// have. Those that have not will, or will be taken for dead.
    ///
    /// # Errors
    /// What the store says; nothing was told then.
    pub async fn ask(&self, kind: &'static str, body: &[u8]) -> Result<bool, StoreError> {
        let (inner, begun) = (&self.inner, Millis::now());
        let ask = inner.asks.fetch_add(1, Ordering::Relaxed);
        let (done, answered) = oneshot::channel();
        let asked = Asked {
            waiting: Vec::new(),
            done: Some(done),
        };
        inner.asked.lock().insert(ask, asked);
        let result = inner.store.tell(&[], kind, ask, body).await;
        let all = match &result {
            Ok(told) => {
                inner.expect(ask, told);
                timeout(inner.config.confirm_timeout, answered)
                    .await
                    .is_ok_and(|answer| answer.is_ok())
            }
            Err(_) => false,
        };
        inner.asked.lock().remove(&ask);
        if !all && result.is_ok() {
            inner.metrics.unconfirmed.inc();
            tracing::warn!(kind, "not every node has confirmed a change in time");
            // What it was told may be lost with what Redis lost.
            earlier(&inner.unsaid, begun);
        }
        result.map(|_| all)
    }
}

/// Keeps the earlier of two times.
fn earlier(kept: &Mutex<Option<Millis>>, at: Millis) {
    let mut kept = kept.lock();
    *kept = Some(kept.map_or(at, |before| before.min(at)));
}

impl Inner {
    /// The nodes that a question went to; some may have answered already, which stands as one that waits for nothing.
    fn expect(&self, ask: u64, told: &[NodeNumber]) {
        let mut asked = self.asked.lock();
        if let Some(one) = asked.get_mut(&ask) {
            for node in told {
                match one.waiting.iter().position(|early| early == node) {
                    Some(at) => {
                        one.waiting.swap_remove(at);
                    }
                    None => one.waiting.push(*node),
                }
            }
            one.finish();
        }
    }

    /// A node has done what it was asked.
    fn answered(&self, ask: u64, node: NodeNumber) {
        let mut asked = self.asked.lock();
        if let Some(one) = asked.get_mut(&ask) {
            match one.waiting.iter().position(|waiting| *waiting == node) {
                Some(at) => {
                    one.waiting.swap_remove(at);
                    one.finish();
                }
                // Before it was known that it was asked.
                None => one.waiting.push(node),
            }
        }
    }

    /// A node that is gone does nothing any more.
    fn gone(&self, node: NodeNumber) {
        for one in self.asked.lock().values_mut() {
            one.waiting.retain(|waiting| *waiting != node);
            one.finish();
        }
    }

    fn record(&self) -> Vec<u8> {
        let record = self.status.get().map(|status| status());
        record
            .and_then(|record| serde_json::to_vec(&record).ok())
            .unwrap_or_default()
    }

    fn members(&self) -> Vec<Arc<dyn Member>> {
        self.members.read().clone()
    }
}

impl Asked {
    fn finish(&mut self) {
        if self.waiting.is_empty()
            && let Some(done) = self.done.take()
        {
            let _gone = done.send(());
        }
    }
}

/// By which a node is told to forget what it keeps.
const FORGET: &str = "forget";

impl LiveNode {
    fn read(row: &NodeRow) -> Self {
        let record = serde_json::from_slice(&row.record).unwrap_or_default();
        let record = NodeRecord {
            name: row.name.clone(),
            ..record
        };
        Self {
            number: row.number,
            record: Arc::new(record),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}
