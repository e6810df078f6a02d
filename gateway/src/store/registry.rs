//! The registry of record: accounts, products, devices, resources, tasks and deliveries, in SQL.
//!
//! One SQL text for every database that can hold it: `$n` placeholders (`?` where [`sql`] counts them), integers for times and booleans,
//! multi-row `VALUES` of at most [`BLOCK`] rows, `ON CONFLICT` and `RETURNING`; [`mod@dialect`] has what differs. One
//! connection writes, so that changes follow one another, and others read.
//! Invariants: a change and its audit entry are one transaction; nothing asks the database once per device
//! where one statement serves many. All methods are cancel safe: a dropped future rolls its transaction back.

mod account;
mod app;
mod audit;
mod batch;
mod binding;
mod counts;
mod delivery;
mod device;
mod device_text;
mod dialect;
mod fenced;
mod lease;
mod lookup;
mod migrations;
mod notice;
mod operator_session;
mod postgres;
mod product;
mod resource;
mod retention;
mod rows;
mod sealed;
mod share;
mod sql;
mod sqlite;
mod steps;
mod target;
mod task;
mod task_edit;
mod token;
mod tx;
mod upload;
mod version;

use std::sync::Arc;

use sqlx::{AnyPool, PgPool};

pub use account::{OperatorPatch, OperatorRow};
pub use app::{AppFilter, AppPatch, AppSecretRow};
pub use audit::AuditFilter;
pub use batch::{Block, Candidate, Committed, Registered, RowWithSecret};
pub use binding::Bound;
pub use device::{DeviceCredentials, DeviceFilter, DevicePatch, DeviceSlots, SealedCredential};
pub use lookup::DeviceAuthRow;
pub use notice::{Notice, Notices};
pub use operator_session::{OperatorSessionRow, SessionBounds};
pub use resource::{QuotaLimits, ResourceFilter, ResourcePatch, Usage};
pub use sealed::SealedSecret;
pub use share::{ShareStanding, TaskShare, Thousandths};
pub use sqlite::sqlite_url;
pub use target::TargetDevice;
pub use task::TaskFilter;
pub use task_edit::TaskEdited;
pub use token::TokenRow;
pub use upload::{OpenUpload, StoredUpload, UploadChange, UploadFilter, UploadLimits, UploadNote};
pub use version::NewVersion;

use self::{dialect::Dialect, tx::Tx};
use crate::{
    model::{self, Id, IdGenerator, InvalidPage, Millis, Page},
    store::StoreError,
};

/// Rows of one multi-row statement at most.
pub const BLOCK: usize = 500;

/// The registry. Cloning shares its connections.
#[derive(Clone)]
pub struct Registry {
    write: AnyPool,
    read: AnyPool,
    dialect: Dialect,
    /// Whether other nodes write too.
    is_shared: bool,
    /// Where other nodes are heard, if there may be any.
    listen: Option<PgPool>,
    ids: Arc<IdGenerator>,
}

/// The connections of a database that has been opened.
struct Pools {
    write: AnyPool,
    read: AnyPool,
}

impl Registry {
    /// Opens the database, whose tables are made where there are none.
    ///
    /// `url` is `sqlite:` and a path, as [`sqlite_url`] makes it, or `postgres://user:password@host/database`.
    /// SQLite's tables are brought up to date; PostgreSQL's must be, see [`Registry::migrate`].
    /// `read_connections` is at least 1; each costs a thread and up to 2 MB of page cache, or a process of the server.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for another kind of database; [`StoreError::Refused`] when the tables are of a
    /// later version, or what was configured cannot be used; else what the database says.
    pub async fn open(url: &str, read_connections: u32) -> Result<Self, StoreError> {
        Self::open_as(url, read_connections, false).await
    }

    /// Opens a database that other nodes have open too, or will: PostgreSQL's. Changes of all nodes follow one another.
    ///
    /// # Errors
    /// As of [`Registry::open`].
    pub async fn open_shared(url: &str, read_connections: u32) -> Result<Self, StoreError> {
        Self::open_as(url, read_connections, true).await
    }

