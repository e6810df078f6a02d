//! The nodes of the gateway: whether they are well, and what operators ask of them.
//!
//! A node answers for itself, and for the others with what they last said. It is asked to drain as by a signal, and to look
//! at its certificates as by SIGHUP; another one is told to.
//! Invariants: a drain that was asked for is never taken back; what is asked of a node is in the audit.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    model::{Actor, Millis},
    service::cluster::{Cluster, Handler, LiveNode, NodeCheck, NodeRecord, PROTOCOL, Telling},
    shutdown::Shutdown,
    store::{StoreError, registry::Registry},
    telemetry::health::{CheckReport, Readiness},
};

/// Who may wait at one time for the certificates to be looked at.
const MAX_RELOADS: usize = 8;
/// How long reading the certificates may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is none of that id.
    #[error("no such node")]
    NotFound,
    /// A certificate or the configuration cannot be used; those from before are still in force.
    #[error("{0}")]
    Certificate(String),
    /// It does not answer, since it is stopping or has too much to do.
    #[error("the node does not answer")]
    Busy,
    /// It is another node, which has to be asked itself.
    #[error("it is another node: ask that one")]
    Elsewhere,
    /// The registry or the sessions failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It takes devices, and every check passes.
    Ready,
    /// A check fails.
    NotReady,
    /// It lets nobody in any more and will stop.
    Draining,
}

impl NodeState {
    fn read(name: &str) -> Self {
        match name {
            "ready" => Self::Ready,
            "draining" => Self::Draining,
            _ => Self::NotReady,
        }
    }

    /// The state's name as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
        }
    }
}

/// A node as it is now, or as it last said of itself.
#[derive(Clone, Debug)]
pub struct NodeHealth {
    /// Its name.
    pub id: String,
    /// Where operators find it.
    pub address: Option<String>,
    /// The version of the program.
    pub version: String,
    /// When it started.
    pub started_at: Millis,
    /// How far it is.
    pub state: NodeState,
    /// What is looked at, and what is wrong with it.
    pub checks: Vec<NodeCheck>,
    /// Who is connected to it: devices, and sessions of applications by MQTT.
    pub load: Load,
}

/// Who is connected to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Devices.
    pub devices: usize,
    /// Sessions of applications by MQTT.
    pub applications: usize,
}

/// Clients that are to go to other nodes, while this one goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuation {
    /// How many of each hundred.
    pub percent: u8,
    /// Clients told in a second; `None`: as many as when the node stops.
    pub per_second: Option<u32>,
}

/// A request to look at the certificates; the answer is how many had changed, or what is wrong.
pub type Reload = oneshot::Sender<Result<usize, String>>;

/// The service of nodes. Cloning shares everything.
#[derive(Clone)]
pub struct NodeService {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    address: Option<String>,
    cluster: Option<Cluster>,
    load: OnceLock<Box<dyn Fn() -> Load + Send + Sync>>,
    evacuate: OnceLock<Box<dyn Fn(Evacuation) + Send + Sync>>,
    started_at: Millis,
    registry: Registry,
    readiness: Readiness,
    whole: Shutdown,
    reloads: mpsc::Sender<Reload>,
}

impl NodeService {
    /// The service of the node that runs here, with the other end of its requests to look at certificates; `whole` is
    /// what ends the process.
    pub fn new(
        registry: Registry,
        readiness: Readiness,
        whole: Shutdown,
    ) -> (Self, mpsc::Receiver<Reload>) {
        Self::among(None, None, registry, readiness, whole)
    }

