//! Resources: taken in as a stream, measured while they come, kept within the quota.
//!
//! The quota is checked three times: before a body is read (with what other uploads have reserved), while it is
//! read, and in the transaction that makes the resource. Invariants: a resource exists only with its whole bytes
//! on the disk; an upload that fails, is refused or is dropped at any point leaves neither a row nor, beyond the
//! next upload or start, a byte.

mod quota;
mod upload;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use headgate_protocol::identity::{ProductId, ResourceName};
use parking_lot::Mutex;

use crate::{
    config::ResourceConfig,
    model::{
        Actor, BlobId, Id, InvalidField, Millis, Page, Paged, Resource, ResourceVersion,
        StateCounts, text,
    },
    store::{
        StoreError,
        blobs::BlobStore,
        registry::{Registry, ResourceFilter, ResourcePatch},
    },
};

use self::{quota::Reservations, upload::Stray};

/// Where nodes share the blobs, one that nobody's record names is nobody's after this time: it is put before its record is
/// written.
const NOBODYS_AFTER: Duration = Duration::from_hours(24);

/// Why a resource cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// There is none of that id.
    #[error("no such {what}")]
    NotFound {
        /// `resource`, `product` or `blob`.
        what: &'static str,
    },
    /// Something that must be unique is taken.
    #[error("{what} is taken by {with}")]
    Conflict {
        /// What: `resource name`.
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
        /// `resource`.
        what: &'static str,
        /// What needs it.
        by: String,
    },
    /// It is larger than a resource may be.
    #[error("larger than the {limit} bytes that a resource may have")]
    TooLarge {
        /// Bytes that a resource may have.
        limit: u64,
    },
    /// It is one resource or some bytes too many for all resources together.
    #[error("more than the quota of {limit} {unit}")]
    QuotaExceeded {
        /// What is counted: `resources` or `bytes`.
        unit: &'static str,
        /// How much may be.
        limit: u64,
    },
    /// The bytes are not those that were announced.
    #[error("the SHA-256 is {actual}, expected {expected}")]
    DigestMismatch {
        /// The announced SHA-256, hexadecimal.
        expected: String,
        /// That of the bytes.
        actual: String,
    },
    /// There are not as many bytes as were announced.
    #[error("the size is {actual} bytes or more, expected {expected}")]
    SizeMismatch {
        /// The announced number.
        expected: u64,
        /// The number that came before the upload was refused.
        actual: u64,
    },
    /// The body could not be read to its end.
    #[error("the body ended early: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ResourceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Stale { what } => Self::Stale { what },
            StoreError::Conflict { what, with } => Self::Conflict { what, with },
            StoreError::InUse { what, by } => Self::InUse { what, by },
            StoreError::Quota { unit, limit } => Self::QuotaExceeded { unit, limit },
            StoreError::Page(error) => Self::Invalid(InvalidField::from(error)),
            other => Self::Store(other),
        }
    }
}

/// A resource to be made; its bytes come as a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewResource {
    /// The product whose devices it is for.
    pub product_id: ProductId,
    /// Its name, unique in its product.
    pub name: ResourceName,
    /// Up to 100 characters.
    pub description: String,
    /// What is announced of its bytes.
    pub expected: Expected,
}

/// What is announced of bytes before they come; what is `None` is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Their SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// Their number.
    pub size: Option<u64>,
}

/// The service of resources. Cloning shares everything.
#[derive(Clone)]
pub struct ResourceService {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    blobs: BlobStore,
    limits: ResourceConfig,
    reserved: Arc<Reservations>,
    /// Blobs whose upload was dropped when it was not certain whether they had become a resource's.
    strays: Mutex<Vec<Stray>>,
}

