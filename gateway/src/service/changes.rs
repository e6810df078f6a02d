//! Changes of the registry that nodes keep something of, made known to all of them.
//!
//! Whoever changes something does here what follows from it, and then says it: when that returns, the other nodes have
//! done it too, or are told as soon as they can be. A node that missed something forgets all that it keeps. A gateway of one
//! node says nothing. Invariants: a change is in the registry before it is said.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use headgate_protocol::identity::{AppId, DeviceId, NodeId, ProductId};
use serde::{Deserialize, Serialize};

use super::{
    auth::{AppAuthenticator, DeviceAuthenticator},
    cluster::{Cluster, Handler, Member, Telling},
    registry::DeviceWatch,
    uplink::{Ended, Uplink},
};
use crate::{
    model::{DeviceName, Millis},
    shutdown::Shutdown,
    store::{StoreError, registry::Registry},
};

/// When what could not be looked up is looked up again.
const AGAIN: Duration = Duration::from_secs(1);
/// How far the clocks of nodes may be apart.
const SKEW: Duration = Duration::from_secs(10);
/// Devices that are looked at in one go.
const BLOCK: usize = 500;
/// By which other nodes are told.
const CHANGED: &str = "changed";

/// What was changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A device: its credentials, its state, or that it is there.
    Device {
        /// Its id.
        device: String,
        /// Its product.
        product: String,
        /// Its id there.
        node: String,
        /// Whether its connection ends.
        is_barred: bool,
        /// Whether it is gone.
        is_deleted: bool,
    },
    /// An operator ends the connection of a device.
    Kicked(String),
    /// A product, which may be gone.
    Product(String),
    /// Secrets or states of applications.
    Applications,
    /// An application may not go on.
    Ended(String, Ending),
    /// Devices are an application's now.
    Bound(String, Vec<String>),
    /// Devices are an application's no more.
    Unbound(String, Vec<String>),
}

/// Why an application may not go on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is disabled.
    Disabled,
    /// It is deleted.
    Deleted,
    /// Its secret was replaced.
    SecretReset,
}

impl Change {
    /// A device was changed.
    pub fn device(device: &DeviceName, is_barred: bool) -> Self {
        Self::Device {
            device: device.device_id.to_string(),
            product: device.product_id.to_string(),
            node: device.node_id.to_string(),
            is_barred,
            is_deleted: false,
        }
    }

    /// A device was deleted.
    pub fn deleted(device: &DeviceName) -> Self {
        Self::Device {
            device: device.device_id.to_string(),
            product: device.product_id.to_string(),
            node: device.node_id.to_string(),
            is_barred: true,
            is_deleted: true,
        }
    }

    /// Bindings of an application were added, or taken away.
    pub fn binding(app: &AppId, devices: &[DeviceId], is_added: bool) -> Self {
        let devices = devices.iter().map(DeviceId::to_string).collect();
        if is_added {
            Self::Bound(app.to_string(), devices)
        } else {
            Self::Unbound(app.to_string(), devices)
        }
    }
}

impl From<Ended> for Ending {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Disabled => Self::Disabled,
            Ended::Deleted => Self::Deleted,
            Ended::SecretReset | Ended::SessionEnded => Self::SecretReset,
        }
    }
}

impl From<Ending> for Ended {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Disabled => Self::Disabled,
            Ending::Deleted => Self::Deleted,
            Ending::SecretReset => Self::SecretReset,
        }
    }
}

/// Says changes to other nodes, where there are any. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Changes(Option<Cluster>);

impl Changes {
    /// There is nobody to tell.
    pub const fn alone() -> Self {
        Self(None)
    }

    /// Says them to the other nodes.
    pub const fn over(cluster: Option<Cluster>) -> Self {
        Self(cluster)
    }

    /// Whether another node has a device.
    ///
    /// # Errors
    /// What the store says.
    pub async fn is_elsewhere(&self, device: &DeviceId) -> Result<bool, StoreError> {
        let Some(cluster) = &self.0 else {
            return Ok(false);
        };
        let held = cluster.holders(std::slice::from_ref(device)).await?;
        Ok(held
            .into_iter()
            .flatten()
            .any(|node| node != cluster.number()))
    }

    /// Says a change, and waits until the other nodes have done what follows from it, for as long as is configured.
    pub async fn say(&self, change: &Change) {
        let Some(cluster) = &self.0 else { return };
        let Ok(body) = serde_json::to_vec(change) else {
            return;
        };
        if let Err(error) = cluster.ask(CHANGED, &body).await {
            tracing::warn!(%error, "other nodes learn of a change later");
            cluster.forget_later();
        }
    }
}

/// What hears of changes on other nodes.
pub struct ChangeParts {
    /// Devices' credentials.
    pub authenticator: DeviceAuthenticator,
    /// Applications' secrets.
    pub app_authenticator: AppAuthenticator,
    /// Bindings and sessions of applications.
    pub uplink: Uplink,
    /// Connections of devices.
    pub watch: Arc<dyn DeviceWatch>,
    /// Products.
    pub registry: Registry,
}

