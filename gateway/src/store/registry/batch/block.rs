//! A block of a batch's rows: devices, their names and credentials, the rows' outcomes and the batch's progress, in one
//! transaction.

use std::collections::HashMap;

use headgate_protocol::identity::ProductId;

use super::row_number;
use crate::{
    model::{
        Alias, BatchRow, BatchRowCode, BatchRowError, CredentialSlot, Device, Fingerprint, Id,
        Millis, RowCounts, RowState,
    },
    store::{
        StoreError,
        registry::{BLOCK, Registry, SealedCredential, Tx, rows::Fields, sql::Sql},
    },
};

/// A device that a batch wants to register, and its place in the block's rows.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which of [`Block::rows`] is its own; that one says `created`.
    pub row: usize,
    /// The device.
    pub device: Device,
    /// Every string that is to name it.
    pub aliases: Vec<Alias>,
    /// Its secret.
    pub secret: Option<SealedCredential>,
    /// Its certificate.
    pub fingerprint: Option<Fingerprint>,
}

/// Rows that are committed together.
#[derive(Debug)]
pub struct Block {
    /// The batch.
    pub batch: Id,
    /// What comes of each row, in order, if every candidate can be registered.
    pub rows: Vec<BatchRow>,
    /// The devices to be registered.
    pub candidates: Vec<Candidate>,
    /// The products that candidates were checked against, with the time of their last change.
    pub products: Vec<(ProductId, Millis)>,
}

/// What became of a [`Block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All of it is in the registry; rows ended so.
    Done(RowCounts),
    /// A product or a device changed since the block was made: it is to be made again.
    Raced,
    /// The batch is no longer running, or its rows were committed by another.
    Gone,
}

impl Registry {
    /// Commits a block of rows: devices, their names and credentials, the rows' outcomes and the batch's progress.
    /// A candidate whose name another device has becomes a failed row; the others are registered.
    pub async fn commit_block(&self, mut block: Block) -> Result<Committed, StoreError> {
        let Some(first) = block.rows.first().map(|row| row.index) else {
            return Ok(Committed::Done(RowCounts::default()));
        };
        let mut tx = self.begin().await?;
        if !products_unchanged(&mut tx, &block.products).await? {
            return Ok(Committed::Raced);
        }
        refuse_taken_names(&mut tx, &mut block).await?;
        match insert_devices(&mut tx, &block.candidates).await {
            // Someone else registered one of the devices after the block was made.
            Err(StoreError::Database(sqlx::Error::Database(error)))
                if error.is_unique_violation() =>
            {
                return Ok(Committed::Raced);
            }
            other => other?,
        }
        insert_rows(&mut tx, &block).await?;
        let counts = RowCounts::of(&block.rows);
        let rows = i64::try_from(block.rows.len()).unwrap_or(i64::MAX);
        let moved = sqlx::query(
            "UPDATE device_batch SET next_row = next_row + $1, created = created + $2, \
             unchanged = unchanged + $3, failed = failed + $4 \
             WHERE id = $5 AND state = 'running' AND next_row = $6",
        )
        .bind(rows)
        .bind(i64::from(counts.created))
        .bind(i64::from(counts.unchanged))
        .bind(i64::from(counts.failed))
        .bind(block.batch.as_i64())
        .bind(i64::from(first))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if moved == 0 {
            return Ok(Committed::Gone);
        }
        tx.commit().await?;
        Ok(Committed::Done(counts))
    }
}

async fn products_unchanged(
    tx: &mut Tx,
    products: &[(ProductId, Millis)],
) -> Result<bool, StoreError> {
    if products.is_empty() {
        return Ok(true);
    }
    let ids: Vec<&str> = products.iter().map(|(id, _)| id.as_str()).collect();
    let mut sql = Sql::new("SELECT id, updated_at FROM product WHERE id IN ");
    sql.texts(&ids);
    let mut stored = HashMap::new();
    for row in &sql.build(tx.dialect())?.fetch_all(&mut **tx).await? {
        let fields = Fields(row);
        stored.insert(fields.text("id")?.to_owned(), fields.time("updated_at")?);
    }
    Ok(products
        .iter()
        .all(|(id, at)| stored.get(id.as_str()) == Some(at)))
}

