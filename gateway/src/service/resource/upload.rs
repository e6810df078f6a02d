//! Taking bytes in.

use std::{pin::pin, sync::Weak};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use crate::{
    model::{Actor, BlobId, Id, InvalidField, Millis, Resource, text},
    service::resource::{
        Expected, Inner, NewResource, ResourceError, ResourceService, quota::Reservation,
    },
    store::{
        StoreError,
        blobs::StoredBlob,
        registry::{NewVersion, QuotaLimits, Usage},
    },
};

impl ResourceService {
    /// Makes a resource out of a stream of bytes. What can be refused without its body (name, description, quota
    /// by the announced size) is refused before the stream is first asked.
    ///
    /// # Errors
    /// [`ResourceError::Invalid`], [`ResourceError::NotFound`] for the product, [`ResourceError::Conflict`] when the
    /// name is taken, [`ResourceError::TooLarge`], [`ResourceError::QuotaExceeded`],
    /// [`ResourceError::SizeMismatch`], [`ResourceError::DigestMismatch`], [`ResourceError::Body`]: nothing is
    /// left then.
    ///
    /// # Cancel safety
    /// Safe: either the resource was made or nothing of it is left, its file at the latest with the next upload.
    pub async fn upload<S, E>(
        &self,
        actor: &Actor,
        new: NewResource,
        body: S,
    ) -> Result<Resource, ResourceError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let inner = &self.inner;
        inner.delete_strays().await?;
        text::check_description("description", &new.description)?;
        if inner.registry.product(&new.product_id).await?.is_none() {
            return Err(ResourceError::NotFound { what: "product" });
        }
        let taken = inner
            .registry
            .resource_by_name(&new.product_id, &new.name)
            .await?;
        if let Some(other) = taken {
            return Err(ResourceError::Conflict {
                what: "resource name",
                with: format!("resource {}", other.id),
            });
        }
        let reservation = inner.reserve(&new.expected, 1, None).await?;
        let (pending, blob) = inner.take(body, &new.expected, reservation).await?;
        let now = Millis::now();
        let resource = Resource {
            id: inner.registry.next_id(),
            product_id: new.product_id,
            name: new.name,
            description: new.description,
            version: 1,
            size: blob.digests.size,
            sha256: blob.digests.sha256,
            md5: blob.digests.md5,
            created_at: now,
            updated_at: now,
        };
        let audit = actor.did("resource.create", resource.id, resource.name.as_str());
        let used = inner
            .registry
            .insert_resource(&resource, &version(blob, now), inner.quota(), &audit)
            .await;
        match used {
            Ok(used) => {
                pending.settle(Some(used)).await;
                Ok(resource)
            }
            Err(error) => Err(pending.refuse(error).await),
        }
    }

    /// Gives a resource new bytes as its next version. Tasks that were made before go on with theirs.
    ///
    /// # Errors
    /// As [`ResourceService::upload`].
    ///
    /// # Cancel safety
    /// As [`ResourceService::upload`].
    pub async fn replace_content<S, E>(
        &self,
        actor: &Actor,
        id: Id,
        expected: Expected,
        body: S,
    ) -> Result<Resource, ResourceError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let inner = &self.inner;
        inner.delete_strays().await?;
        let before = self.resource(id).await?;
        let reservation = inner.reserve(&expected, 0, Some(before.size)).await?;
        let (pending, blob) = inner.take(body, &expected, reservation).await?;
        let audit = actor.did("resource.replace", id, before.name.as_str());
        let stored = inner
            .registry
            .insert_version(id, &version(blob, Millis::now()), inner.quota(), &audit)
            .await;
        match stored {
            Ok((resource, used)) => {
                pending.settle(Some(used)).await;
                self.purge(id).await?;
                Ok(resource)
            }
            Err(error) => Err(pending.refuse(error).await),
        }
    }
}

impl Inner {
    const fn quota(&self) -> QuotaLimits {
        QuotaLimits {
            max_count: self.limits.max_count,
            max_total_bytes: self.limits.max_total_bytes,
        }
    }

