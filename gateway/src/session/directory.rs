//! Who is connected, over all nodes: found, listed and ended from any of them.
//!
//! A node knows its own sessions and asks the others for theirs, a page at a time. Where a device is, the store of
//! sessions knows. Invariants: nothing is kept; an answer to another node is bounded in bytes; a node that does not
//! answer is named, and the rest is shown.

mod elsewhere;
mod here;

use std::{fmt, sync::Arc};

use headgate_protocol::identity::{DeviceId, ProductId};
use serde::{Deserialize, Serialize};

use super::{
    application::ApplicationTable, handle::CloseReason, inspect::SessionInfo, table::SessionTable,
};
use crate::{
    model::{Millis, Paged},
    service::{cluster::Cluster, uplink::StoreError},
};

/// What goes before a device's id in the name of its session: behind `app:`, so applications are listed first.
const DEVICE: &str = "device:";

/// Whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// A device's.
    Device,
    /// An application's.
    Application,
}

/// Which sessions are listed; what is `None` does not matter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionFilter {
    /// Of devices, or of applications.
    pub kind: Option<SessionKind>,
    /// Of this product's devices.
    pub product: Option<ProductId>,
    /// Whether they outlive their connections: those of devices.
    pub persistent: Option<bool>,
    /// At this listener: its port, or its address and port.
    pub listener: Option<String>,
    /// On this node.
    pub node: Option<String>,
}

/// A session as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Its name: `device:` and the device's id, or the application's `ClientId`.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// When its client connected.
    pub since: Millis,
    /// How a device is connected; `None` where it was going away just then, and for applications.
    pub connection: Option<SessionInfo>,
}

impl SessionEntry {
    /// The device's id in the whole gateway; `None`: it is an application's.
    pub fn device(&self) -> Option<&str> {
        self.name.strip_prefix(DEVICE)
    }
}

/// A page of the list.
#[derive(Debug)]
pub struct SessionPage {
    /// Its entries, and where it goes on.
    pub page: Paged<SessionEntry>,
    /// Nodes that live and did not answer: what they have is not in the page.
    pub silent: Vec<String>,
}

/// The session of a device.
#[derive(Debug)]
pub struct FoundSession {
    /// The node that it is on.
    pub node: String,
    /// How it is; `None`: it did not answer in time.
    pub info: Option<SessionInfo>,
}

/// Whom a session's name is of.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionOwner<'a> {
    /// The device of this id.
    Device(&'a str),
    /// An application's client of this `ClientId`.
    Application(&'a str),
}

impl<'a> SessionOwner<'a> {
    /// Reads a name.
    pub fn of(name: &'a str) -> Self {
        name.strip_prefix(DEVICE)
            .map_or(Self::Application(name), Self::Device)
    }
}

/// Finds sessions on all nodes. Cloning shares it.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    node: String,
    devices: Arc<SessionTable>,
    applications: Arc<ApplicationTable>,
    cluster: Option<Cluster>,
}

impl Directory {
    /// The sessions of this node, and of the others where there are any.
    pub fn new(
        node: String,
        devices: Arc<SessionTable>,
        applications: Arc<ApplicationTable>,
        cluster: Option<Cluster>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                node,
                devices,
                applications,
                cluster,
            }),
        }
    }

    /// The session of a device, wherever it is.
    ///
    /// # Errors
    /// What the store of sessions says, where it is not here.
    pub async fn device(&self, id: &DeviceId) -> Result<Option<FoundSession>, StoreError> {
        match self.inner.look_here(id).await {
            Some(found) => Ok(found),
            None => self.inner.look_elsewhere(id).await,
        }
    }

    /// Which of these devices are connected, in their order: as far as can be told while the store is away.
    pub async fn are_connected(&self, ids: &[DeviceId]) -> Vec<bool> {
        let inner = &self.inner;
        let mut held: Vec<bool> = ids
            .iter()
            .map(|id| inner.devices.of(id).is_some())
            .collect();
        let Some(cluster) = inner.cluster.as_ref().filter(|_| held.contains(&false)) else {
            return held;
        };
        let (live, here) = (cluster.live(), cluster.number());
        match cluster.holders(ids).await {
            Ok(holders) => {
                let is_elsewhere =
                    |holder| holder != here && live.iter().any(|node| node.number == holder);
                for (held, holder) in held.iter_mut().zip(holders) {
                    *held |= holder.is_some_and(is_elsewhere);
                }
            }
            Err(error) => tracing::debug!(%error, "who is at other nodes is not known"),
        }
        held
    }

    /// A page of who is connected, behind `after` in the order of the sessions' names.
    pub async fn list(
        &self,
        filter: &SessionFilter,
        after: Option<&str>,
        limit: usize,
    ) -> SessionPage {
        let inner = &self.inner;
        let mut parts = Vec::new();
        if filter.node.as_ref().is_none_or(|node| *node == inner.node) {
            parts.push(inner.list_here(filter, after, limit).await);
        }
        let (others, silent) = inner.list_elsewhere(filter, after, limit).await;
        parts.extend(others);
        SessionPage {
            page: here::merge(parts, limit),
            silent,
        }
    }

    /// Where the client of an application is; `None`: nowhere, as far as nodes answer.
    pub async fn application(&self, client_id: &str) -> Option<String> {
        if self.inner.applications.of(client_id).is_some() {
            return Some(self.inner.node.clone());
        }
        self.inner.application_elsewhere(client_id).await
    }

    /// Ends the connection of an application's client on a node; says whether it had one.
    pub async fn end_application(&self, node: &str, client_id: &str) -> bool {
        if node == self.inner.node {
            return self.inner.end_here(client_id);
        }
        self.inner.end_elsewhere(node, client_id).await
    }
}

impl Inner {
    fn end_here(&self, client_id: &str) -> bool {
        let session = self.applications.of(client_id);
        session
            .inspect(|session| session.end(CloseReason::Administrative))
            .is_some()
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("node", &self.inner.node)
            .finish_non_exhaustive()
    }
}
