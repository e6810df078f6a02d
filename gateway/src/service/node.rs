//! The nodes of the gateway: whether they are well, and what operators ask of them.
//!
//! A node answers for itself. It is asked to drain as by a signal, and to look at its certificates as by SIGHUP.
//! Invariants: a drain that was asked for is never taken back; what is asked of a node is in the audit.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    model::{Actor, Millis},
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
    /// A certificate cannot be used; those from before are still served.
    #[error("{0}")]
    Certificate(String),
    /// It does not answer, since it is stopping or has too much to do.
    #[error("the node does not answer")]
    Busy,
    /// The registry failed.
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
    /// The state's name as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
        }
    }
}

/// A node as it is now.
#[derive(Clone, Debug)]
pub struct NodeHealth {
    /// Its name.
    pub id: String,
    /// The version of the program.
    pub version: &'static str,
    /// When it started.
    pub started_at: Millis,
    /// How far it is.
    pub state: NodeState,
    /// What is looked at, and what is wrong with it.
    pub checks: Vec<CheckReport>,
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
        let (reloads, asked) = mpsc::channel(MAX_RELOADS);
        let inner = Inner {
            id: host_name(),
            started_at: Millis::now(),
            registry,
            readiness,
            whole,
            reloads,
        };
        let inner = Arc::new(inner);
        (Self { inner }, asked)
    }

    /// The name of the node that runs here.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Every node in the order of their ids.
    pub fn nodes(&self) -> Vec<NodeHealth> {
        vec![self.here()]
    }

    /// The node of an id.
    ///
    /// # Errors
    /// [`NodeError::NotFound`].
    pub fn node(&self, id: &str) -> Result<NodeHealth, NodeError> {
        let here = self.here();
        if here.id != id {
            return Err(NodeError::NotFound);
        }
        Ok(here)
    }

    /// Has a node drain and stop: it lets nobody in any more and tells its devices to go, at a rate.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::Store`] where it could not be recorded, and then nothing was done.
    pub async fn drain(&self, actor: &Actor, id: &str) -> Result<NodeHealth, NodeError> {
        self.node(id)?;
        if !self.inner.whole.is_draining() {
            let audit = actor.did("node.drain", id, "");
            self.inner.registry.record(&audit).await?;
            tracing::info!(actor = %actor.name, "an operator has this node drain");
            self.inner.whole.drain();
        }
        self.node(id)
    }

    /// Has a node look at its certificates now; gives how many had changed and are served from here on.
    ///
    /// # Errors
    /// [`NodeError::NotFound`], [`NodeError::Certificate`], [`NodeError::Busy`].
    pub async fn reload(&self, actor: &Actor, id: &str) -> Result<usize, NodeError> {
        self.node(id)?;
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
        NodeHealth {
            id: inner.id.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: inner.started_at,
            state,
            checks: inner.readiness.report(),
        }
    }
}

impl fmt::Debug for NodeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeService").finish_non_exhaustive()
    }
}

/// The machine's name, as far as it can stand in a path.
fn host_name() -> String {
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
