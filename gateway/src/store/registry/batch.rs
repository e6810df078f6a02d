//! Batches of devices: the file's progress and the rows' outcomes.

mod block;

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use sqlx::any::AnyRow;

pub use self::block::{Block, Candidate, Committed};
use crate::{
    model::{
        AuditEntry, BatchRow, BatchRowCode, BatchRowError, BatchState, Device, DeviceBatch,
        Fingerprint, Id, Millis, Page, Paged, RowCounts, RowState,
    },
    store::{
        StoreError,
        registry::{
            BLOCK, Registry, device,
            rows::{self, Fields},
            sql::Sql,
        },
    },
};

/// A registered device as far as a row can be compared with it.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The device.
    pub device: Device,
    /// Its secrets, sealed.
    pub secrets: Vec<Box<[u8]>>,
    /// Its fingerprints.
    pub fingerprints: Vec<Fingerprint>,
}

/// A row with the secret that was made for it, where it is still the device's.
#[derive(Clone, Debug)]
pub struct RowWithSecret {
    /// The row.
    pub row: BatchRow,
    /// The secret, sealed.
    pub sealed: Option<Box<[u8]>>,
}

impl Registry {
    /// Stores a batch whose file is there, unless `max_open` batches are open already; says whether it did.
    pub async fn insert_batch(
        &self,
        batch: &DeviceBatch,
        max_open: usize,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let open = sqlx::query(COUNT_OPEN).fetch_one(&mut *tx).await?;
        let open: usize = Fields(&open).number("open")?;
        if open >= max_open {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO device_batch (id, state, sha256, size, total, next_row, created, unchanged, failed, \
             created_by, created_at) VALUES ($1, $2, $3, $4, $5, 0, 0, 0, 0, $6, $7)",
        )
        .bind(batch.id.as_i64())
        .bind(batch.state.as_str())
        .bind(batch.sha256.as_slice())
        .bind(rows::stored(batch.size))
        .bind(i64::from(batch.total))
        .bind(batch.created_by.as_str())
        .bind(batch.created_at.as_i64())
        .execute(&mut *tx)
        .await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Batches that wait, and those that are running.
    pub async fn open_batches(&self) -> Result<(usize, usize), StoreError> {
        let row = sqlx::query(
            "SELECT COALESCE(SUM(CASE WHEN state = 'waiting' THEN 1 ELSE 0 END), 0) AS waiting, \
             COALESCE(SUM(CASE WHEN state = 'running' THEN 1 ELSE 0 END), 0) AS running \
             FROM device_batch WHERE state IN ('waiting', 'running')",
        )
        .fetch_one(&self.read)
        .await?;
        Ok((
            Fields(&row).number("waiting")?,
            Fields(&row).number("running")?,
        ))
    }

    /// A batch of the same file with which there is nothing more to do: it is open, or every row of it went well and
    /// every device of it is still there.
    pub async fn batch_of_file(
        &self,
        sha256: &[u8; 32],
    ) -> Result<Option<DeviceBatch>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE sha256 = ").bind(sha256.as_slice()).push(
            " AND (state IN ('waiting', 'running') OR (state = 'finished' AND failed = 0)) \
                 ORDER BY id DESC LIMIT 1",
        );
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        let Some(batch) = row.as_ref().map(read).transpose()? else {
            return Ok(None);
        };
        if !batch.has_ended() {
            return Ok(Some(batch));
        }
        let there = sqlx::query(
            "SELECT COUNT(*) AS there FROM device_batch_row r JOIN device d ON d.id = r.device_id \
             WHERE r.batch_id = $1",
        )
        .bind(batch.id.as_i64())
        .fetch_one(&self.read)
        .await?;
        let there: u32 = Fields(&there).number("there")?;
        Ok((there == batch.total).then_some(batch))
    }

    /// The batch of an id.
    pub async fn batch(&self, id: Id) -> Result<Option<DeviceBatch>, StoreError> {
        let mut sql = Sql::new(SELECT);
        sql.push(" WHERE id = ")
            .bind(id.as_i64())
            .push(" AND state <> 'deleting'");
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read).transpose()
    }

    /// Batches, newest first.
    pub async fn batches(
        &self,
        state: Option<BatchState>,
        page: &Page,
    ) -> Result<Paged<DeviceBatch>, StoreError> {
        let mut sql = Sql::new(SELECT);
        match state {
            Some(state) => sql.push(" WHERE state = ").bind(state.as_str()),
            None => sql.push(" WHERE state <> 'deleting'"),
        };
        if let Some(before) = super::id_cursor(page)? {
            sql.push(" AND id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let batches = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(batches, page.limit, |batch| {
            batch.id.to_string()
        }))
    }

    /// The batch whose turn it is, now running: one that was begun, else the oldest that waits.
    ///
    /// With `among`, one of these: where nodes share the registry, those whose files are on this one.
    pub async fn begin_batch(
        &self,
        now: Millis,
        among: Option<&[Id]>,
    ) -> Result<Option<DeviceBatch>, StoreError> {
        let mut sql = Sql::new("SELECT id FROM device_batch WHERE state IN ('running', 'waiting')");
        match among {
            Some([]) => return Ok(None),
            Some(among) => {
                sql.push(" AND id IN ")
                    .numbers(among.iter().map(|id| id.as_i64()));
            }
            None => {}
        }
        sql.push(" ORDER BY state, id LIMIT 1");
        let mut tx = self.begin().await?;
        let next = sql.build(tx.dialect())?.fetch_optional(&mut *tx).await?;
        let Some(next) = next else {
            return Ok(None);
        };
        let id = Fields(&next).id("id")?;
        sqlx::query(
            "UPDATE device_batch SET state = 'running', started_at = COALESCE(started_at, $1) WHERE id = $2",
        )
        .bind(now.as_i64())
        .bind(id.as_i64())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.batch(id).await
    }

    /// Ends a running batch; says whether it was running.
    pub async fn end_batch(
        &self,
        id: Id,
        error: Option<&str>,
        now: Millis,
        secrets_until: Millis,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let state = match error {
            None => BatchState::Finished,
            Some(_) => BatchState::Failed,
        };
        let mut tx = self.begin().await?;
        let ended = sqlx::query(
            "UPDATE device_batch SET state = $1, error = $2, finished_at = $3, secrets_until = $4 \
             WHERE id = $5 AND state = 'running'",
        )
        .bind(state.as_str())
        .bind(error.map(str::to_owned))
        .bind(now.as_i64())
        .bind(secrets_until.as_i64())
        .bind(id.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if ended == 0 {
            return Ok(false);
        }
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lets a batch that ended show no secret any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while it runs.
    pub async fn confirm_batch(&self, id: Id, audit: &AuditEntry) -> Result<(), StoreError> {
        self.change_ended(
            id,
            "UPDATE device_batch SET secrets_until = NULL WHERE id = $1",
            audit,
        )
        .await
    }

    /// Hides a batch that waits or ended; [`Registry::purge_batches`] deletes it. Its devices stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] while it runs.
    pub async fn delete_batch(&self, id: Id, audit: &AuditEntry) -> Result<(), StoreError> {
        self.change_ended(
            id,
            "UPDATE device_batch SET state = 'deleting' WHERE id = $1",
            audit,
        )
        .await
    }

    async fn change_ended(
        &self,
        id: Id,
        update: &'static str,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let row =
            sqlx::query("SELECT state FROM device_batch WHERE id = $1 AND state <> 'deleting'")
                .bind(id.as_i64())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or(StoreError::NotFound { what: "batch" })?;
        if Fields(&row).text("state")? == BatchState::Running.as_str() {
            return Err(StoreError::InUse {
                what: "batch",
                by: "its registration, which is running".to_owned(),
            });
        }
        sqlx::query(update)
            .bind(id.as_i64())
            .execute(&mut *tx)
            .await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Hides batches that ended before `ended_before`, then deletes up to [`PURGE_ROWS`] rows of what is hidden;
    /// says whether there is more.
    pub async fn purge_batches(&self, ended_before: Millis) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE device_batch SET state = 'deleting' WHERE state IN ('finished', 'failed') AND finished_at < $1",
        )
        .bind(ended_before.as_i64())
        .execute(&mut *tx)
        .await?;
        let hidden =
            sqlx::query("SELECT id FROM device_batch WHERE state = 'deleting' ORDER BY id LIMIT 1")
                .fetch_optional(&mut *tx)
                .await?;
        if let Some(hidden) = &hidden {
            let id = Fields(hidden).int("id")?;
            let deleted = sqlx::query(
                "DELETE FROM device_batch_row WHERE batch_id = $1 AND row_index < $2 + \
                 (SELECT MIN(row_index) FROM device_batch_row WHERE batch_id = $3)",
            )
            .bind(id)
            .bind(PURGE_ROWS)
            .bind(id)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if deleted == 0 {
                sqlx::query("DELETE FROM device_batch WHERE id = $1")
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        tx.commit().await?;
        Ok(hidden.is_some())
    }

    /// The rows of a batch that are done, in the file's order, from the row after `page`'s cursor on.
    pub async fn batch_rows(
        &self,
        id: Id,
        state: Option<RowState>,
        page: &Page,
    ) -> Result<Paged<RowWithSecret>, StoreError> {
        let mut sql = Sql::new(SELECT_ROWS);
        sql.push(" WHERE r.batch_id = ").bind(id.as_i64());
        if let Some(state) = state {
            sql.push(" AND r.state = ").bind(row_number(state));
        }
        if let Some(after) = page.after()? {
            let after: i64 = after
                .parse()
                .map_err(|_| crate::model::InvalidPage::Cursor)?;
            sql.push(" AND r.row_index > ").bind(after);
        }
        sql.push(" ORDER BY r.row_index LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let found = rows.iter().map(read_row).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(found, page.limit, |found| {
            found.row.index.to_string()
        }))
    }

    /// Which of these devices are registered, by product and node id. One query for each [`BLOCK`].
    pub async fn registered(
        &self,
        names: &[(ProductId, NodeId)],
    ) -> Result<Vec<Registered>, StoreError> {
        let mut found: Vec<Registered> = Vec::new();
        for block in names.chunks(BLOCK) {
            let mut sql = Sql::new("WITH wanted (product, node) AS (VALUES ");
            sql.rows(block, |row, (product, node)| {
                row.bind(product.as_str()).bind(node.as_str());
            })
            .push(
                ") SELECT d.id, d.product_id, d.node_id, d.name, d.description, d.auth, d.psk_encoding, \
                 d.enabled, d.created_at, d.updated_at, d.last_seen_at, c.sealed, f.fingerprint FROM wanted w \
                 JOIN device d ON d.product_id = w.product AND d.node_id = w.node \
                 LEFT JOIN device_credential c ON c.device_id = d.id \
                 LEFT JOIN device_fingerprint f ON f.device_id = d.id ORDER BY d.id",
            );
            for row in &sql
                .build_rows(self.dialect, block.len())?
                .fetch_all(&self.read)
                .await?
            {
                take_registered(row, &mut found)?;
            }
        }
        Ok(found)
    }
}

