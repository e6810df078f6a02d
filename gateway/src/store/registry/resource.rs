//! Resources, their versions and the count of references to each blob.

use headgate_protocol::identity::{ProductId, ResourceName};
use sqlx::{Any, Transaction, any::AnyRow};

use crate::{
    model::{
        AuditEntry, BlobId, Digests, Id, Millis, Page, Paged, Resource, ResourceVersion,
        StateCounts,
    },
    store::{
        StoreError,
        registry::{
            Registry,
            rows::{Fields, stored},
            sql::{self, Sql},
        },
    },
};

/// Which resources a list holds; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceFilter {
    /// Of this product.
    pub product: Option<ProductId>,
    /// Whose name or description holds this text, in any case.
    pub text: Option<String>,
}

/// What is changed of a resource; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePatch {
    /// Its name.
    pub name: Option<ResourceName>,
    /// Its description.
    pub description: Option<String>,
}

/// How much there may be of all resources' current versions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Resources.
    pub max_count: u64,
    /// Bytes.
    pub max_total_bytes: u64,
}

/// How much there is of all resources' current versions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resources.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

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
    /// Stores a new resource with its first version. Returns the blob that holds its bytes: another one than the
    /// given when the same bytes were there already, and then the given one belongs to nobody.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the product, [`StoreError::Conflict`] when the name is taken in it,
    /// [`StoreError::Quota`] when it is one resource or some bytes too many.
    pub async fn insert_resource(
        &self,
        resource: &Resource,
        version: &NewVersion,
        limits: QuotaLimits,
        audit: &AuditEntry,
    ) -> Result<BlobId, StoreError> {
        let mut tx = self.begin().await?;
        let product = sqlx::query("SELECT 1 FROM product WHERE id = $1")
            .bind(resource.product_id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if product.is_none() {
            return Err(StoreError::NotFound { what: "product" });
        }
        let inserted = sqlx::query(
            "INSERT INTO resource (id, product_id, name, description, version, size, sha256, md5, created_at, \
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        )
        .bind(resource.id.as_i64())
        .bind(resource.product_id.as_str())
        .bind(resource.name.as_str())
        .bind(resource.description.as_str())
        .bind(i64::from(resource.version))
        .bind(stored(version.digests.size))
        .bind(version.digests.sha256.as_slice())
        .bind(version.digests.md5.as_slice())
        .bind(resource.created_at.as_i64())
        .bind(resource.updated_at.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            return Err(name_taken(&mut tx, &resource.product_id, &resource.name).await?);
        }
        check_quota(&mut tx, limits).await?;
        let blob = insert_version(&mut tx, resource.id, resource.version, version).await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(blob)
    }

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
        let resource = read(&row)?;
        check_quota(&mut tx, limits).await?;
        let blob = insert_version(&mut tx, id, resource.version, version).await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok((resource, blob))
    }

    /// Changes a resource's name or description and returns it as it is then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`] when the name is taken in its product.
    pub async fn patch_resource(
        &self,
        id: Id,
        patch: &ResourcePatch,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<Resource, StoreError> {
        let mut tx = self.begin().await?;
        let before = one(&mut tx, id).await?;
        if let Some(name) = &patch.name {
            let other = sqlx::query(
                "SELECT id FROM resource WHERE product_id = $1 AND name = $2 AND id <> $3",
            )
            .bind(before.product_id.as_str())
            .bind(name.as_str())
            .bind(id.as_i64())
            .fetch_optional(&mut *tx)
            .await?;
            if other.is_some() {
                return Err(name_taken(&mut tx, &before.product_id, name).await?);
            }
        }
        sqlx::query(
            "UPDATE resource SET name = COALESCE($1, name), description = COALESCE($2, description), \
             updated_at = $3 WHERE id = $4",
        )
        .bind(patch.name.as_ref().map(ToString::to_string))
        .bind(patch.description.clone())
        .bind(at.as_i64())
        .bind(id.as_i64())
        .execute(&mut *tx)
        .await?;
        let after = one(&mut tx, id).await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Deletes a resource with all its versions. Returns the blobs that nothing refers to any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::InUse`] by a task that has not ended.
    pub async fn delete_resource(
        &self,
        id: Id,
        audit: &AuditEntry,
    ) -> Result<Vec<BlobId>, StoreError> {
        let mut tx = self.begin().await?;
        let task = sqlx::query(
            "SELECT id FROM task WHERE resource_id = $1 AND run IN ('scheduled', 'running', 'paused') LIMIT 1",
        )
        .bind(id.as_i64())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = task {
            return Err(StoreError::InUse {
                what: "resource",
                by: format!("task {}", Fields(&row).id("id")?),
            });
        }
        let freed = delete_versions(&mut tx, id, ALL_VERSIONS).await?;
        let deleted = sqlx::query("DELETE FROM resource WHERE id = $1")
            .bind(id.as_i64())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Err(StoreError::NotFound { what: "resource" });
        }
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(freed)
    }

    /// Deletes a resource's old versions that no open task delivers. Returns the blobs that nothing refers to
    /// any more.
    pub async fn purge_versions(&self, id: Id) -> Result<Vec<BlobId>, StoreError> {
        let mut tx = self.begin().await?;
        let freed = delete_versions(&mut tx, id, UNUSED_VERSIONS).await?;
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

    /// How much there is of all resources' current versions together.
    pub async fn resource_usage(&self) -> Result<Usage, StoreError> {
        let row = sqlx::query(USAGE).fetch_one(&self.read).await?;
        usage(&row)
    }

    /// The resource of an id.
    pub async fn resource(&self, id: Id) -> Result<Option<Resource>, StoreError> {
        let row = sqlx::query(SELECT_ONE)
            .bind(id.as_i64())
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The resource of a name in a product.
    pub async fn resource_by_name(
        &self,
        product: &ProductId,
        name: &ResourceName,
    ) -> Result<Option<Resource>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE product_id = ")
            .bind(product.as_str())
            .push(" AND name = ")
            .bind(name.as_str());
        let row = sql.build()?.fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// Resources, newest first.
    pub async fn resources(
        &self,
        filter: &ResourceFilter,
        page: &Page,
    ) -> Result<Paged<Resource>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE 1 = 1");
        if let Some(product) = &filter.product {
            sql.push(" AND product_id = ").bind(product.as_str());
        }
        if let Some(text) = &filter.text {
            let pattern = sql::contains(text);
            sql.push(" AND (LOWER(name) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\' OR LOWER(description) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\')");
        }
        if let Some(before) = super::id_cursor(page)? {
            sql.push(" AND id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build()?.fetch_all(&self.read).await?;
        let resources = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(resources, page.limit, |resource| {
            resource.id.to_string()
        }))
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

    /// How many deliveries of a resource, of all its versions and tasks, are in each state.
    pub async fn resource_statistics(&self, id: Id) -> Result<StateCounts, StoreError> {
        let rows = sqlx::query(
            "SELECT d.state, COUNT(*) AS deliveries FROM task t JOIN delivery d ON d.task_id = t.id \
             WHERE t.resource_id = $1 GROUP BY d.state",
        )
        .bind(id.as_i64())
        .fetch_all(&self.read)
        .await?;
        let mut counts = StateCounts::default();
        for row in &rows {
            let fields = Fields(row);
            *counts.of_mut(fields.state("state")?) = fields.number("deliveries")?;
        }
        Ok(counts)
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
async fn insert_version(
    tx: &mut Transaction<'static, Any>,
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
struct VersionChoice {
    unref: &'static str,
    delete: &'static str,
}

async fn delete_versions(
    tx: &mut Transaction<'static, Any>,
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

async fn check_quota(
    tx: &mut Transaction<'static, Any>,
    limits: QuotaLimits,
) -> Result<(), StoreError> {
    let row = sqlx::query(USAGE).fetch_one(&mut **tx).await?;
    let usage = usage(&row)?;
    if usage.count > limits.max_count {
        return Err(StoreError::Quota {
            unit: "resources",
            limit: limits.max_count,
        });
    }
    if usage.bytes > limits.max_total_bytes {
        return Err(StoreError::Quota {
            unit: "bytes",
            limit: limits.max_total_bytes,
        });
    }
    Ok(())
}

async fn name_taken(
    tx: &mut Transaction<'static, Any>,
    product: &ProductId,
    name: &ResourceName,
) -> Result<StoreError, StoreError> {
    let row = sqlx::query("SELECT id FROM resource WHERE product_id = $1 AND name = $2")
        .bind(product.as_str())
        .bind(name.as_str())
        .fetch_one(&mut **tx)
        .await?;
    Ok(StoreError::Conflict {
        what: "resource name",
        with: format!("resource {}", Fields(&row).id("id")?),
    })
}

async fn one(tx: &mut Transaction<'static, Any>, id: Id) -> Result<Resource, StoreError> {
    let row = sqlx::query(SELECT_ONE)
        .bind(id.as_i64())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound { what: "resource" })?;
    read(&row)
}

fn usage(row: &AnyRow) -> Result<Usage, StoreError> {
    let fields = Fields(row);
    Ok(Usage {
        count: fields.number("resources")?,
        bytes: fields.number("bytes")?,
    })
}

fn read(row: &AnyRow) -> Result<Resource, StoreError> {
    let fields = Fields(row);
    Ok(Resource {
        id: fields.id("id")?,
        product_id: fields.parsed("product_id")?,
        name: fields.parsed("name")?,
        description: fields.text("description")?.to_owned(),
        version: fields.number("version")?,
        size: fields.number("size")?,
        sha256: fields.digest("sha256")?,
        md5: fields.digest("md5")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

const SELECT: &str = "SELECT id, product_id, name, description, version, size, sha256, md5, created_at, \
     updated_at FROM resource";
const SELECT_ONE: &str = "SELECT id, product_id, name, description, version, size, sha256, md5, created_at, \
     updated_at FROM resource WHERE id = $1";
const USAGE: &str =
    "SELECT COUNT(*) AS resources, CAST(COALESCE(SUM(size), 0) AS BIGINT) AS bytes FROM resource";

const ALL_VERSIONS: VersionChoice = VersionChoice {
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
