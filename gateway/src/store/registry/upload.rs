//! What devices upload: announced, stored, listed and deleted.
//!
//! Changes come in batches of one transaction, since thousands of devices announce and finish at once. How much
//! there is in all stands in a row of its own that every change keeps right.

mod claim;

use headgate_protocol::identity::{DeviceId, ProductId};
use sqlx::any::AnyRow;

pub use self::claim::{OpenUpload, UploadNote};

use crate::{
    model::{AuditEntry, BlobId, Digests, Id, Millis, Page, Paged, Upload, UploadPhase},
    store::{
        StoreError,
        registry::{
            Registry, Tx, id_cursor,
            rows::{Fields, stored},
            sql::Sql,
        },
    },
};

/// How much there may be, of what is stored and of what is announced together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Uploads of one device.
    pub max_count_per_device: u64,
    /// Bytes of one device.
    pub max_bytes_per_device: u64,
    /// Uploads over all devices.
    pub max_count: u64,
    /// Bytes over all devices.
    pub max_total_bytes: u64,
}

/// One change of what there is.
#[derive(Clone, Debug)]
pub enum UploadChange {
    /// A device announced this; refused with [`StoreError::Quota`].
    Announce {
        /// What it announced.
        upload: Upload,
        /// An unfinished one that it takes the place of.
        instead_of: Option<Id>,
        /// How much there may be.
        limits: UploadLimits,
    },
    /// Its bytes are stored.
    Store {
        /// Which.
        id: Id,
        /// The taking of it by which it is done: another node's is in the way of it.
        claim: i64,
        /// Where its bytes are.
        blob: BlobId,
        /// What is known of them.
        digests: Digests,
        /// When.
        at: Millis,
    },
    /// It is no more, unfinished or stored.
    Delete {
        /// Which.
        id: Id,
        /// An unfinished one only where this is still the last taking of it; `None`: whoever has it.
        claim: Option<i64>,
        /// Who did that, where somebody asked for it.
        audit: Option<AuditEntry>,
    },
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredUpload {
    /// Whether there was what was to be changed.
    pub found: bool,
    /// The blob that holds the bytes now: another one than the given when the same bytes were there already.
    pub blob: Option<BlobId>,
    /// Blobs that nothing refers to any more.
    pub freed: Vec<BlobId>,
}

/// Which uploads a list holds; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadFilter {
    /// Of this device.
    pub device: Option<DeviceId>,
    /// Of devices of this product.
    pub product: Option<ProductId>,
    /// Of this name.
    pub name: Option<String>,
    /// In this phase.
    pub phase: Option<UploadPhase>,
    /// Announced at this time or later.
    pub since: Option<Millis>,
    /// Announced before this time.
    pub until: Option<Millis>,
}

impl Registry {
    /// Carries out changes in one transaction and tells what each came to: a change that is refused changes
    /// nothing and holds up no other.
    ///
    /// # Errors
    /// What the database says; nothing was changed then. Of each change [`StoreError::Quota`].
    pub async fn change_uploads(
        &self,
        changes: &[UploadChange],
    ) -> Result<Vec<Result<StoredUpload, StoreError>>, StoreError> {
        let mut tx = self.begin().await?;
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                UploadChange::Announce {
                    upload,
                    instead_of,
                    limits,
                } => match announce(&mut tx, upload, *instead_of, *limits).await {
                    Err(refused @ StoreError::Quota { .. }) => Err(refused),
                    done => Ok(done?),
                },
                UploadChange::Store {
                    id,
                    claim,
                    blob,
                    digests,
                    at,
                } => {
                    if is_held(&mut tx, *id, *claim).await? {
                        Ok(store(&mut tx, *id, *blob, digests, *at).await?)
                    } else {
                        Ok(StoredUpload::default())
                    }
                }
                UploadChange::Delete { id, claim, audit } => {
                    let may = match claim {
                        Some(claim) => is_held(&mut tx, *id, *claim).await?,
                        None => true,
                    };
                    let deleted = if may {
                        delete(&mut tx, *id).await?
                    } else {
                        StoredUpload::default()
                    };
                    if let Some(audit) = audit.as_ref().filter(|_| deleted.found) {
                        self.record_in(&mut tx, audit).await?;
                    }
                    Ok(deleted)
                }
            });
        }
        tx.commit().await?;
        Ok(outcomes)
    }

    /// The upload of an id.
    pub async fn upload(&self, id: Id) -> Result<Option<Upload>, StoreError> {
        let row = sqlx::query(SELECT_ONE)
            .bind(id.as_i64())
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// What is stored of a device under a name.
    pub async fn stored_upload(
        &self,
        device: &DeviceId,
        name: &str,
    ) -> Result<Option<Upload>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE device_id = ")
            .bind(device.as_str())
            .push(" AND name = ")
            .bind(name)
            .push(" AND state = 1");
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// Every upload that is not stored yet, by id.
    pub async fn open_uploads(&self) -> Result<Vec<Upload>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE state = 0 ORDER BY id");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }

    /// Uploads, newest first.
    pub async fn uploads(
        &self,
        filter: &UploadFilter,
        page: &Page,
    ) -> Result<Paged<Upload>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE 1 = 1");
        if let Some(device) = &filter.device {
            sql.push(" AND device_id = ").bind(device.as_str());
        }
        if let Some(product) = &filter.product {
            sql.push(" AND product_id = ").bind(product.as_str());
        }
        if let Some(name) = &filter.name {
            sql.push(" AND name = ").bind(name.as_str());
        }
        if let Some(phase) = filter.phase {
            // As literals: only then the index of open ones is seen to fit.
            sql.push(match phase {
                UploadPhase::Stored => " AND state = 1",
                UploadPhase::Receiving => " AND state = 0",
            });
        }
        if let Some(since) = filter.since {
            sql.push(" AND created_at >= ").bind(since.as_i64());
        }
        if let Some(until) = filter.until {
            sql.push(" AND created_at < ").bind(until.as_i64());
        }
        if let Some(before) = id_cursor(page)? {
            sql.push(" AND id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let uploads = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(uploads, page.limit, |upload| {
            upload.id.to_string()
        }))
    }

    /// Some of the uploads that were stored before a time, the oldest first.
    pub async fn uploads_stored_before(
        &self,
        time: Millis,
        most: u32,
    ) -> Result<Vec<Id>, StoreError> {
        let mut sql = Sql::new("SELECT id FROM device_resource WHERE state = 1 AND finished_at < ");
        sql.bind(time.as_i64())
            .push(" ORDER BY finished_at LIMIT ")
            .bind(i64::from(most));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(|row| Fields(row).id("id")).collect()
    }
}

