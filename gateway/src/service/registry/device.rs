//! Devices: registered, changed, frozen, deleted.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};

use super::prepare::{Prepared, prepare, sealed};
use crate::{
    model::{
        Actor, AuthKind, CredentialSlot, Device, Fingerprint, Millis, Page, Paged, PskEncoding,
        Secret, text,
    },
    service::{
        changes::Change,
        registry::{RegistryError, RegistryService},
    },
    store::registry::{DeviceCredentials, DeviceFilter, DevicePatch},
};

/// A device to be registered.
#[derive(Debug)]
pub struct NewDevice {
    /// Its product.
    pub product_id: ProductId,
    /// Its id within its product.
    pub node_id: NodeId,
    /// Its id in the whole gateway; `None`: `{product_id}_{node_id}`.
    pub device_id: Option<DeviceId>,
    /// A label of up to 64 characters.
    pub name: String,
    /// Up to 100 characters for people.
    pub description: String,
    /// How it proves who it is; `None`: the first kind that its product allows.
    pub auth: Option<AuthKind>,
    /// How its secret is read as a pre-shared key; `None`: as its product's devices usually have it.
    pub psk_encoding: Option<PskEncoding>,
    /// Its secret; `None`: one is made. Only for [`AuthKind::Secret`].
    pub secret: Option<Secret>,
    /// Fingerprint of its certificate; needed for [`AuthKind::X509`] and for nothing else.
    pub fingerprint: Option<Fingerprint>,
    /// Fingerprint of a second certificate. Only for [`AuthKind::X509`].
    pub secondary_fingerprint: Option<Fingerprint>,
}

impl NewDevice {
    /// A device of which only the names are given.
    pub const fn of(product_id: ProductId, node_id: NodeId) -> Self {
        Self {
            product_id,
            node_id,
            device_id: None,
            name: String::new(),
            description: String::new(),
            auth: None,
            psk_encoding: None,
            secret: None,
            fingerprint: None,
            secondary_fingerprint: None,
        }
    }
}

/// A device that was registered.
#[derive(Debug)]
pub struct CreatedDevice {
    /// The device.
    pub device: Device,
    /// Its secret, to be shown this once; `None` when it has none.
    pub secret: Option<Secret>,
}

impl RegistryService {
    /// Registers a device.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for its product, [`RegistryError::Invalid`] naming the field,
    /// [`RegistryError::Conflict`] naming the device that has its id, its node id or another of its names.
    pub async fn create_device(
        &self,
        actor: &Actor,
        new: NewDevice,
    ) -> Result<CreatedDevice, RegistryError> {
        let product = self.product(&new.product_id).await?;
        let Prepared {
            device,
            secret,
            fingerprints,
        } = prepare(new, &product, Millis::now())?;
        let secrets = match &secret {
            Some(secret) => vec![sealed(
                &self.sealer,
                &device.id,
                CredentialSlot::Primary,
                secret,
            )?],
            None => Vec::new(),
        };
        let credentials = DeviceCredentials {
            secrets,
            fingerprints,
        };
        let audit = actor.did("device.create", &device.id, device.node_id.as_str());
        self.registry
            .insert_device(&device, &device.aliases(&product), &credentials, &audit)
            .await?;
        Ok(CreatedDevice { device, secret })
    }

    /// The device of an id.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn device(&self, id: &DeviceId) -> Result<Device, RegistryError> {
        let device = self.registry.device(id).await?;
        device.ok_or(RegistryError::NotFound { what: "device" })
    }

    /// Devices in the order of their ids.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for a wrong cursor.
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        page: &Page,
    ) -> Result<Paged<Device>, RegistryError> {
        Ok(self.registry.devices(filter, page).await?)
    }

    /// Changes a device's label, or freezes it or lets it in again; a frozen device's connection is closed.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Invalid`].
    pub async fn patch_device(
        &self,
        actor: &Actor,
        id: &DeviceId,
        patch: &DevicePatch,
    ) -> Result<Device, RegistryError> {
        if let Some(name) = &patch.name {
            text::check_label("name", name, 0)?;
        }
        if let Some(description) = &patch.description {
            text::check_description("description", description)?;
        }
        let action = match patch.enabled {
            Some(false) => "device.freeze",
            Some(true) => "device.unfreeze",
            None => "device.update",
        };
        let audit = actor.did(action, id, patch.name.as_deref().unwrap_or_default());
        let device = self
            .registry
            .patch_device(id, patch, Millis::now(), &audit)
            .await?;
        self.authenticator.invalidate(&device);
        if !device.enabled {
            self.bar(id);
        }
        let change = Change::device(&device.name(), !device.enabled);
        self.changes.say(&change).await;
        Ok(device)
    }

    /// Deletes a device and closes its connection. Its finished deliveries stay in their tasks.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::InUse`] by a task that still delivers to it.
    pub async fn delete_device(&self, actor: &Actor, id: &DeviceId) -> Result<(), RegistryError> {
        let device = self.device(id).await?;
        let audit = actor.did("device.delete", id, device.node_id.as_str());
        self.registry.delete_device(id, &audit).await?;
        self.authenticator.invalidate(&device);
        self.bar(id);
        self.changes.say(&Change::deleted(&device.name())).await;
        self.forget_messages(device).await;
        Ok(())
    }

    /// Records that an operator ended the connection of a device.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn record_kick(&self, actor: &Actor, id: &DeviceId) -> Result<(), RegistryError> {
        Ok(self
            .registry
            .record(&actor.did("device.kick", id, ""))
            .await?)
    }

    /// Has the node that has a device end its connection, where another one has; says whether that is so.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn kick_elsewhere(
        &self,
        actor: &Actor,
        id: &DeviceId,
    ) -> Result<bool, RegistryError> {
        if !self.changes.is_elsewhere(id).await? {
            return Ok(false);
        }
        self.record_kick(actor, id).await?;
        self.changes.say(&Change::Kicked(id.to_string())).await;
        Ok(true)
    }

    /// Nobody sees what a deleted device said, and a later one of its id gets nothing that waited for it.
    async fn forget_messages(&self, device: Device) {
        let Some(uplink) = &self.uplink else { return };
        let name = device.name();
        if let Err(error) = uplink.on_device_deleted(&name).await {
            tracing::error!(%error, device_id = %name.device_id, "messages for a deleted device are left");
        }
    }

    pub(super) fn bar(&self, id: &DeviceId) {
        if let Some(watch) = &self.watch {
            watch.device_barred(id);
        }
    }
}