    /// The same of a node that may be one of several.
    pub fn among(
        cluster: Option<Cluster>,
        address: Option<String>,
        registry: Registry,
        readiness: Readiness,
        whole: Shutdown,
    ) -> (Self, mpsc::Receiver<Reload>) {
        let (reloads, asked) = mpsc::channel(MAX_RELOADS);
        let inner = Inner {
            id: cluster
                .as_ref()
                .map_or_else(host_name, |cluster| cluster.name().to_owned()),
            address,
            cluster,
            load: OnceLock::new(),
            evacuate: OnceLock::new(),
            started_at: Millis::now(),
            registry,
            readiness,
            whole,
            reloads,
        };
        let service = Self {
            inner: Arc::new(inner),
        };
        if let Some(cluster) = &service.inner.cluster {
            for kind in [DRAIN, EVACUATE] {
                let node = service.clone();
                cluster.on(kind, Arc::new(Asked { kind, node }));
            }
        }
        (service, asked)
    }

    /// Says how it is found out who is connected here; the first call counts.
    pub fn connect_load(&self, load: impl Fn() -> Load + Send + Sync + 'static) {
        let _second = self.inner.load.set(Box::new(load));
    }

    /// Says how clients that are here are told to go; the first call counts.
    pub fn connect_evacuation(&self, evacuate: impl Fn(Evacuation) + Send + Sync + 'static) {
        let _second = self.inner.evacuate.set(Box::new(evacuate));
    }

    /// Has some of a node's clients told to go to another node, at a rate; the node goes on, and lets in who comes.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::Store`] where it could not be recorded or told, and then nothing was done.
    pub async fn evacuate(
        &self,
        actor: &Actor,
        id: &str,
        evacuation: Evacuation,
    ) -> Result<NodeHealth, NodeError> {
        let inner = &self.inner;
        let detail = format!("{} percent", evacuation.percent);
        let audit = actor.did("node.evacuate", id, detail);
        if inner.id == id {
            inner.registry.record(&audit).await?;
            self.evacuate_here(evacuation);
            return Ok(self.here());
        }
        let found = self.others().find(|node| node.record.name == id);
        let (Some(cluster), Some(node)) = (&inner.cluster, found) else {
            return Err(NodeError::NotFound);
        };
        inner.registry.record(&audit).await?;
        let body = serde_json::to_vec(&evacuation).unwrap_or_default();
        if !cluster.tell(node.number, EVACUATE, &body).await? {
            return Err(NodeError::NotFound);
        }
        Ok(told(&node.record))
    }

    fn evacuate_here(&self, evacuation: Evacuation) {
        tracing::info!(
            evacuation.percent,
            "an operator has clients of this node go elsewhere"
        );
        if let Some(evacuate) = self.inner.evacuate.get() {
            evacuate(evacuation);
        }
    }

    /// What this node says of itself to others.
    pub fn record(&self) -> NodeRecord {
        let here = self.here();
        NodeRecord {
            name: here.id,
            address: here.address,
            version: here.version,
            protocol: PROTOCOL,
            started_at: here.started_at.as_i64(),
            state: here.state.as_str().to_owned(),
            devices: here.load.devices,
            applications: here.load.applications,
            checks: here.checks,
        }
    }

    /// The name of the node that runs here.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Every node in the order of their ids.
    pub fn nodes(&self) -> Vec<NodeHealth> {
        let mut nodes: Vec<_> = self.others().map(|node| told(&node.record)).collect();
        nodes.push(self.here());
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes
    }

    /// The node of an id.
    ///
    /// # Errors
    /// [`NodeError::NotFound`].
    pub fn node(&self, id: &str) -> Result<NodeHealth, NodeError> {
        if self.inner.id == id {
            return Ok(self.here());
        }
        let node = self.others().find(|node| node.record.name == id);
        Ok(told(&node.ok_or(NodeError::NotFound)?.record))
    }

