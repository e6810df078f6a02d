//! What follows for messages from changes of devices, applications and bindings, whichever node made them.
//!
//! Invariants: these are called after the registry has the change.

use std::collections::HashSet;

use headgate_protocol::identity::{AppId, DeviceId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Ended, NotSent, Uplink, writer::Order};
use crate::{model::DeviceName, store::StoreError};

impl Uplink {
    /// Bindings of an application were added in the registry: its sessions get what is retained of these devices.
    pub(in crate::service) fn on_bound(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let having = self.inner.retained.having(devices.iter());
        if !having.is_empty() {
            self.inner.subscribers.bound(app, &having);
        }
    }

    /// Bindings of an application were taken away in the registry. When this returns, nothing of these devices is
    /// offered to its sessions any more, and what they had not sent is dropped.
    pub(in crate::service) async fn on_unbound(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let gone: HashSet<_> = devices.iter().collect();
        let is_revoked = |device: &DeviceId| gone.contains(device);
        self.revoke(app, &is_revoked);
        let queues = self.inner.sessions.queues_of(app);
        if queues.is_empty() {
            return;
        }
        let (revoked, done) = oneshot::channel();
        let devices = devices.to_vec();
        let order = Order::Revoke {
            queues,
            devices,
            revoked,
        };
        // Where it cannot be done now, a session finds out itself when it reads what waits.
        if self.inner.orders.send(order).await.is_ok() && done.await.is_ok() {
            // What was stored meanwhile has been offered to connections.
            self.inner.subscribers.revoke(app, &is_revoked);
        }
    }

    /// The same on a node that did not do it: what waits in the store is taken out by the one that did.
    pub(in crate::service) fn on_unbound_elsewhere(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let gone: HashSet<_> = devices.iter().collect();
        let is_revoked = |device: &DeviceId| gone.contains(device);
        self.revoke(app, &is_revoked);
    }

    /// A device was deleted by another node, which sees to the stores.
    pub(in crate::service) fn on_deleted_elsewhere(&self, device: &DeviceName) {
        self.inner.owners.forget(device);
        let device = &device.device_id;
        self.inner.bindings.forget(std::iter::once(device));
        self.inner.mailbox.left(device);
    }

    /// The applications that have sessions or streams here.
    pub(in crate::service) fn apps(&self) -> HashSet<AppId> {
        let sessions = self.inner.subscribers.apps().into_iter();
        sessions.chain(self.inner.histories.apps()).collect()
    }

    /// An application was ended by another node, which sees to the stores.
    pub(in crate::service) fn on_ended_elsewhere(&self, app: &AppId, reason: Ended) {
        if reason == Ended::Deleted {
            self.inner.bindings.forget_all();
        }
        self.inner.subscribers.close(app, reason);
        self.inner.histories.close(app, reason);
    }

    /// An application may not come in any more, or not with what it came in with; the authenticator knows.
    pub(in crate::service) async fn on_ended(&self, app: &AppId, reason: Ended) {
        self.on_ended_elsewhere(app, reason);
        if reason == Ended::Deleted
            && let Err(error) = self.inner.sessions.end_of_app(app).await
        {
            tracing::warn!(%error, app_id = %app, "sessions of a deleted application stay until they expire");
        }
    }

    /// A device was deleted in the registry: what waits for it goes, and its ids are free.
    ///
    /// # Errors
    /// [`NotSent::Unavailable`] where its mailbox could not be emptied.
    pub async fn on_device_deleted(&self, device: &DeviceName) -> Result<(), NotSent> {
        self.inner.owners.forget(device);
        self.inner
            .bindings
            .forget(std::iter::once(&device.device_id));
        let forgotten = self.inner.retained.forget(&device.device_id).await;
        let ended = self.inner.sessions.end_of_device(&device.device_id).await;
        self.empty_mailbox(&device.device_id).await?;
        ended.map_err(|_| NotSent::Unavailable)?;
        forgotten.map_err(|_| NotSent::Unavailable)
    }

    /// Drops what waits here for an application, of devices that were taken away from it.
    ///
    /// # Errors
    /// What the registry says: nothing was dropped then.
    pub(in crate::service) async fn revoke_unheard(&self, app: &AppId) -> Result<(), StoreError> {
        let seen = Mutex::new(HashSet::new());
        self.revoke(app, &|device| {
            seen.lock().insert(device.clone());
            false
        });
        let mut gone = HashSet::new();
        for device in seen.into_inner() {
            if !self.is_bound(app, &device).await? {
                gone.insert(device);
            }
        }
        if !gone.is_empty() {
            tracing::info!(app_id = %app, devices = gone.len(), "devices were unbound unheard: what waits of them is dropped");
            self.revoke(app, &|device| gone.contains(device));
        }
        Ok(())
    }

    fn revoke(&self, app: &AppId, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        self.inner.subscribers.revoke(app, is_revoked);
        self.inner.histories.revoke(app, is_revoked);
    }
}