/// Drops every candidate one of whose names is another device's, stored or before it in the block.
async fn refuse_taken_names(tx: &mut Tx, block: &mut Block) -> Result<(), StoreError> {
    let names: Vec<&str> = block
        .candidates
        .iter()
        .flat_map(|candidate| candidate.aliases.iter().map(|alias| alias.alias.as_str()))
        .collect();
    let mut owners: HashMap<String, String> = HashMap::new();
    for part in names.chunks(BLOCK) {
        let mut sql = Sql::new("SELECT alias, device_id FROM device_alias WHERE alias IN ");
        sql.texts(part);
        for row in &sql.build(tx.dialect())?.fetch_all(&mut **tx).await? {
            let fields = Fields(row);
            owners.insert(
                fields.text("alias")?.to_owned(),
                fields.text("device_id")?.to_owned(),
            );
        }
    }
    let Block {
        rows, candidates, ..
    } = block;
    candidates.retain(|candidate| {
        let taken = candidate
            .aliases
            .iter()
            .find_map(|alias| Some((alias, owners.get(&alias.alias)?)));
        if let Some((alias, owner)) = taken {
            if let Some(row) = rows.get_mut(candidate.row) {
                row.state = RowState::Failed;
                row.device_id = None;
                row.secret_made_at = None;
                row.error = Some(BatchRowError {
                    code: BatchRowCode::AliasTaken,
                    message: format!("{:?} names device {owner} already", alias.alias),
                });
            }
            return false;
        }
        for alias in &candidate.aliases {
            owners.insert(alias.alias.clone(), candidate.device.id.to_string());
        }
        true
    });
    Ok(())
}

async fn insert_devices(tx: &mut Tx, candidates: &[Candidate]) -> Result<(), StoreError> {
    if candidates.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "INSERT INTO device (id, product_id, node_id, name, description, auth, psk_encoding, enabled, \
         created_at, updated_at) VALUES ",
    );
    sql.rows(candidates, |row, Candidate { device, .. }| {
        row.bind(device.id.as_str())
            .bind(device.product_id.as_str())
            .bind(device.node_id.as_str())
            .bind(device.name.as_str())
            .bind(device.description.as_str())
            .bind(device.auth.as_str())
            .bind(device.psk_encoding.as_str())
            .bind(i64::from(device.enabled))
            .bind(device.created_at.as_i64())
            .bind(device.updated_at.as_i64());
    });
    sql.build_rows(tx.dialect(), candidates.len())?
        .execute(&mut **tx)
        .await?;
    let aliases: Vec<(&Device, &Alias)> = candidates
        .iter()
        .flat_map(|candidate| {
            candidate
                .aliases
                .iter()
                .map(|alias| (&candidate.device, alias))
        })
        .collect();
    for part in aliases.chunks(BLOCK) {
        let mut sql = Sql::new("INSERT INTO device_alias (alias, kind, device_id) VALUES ");
        sql.rows(part, |row, (device, alias)| {
            row.bind(alias.alias.as_str())
                .bind(alias.kind.as_str())
                .bind(device.id.as_str());
        });
        sql.build_rows(tx.dialect(), part.len())?
            .execute(&mut **tx)
            .await?;
    }
    insert_credentials(tx, candidates).await
}

async fn insert_credentials(tx: &mut Tx, candidates: &[Candidate]) -> Result<(), StoreError> {
    let secrets: Vec<(&Device, &SealedCredential)> = candidates
        .iter()
        .filter_map(|candidate| Some((&candidate.device, candidate.secret.as_ref()?)))
        .collect();
    if !secrets.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO device_credential (device_id, slot, key_id, sealed, created_at) VALUES ",
        );
        sql.rows(&secrets, |row, (device, secret)| {
            row.bind(device.id.as_str())
                .bind(secret.slot.as_str())
                .bind(secret.key_id.as_str())
                .bind(secret.sealed.as_slice())
                .bind(device.created_at.as_i64());
        });
        sql.build_rows(tx.dialect(), secrets.len())?
            .execute(&mut **tx)
            .await?;
    }
    let fingerprints: Vec<(&Device, Fingerprint)> = candidates
        .iter()
        .filter_map(|candidate| Some((&candidate.device, candidate.fingerprint?)))
        .collect();
    if !fingerprints.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO device_fingerprint (device_id, slot, fingerprint, created_at) VALUES ",
        );
        sql.rows(&fingerprints, |row, (device, fingerprint)| {
            row.bind(device.id.as_str())
                .bind(CredentialSlot::Primary.as_str())
                .bind(fingerprint.as_bytes().as_slice())
                .bind(device.created_at.as_i64());
        });
        sql.build_rows(tx.dialect(), fingerprints.len())?
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn insert_rows(tx: &mut Tx, block: &Block) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO device_batch_row (batch_id, row_index, line, state, product_id, node_id, device_id, code, \
         message, secret_made_at) VALUES ",
    );
    sql.rows(&block.rows, |to, row| {
        let error = row.error.as_ref();
        to.bind(block.batch.as_i64())
            .bind(i64::from(row.index))
            .bind(i64::from(row.line))
            .bind(row_number(row.state))
            .bind(row.product_id.as_str())
            .bind(row.node_id.as_str())
            .bind(row.device_id.as_ref().map(|id| id.as_str().to_owned()))
            .bind(error.map(|error| error.code.as_str().to_owned()))
            .bind(error.map(|error| error.message.clone()))
            .bind(row.secret_made_at.map(Millis::as_i64));
    });
    sql.build_rows(tx.dialect(), block.rows.len())?
        .execute(&mut **tx)
        .await?;
    Ok(())
}
