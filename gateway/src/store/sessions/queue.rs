//! Messages that wait for sessions of applications: each stored once, with a reference for each session.

use std::num::NonZeroU32;

use headgate_protocol::{identity::DeviceId, mqtt::QoS};
use smallvec::SmallVec;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    BLOCK, MAIL_BLOCK,
    backend::{NewMessage, QueueGone, QueuedMessage},
    mail_bytes,
    mailbox::{self, corrupt},
    persistent::{id, limit_of},
};
use crate::{
    model::{Handing, Id, Millis},
    store::StoreError,
};

/// Messages of a session, to be gone on with its id.
const SELECT: &str = "SELECT m.id, m.device, m.product, m.node, m.topic, m.qos, m.payload, m.properties, m.at, \
     q.qos AS granted, q.retain, q.identifiers FROM queued q JOIN message m ON m.id = q.message \
     WHERE q.session = ";

/// Makes the tables where there are none.
pub(super) async fn create(pool: &SqlitePool) -> Result<(), StoreError> {
    for statement in [
        "CREATE TABLE IF NOT EXISTS message (id INTEGER NOT NULL PRIMARY KEY, device TEXT NOT NULL, \
         product TEXT NOT NULL, node TEXT NOT NULL, topic TEXT NOT NULL, qos INTEGER NOT NULL, payload BLOB NOT NULL, \
         properties TEXT NOT NULL, at INTEGER NOT NULL, expires_at INTEGER)",
        "CREATE INDEX IF NOT EXISTS message_by_expiry ON message (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS queued (session INTEGER NOT NULL, message INTEGER NOT NULL, qos INTEGER NOT NULL, \
         retain INTEGER NOT NULL, identifiers BLOB, bytes INTEGER NOT NULL, PRIMARY KEY (session, message)) \
         WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS queued_by_message ON queued (message)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

pub(super) async fn insert(
    tx: &mut SqliteConnection,
    new: &[NewMessage<'_>],
) -> Result<(), StoreError> {
    for block in new.chunks(MAIL_BLOCK) {
        let mut properties = Vec::with_capacity(block.len());
        for new in block {
            properties.push(mailbox::encode(new.message)?);
        }
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO message (id, device, product, node, topic, qos, payload, properties, at, expires_at) ",
        );
        sql.push_values(
            block.iter().zip(properties),
            |mut row, (new, properties)| {
                let message = new.message;
                row.push_bind(new.id.as_i64())
                    .push_bind(message.device.device_id.to_string())
                    .push_bind(message.device.product_id.to_string())
                    .push_bind(message.device.node_id.to_string())
                    .push_bind(message.topic.to_string())
                    .push_bind(i64::from(message.qos.bits()))
                    .push_bind(message.payload.to_vec())
                    .push_bind(properties)
                    .push_bind(message.at.as_i64())
                    .push_bind(message.properties.expires_at.map(Millis::as_i64));
            },
        );
        let is_usual = block.len() == 1 || block.len() == MAIL_BLOCK;
        sql.build().persistent(is_usual).execute(&mut *tx).await?;
    }
    let receivers: Vec<_> = new
        .iter()
        .flat_map(|new| new.receivers.iter().map(move |receiver| (new, receiver)))
        .collect();
    for block in receivers.chunks(MAIL_BLOCK) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO queued (session, message, qos, retain, identifiers, bytes) ",
        );
        sql.push_values(block, |mut row, (new, (session, handing))| {
            row.push_bind(session.as_i64())
                .push_bind(new.id.as_i64())
                .push_bind(i64::from(handing.qos.bits()))
                .push_bind(handing.retain)
                .push_bind(identifiers(handing))
                .push_bind(i64::try_from(mail_bytes(new.message)).unwrap_or(i64::MAX));
        });
        let is_usual = block.len() == 1 || block.len() == MAIL_BLOCK;
        sql.build().persistent(is_usual).execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn delete(
    tx: &mut SqliteConnection,
    gone: &[(Id, Id)],
) -> Result<Vec<QueueGone>, StoreError> {
    let mut removed = Vec::with_capacity(gone.len());
    let mut rest = gone;
    while let Some((session, _)) = rest.first() {
        let same = rest.iter().take_while(|(other, _)| other == session);
        let (block, others) = rest.split_at(same.count().min(BLOCK));
        rest = others;
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM queued WHERE session = ");
        sql.push_bind(session.as_i64()).push(" AND message IN (");
        let mut ids = sql.separated(", ");
        for (_, message) in block {
            ids.push_bind(message.as_i64());
        }
        sql.push(") RETURNING session, message, bytes");
        let is_usual = block.len() == 1 || block.len() == BLOCK;
        let rows = sql.build().persistent(is_usual).fetch_all(&mut *tx).await?;
        for row in &rows {
            removed.push(gone_of(row)?);
        }
    }
    drop_unreferenced(tx, &removed).await?;
    Ok(removed)
}

pub(super) async fn read(
    pool: &SqlitePool,
    session: Id,
    after: Option<Id>,
    limit: usize,
) -> Result<Vec<QueuedMessage>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new(SELECT);
    sql.push_bind(session.as_i64());
    sql.push(" AND q.message > ")
        .push_bind(after.map_or(0, Id::as_i64));
    sql.push(" ORDER BY q.message LIMIT ")
        .push_bind(limit_of(limit));
    let rows = sql.build().fetch_all(pool).await?;
    rows.iter().map(queued_of).collect()
}

pub(super) async fn read_of(
    pool: &SqlitePool,
    session: Id,
    ids: &[Id],
) -> Result<Vec<QueuedMessage>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for block in ids.chunks(BLOCK) {
        let mut sql = QueryBuilder::<Sqlite>::new(SELECT);
        sql.push_bind(session.as_i64()).push(" AND q.message IN (");
        let mut list = sql.separated(", ");
        for id in block {
            list.push_bind(id.as_i64());
        }
        sql.push(")");
        let rows = sql.build().persistent(false).fetch_all(pool).await?;
        for row in &rows {
            found.push(queued_of(row)?);
        }
    }
    Ok(found)
}

