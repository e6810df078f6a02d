//! What a node that missed changes looks up of bindings: messages that wait in its memory came by those of before.
//!
//! What waits in the store is looked up when it is read. Invariants: it is called when bindings have been forgotten, so
//! that nothing is offered by the old ones any more.

use std::collections::HashSet;

use headgate_protocol::identity::{AppId, DeviceId};
use parking_lot::Mutex;

use super::Uplink;
use crate::store::StoreError;

impl Uplink {
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
