//! Devices that prove nothing: let in by their name alone, where they are registered so.

use std::sync::Arc;

use headgate_protocol::credential::Form;

use super::{AuthenticatedDevice, DeviceAuthenticator, MAX_ATTEMPTS};
use crate::{model::AuthKind, service::auth::AuthError};

impl DeviceAuthenticator {
    /// The device that a name means, which must be registered without authentication; `product`, where it is given,
    /// must be its own. `None`: there is no such device.
    ///
    /// # Errors
    /// [`AuthError::WrongTransport`] for one that has to prove who it is, or whose product does not allow CoAP;
    /// [`AuthError::Disabled`]; [`AuthError::Store`] is the gateway's own fault.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn admit_unsecured(
        &self,
        name: &str,
        product: Option<&str>,
    ) -> Result<Option<AuthenticatedDevice>, AuthError> {
        let mut changes = self.inner.changes.of(name);
        for _ in 0..MAX_ATTEMPTS {
            let admitted = self.look_up(name, product, changes).await;
            // What was changed meanwhile may have been read before.
            let latest = self.inner.changes.of(name);
            if latest == changes {
                return admitted;
            }
            changes = latest;
        }
        Err(AuthError::Changing)
    }

    /// Whether nothing was changed in the registry since a device was let in by this name. To be asked once its session
    /// can be found: from then on whoever freezes it closes that session.
    pub fn is_unchanged(&self, name: &str, device: &AuthenticatedDevice) -> bool {
        self.inner.changes.of(name) == device.changes
    }

    async fn look_up(
        &self,
        name: &str,
        product: Option<&str>,
        changes: u64,
    ) -> Result<Option<AuthenticatedDevice>, AuthError> {
        let Some(row) = self.inner.device(name).await? else {
            return Ok(None);
        };
        if product.is_some_and(|product| product != row.product_id.as_str()) {
            return Ok(None);
        }
        if row.auth != AuthKind::None {
            return Err(AuthError::WrongTransport);
        }
        if !row.enabled {
            return Err(AuthError::Disabled);
        }
        let Some(product) = self.inner.product(&row.product_id).await? else {
            return Ok(None);
        };
        if !product.transports.coap || !product.auth_kinds.contains(&AuthKind::None) {
            return Err(AuthError::WrongTransport);
        }
        Ok(Some(AuthenticatedDevice {
            auth: row.auth,
            device_id: row.device_id.clone(),
            node_id: row.node_id.clone(),
            product: Arc::clone(&product),
            form: Form::Native,
            changes,
        }))
    }
}