async fn announce(
    tx: &mut Tx,
    upload: &Upload,
    instead_of: Option<Id>,
    limits: UploadLimits,
) -> Result<StoredUpload, StoreError> {
    // What it replaces once it is whole does not count against its own device.
    let row = sqlx::query(
        "SELECT COUNT(*) AS uploads, CAST(COALESCE(SUM(size), 0) AS BIGINT) AS bytes FROM device_resource \
         WHERE device_id = $1 AND id <> $2 AND name <> $3",
    )
    .bind(upload.device_id.as_str())
    .bind(instead_of.map_or(0, Id::as_i64))
    .bind(upload.name.as_str())
    .fetch_one(&mut **tx)
    .await?;
    let (count, bytes): (u64, u64) = (
        Fields(&row).number("uploads")?,
        Fields(&row).number("bytes")?,
    );
    within(
        "uploads",
        count.saturating_add(1),
        limits.max_count_per_device,
    )?;
    within(
        "bytes",
        bytes.saturating_add(upload.size),
        limits.max_bytes_per_device,
    )?;
    let replaced = match instead_of {
        Some(id) => size_of_open(tx, id).await?,
        None => None,
    };
    let row = sqlx::query("SELECT uploads, bytes FROM upload_usage WHERE account_id = 1")
        .fetch_one(&mut **tx)
        .await?;
    let (count, bytes): (u64, u64) = (
        Fields(&row).number("uploads")?,
        Fields(&row).number("bytes")?,
    );
    let count = count.saturating_add(u64::from(replaced.is_none()));
    let bytes = bytes
        .saturating_sub(replaced.unwrap_or(0))
        .saturating_add(upload.size);
    within("uploads", count, limits.max_count)?;
    within("bytes", bytes, limits.max_total_bytes)?;
    if let Some(id) = replaced.and(instead_of) {
        delete(tx, id).await?;
    }
    insert(tx, upload).await?;
    count_usage(tx, 1, stored(upload.size)).await?;
    Ok(StoredUpload {
        found: true,
        ..StoredUpload::default()
    })
}

fn within(unit: &'static str, value: u64, limit: u64) -> Result<(), StoreError> {
    if value > limit {
        return Err(StoreError::Quota { unit, limit });
    }
    Ok(())
}

async fn insert(tx: &mut Tx, upload: &Upload) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO device_resource (id, account_id, device_id, product_id, node_id, name, version, state, size, \
         md5, sha256, created_at, noted_at) VALUES (",
    );
    sql.bind(upload.id.as_i64())
        .push(", 1, ")
        .bind(upload.device_id.as_str())
        .push(", ")
        .bind(upload.product_id.as_str())
        .push(", ")
        .bind(upload.node_id.as_str())
        .push(", ")
        .bind(upload.name.as_str())
        .push(", 0, 0, ")
        .bind(stored(upload.size))
        .push(", ")
        .bind(upload.md5.map(Vec::from))
        .push(", ")
        .bind(upload.sha256.map(Vec::from))
        .push(", ")
        .bind(upload.created_at.as_i64())
        .push(", ")
        .push(tx.dialect().now())
        .push(")");
    sql.build(tx.dialect())?.execute(&mut **tx).await?;
    Ok(())
}