    /// Checks size and quota and reserves the announced size, before the body is read.
    async fn reserve(
        &self,
        expected: &Expected,
        count: u64,
        replaced: Option<u64>,
    ) -> Result<Reservation, ResourceError> {
        match expected.size {
            Some(0) => return Err(empty()),
            Some(size) if size > self.limits.max_size_bytes => return Err(self.too_large()),
            _ => {}
        }
        let mut stored = self.registry.resource_usage().await?;
        stored.bytes = stored.bytes.saturating_sub(replaced.unwrap_or(0));
        let own = Usage {
            count,
            bytes: expected.size.unwrap_or(0),
        };
        self.reserved.reserve(stored, own, &self.limits)
    }

    /// Reads a body into a blob that is whole and what was announced.
    async fn take<S, E>(
        &self,
        body: S,
        expected: &Expected,
        mut reservation: Reservation,
    ) -> Result<(Pending<'_>, StoredBlob), ResourceError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut body = pin!(body);
        let mut writer = self.blobs.writer().await?;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| ResourceError::Body(error.into()))?;
            let size = writer.written() + bytes.len() as u64;
            if size > self.limits.max_size_bytes {
                return Err(self.too_large());
            }
            check_size(expected, size, |size, expected| size <= expected)?;
            reservation.grow_to(size)?;
            writer.write(bytes).await?;
        }
        if writer.written() == 0 {
            return Err(empty());
        }
        check_size(expected, writer.written(), |size, expected| {
            size == expected
        })?;
        // From here on a dropped upload may leave a whole file.
        let pending = Pending {
            inner: self,
            id: Some(writer.id()),
            activity: writer.activity(),
            _reservation: reservation,
        };
        let blob = writer.finish().await?;
        match expected.sha256 {
            Some(sha256) if sha256 != blob.digests.sha256 => {
                pending.settle(None).await;
                Err(ResourceError::DigestMismatch {
                    expected: hex::encode(sha256),
                    actual: hex::encode(blob.digests.sha256),
                })
            }
            _ => Ok((pending, blob)),
        }
    }

    /// Deletes what dropped uploads left, unless it became a resource's after all. What may still change is left
    /// for the next time.
    async fn delete_strays(&self) -> Result<(), ResourceError> {
        let settled: Vec<BlobId> = {
            let strays = self.strays.lock();
            let settled = strays
                .iter()
                .filter(|stray| stray.activity.strong_count() == 0);
            settled.map(|stray| stray.id).collect()
        };
        for id in settled {
            if !self.registry.has_blob(&id).await? {
                self.blobs.delete(&id).await?;
            }
            self.strays.lock().retain(|stray| stray.id != id);
        }
        Ok(())
    }

    const fn too_large(&self) -> ResourceError {
        ResourceError::TooLarge {
            limit: self.limits.max_size_bytes,
        }
    }
}

/// A whole blob that is not yet, or not any more, a resource's.
struct Pending<'i> {
    inner: &'i Inner,
    /// `None` once it is certain whose it is.
    id: Option<BlobId>,
    activity: Weak<()>,
    _reservation: Reservation,
}

/// A blob of a dropped upload.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) id: BlobId,
    /// Alive as long as its file may still come into being.
    activity: Weak<()>,
}

impl Pending<'_> {
    /// Ends the wait: the bytes are `used` in this blob, or in another that had them before, or not at all.
    async fn settle(mut self, used: Option<BlobId>) {
        if let Some(id) = self.id
            && used != Some(id)
        {
            self.inner.delete_blobs(vec![id]).await;
        }
        self.id = None;
    }

    /// Ends the wait with the registry's refusal. When it failed instead, it may still have stored the resource:
    /// the next upload looks.
    async fn refuse(self, error: StoreError) -> ResourceError {
        if !matches!(error, StoreError::Database(_)) {
            self.settle(None).await;
        }
        error.into()
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.strays.lock().push(Stray {
                id,
                activity: Weak::clone(&self.activity),
            });
        }
    }
}

fn version(blob: StoredBlob, at: Millis) -> NewVersion {
    NewVersion {
        blob: blob.id,
        digests: blob.digests,
        at,
    }
}

fn check_size(
    expected: &Expected,
    actual: u64,
    fits: impl Fn(u64, u64) -> bool,
) -> Result<(), ResourceError> {
    match expected.size {
        Some(expected) if !fits(actual, expected) => {
            Err(ResourceError::SizeMismatch { expected, actual })
        }
        _ => Ok(()),
    }
}

fn empty() -> ResourceError {
    InvalidField::new("content", "is empty").into()
}
