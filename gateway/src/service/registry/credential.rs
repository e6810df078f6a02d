//! What devices prove themselves with: replaced, one of two at a time, so that a device is never left out.

use headgate_protocol::identity::DeviceId;

use super::prepare::{sealed, secret_or_new};
use crate::{
    model::{Actor, AuthKind, CredentialSlot, Device, Fingerprint, InvalidField, Millis, Secret},
    service::{
        changes::Change,
        registry::{RegistryError, RegistryService},
    },
    store::registry::DeviceSlots,
};

impl RegistryService {
    /// Which credentials a device has.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn credentials(&self, id: &DeviceId) -> Result<DeviceSlots, RegistryError> {
        Ok(self.registry.device_slots(id).await?)
    }

    /// Replaces one of a device's two secrets and returns the new one, to be shown this once. The other goes on
    /// to be valid, and so does the device's connection unless `disconnect` says otherwise.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Invalid`] for a secret that breaks a rule, and for a device
    /// that has none.
    pub async fn reset_secret(
        &self,
        actor: &Actor,
        id: &DeviceId,
        which: CredentialSlot,
        given: Option<Secret>,
        disconnect: bool,
    ) -> Result<Secret, RegistryError> {
        let device = self.device_with(id, AuthKind::Secret).await?;
        let product = self.product(&device.product_id).await?;
        let secret = secret_or_new(given, device.psk_encoding, Some(&product))?;
        let credential = sealed(&self.sealer, id, which, &secret)?;
        let audit = actor.did("device.reset_secret", id, which.as_str());
        self.registry
            .set_credential(id, &credential, Millis::now(), &audit)
            .await?;
        self.credential_changed(&device, disconnect).await;
        Ok(secret)
    }

    /// Replaces one of the two fingerprints of a device that comes with a certificate. The other goes on to be
    /// valid, and so does the device's connection unless `disconnect` says otherwise.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Invalid`] for a device that comes with no certificate.
    pub async fn reset_fingerprint(
        &self,
        actor: &Actor,
        id: &DeviceId,
        which: CredentialSlot,
        fingerprint: Fingerprint,
        disconnect: bool,
    ) -> Result<(), RegistryError> {
        let device = self.device_with(id, AuthKind::X509).await?;
        let detail = format!("{} {fingerprint}", which.as_str());
        let audit = actor.did("device.reset_fingerprint", id, detail);
        self.registry
            .set_fingerprint(id, which, fingerprint, Millis::now(), &audit)
            .await?;
        self.credential_changed(&device, disconnect).await;
        Ok(())
    }

    /// Takes a device's second secret or fingerprint away; one that has none is left as it is.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Invalid`] for a device that proves itself otherwise.
    pub async fn clear_secondary(
        &self,
        actor: &Actor,
        id: &DeviceId,
        auth: AuthKind,
        disconnect: bool,
    ) -> Result<(), RegistryError> {
        let device = self.device_with(id, auth).await?;
        let action = match auth {
            AuthKind::X509 => "device.clear_fingerprint",
            AuthKind::Secret | AuthKind::None => "device.clear_secret",
        };
        let slot = CredentialSlot::Secondary;
        let audit = actor.did(action, id, slot.as_str());
        self.registry
            .clear_credential(id, slot, Millis::now(), &audit)
            .await?;
        self.credential_changed(&device, disconnect).await;
        Ok(())
    }

    async fn device_with(&self, id: &DeviceId, auth: AuthKind) -> Result<Device, RegistryError> {
        let device = self.device(id).await?;
        if device.auth == auth {
            return Ok(device);
        }
        let reason = format!(
            "of the device is {}, not {}",
            device.auth.as_str(),
            auth.as_str()
        );
        Err(InvalidField::new("auth", reason).into())
    }

    async fn credential_changed(&self, device: &Device, disconnect: bool) {
        self.authenticator.invalidate(device);
        if disconnect {
            self.bar(&device.id);
        }
        let change = Change::device(&device.name(), disconnect);
        self.changes.say(&change).await;
    }
}