async fn store(
    tx: &mut Tx,
    id: Id,
    blob: BlobId,
    digests: &Digests,
    at: Millis,
) -> Result<StoredUpload, StoreError> {
    let mut outcome = StoredUpload::default();
    let row = sqlx::query(SELECT_ONE)
        .bind(id.as_i64())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(upload) = row.as_ref().map(read).transpose()? else {
        return Ok(outcome);
    };
    let row = sqlx::query(
        "INSERT INTO blob (id, sha256, size, refs, created_at) VALUES ($1, $2, $3, 1, $4) \
         ON CONFLICT (sha256) DO UPDATE SET refs = blob.refs + 1 RETURNING id",
    )
    .bind(blob.to_string())
    .bind(digests.sha256.as_slice())
    .bind(stored(digests.size))
    .bind(at.as_i64())
    .fetch_one(&mut **tx)
    .await?;
    let used = Fields(&row).blob("id")?;
    let mut sql = Sql::new("SELECT id, version FROM device_resource WHERE device_id = ");
    sql.bind(upload.device_id.as_str())
        .push(" AND name = ")
        .bind(upload.name.as_str())
        .push(" AND state = 1");
    let former = sql.build(tx.dialect())?.fetch_optional(&mut **tx).await?;
    let mut version = 1;
    if let Some(row) = &former {
        let fields = Fields(row);
        version = fields.int("version")? + 1;
        outcome.freed = delete(tx, fields.id("id")?).await?.freed;
    }
    sqlx::query(
        "UPDATE device_resource SET state = 1, version = $1, md5 = $2, sha256 = $3, blob_id = $4, finished_at = $5 \
         WHERE id = $6",
    )
    .bind(version)
    .bind(digests.md5.as_slice())
    .bind(digests.sha256.as_slice())
    .bind(used.to_string())
    .bind(at.as_i64())
    .bind(id.as_i64())
    .execute(&mut **tx)
    .await?;
    outcome.found = true;
    outcome.blob = Some(used);
    Ok(outcome)
}

async fn delete(tx: &mut Tx, id: Id) -> Result<StoredUpload, StoreError> {
    let mut outcome = StoredUpload::default();
    let row = sqlx::query("DELETE FROM device_resource WHERE id = $1 RETURNING size, blob_id")
        .bind(id.as_i64())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else {
        return Ok(outcome);
    };
    let fields = Fields(&row);
    outcome.found = true;
    count_usage(tx, -1, -fields.int("size")?).await?;
    if let Some(blob) = fields.optional_text("blob_id")? {
        sqlx::query("UPDATE blob SET refs = refs - 1 WHERE id = $1")
            .bind(blob.as_str())
            .execute(&mut **tx)
            .await?;
        let freed = sqlx::query("DELETE FROM blob WHERE id = $1 AND refs <= 0 RETURNING id")
            .bind(blob.as_str())
            .fetch_optional(&mut **tx)
            .await?;
        if let Some(row) = &freed {
            outcome.freed.push(Fields(row).blob("id")?);
        }
    }
    Ok(outcome)
}

/// Whether an upload is not stored yet and this is the last taking of it.
async fn is_held(tx: &mut Tx, id: Id, claim: i64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT claim FROM device_resource WHERE id = $1 AND state = 0")
        .bind(id.as_i64())
        .fetch_optional(&mut **tx)
        .await?;
    let held = row.map(|row| Fields(&row).int("claim")).transpose()?;
    Ok(held == Some(claim))
}

/// The size of an upload that has not been stored meanwhile.
async fn size_of_open(tx: &mut Tx, id: Id) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query("SELECT size FROM device_resource WHERE id = $1 AND state = 0")
        .bind(id.as_i64())
        .fetch_optional(&mut **tx)
        .await?;
    row.map(|row| Fields(&row).number("size")).transpose()
}

async fn count_usage(tx: &mut Tx, uploads: i64, bytes: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE upload_usage SET uploads = uploads + $1, bytes = bytes + $2 WHERE account_id = 1",
    )
    .bind(uploads)
    .bind(bytes)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Upload, StoreError> {
    let fields = Fields(row);
    let blob = fields.optional_text("blob_id")?;
    Ok(Upload {
        id: fields.id("id")?,
        device_id: fields.parsed("device_id")?,
        product_id: fields.parsed("product_id")?,
        node_id: fields.parsed("node_id")?,
        name: fields.text("name")?.to_owned(),
        version: fields.number("version")?,
        size: fields.number("size")?,
        md5: fields.optional_digest("md5")?,
        sha256: fields.optional_digest("sha256")?,
        blob: match blob {
            Some(_) => Some(fields.blob("blob_id")?),
            None => None,
        },
        created_at: fields.time("created_at")?,
        finished_at: fields.optional_time("finished_at")?,
    })
}

const SELECT: &str = "SELECT id, device_id, product_id, node_id, name, version, size, md5, sha256, blob_id, \
     created_at, finished_at FROM device_resource";
const SELECT_ONE: &str = "SELECT id, device_id, product_id, node_id, name, version, size, md5, sha256, blob_id, \
     created_at, finished_at FROM device_resource WHERE id = $1";
