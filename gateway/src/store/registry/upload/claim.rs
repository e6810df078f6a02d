//! Which node has an unfinished upload in hand.
//!
//! A node takes an upload when its device comes with it, which raises the upload's claim; what a node with a smaller
//! claim wants to change is refused. Times are the database's own.

use std::{collections::HashMap, time::Duration};

use headgate_protocol::identity::DeviceId;
use sqlx::any::AnyRow;

use super::read;
use crate::{
    model::{Id, Millis, Upload},
    store::{
        StoreError,
        registry::{
            Registry,
            rows::{Fields, stored},
            sql::Sql,
        },
    },
};

/// Uploads that are asked for in one statement.
const BLOCK: usize = 500;

/// An upload that is not stored yet, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The upload.
    pub upload: Upload,
    /// The last taking of it.
    pub claim: i64,
}

/// How far an unfinished upload is, by the node that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadNote {
    /// The last taking of it.
    pub claim: i64,
    /// Bytes that were there.
    pub received: u64,
    /// When they were.
    pub at: Millis,
}

impl Registry {
    /// The upload of an id, unless it is stored or gone.
    pub async fn open_upload(&self, id: Id) -> Result<Option<OpenUpload>, StoreError> {
        let mut sql = Sql::new(SELECT_OPEN);
        sql.push(" AND id = ").bind(id.as_i64());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(open).transpose()
    }

    /// The uploads of a device that are not stored yet, in the order in which they were announced.
    pub async fn open_uploads_of(&self, device: &DeviceId) -> Result<Vec<OpenUpload>, StoreError> {
        let mut sql = Sql::new(SELECT_OPEN);
        sql.push(" AND device_id = ")
            .bind(device.as_str())
            .push(" ORDER BY id");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(open).collect()
    }

    /// Takes an unfinished upload; gives the new claim, or `None` where it is stored or gone.
    pub async fn claim_upload(&self, id: Id) -> Result<Option<i64>, StoreError> {
        let mut tx = self.begin().await?;
        let mut sql = Sql::new("UPDATE device_resource SET claim = claim + 1, noted_at = ");
        sql.push(self.dialect.now())
            .push(" WHERE state = 0 AND id = ")
            .bind(id.as_i64())
            .push(" RETURNING claim");
        let row = sql.build(self.dialect)?.fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        row.map(|row| Fields(&row).int("claim")).transpose()
    }

    /// How far unfinished uploads are, by who has them; those that are stored or gone are absent.
    pub async fn upload_notes(&self, ids: &[Id]) -> Result<HashMap<Id, UploadNote>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut sql = Sql::new(
                "SELECT id, claim, received, noted_at FROM device_resource WHERE state = 0 AND id IN ",
            );
            sql.numbers(block.iter().map(|id| id.as_i64()));
            for row in &sql.build(self.dialect)?.fetch_all(&self.read).await? {
                let fields = Fields(row);
                let note = UploadNote {
                    claim: fields.int("claim")?,
                    received: fields.number("received")?,
                    at: fields.time("noted_at")?,
                };
                found.insert(fields.id("id")?, note);
            }
        }
        Ok(found)
    }

    /// Notes how far uploads are: each with its claim and its bytes. One that another node has taken is left as it is.
    pub async fn note_uploads(&self, notes: &[(Id, i64, u64)]) -> Result<(), StoreError> {
        for block in notes.chunks(BLOCK) {
            let mut tx = self.begin().await?;
            for (id, claim, received) in block {
                let mut sql = Sql::new("UPDATE device_resource SET received = ");
                sql.bind(stored(*received))
                    .push(", noted_at = ")
                    .push(self.dialect.now())
                    .push(" WHERE state = 0 AND id = ")
                    .bind(id.as_i64())
                    .push(" AND claim = ")
                    .bind(*claim);
                sql.build(self.dialect)?.execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Some of the unfinished uploads of which nobody has noted anything for so long, with their claims.
    pub async fn abandoned_uploads(
        &self,
        silent: Duration,
        most: u32,
    ) -> Result<Vec<(Id, i64)>, StoreError> {
        let silent = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
        let mut sql =
            Sql::new("SELECT id, claim FROM device_resource WHERE state = 0 AND noted_at < ");
        sql.push(self.dialect.now())
            .push(" - ")
            .bind(silent)
            .push(" ORDER BY id LIMIT ")
            .bind(i64::from(most));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let claimed = |row: &AnyRow| Ok((Fields(row).id("id")?, Fields(row).int("claim")?));
        rows.iter().map(claimed).collect()
    }
}

fn open(row: &AnyRow) -> Result<OpenUpload, StoreError> {
    Ok(OpenUpload {
        upload: read(row)?,
        claim: Fields(row).int("claim")?,
    })
}

const SELECT_OPEN: &str = "SELECT id, device_id, product_id, node_id, name, version, size, md5, sha256, blob_id, \
     created_at, finished_at, claim FROM device_resource WHERE state = 0";