fn queued_of(row: &SqliteRow) -> Result<QueuedMessage, StoreError> {
    let (id, message) = mailbox::read(row)?;
    let granted: u8 = row.try_get("granted")?;
    let identifiers: Option<&[u8]> = row.try_get("identifiers")?;
    Ok(QueuedMessage {
        id,
        message,
        handing: Handing {
            qos: QoS::from_bits(granted).ok_or_else(|| corrupt("qos", granted))?,
            retain: row.try_get("retain")?,
            subscription_ids: read_identifiers(identifiers.unwrap_or_default())?,
        },
    })
}

pub(super) async fn revoke(
    tx: &mut SqliteConnection,
    session: Id,
    devices: &[DeviceId],
) -> Result<Vec<QueueGone>, StoreError> {
    let mut gone = Vec::new();
    for block in devices.chunks(BLOCK) {
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM queued WHERE session = ");
        sql.push_bind(session.as_i64());
        sql.push(
            " AND message IN (SELECT m.id FROM queued q JOIN message m ON m.id = q.message WHERE q.session = ",
        );
        sql.push_bind(session.as_i64()).push(" AND m.device IN (");
        let mut names = sql.separated(", ");
        for device in block {
            names.push_bind(device.to_string());
        }
        sql.push(")) RETURNING session, message, bytes");
        let rows = sql.build().persistent(false).fetch_all(&mut *tx).await?;
        for row in &rows {
            gone.push(gone_of(row)?);
        }
    }
    drop_unreferenced(tx, &gone).await?;
    Ok(gone)
}

