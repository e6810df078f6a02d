//! The state of sessions in a SQLite file of its own, apart from the registry, so that an import there never holds up a
//! checkpoint here. `synchronous = NORMAL`: a crash of the process loses nothing, a loss of power the last checkpoints,
//! and then bytes are sent again.

use std::path::Path;

use sqlx::{
    ConnectOptions as _, QueryBuilder, Row as _, Sqlite, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{BLOCK, Cursor, mailbox, persistent, ranges, retained, will};
use crate::{
    model::{Id, Millis},
    store::StoreError,
};

/// Sessions in a SQLite file. Cloning shares its connection.
#[derive(Clone, Debug)]
pub(super) struct LocalSessions {
    pub(super) pool: SqlitePool,
}

impl LocalSessions {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS cursor (delivery INTEGER NOT NULL PRIMARY KEY, attempt INTEGER NOT NULL, \
             acked INTEGER NOT NULL, ranges BLOB NOT NULL, updated_at INTEGER NOT NULL)",
        )
        .execute(&pool)
        .await?;
        mailbox::create(&pool).await?;
        retained::create(&pool).await?;
        persistent::create(&pool).await?;
        will::create(&pool).await?;
        Ok(Self { pool })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// What the database says when it does not.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Stores cursors, all or none. A cursor of a smaller attempt than the stored one changes nothing.
    ///
    /// # Cancel safety
    /// Safe: all or none are stored.
    pub(super) async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        for block in cursors.chunks(BLOCK) {
            let mut sql = QueryBuilder::<Sqlite>::new(
                "INSERT INTO cursor (delivery, attempt, acked, ranges, updated_at) ",
            );
            sql.push_values(block, |mut row, cursor| {
                row.push_bind(cursor.delivery.as_i64())
                    .push_bind(i64::from(cursor.attempt))
                    .push_bind(cursor.acked.cast_signed())
                    .push_bind(ranges::encode(&cursor.ranges))
                    .push_bind(cursor.updated_at.as_i64());
            });
            sql.push(
                " ON CONFLICT (delivery) DO UPDATE SET attempt = excluded.attempt, acked = excluded.acked, \
                 ranges = excluded.ranges, updated_at = excluded.updated_at \
                 WHERE excluded.attempt >= cursor.attempt",
            );
            sql.build()
                .persistent(block.len() == BLOCK || block.len() == 1)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Every cursor, by delivery.
    pub(super) async fn load_cursors(&self) -> Result<Vec<Cursor>, StoreError> {
        let rows = sqlx::query(
            "SELECT delivery, attempt, acked, ranges, updated_at FROM cursor ORDER BY delivery",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_cursor).collect()
    }

    /// The cursors of these deliveries, as far as there are any.
    pub(super) async fn cursors_of(&self, deliveries: &[Id]) -> Result<Vec<Cursor>, StoreError> {
        let mut found = Vec::new();
        for block in deliveries.chunks(BLOCK) {
            let mut sql = QueryBuilder::<Sqlite>::new(
                "SELECT delivery, attempt, acked, ranges, updated_at FROM cursor WHERE delivery IN (",
            );
            let mut ids = sql.separated(", ");
            for id in block {
                ids.push_bind(id.as_i64());
            }
            sql.push(") ORDER BY delivery");
            let rows = sql
                .build()
                .persistent(block.len() == BLOCK || block.len() == 1)
                .fetch_all(&self.pool)
                .await?;
            for row in &rows {
                found.push(read_cursor(row)?);
            }
        }
        Ok(found)
    }

    /// Forgets the cursors of deliveries that ended.
    ///
    /// # Cancel safety
    /// Safe: all or none are deleted.
    pub(super) async fn delete_cursors(&self, deliveries: &[Id]) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        for block in deliveries.chunks(BLOCK) {
            let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM cursor WHERE delivery IN (");
            let mut ids = sql.separated(", ");
            for id in block {
                ids.push_bind(id.as_i64());
            }
            sql.push(")");
            sql.build()
                .persistent(block.len() == BLOCK || block.len() == 1)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Writes everything out and closes the file; what is asked afterwards fails.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

fn read_cursor(row: &SqliteRow) -> Result<Cursor, StoreError> {
    let corrupt = |column, reason: &str| StoreError::Corrupt {
        column,
        reason: reason.to_owned(),
    };
    Ok(Cursor {
        delivery: Id::from_i64(row.try_get("delivery")?)
            .map_err(|_| corrupt("delivery", "not positive"))?,
        attempt: row.try_get("attempt")?,
        acked: row.try_get::<i64, _>("acked")?.cast_unsigned(),
        ranges: ranges::decode(row.try_get("ranges")?)
            .ok_or_else(|| corrupt("ranges", "no list of ascending ranges"))?,
        updated_at: Millis::from_i64(row.try_get("updated_at")?),
        claim: None,
    })
}
