//! Versions of resources, and the count of references to each blob.

use crate::{
    model::{AuditEntry, BlobId, Digests, Id, Millis, Resource, ResourceVersion},
    store::{
        StoreError,
        registry::{
            Registry, Tx,
            resource::{self, QuotaLimits},
            rows::{Fields, stored},
        },
    },
};

/// Stored bytes that become a version of a resource.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Where they are.
    pub blob: BlobId,
    /// What is known of them.
    pub digests: Digests,
    /// When.
    pub at: Millis,
}

impl Registry {
    /// Gives a resource new bytes as its next version. Returns the resource as it is then, and the blob that
    /// holds its bytes (see [`Registry::insert_resource`]).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Quota`].
    pub async fn insert_version(
        &self,
        id: Id,
        version: &NewVersion,
        limits: QuotaLimits,
        audit: &AuditEntry,
    ) -> Result<(Resource, BlobId), StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE resource SET version = version + 1, size = $1, sha256 = $2, md5 = $3, updated_at = $4 \
             WHERE id = $5 RETURNING id, product_id, name, description, version, size, sha256, md5, created_at, \
             updated_at",
        )
        .bind(stored(version.digests.size))
        .bind(version.digests.sha256.as_slice())
        .bind(version.digests.md5.as_slice())
        .bind(version.at.as_i64())
        .bind(id.as_i64())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(StoreError::NotFound { what: "resource" })?;
        let resource = resource::read(&row)?;
        resource::check_quota(&mut tx, limits).await?;
        let blob = store(&mut tx, id, resource.version, version).await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok((resource, blob))
    }

    /// Deletes a resource's old versions that no open task delivers. Returns the blobs that nothing refers to
    /// any more.
    pub async fn purge_versions(&self, id: Id) -> Result<Vec<BlobId>, StoreError> {
        let mut tx = self.begin().await?;
        let freed = delete(&mut tx, id, UNUSED_VERSIONS).await?;
        tx.commit().await?;
        Ok(freed)
    }

    /// Resources that have more versions than their current one.
    pub async fn resources_with_old_versions(&self) -> Result<Vec<Id>, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT v.resource_id FROM resource_version v JOIN resource r ON r.id = v.resource_id \
             WHERE v.version <> r.version",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| Fields(row).id("resource_id"))
            .collect()
    }

    /// One version of a resource.
    pub async fn resource_version(
        &self,
        id: Id,
        version: u32,
    ) -> Result<Option<ResourceVersion>, StoreError> {
        let row = sqlx::query(
            "SELECT size, sha256, md5, part_digests, blob_id, created_at FROM resource_version \
             WHERE resource_id = $1 AND version = $2",
        )
        .bind(id.as_i64())
        .bind(i64::from(version))
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| {
            let fields = Fields(&row);
            Ok(ResourceVersion {
                resource_id: id,
                version,
                size: fields.number("size")?,
                sha256: fields.digest("sha256")?,
                md5: fields.digest("md5")?,
                part_digests: fields.bytes("part_digests")?.to_vec().into(),
                blob: fields.blob("blob_id")?,
                created_at: fields.time("created_at")?,
            })
        })
        .transpose()
    }

    /// Whether something refers to a blob. Answered in turn with all changes: one that was dropped half-way has
    /// happened or not by then.
    pub async fn has_blob(&self, blob: &BlobId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM blob WHERE id = $1")
            .bind(blob.to_string())
            .fetch_optional(&self.write)
            .await?;
        Ok(row.is_some())
    }

    /// Every blob that something refers to.
    pub async fn blobs(&self) -> Result<Vec<BlobId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM blob")
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(|row| Fields(row).blob("id")).collect()
    }
}

/// Stores a version and counts its reference to the bytes; equal bytes are kept once.
pub(super) async fn store(
    tx: &mut Tx,
    resource: Id,
    number: u32,
    version: &NewVersion,
) -> Result<BlobId, StoreError> {
    let digests = &version.digests;
    let row = sqlx::query(
        "INSERT INTO blob (id, sha256, size, refs, created_at) VALUES ($1, $2, $3, 1, $4) \
         ON CONFLICT (sha256) DO UPDATE SET refs = blob.refs + 1 RETURNING id",
    )
    .bind(version.blob.to_string())
    .bind(digests.sha256.as_slice())
    .bind(stored(digests.size))
    .bind(version.at.as_i64())
    .fetch_one(&mut **tx)
    .await?;
    let blob = Fields(&row).blob("id")?;
    sqlx::query(
        "INSERT INTO resource_version (resource_id, version, size, sha256, md5, part_digests, blob_id, \
         created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(resource.as_i64())
    .bind(i64::from(number))
    .bind(stored(digests.size))
    .bind(digests.sha256.as_slice())
    .bind(digests.md5.as_slice())
    .bind(&digests.part_digests[..])
    .bind(blob.to_string())
    .bind(version.at.as_i64())
    .execute(&mut **tx)
    .await?;
    Ok(blob)
}

/// The statements that count, delete and free a choice of a resource's versions.
pub(super) struct VersionChoice {
    unref: &'static str,
    delete: &'static str,
}

pub(super) async fn delete(
    tx: &mut Tx,
    resource: Id,
    choice: VersionChoice,
) -> Result<Vec<BlobId>, StoreError> {
    for statement in [choice.unref, choice.delete] {
        sqlx::query(statement)
            .bind(resource.as_i64())
            .execute(&mut **tx)
            .await?;
    }
    let rows = sqlx::query("DELETE FROM blob WHERE refs <= 0 RETURNING id")
        .fetch_all(&mut **tx)
        .await?;
    rows.iter().map(|row| Fields(row).blob("id")).collect()
}

pub(super) const ALL_VERSIONS: VersionChoice = VersionChoice {
    unref: "UPDATE blob SET refs = refs - \
         (SELECT COUNT(*) FROM resource_version v WHERE v.blob_id = blob.id AND v.resource_id = $1) \
         WHERE id IN (SELECT blob_id FROM resource_version WHERE resource_id = $1)",
    delete: "DELETE FROM resource_version WHERE resource_id = $1",
};
const UNUSED_VERSIONS: VersionChoice = VersionChoice {
    unref: "UPDATE blob SET refs = refs - \
         (SELECT COUNT(*) FROM resource_version v JOIN resource r ON r.id = v.resource_id \
          WHERE v.blob_id = blob.id AND v.resource_id = $1 AND v.version <> r.version AND NOT EXISTS \
          (SELECT 1 FROM task t WHERE t.resource_id = v.resource_id AND t.resource_version = v.version \
           AND t.run IN ('scheduled', 'running', 'paused'))) \
         WHERE id IN (SELECT blob_id FROM resource_version WHERE resource_id = $1)",
    delete: "DELETE FROM resource_version WHERE resource_id = $1 \
         AND version <> (SELECT r.version FROM resource r WHERE r.id = $1) AND NOT EXISTS \
         (SELECT 1 FROM task t WHERE t.resource_id = $1 AND t.resource_version = resource_version.version \
          AND t.run IN ('scheduled', 'running', 'paused'))",
};
