//! The worker: registers the rows of one batch after the other, and deletes what is old.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use super::{
    Inner, SPOOLED,
    block::{self, Known},
    file::{FileError, RawRow, Rows},
    spool::SpoolReader,
};
use crate::{
    model::{Actor, DeviceBatch, Id, Millis},
    service::registry::RegistryError,
    store::{
        StoreError,
        registry::{BLOCK, Committed},
    },
};

/// Why a batch does not go on.
#[derive(Debug, thiserror::Error)]
enum Halt {
    /// Its file cannot be read: it never will.
    #[error(transparent)]
    File(#[from] FileError),
    /// The gateway is at fault: it is tried again.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The batch was ended or taken over by another.
    #[error("the batch is no longer running here")]
    Gone,
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Registry(error.into())
    }
}

type BatchRows = Rows<SpoolReader>;

impl Inner {
    /// Works until it is dropped.
    pub(super) async fn run(&self) {
        loop {
            let pause = match self.turn().await {
                Ok(true) => continue,
                Ok(false) => IDLE,
                Err(error) => {
                    tracing::error!(%error, "registration of batches is held up");
                    RETRY
                }
            };
            // Whichever is first; a notice that comes meanwhile is kept for the next turn.
            let _elapsed = tokio::time::timeout(pause, self.work.notified()).await;
        }
    }

    /// Carries out one batch, or deletes some of what is old; says whether there was anything to do.
    async fn turn(&self) -> Result<bool, StoreError> {
        let now = Millis::now();
        let here = if self.registry.is_shared() {
            Some(self.files().await)
        } else {
            None
        };
        if let Some(batch) = self.registry.begin_batch(now, here.as_deref()).await? {
            self.count_open().await;
            match self.carry_out(&batch).await {
                Ok(()) => self.end(&batch, None).await?,
                Err(Halt::File(error)) => self.end(&batch, Some(error.to_string())).await?,
                Err(Halt::Gone) => {}
                Err(Halt::Registry(RegistryError::Store(error))) => return Err(error),
                Err(Halt::Registry(error)) => self.end(&batch, Some(error.to_string())).await?,
            }
            self.count_open().await;
            return Ok(true);
        }
        let kept = i64::try_from(self.config.keep_batches.as_millis()).unwrap_or(i64::MAX);
        let ended_before = Millis::from_i64(now.as_i64().saturating_sub(kept));
        self.registry.purge_batches(ended_before).await
    }

    /// The batches whose files are here, the oldest first, as many as one statement takes.
    async fn files(&self) -> Vec<Id> {
        let spool = self.spool.clone();
        let listed = self.blocking(move || {
            let mut found: Vec<Id> = std::fs::read_dir(&spool)?
                .filter_map(|entry| {
                    let path = entry.ok()?.path();
                    let is_whole = path.extension().is_some_and(|kind| kind == SPOOLED);
                    path.file_stem()?
                        .to_str()?
                        .parse()
                        .ok()
                        .filter(|_| is_whole)
                })
                .collect();
            found.sort_unstable();
            found.truncate(BLOCK);
            Ok(found)
        });
        listed.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the files of batches could not be listed");
            Vec::new()
        })
    }

    async fn carry_out(&self, batch: &DeviceBatch) -> Result<(), Halt> {
        let mut rows = self.open(batch).await?;
        let mut at = batch.next_row;
        while at < batch.total {
            let (back, raw) = self.take(rows).await?;
            rows = back;
            let raw: Arc<[RawRow]> = raw?.into();
            let count = u32::try_from(raw.len()).unwrap_or(u32::MAX);
            if count == 0 {
                return Err(FileError::Unreadable(io::ErrorKind::UnexpectedEof.into()).into());
            }
            self.commit(batch, &raw).await?;
            at += count;
        }
        Ok(())
    }

    /// Opens the file where the batch goes on.
    async fn open(&self, batch: &DeviceBatch) -> Result<BatchRows, Halt> {
        let (path, sealer) = (self.file_of(batch.id), self.sealer.clone());
        let (id, max_row, done) = (batch.id, self.config.max_row_bytes, batch.next_row);
        let opened = self
            .blocking(move || {
                let source = SpoolReader::open(&path, sealer, id)?;
                Ok(Rows::open(source, max_row).and_then(|mut rows| {
                    rows.skip(done)?;
                    Ok(rows)
                }))
            })
            .await
            .map_err(FileError::Unreadable)?;
        Ok(opened?)
    }

    async fn take(
        &self,
        mut rows: BatchRows,
    ) -> Result<(BatchRows, Result<Vec<RawRow>, FileError>), Halt> {
        let taken = self.blocking(move || {
            let raw = rows.take(BLOCK);
            Ok((rows, raw))
        });
        Ok(taken.await.map_err(FileError::Unreadable)?)
    }

    /// Commits a block of rows; makes it again where something it was made from changed meanwhile.
    async fn commit(&self, batch: &DeviceBatch, raw: &Arc<[RawRow]>) -> Result<(), Halt> {
        loop {
            let known = self.known(raw).await?;
            let (id, raw, sealer) = (batch.id, Arc::clone(raw), self.sealer.clone());
            let block = self
                .blocking(move || Ok(block::make(id, &raw, &known, &sealer, Millis::now())))
                .await
                .map_err(FileError::Unreadable)??;
            match self.registry.commit_block(block).await? {
                Committed::Raced => {}
                Committed::Gone => return Err(Halt::Gone),
                Committed::Done(counts) => {
                    let rows = &self.metrics.registration_rows;
                    rows.created.inc_by(counts.created.into());
                    rows.unchanged.inc_by(counts.unchanged.into());
                    rows.failed.inc_by(counts.failed.into());
                    return Ok(());
                }
            }
        }
    }

    /// What the registry holds of what the rows name: two queries.
    async fn known(&self, raw: &[RawRow]) -> Result<Known, StoreError> {
        let mut names = block::names(raw);
        let mut ids: Vec<_> = names.iter().map(|(product, _)| product.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let products: HashMap<_, _> = self
            .registry
            .products_by_ids(&ids)
            .await?
            .into_iter()
            .map(|product| (product.id.clone(), product))
            .collect();
        names.retain(|(product, _)| products.contains_key(product));
        let devices = self.registry.registered(&names).await?;
        let devices = devices.into_iter().map(|found| {
            let name = (
                found.device.product_id.clone(),
                found.device.node_id.clone(),
            );
            (name, found)
        });
        Ok(Known {
            devices: devices.collect(),
            products,
        })
    }

    async fn end(&self, batch: &DeviceBatch, error: Option<String>) -> Result<(), StoreError> {
        let now = Millis::now();
        let counts = match self.registry.batch(batch.id).await? {
            Some(batch) => batch.counts,
            None => batch.counts,
        };
        let detail = match &error {
            None => counts.to_string(),
            Some(error) => format!("{error}; {counts}"),
        };
        let audit = Actor::gateway().did("device_batch.finish", batch.id, detail.as_str());
        let until = now.after(self.config.secrets_shown);
        let ended = self
            .registry
            .end_batch(batch.id, error.as_deref(), now, until, &audit)
            .await?;
        if ended {
            self.remove_file(batch.id);
            tracing::info!(batch = %batch.id, %detail, "a batch of devices was registered");
        }
        Ok(())
    }
}

/// How often it is looked for what is old.
const IDLE: Duration = Duration::from_mins(10);
/// Before a batch that the registry held up is tried again.
const RETRY: Duration = Duration::from_secs(5);