    /// Has a node drain and stop: it lets nobody in any more and tells its devices to go, at a rate.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::Store`] where it could not be recorded or told, and then nothing was done.
    pub async fn drain(&self, actor: &Actor, id: &str) -> Result<NodeHealth, NodeError> {
        let inner = &self.inner;
        if inner.id == id {
            if !inner.whole.is_draining() {
                inner
                    .registry
                    .record(&actor.did("node.drain", id, ""))
                    .await?;
                tracing::info!(actor = %actor.name, "an operator has this node drain");
                inner.whole.drain();
            }
            return Ok(self.here());
        }
        let found = self.others().find(|node| node.record.name == id);
        let (Some(cluster), Some(node)) = (&inner.cluster, found) else {
            return Err(NodeError::NotFound);
        };
        let mut health = told(&node.record);
        if health.state != NodeState::Draining {
            inner
                .registry
                .record(&actor.did("node.drain", id, ""))
                .await?;
            if !cluster.tell(node.number, DRAIN, b"").await? {
                return Err(NodeError::NotFound);
            }
            health.state = NodeState::Draining;
        }
        Ok(health)
    }

    /// Has a node look at its certificates now; gives how many had changed and are served from here on.
    ///
    /// # Errors
    /// [`NodeError::NotFound`], [`NodeError::Elsewhere`], [`NodeError::Certificate`], [`NodeError::Busy`].
    pub async fn reload(&self, actor: &Actor, id: &str) -> Result<usize, NodeError> {
        if self.node(id)?.id != self.inner.id {
            return Err(NodeError::Elsewhere);
        }
        let (done, answer) = oneshot::channel();
        self.inner
            .reloads
            .try_send(done)
            .map_err(|_| NodeError::Busy)?;
        let changed = timeout(RELOAD_TIMEOUT, answer).await;
        let changed = changed.ok().and_then(Result::ok).ok_or(NodeError::Busy)?;
        let changed = changed.map_err(NodeError::Certificate)?;
        let detail = format!("{changed} certificates had changed");
        let audit = actor.did("node.reload", id, detail);
        self.inner.registry.record(&audit).await?;
        Ok(changed)
    }

    fn here(&self) -> NodeHealth {
        let inner = &self.inner;
        let state = if inner.whole.is_draining() {
            NodeState::Draining
        } else if inner.readiness.is_ready() {
            NodeState::Ready
        } else {
            NodeState::NotReady
        };
        let checks = inner.readiness.report().into_iter();
        let check = |check: CheckReport| NodeCheck {
            name: check.name.to_owned(),
            failure: check.failure,
        };
        NodeHealth {
            id: inner.id.clone(),
            address: inner.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: inner.started_at,
            state,
            checks: checks.map(check).collect(),
            load: inner.load.get().map(|load| load()).unwrap_or_default(),
        }
    }

    /// The other nodes that live.
    fn others(&self) -> impl Iterator<Item = LiveNode> {
        let live = self.inner.cluster.as_ref().map(Cluster::live);
        let nodes = live.map(|nodes| nodes.to_vec()).unwrap_or_default();
        let me = self.inner.id.clone();
        nodes.into_iter().filter(move |node| node.record.name != me)
    }
}

/// What an operator asked another node to have this one do.
struct Asked {
    kind: &'static str,
    node: NodeService,
}

impl Handler for Asked {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        if self.kind == DRAIN {
            tracing::info!("an operator has this node drain");
            self.node.inner.whole.drain();
        } else if let Ok(evacuation) = serde_json::from_slice(&telling.body) {
            self.node.evacuate_here(evacuation);
        }
        Box::pin(std::future::ready(()))
    }
}

/// A node in its own words.
fn told(record: &NodeRecord) -> NodeHealth {
    NodeHealth {
        id: record.name.clone(),
        address: record.address.clone(),
        version: record.version.clone(),
        started_at: record.started(),
        state: NodeState::read(&record.state),
        checks: record.checks.clone(),
        load: Load {
            devices: record.devices,
            applications: record.applications,
        },
    }
}

impl fmt::Debug for NodeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeService").finish_non_exhaustive()
    }
}

/// By which another node is told to drain.
const DRAIN: &str = "drain";
/// By which another node is told to send clients away.
const EVACUATE: &str = "evacuate";

/// The machine's name, as far as it can stand in a path.
pub fn host_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(64)
        .collect();
    if name.chars().any(|c| c.is_ascii_alphanumeric()) {
        name
    } else {
        "node".to_owned()
    }
}
