//! Resources and their quota.

use headgate_protocol::identity::{ProductId, ResourceName};
use sqlx::any::AnyRow;

use crate::{
    model::{AuditEntry, BlobId, Id, Millis, Page, Paged, Resource, StateCounts},
    store::{
        StoreError,
        registry::{
            Registry, Tx, counts,
            rows::{Fields, stored},
            sql::{self, Sql},
            version::{self, ALL_VERSIONS, NewVersion},
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
    /// The `updated_at` that it must still have.
    pub revision: Option<Millis>,
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
        let blob = version::store(&mut tx, resource.id, resource.version, version).await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(blob)
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
        let updated = sqlx::query(
            "UPDATE resource SET name = COALESCE($1, name), description = COALESCE($2, description), \
             updated_at = $3 WHERE id = $4 AND updated_at = COALESCE($5, updated_at)",
        )
        .bind(patch.name.as_ref().map(ToString::to_string))
        .bind(patch.description.clone())
        .bind(super::after(before.updated_at, at).as_i64())
        .bind(id.as_i64())
        .bind(patch.revision.map(Millis::as_i64))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        super::was_current("resource", updated)?;
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
        let freed = version::delete(&mut tx, id, ALL_VERSIONS).await?;
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
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
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
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let resources = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(resources, page.limit, |resource| {
            resource.id.to_string()
        }))
    }

    /// How many deliveries of a resource, of all its versions and tasks, are in each state.
    pub async fn resource_statistics(&self, id: Id) -> Result<StateCounts, StoreError> {
        let mut sql = Sql::new(counts::SUMS);
        sql.push(" WHERE resource_id = ").bind(id.as_i64());
        let row = sql.build(self.dialect)?.fetch_one(&self.read).await?;
        counts::read(&row)
    }
}

pub(super) async fn check_quota(tx: &mut Tx, limits: QuotaLimits) -> Result<(), StoreError> {
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
    tx: &mut Tx,
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

async fn one(tx: &mut Tx, id: Id) -> Result<Resource, StoreError> {
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

pub(super) fn read(row: &AnyRow) -> Result<Resource, StoreError> {
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