pub(super) async fn purge(
    tx: &mut SqliteConnection,
    session: Id,
) -> Result<Vec<QueueGone>, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM queued WHERE session = $1 AND message IN \
         (SELECT message FROM queued WHERE session = $1 LIMIT $2) RETURNING session, message, bytes",
    )
    .bind(session.as_i64())
    .bind(limit_of(BLOCK))
    .fetch_all(&mut *tx)
    .await?;
    let gone: Vec<_> = rows.iter().map(gone_of).collect::<Result<_, _>>()?;
    drop_unreferenced(tx, &gone).await?;
    Ok(gone)
}

pub(super) async fn expire(
    tx: &mut SqliteConnection,
    now: Millis,
) -> Result<Vec<QueueGone>, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM queued WHERE message IN \
         (SELECT id FROM message WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) \
         RETURNING session, message, bytes",
    )
    .bind(now.as_i64())
    .bind(limit_of(BLOCK))
    .fetch_all(&mut *tx)
    .await?;
    let gone: Vec<_> = rows.iter().map(gone_of).collect::<Result<_, _>>()?;
    drop_unreferenced(tx, &gone).await?;
    Ok(gone)
}

/// Takes out what waits for sessions that are no more, and messages that wait for none: a process that was killed
/// may have left them.
pub(super) async fn drop_orphans(pool: &SqlitePool) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM queued WHERE session NOT IN (SELECT id FROM session)",
        "DELETE FROM message WHERE id NOT IN (SELECT message FROM queued)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

/// How much waits for a session: messages, and their bytes.
pub(super) async fn count(
    tx: &mut SqliteConnection,
    session: Id,
) -> Result<(usize, u64), StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS messages, COALESCE(SUM(bytes), 0) AS bytes FROM queued WHERE session = $1",
    )
    .bind(session.as_i64())
    .fetch_one(tx)
    .await?;
    let messages: i64 = row.try_get("messages")?;
    let bytes: i64 = row.try_get("bytes")?;
    Ok((
        usize::try_from(messages).unwrap_or(0),
        bytes.cast_unsigned(),
    ))
}

pub(super) async fn last(pool: &SqlitePool) -> Result<Option<Id>, StoreError> {
    let row = sqlx::query("SELECT MAX(id) AS last FROM message")
        .fetch_one(pool)
        .await?;
    let last: Option<i64> = row.try_get("last")?;
    last.map(|last| Id::from_i64(last).map_err(|error| corrupt("id", error)))
        .transpose()
}

/// Takes out messages that no session waits for any more.
async fn drop_unreferenced(
    tx: &mut SqliteConnection,
    gone: &[QueueGone],
) -> Result<(), StoreError> {
    for block in gone.chunks(BLOCK) {
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM message WHERE id IN (");
        let mut ids = sql.separated(", ");
        for one in block {
            ids.push_bind(one.message.as_i64());
        }
        sql.push(") AND NOT EXISTS (SELECT 1 FROM queued WHERE queued.message = message.id)");
        let is_usual = block.len() == 1 || block.len() == BLOCK;
        sql.build().persistent(is_usual).execute(&mut *tx).await?;
    }
    Ok(())
}

fn gone_of(row: &SqliteRow) -> Result<QueueGone, StoreError> {
    Ok(QueueGone {
        session: id(row, "session")?,
        message: id(row, "message")?,
        bytes: row.try_get::<i64, _>("bytes")?.cast_unsigned(),
    })
}

/// Four bytes each, little-endian.
fn identifiers(handing: &Handing) -> Option<Vec<u8>> {
    let ids = &handing.subscription_ids;
    (!ids.is_empty()).then(|| ids.iter().flat_map(|id| id.get().to_le_bytes()).collect())
}

fn read_identifiers(bytes: &[u8]) -> Result<SmallVec<[NonZeroU32; 1]>, StoreError> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let ids: Option<_> = chunks
        .iter()
        .map(|chunk| NonZeroU32::new(u32::from_le_bytes(*chunk)))
        .collect();
    ids.filter(|_| rest.is_empty())
        .ok_or_else(|| corrupt("identifiers", "no list of numbers"))
}
