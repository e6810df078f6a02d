//! The registry of record: accounts, products, devices, resources, tasks and deliveries, in SQL.
//!
//! One SQL text for every database that can hold it: `$n` placeholders (`?` where [`sql`] counts them), integers for times and booleans,
//! multi-row `VALUES` of at most [`BLOCK`] rows, `ON CONFLICT` and `RETURNING`. On SQLite one connection
//! writes (so writers queue in order and never see "busy") and others read; the journal is a WAL with
//! `synchronous = FULL`, so a committed change survives the loss of power.
//! Invariants: a change and its audit entry are one transaction; nothing asks the database once per device
//! where one statement serves many. All methods are cancel safe: a dropped future rolls its transaction back.

mod account;
mod app;
mod audit;
mod batch;
mod binding;
mod delivery;
mod device;
mod lookup;
mod migrations;
mod product;
mod resource;
mod retention;
mod rows;
mod sealed;
mod sql;
mod target;
mod task;
mod task_edit;
mod upload;
mod version;

use std::{fmt::Write as _, path::Path, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Any, AnyPool, ConnectOptions, Executor, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
};

pub use account::{OperatorRow, TokenRow};
pub use app::{AppFilter, AppPatch, AppSecretRow};
pub use batch::{Block, Candidate, Committed, Registered, RowWithSecret};
pub use binding::Bound;
pub use device::{DeviceCredentials, DeviceFilter, DevicePatch, DeviceSlots, SealedCredential};
pub use lookup::DeviceAuthRow;
pub use resource::{QuotaLimits, ResourceFilter, ResourcePatch, Usage};
pub use sealed::SealedSecret;
pub use target::TargetDevice;
pub use task::TaskFilter;
pub use task_edit::TaskEdited;
pub use upload::{StoredUpload, UploadChange, UploadFilter, UploadLimits};
pub use version::NewVersion;

use crate::{
    model::{self, Id, IdGenerator, InvalidPage, Page},
    store::StoreError,
};

/// Rows of one multi-row statement at most.
pub const BLOCK: usize = 500;

/// The registry. Cloning shares its connections.
#[derive(Clone)]
pub struct Registry {
    write: AnyPool,
    read: AnyPool,
    ids: Arc<IdGenerator>,
}

impl Registry {
    /// Opens (and creates, where it is a file that does not exist) the database and brings its tables up to date.
    ///
    /// `url` is `sqlite:` and a path, as [`sqlite_url`] makes it; `read_connections` is at least 1 and costs a
    /// thread and up to 2 MB of page cache each.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for another kind of database, [`StoreError::Migration`] when the tables are
    /// of a later version, else what the database says.
    pub async fn open(url: &str, read_connections: u32) -> Result<Self, StoreError> {
        if !url.starts_with("sqlite:") {
            let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
            return Err(StoreError::Unsupported(scheme.to_owned()));
        }
        sqlx::any::install_default_drivers();
        // No statement is logged: parameters are not, but times and counts belong to the metrics.
        let options = AnyConnectOptions::from_str(url)?.disable_statement_logging();
        let write = pool(1, WRITE_PRAGMAS).connect_with(options.clone()).await?;
        migrations::run(&write).await?;
        let read = pool(read_connections.max(1), READ_PRAGMAS)
            .connect_with(options)
            .await?;
        Ok(Self {
            write,
            read,
            ids: Arc::new(IdGenerator::new(u16::from_ne_bytes(model::random()?))),
        })
    }

    /// A new id for a record.
    pub fn next_id(&self) -> Id {
        self.ids.next()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// What the database says when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        Ok(())
    }

    /// Writes everything out and closes all connections; what is asked afterwards fails.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// What tests hold against the bars: statements made in this process, and rows that were written.
    #[cfg(test)]
    pub(crate) async fn cost(&self) -> Result<(u64, u64), StoreError> {
        use sqlx::Row as _;
        let row = sqlx::query("SELECT total_changes() AS rows")
            .fetch_one(&self.write)
            .await?;
        let rows: i64 = row.try_get("rows")?;
        let statements = sql::STATEMENTS.load(std::sync::atomic::Ordering::Relaxed);
        Ok((statements, rows.cast_unsigned()))
    }

    /// Gives tests many devices: `n0` and so on of a product, without credentials.
    #[cfg(test)]
    pub(crate) async fn add_devices(&self, product: &str, count: usize) -> Result<(), StoreError> {
        sqlx::query(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1) \
             INSERT INTO device (id, product_id, node_id, name, auth, psk_encoding, enabled, created_at, \
             updated_at) SELECT $2 || '_n' || i, $2, 'n' || i, '', 'secret', 'text', 1, 0, 0 FROM n",
        )
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .bind(product)
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// Leaves a task to tests as a process does that was killed while making it: only deliveries to devices up to
    /// `last` are stored.
    #[cfg(test)]
    pub(crate) async fn break_making(&self, task: Id, last: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM delivery WHERE task_id = $1 AND device_id > $2")
            .bind(task.as_i64())
            .bind(last)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE task SET creation = 'creating', \
             total = (SELECT COUNT(*) FROM delivery WHERE task_id = $1) WHERE id = $1",
        )
        .bind(task.as_i64())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.write.begin().await?)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// The key after which a page of a list ordered by id goes on.
fn id_cursor(page: &Page) -> Result<Option<i64>, StoreError> {
    let Some(text) = page.after()? else {
        return Ok(None);
    };
    let id: Id = text.parse().map_err(|_| InvalidPage::Cursor)?;
    Ok(Some(id.as_i64()))
}

/// The address of a SQLite file that is created when it does not exist.
pub fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            url.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ok = write!(url, "%{byte:02X}");
        }
    }
    url.push_str("?mode=rwc");
    url
}

fn pool(connections: u32, pragmas: &'static str) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A worker thread answers for the connection: asking it first would only cost a round trip.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(pragmas).await?;
                Ok(())
            })
        })
}

/// How long a statement waits for a connection before it fails: longer than any queue that still makes sense.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

const WRITE_PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
     PRAGMA busy_timeout = 10000; PRAGMA journal_size_limit = 67108864;";
const READ_PRAGMAS: &str =
    "PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000; PRAGMA query_only = ON;";

#[cfg(test)]
mod tests;
