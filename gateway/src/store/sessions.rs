//! The state of sessions: transfer cursors (how far each delivery's bytes were acknowledged), persistent MQTT sessions,
//! and the messages that wait for devices and applications, in a SQLite file of their own.
//!
//! Apart from the registry, so that an import there never holds up a checkpoint here. `synchronous = NORMAL`: a
//! crash of the process loses nothing, a loss of power the last checkpoints, and then bytes are sent again.

mod backend;
mod mailbox;
mod persistent;
mod queue;
mod ranges;
mod retained;
mod will;

use std::path::Path;

use sqlx::{
    ConnectOptions as _, QueryBuilder, Row as _, Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use self::{
    backend::{
        Batch, Claim, Claimed, Committed, KeptSession, KeptSubscription, NewMessage, Outbound,
        QueueGone, QueuedMessage, SessionBackend, SessionChange, SessionKey, SessionRef,
    },
    mailbox::{MailCount, MailGone, mail_bytes},
    retained::{RetainedChange, RetainedEntry},
    will::{StoredWill, WillChange},
};

use crate::{
    model::{Id, Millis},
    store::StoreError,
};

/// How far a delivery is, in acknowledged bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which delivery.
    pub delivery: Id,
    /// In which attempt.
    pub attempt: u32,
    /// The lowest byte that is not acknowledged.
    pub acked: u64,
    /// Acknowledged ranges beyond it, `[start, end)`, ascending and apart.
    pub ranges: Vec<(u64, u64)>,
    /// When it was taken.
    pub updated_at: Millis,
}

/// The store of what sessions leave behind. Cloning shares its connection.
#[derive(Clone, Debug)]
pub struct SessionStore {
    pool: SqlitePool,
}

impl SessionStore {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
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
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Stores cursors, all or none. A cursor of a smaller attempt than the stored one changes nothing.
    ///
    /// # Cancel safety
    /// Safe: all or none are stored.
    pub async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
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
    pub async fn load_cursors(&self) -> Result<Vec<Cursor>, StoreError> {
        let rows = sqlx::query(
            "SELECT delivery, attempt, acked, ranges, updated_at FROM cursor ORDER BY delivery",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
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
                })
            })
            .collect()
    }

    /// Forgets the cursors of deliveries that ended.
    ///
    /// # Cancel safety
    /// Safe: all or none are deleted.
    pub async fn delete_cursors(&self, deliveries: &[Id]) -> Result<(), StoreError> {
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
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Rows of one statement at most.
const BLOCK: usize = 500;
/// Messages of one statement at most: eleven values each.
const MAIL_BLOCK: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(delivery: i64, attempt: u32, acked: u64, ranges: &[(u64, u64)]) -> Cursor {
        Cursor {
            delivery: Id::from_i64(delivery).unwrap(),
            attempt,
            acked,
            ranges: ranges.to_vec(),
            updated_at: Millis::from_i64(1_800_000_000_000),
        }
    }

    #[tokio::test]
    async fn cursors_survive_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let saved = [
            cursor(1, 1, 15_360, &[]),
            cursor(2, 3, 0, &[(30_720, 46_080), (61_440, 61_441)]),
        ];
        let store = SessionStore::open(&path).await.unwrap();
        store.save_cursors(&saved).await.unwrap();
        store.close().await;
        let store = SessionStore::open(&path).await.unwrap();
        assert_eq!(store.load_cursors().await.unwrap(), saved);
    }

    #[tokio::test]
    async fn a_later_cursor_replaces_an_earlier_one_but_no_greater_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let store = SessionStore::open(&dir.path().join("s.db")).await.unwrap();
        for (saved, stored) in [
            (cursor(1, 1, 10, &[]), cursor(1, 1, 10, &[])),
            (cursor(1, 1, 20, &[(30, 40)]), cursor(1, 1, 20, &[(30, 40)])),
            (cursor(1, 2, 0, &[]), cursor(1, 2, 0, &[])),
            (cursor(1, 1, 50, &[]), cursor(1, 2, 0, &[])),
        ] {
            store.save_cursors(&[saved]).await.unwrap();
            assert_eq!(store.load_cursors().await.unwrap(), [stored]);
        }
    }

    #[tokio::test]
    async fn more_than_a_block_is_saved_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = SessionStore::open(&dir.path().join("s.db")).await.unwrap();
        let cursors: Vec<Cursor> = (1..=1_203).map(|id| cursor(id, 1, 7, &[])).collect();
        store.save_cursors(&cursors).await.unwrap();
        assert_eq!(store.load_cursors().await.unwrap(), cursors);
        let ids: Vec<Id> = cursors[..1_202].iter().map(|c| c.delivery).collect();
        store.delete_cursors(&ids).await.unwrap();
        assert_eq!(store.load_cursors().await.unwrap(), cursors[1_202..]);
        store.save_cursors(&[]).await.unwrap();
        store.delete_cursors(&[]).await.unwrap();
    }
}