impl ResourceService {
    /// The service over a registry and its blobs; removes what a killed process left of uploads and deletions.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn open(
        registry: Registry,
        blobs: BlobStore,
        limits: ResourceConfig,
    ) -> Result<Self, ResourceError> {
        let known: std::collections::HashSet<BlobId> =
            registry.blobs().await?.into_iter().collect();
        // Another node may be about to say whose one is.
        let age = if registry.is_shared() {
            NOBODYS_AFTER
        } else {
            Duration::ZERO
        };
        for blob in blobs.list_older_than(age).await? {
            if !known.contains(&blob) {
                blobs.delete(&blob).await?;
            }
        }
        let service = Self {
            inner: Arc::new(Inner {
                registry,
                blobs,
                limits,
                reserved: Arc::default(),
                strays: Mutex::default(),
            }),
        };
        for id in service.inner.registry.resources_with_old_versions().await? {
            service.purge(id).await?;
        }
        Ok(service)
    }

    /// The resource of an id.
    ///
    /// # Errors
    /// [`ResourceError::NotFound`].
    pub async fn resource(&self, id: Id) -> Result<Resource, ResourceError> {
        let resource = self.inner.registry.resource(id).await?;
        resource.ok_or(ResourceError::NotFound { what: "resource" })
    }

    /// Resources, newest first.
    ///
    /// # Errors
    /// [`ResourceError::Invalid`] for a wrong cursor.
    pub async fn resources(
        &self,
        filter: &ResourceFilter,
        page: &Page,
    ) -> Result<Paged<Resource>, ResourceError> {
        Ok(self.inner.registry.resources(filter, page).await?)
    }

    /// One version of a resource; old versions exist as long as a task delivers them.
    ///
    /// # Errors
    /// [`ResourceError::NotFound`].
    pub async fn version(&self, id: Id, version: u32) -> Result<ResourceVersion, ResourceError> {
        let version = self.inner.registry.resource_version(id, version).await?;
        version.ok_or(ResourceError::NotFound {
            what: "resource version",
        })
    }

    /// How many deliveries of a resource are in each state, over all its tasks.
    ///
    /// # Errors
    /// [`ResourceError::NotFound`].
    pub async fn statistics(&self, id: Id) -> Result<StateCounts, ResourceError> {
        self.resource(id).await?;
        Ok(self.inner.registry.resource_statistics(id).await?)
    }

    /// Changes a resource's name or description.
    ///
    /// # Errors
    /// [`ResourceError::NotFound`], [`ResourceError::Invalid`], [`ResourceError::Conflict`] when the name is taken.
    pub async fn patch(
        &self,
        actor: &Actor,
        id: Id,
        patch: &ResourcePatch,
    ) -> Result<Resource, ResourceError> {
        if let Some(description) = &patch.description {
            text::check_description("description", description)?;
        }
        let name = patch.name.as_ref().map(ToString::to_string);
        let audit = actor.did("resource.update", id, name.unwrap_or_default());
        let registry = &self.inner.registry;
        Ok(registry
            .patch_resource(id, patch, Millis::now(), &audit)
            .await?)
    }

    /// Deletes a resource and its bytes.
    ///
    /// # Errors
    /// [`ResourceError::NotFound`], [`ResourceError::InUse`] by a task that has not ended.
    pub async fn delete(&self, actor: &Actor, id: Id) -> Result<(), ResourceError> {
        let resource = self.resource(id).await?;
        let audit = actor.did("resource.delete", id, resource.name.as_str());
        let freed = self.inner.registry.delete_resource(id, &audit).await?;
        self.inner.delete_blobs(freed).await;
        Ok(())
    }

    /// Reads a range of a version's bytes: exactly that range.
    ///
    /// # Errors
    /// [`ResourceError::NotFound`] when the bytes are gone with their version; [`ResourceError::Store`] for a
    /// range beyond the end.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(&self, blob: &BlobId, range: Range<u64>) -> Result<Bytes, ResourceError> {
        Ok(self.inner.blobs.read(blob, range).await?)
    }

    /// Deletes old versions that nobody delivers any more.
    async fn purge(&self, id: Id) -> Result<(), ResourceError> {
        let freed = self.inner.registry.purge_versions(id).await?;
        self.inner.delete_blobs(freed).await;
        Ok(())
    }
}

impl Inner {
    /// Deletes blobs that no row names. One that cannot be deleted now is found at the next start.
    async fn delete_blobs(&self, blobs: Vec<BlobId>) {
        for blob in blobs {
            if let Err(error) = self.blobs.delete(&blob).await {
                tracing::warn!(%blob, %error, "a blob that nothing refers to could not be deleted");
            }
        }
    }
}

impl fmt::Debug for ResourceService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