/// A device with two credentials is two rows in succession.
fn take_registered(row: &AnyRow, found: &mut Vec<Registered>) -> Result<(), StoreError> {
    let fields = Fields(row);
    let id = fields.text("id")?;
    if found
        .last()
        .is_none_or(|last| last.device.id.as_str() != id)
    {
        found.push(Registered {
            device: device::read(row)?,
            secrets: Vec::new(),
            fingerprints: Vec::new(),
        });
    }
    let Some(last) = found.last_mut() else {
        return Ok(());
    };
    if let Some(sealed) = fields.optional_bytes("sealed")? {
        last.secrets.push(sealed.into());
    }
    if fields.optional_bytes("fingerprint")?.is_some() {
        last.fingerprints
            .push(Fingerprint::new(fields.digest("fingerprint")?));
    }
    Ok(())
}

fn read(row: &AnyRow) -> Result<DeviceBatch, StoreError> {
    let fields = Fields(row);
    let state = fields.text("state")?;
    Ok(DeviceBatch {
        id: fields.id("id")?,
        state: BatchState::ALL
            .iter()
            .copied()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| rows::corrupt("state", state))?,
        sha256: fields.digest("sha256")?,
        size: fields.number("size")?,
        total: fields.number("total")?,
        next_row: fields.number("next_row")?,
        counts: RowCounts {
            created: fields.number("created")?,
            unchanged: fields.number("unchanged")?,
            failed: fields.number("failed")?,
        },
        error: fields.optional_text("error")?,
        created_by: fields.text("created_by")?.to_owned(),
        created_at: fields.time("created_at")?,
        started_at: fields.optional_time("started_at")?,
        finished_at: fields.optional_time("finished_at")?,
        secrets_until: fields.optional_time("secrets_until")?,
    })
}