    async fn open_as(
        url: &str,
        read_connections: u32,
        is_shared: bool,
    ) -> Result<Self, StoreError> {
        let dialect = dialect(url)?;
        let read_connections = read_connections.max(1);
        let Pools { write, read } = match dialect {
            Dialect::Sqlite => sqlite::open(url, read_connections).await?,
            Dialect::Postgres => postgres::open(url, read_connections, is_shared).await?,
        };
        Ok(Self {
            write,
            read,
            dialect,
            is_shared: is_shared && dialect == Dialect::Postgres,
            listen: match dialect {
                Dialect::Postgres if is_shared => Some(postgres::listener(url)?),
                _ => None,
            },
            ids: Arc::new(IdGenerator::new(u16::from_ne_bytes(model::random()?))),
        })
    }

    /// Brings the tables up to date while no gateway uses them; says from which version (0: none) to which.
    ///
    /// # Errors
    /// As of [`Registry::open`].
    pub async fn migrate(url: &str) -> Result<(i64, i64), StoreError> {
        match dialect(url)? {
            Dialect::Sqlite => sqlite::migrate(url).await,
            Dialect::Postgres => postgres::migrate(url).await,
        }
    }

    /// Whether the database is another process, which may be away while this one is well.
    pub fn is_remote(&self) -> bool {
        self.dialect == Dialect::Postgres
    }

    /// A new id for a record.
    pub fn next_id(&self) -> Id {
        self.ids.next()
    }

    /// Whether other nodes change the same tables: what is kept of them in memory is to be told of.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// What the database says when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        // A busy connection shows by itself that it works. One that is lost is made anew here, and its lock taken.
        if self.is_remote() && (self.write.num_idle() > 0 || self.write.size() == 0) {
            sqlx::query("SELECT 1").execute(&self.write).await?;
        }
        Ok(())
    }

    /// Connections that wait for work, and those that have some.
    pub fn connections(&self) -> (usize, usize) {
        let pools = [&self.write, &self.read];
        let idle: usize = pools.iter().map(|pool| pool.num_idle()).sum();
        let all: u32 = pools.iter().map(|pool| pool.size()).sum();
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        (idle.min(all), all.saturating_sub(idle))
    }

    /// Writes everything out and closes all connections; what is asked afterwards fails.
    pub async fn close(&self) {
        if let Some(listen) = &self.listen {
            listen.close().await;
        }
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
             total = (SELECT COUNT(*) FROM delivery WHERE task_id = $1), \
             n_pending = (SELECT COUNT(*) FROM delivery WHERE task_id = $1) WHERE id = $1",
        )
        .bind(task.as_i64())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// A transaction that no other one runs beside: what it sees holds until its end.
    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.write.begin().await?;
        if self.is_shared {
            // It goes with the transaction: a rule that is a look and a change holds over all nodes.
            sqlx::query("SELECT pg_advisory_xact_lock(1751474532, 2)")
                .execute(&mut *tx)
                .await?;
        }
        Ok(Tx::new(tx, self.dialect))
    }

    /// A transaction beside which other nodes may have theirs: for statements that say themselves what must hold.
    async fn begin_beside(&self) -> Result<Tx, StoreError> {
        Ok(Tx::new(self.write.begin().await?, self.dialect))
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

/// Says what it means that a change of a record which is there touched no row: it is not as its caller read it.
const fn was_current(what: &'static str, updated_rows: u64) -> Result<(), StoreError> {
    if updated_rows == 0 {
        return Err(StoreError::Stale { what });
    }
    Ok(())
}

/// When a record is said to be changed: later than ever before, since that time tells one state of it from another.
fn after(updated_at: Millis, now: Millis) -> Millis {
    now.max(Millis::from_i64(updated_at.as_i64().saturating_add(1)))
}

fn dialect(url: &str) -> Result<Dialect, StoreError> {
    sqlx::any::install_default_drivers();
    Dialect::of(url).ok_or_else(|| {
        let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
        StoreError::Unsupported(scheme.to_owned())
    })
}

#[cfg(test)]
pub(crate) mod tests;