/// Has this node do what follows from changes on others; before anybody is let in.
pub fn connect(parts: ChangeParts, cluster: &Cluster, shutdown: &Shutdown) {
    let heard = Arc::new(Heard { parts });
    cluster.on(CHANGED, Arc::<Heard>::clone(&heard));
    cluster.enlist(Arc::<Heard>::clone(&heard));
    let (cluster, stop) = (cluster.clone(), shutdown.token().clone());
    shutdown.spawn(async move { stop.run_until_cancelled(heard.catch_up(&cluster)).await });
}

struct Heard {
    parts: ChangeParts,
}

impl Heard {
    async fn follow(&self, change: Change) -> Result<(), StoreError> {
        let parts = &self.parts;
        match change {
            Change::Device {
                device,
                product,
                node,
                is_barred,
                is_deleted,
            } => {
                let (Some(device_id), Some(product_id), Some(node_id)) = (
                    parsed::<DeviceId>(&device),
                    parsed::<ProductId>(&product),
                    parsed::<NodeId>(&node),
                ) else {
                    return Ok(());
                };
                let name = DeviceName {
                    device_id,
                    product_id,
                    node_id,
                };
                parts.authenticator.invalidate_names(&name);
                if is_deleted {
                    parts.uplink.on_deleted_elsewhere(&name);
                }
                if is_barred {
                    parts.watch.device_barred(&name.device_id);
                }
            }
            Change::Kicked(device) => {
                if let Some(device) = parsed(&device) {
                    parts.watch.device_barred(&device);
                }
            }
            Change::Product(id) => {
                let Some(id) = parsed(&id) else { return Ok(()) };
                parts.authenticator.invalidate_product(&id);
                match parts.registry.product(&id).await? {
                    Some(product) => parts.watch.product_changed(&product),
                    None => parts.watch.product_deleted(&id),
                }
            }
            Change::Applications => parts.app_authenticator.invalidate(),
            Change::Ended(app, ending) => {
                parts.app_authenticator.invalidate();
                if let Some(app) = parsed(&app) {
                    parts.uplink.on_ended_elsewhere(&app, ending.into());
                }
            }
            Change::Bound(app, devices) => {
                if let Some(app) = parsed(&app) {
                    parts.uplink.on_bound(&app, &all_parsed(&devices));
                }
            }
            Change::Unbound(app, devices) => {
                if let Some(app) = parsed(&app) {
                    let devices = all_parsed(&devices);
                    parts.uplink.on_unbound_elsewhere(&app, &devices);
                }
            }
        }
        Ok(())
    }
}

impl Heard {
    /// Each time that changes may have been missed: looks at everybody who is connected, for ever. While the registry does
    /// not answer, it is asked again.
    async fn catch_up(&self, cluster: &Cluster) {
        loop {
            let since = cluster.doubted().await;
            if let Err(error) = self.look_again(since).await {
                tracing::warn!(%error, "what was changed meanwhile could not be looked up; trying again");
                tokio::time::sleep(AGAIN).await;
                cluster.doubt(since);
            }
        }
    }

    /// Ends who may not go on, or may have come in with what does not hold any more: whoever was changed since then.
    async fn look_again(&self, since: Millis) -> Result<(), StoreError> {
        let parts = &self.parts;
        // Nodes' clocks differ.
        let since = since.before(SKEW).unwrap_or(since);
        for id in parts.watch.products() {
            match parts.registry.product(&id).await? {
                Some(product) => parts.watch.product_changed(&product),
                None => parts.watch.product_deleted(&id),
            }
        }
        for devices in parts.watch.connected().chunks(BLOCK) {
            let found = parts.registry.devices_by_ids(devices).await?;
            let unchanged: HashSet<DeviceId> = found
                .into_iter()
                .filter(|device| device.enabled && device.updated_at < since)
                .map(|device| device.id)
                .collect();
            for device in devices.iter().filter(|one| !unchanged.contains(*one)) {
                tracing::info!(device_id = %device, "a device was changed unheard: its connection ends");
                parts.watch.device_barred(device);
            }
        }
        for app in parts.uplink.apps() {
            let ended = match parts.registry.app(&app).await? {
                None => Ended::Deleted,
                Some(found) if !found.enabled => Ended::Disabled,
                Some(found) if found.updated_at >= since => Ended::SecretReset,
                Some(_) => {
                    parts.uplink.revoke_unheard(&app).await?;
                    continue;
                }
            };
            parts.uplink.on_ended_elsewhere(&app, ended);
        }
        Ok(())
    }
}

impl Handler for Heard {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Ok(change) = serde_json::from_slice(&telling.body) else {
                tracing::warn!("another node said something unknown of a change");
                return;
            };
            if let Err(error) = self.follow(change).await {
                tracing::warn!(%error, "what follows from a change could not be done");
            }
        })
    }
}

impl Member for Heard {
    fn missed(&self) -> BoxFuture<'_, ()> {
        self.parts.authenticator.invalidate_all();
        self.parts.app_authenticator.invalidate();
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Debug for ChangeParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeParts").finish_non_exhaustive()
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn all_parsed(texts: &[String]) -> Vec<DeviceId> {
    texts.iter().filter_map(|text| parsed(text)).collect()
}