fn read_row(row: &AnyRow) -> Result<RowWithSecret, StoreError> {
    let fields = Fields(row);
    let state: usize = fields.number("state")?;
    let device_id = fields.optional_text("device_id")?;
    let error = match fields.optional_text("code")? {
        Some(code) => Some(BatchRowError {
            code: BatchRowCode::ALL
                .iter()
                .copied()
                .find(|known| known.as_str() == code)
                .ok_or_else(|| rows::corrupt("code", &code))?,
            message: fields.optional_text("message")?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(RowWithSecret {
        row: BatchRow {
            index: fields.number("row_index")?,
            line: fields.number("line")?,
            state: RowState::ALL
                .get(state)
                .copied()
                .ok_or_else(|| rows::corrupt("state", state))?,
            product_id: fields.text("product_id")?.to_owned(),
            node_id: fields.text("node_id")?.to_owned(),
            device_id: device_id
                .map(|id| DeviceId::new(&id).map_err(|error| rows::corrupt("device_id", error)))
                .transpose()?,
            error,
            secret_made_at: fields.optional_time("secret_made_at")?,
        },
        sealed: fields.optional_bytes("sealed")?.map(Box::from),
    })
}

/// The number that is stored for a row's state: its place in [`RowState::ALL`].
const fn row_number(state: RowState) -> i64 {
    match state {
        RowState::Created => 0,
        RowState::Unchanged => 1,
        RowState::Failed => 2,
    }
}

/// Rows deleted in one transaction, so that others wait for some milliseconds only.
const PURGE_ROWS: i64 = 2_000;

const COUNT_OPEN: &str =
    "SELECT COUNT(*) AS open FROM device_batch WHERE state IN ('waiting', 'running')";
const SELECT: &str = "SELECT id, state, sha256, size, total, next_row, created, unchanged, failed, error, \
     created_by, created_at, started_at, finished_at, secrets_until FROM device_batch";
/// A secret is the row's as long as the device has the one that was made then.
const SELECT_ROWS: &str = "SELECT r.row_index, r.line, r.state, r.product_id, r.node_id, r.device_id, r.code, r.message, \
     r.secret_made_at, c.sealed FROM device_batch_row r LEFT JOIN device_credential c \
     ON c.device_id = r.device_id AND c.slot = 'primary' AND c.created_at = r.secret_made_at";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_numbers_are_places_in_the_list() {
        for (number, state) in (0..).zip(RowState::ALL) {
            assert_eq!(row_number(*state), number);
        }
    }
}
