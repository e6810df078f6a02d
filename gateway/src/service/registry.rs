//! Products and devices: what may be registered, and what changes of it mean elsewhere.
//!
//! Every change is checked against the rules of the model, stored together with its audit entry, and made known
//! to the device authenticator and to the sessions before the caller hears of it.

mod credential;
mod device;
mod prepare;
mod product;

use std::{fmt, sync::Arc};

use headgate_protocol::identity::{DeviceId, ProductId};

pub use device::{CreatedDevice, NewDevice};
pub(in crate::service) use prepare::{prepare, sealed};

use crate::{
    model::{InvalidField, NoRandomness, Product},
    service::{
        auth::DeviceAuthenticator,
        changes::Changes,
        seal::{SealError, Sealer},
        uplink::Uplink,
    },
    store::{StoreError, registry::Registry},
};

/// Why a product or a device cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is none of that id.
    #[error("no such {what}")]
    NotFound {
        /// `product` or `device`.
        what: &'static str,
    },
    /// Something that must be unique is taken.
    #[error("{what} is taken by {with}")]
    Conflict {
        /// What: `product id`, `device id`, `node id`, `device alias`.
        what: &'static str,
        /// Which record has it.
        with: String,
    },
    /// It is not any more as whoever wants to change it read it.
    #[error("the {what} was changed meanwhile")]
    Stale {
        /// What.
        what: &'static str,
    },
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// It cannot be deleted while others need it.
    #[error("{what} is in use by {by}")]
    InUse {
        /// `product` or `device`.
        what: &'static str,
        /// What needs it.
        by: String,
    },
    /// The registry failed.
    #[error(transparent)]
    Store(StoreError),
    /// A secret cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No secret can be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Stale { what } => Self::Stale { what },
            StoreError::Conflict { what, with } => Self::Conflict { what, with },
            StoreError::InUse { what, by } => Self::InUse { what, by },
            StoreError::Page(error) => Self::Invalid(InvalidField::from(error)),
            other => Self::Store(other),
        }
    }
}

/// Who must know when a device may not be connected any more, or when it may do something else.
pub trait DeviceWatch: Send + Sync {
    /// The device was frozen or deleted: its connection is to be closed. Must not block.
    fn device_barred(&self, device: &DeviceId);
    /// A product says something else of its devices now: those that are connected go by it at
    /// once. Must not block.
    fn product_changed(&self, product: &Product);
    /// A product is gone. Must not block.
    fn product_deleted(&self, product: &ProductId);
    /// The devices that are connected.
    fn connected(&self) -> Vec<DeviceId> {
        Vec::new()
    }
    /// The products of which something is remembered.
    fn products(&self) -> Vec<ProductId> {
        Vec::new()
    }
}

/// The service of products and devices. Cloning shares everything.
#[derive(Clone)]
pub struct RegistryService {
    registry: Registry,
    sealer: Sealer,
    authenticator: DeviceAuthenticator,
    watch: Option<Arc<dyn DeviceWatch>>,
    uplink: Option<Uplink>,
    pub(super) changes: Changes,
}

impl RegistryService {
    /// The service over a registry, whose secrets `sealer` seals and `authenticator` checks.
    pub const fn new(
        registry: Registry,
        sealer: Sealer,
        authenticator: DeviceAuthenticator,
    ) -> Self {
        Self {
            registry,
            sealer,
            authenticator,
            watch: None,
            uplink: None,
            changes: Changes::alone(),
        }
    }

    /// The same service, telling `watch` of devices that are frozen or deleted and of products that change.
    #[must_use]
    pub fn with_watch(mut self, watch: Arc<dyn DeviceWatch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The same service, telling `uplink` of devices that are deleted: nothing waits for them any more.
    #[must_use]
    pub fn with_uplink(mut self, uplink: Uplink) -> Self {
        self.uplink = Some(uplink);
        self
    }

    /// The same service, saying its changes.
    #[must_use]
    pub fn with_changes(mut self, changes: Changes) -> Self {
        self.changes = changes;
        self
    }
}

impl fmt::Debug for RegistryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
