//! Persistent sessions in SQLite.

use std::num::NonZeroU32;

use futures_util::future::BoxFuture;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{PacketId, QoS, RetainHandling, Subscription, TopicFilter},
};
use sqlx::{Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction, sqlite::SqliteRow};

use super::{
    BLOCK,
    backend::{
        Batch, Claim, Claimed, Committed, KeptSession, KeptSubscription, Outbound, QueueGone,
        QueuedMessage, SessionBackend, SessionChange, SessionKey, SessionRef,
    },
    local::LocalSessions,
    mailbox, queue,
};
use crate::{
    model::{Id, Millis},
    store::StoreError,
};

const DEVICE: i64 = 0;
const APPLICATION: i64 = 1;

/// Makes the tables where there are none.
pub(super) async fn create(pool: &SqlitePool) -> Result<(), StoreError> {
    for statement in [
        // Of a device's session `name` is its id and `app` empty. Without `expires_at` it is connected.
        "CREATE TABLE IF NOT EXISTS session (id INTEGER NOT NULL PRIMARY KEY, kind INTEGER NOT NULL, \
         name TEXT NOT NULL, app TEXT NOT NULL, epoch INTEGER NOT NULL, expiry_secs INTEGER NOT NULL, \
         expires_at INTEGER, UNIQUE (kind, name))",
        "CREATE INDEX IF NOT EXISTS session_by_expiry ON session (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS subscription (session INTEGER NOT NULL, filter TEXT NOT NULL, \
         options INTEGER NOT NULL, identifier INTEGER, PRIMARY KEY (session, filter)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS inbound (session INTEGER NOT NULL, packet_id INTEGER NOT NULL, \
         PRIMARY KEY (session, packet_id)) WITHOUT ROWID",
        // Rows of a session are in the order of their sending.
        "CREATE TABLE IF NOT EXISTS outbound (at INTEGER NOT NULL PRIMARY KEY, session INTEGER NOT NULL, \
         packet_id INTEGER NOT NULL, message INTEGER NOT NULL, received INTEGER NOT NULL)",
        "CREATE UNIQUE INDEX IF NOT EXISTS outbound_by_session ON outbound (session, packet_id)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    queue::create(pool).await
}

impl SessionBackend for LocalSessions {
    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, StoreError>> {
        Box::pin(async move {
            let mut tx = self.pool.begin().await?;
            let claimed = self::claim(&mut tx, claim).await?;
            tx.commit().await?;
            Ok(claimed)
        })
    }

    fn commit<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Committed, StoreError>> {
        Box::pin(async move {
            let mut tx = self.pool.begin().await?;
            let committed = commit(&mut tx, batch).await?;
            tx.commit().await?;
            Ok(committed)
        })
    }

    fn queued(
        &self,
        session: Id,
        after: Option<Id>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedMessage>, StoreError>> {
        Box::pin(queue::read(&self.pool, session, after, limit))
    }

    fn queued_of<'a>(
        &'a self,
        session: Id,
        ids: &'a [Id],
    ) -> BoxFuture<'a, Result<Vec<QueuedMessage>, StoreError>> {
        Box::pin(queue::read_of(&self.pool, session, ids))
    }

    fn revoke<'a>(
        &'a self,
        session: Id,
        devices: &'a [DeviceId],
    ) -> BoxFuture<'a, Result<Vec<QueueGone>, StoreError>> {
        Box::pin(async move {
            let mut tx = self.pool.begin().await?;
            let gone = queue::revoke(&mut tx, session, devices).await?;
            for one in &gone {
                sqlx::query(
                    "DELETE FROM outbound WHERE session = $1 AND message = $2 AND received = 0",
                )
                .bind(session.as_i64())
                .bind(one.message.as_i64())
                .execute(&mut *tx)
                .await?;
            }
            tx.commit().await?;
            Ok(gone)
        })
    }

    fn discard(&self, session: Id) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut tx = self.pool.begin().await?;
            discard(&mut tx, session.as_i64()).await?;
            Ok(tx.commit().await?)
        })
    }

    fn purge(&self, session: Id) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>> {
        Box::pin(async move {
            let mut tx = self.pool.begin().await?;
            let gone = queue::purge(&mut tx, session).await?;
            tx.commit().await?;
            Ok(gone)
        })
    }

    fn expire_messages(&self, now: Millis) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>> {
        Box::pin(async move {
            let mut tx = self.pool.begin().await?;
            let gone = queue::expire(&mut tx, now).await?;
            tx.commit().await?;
            Ok(gone)
        })
    }

    fn expired_sessions(
        &self,
        now: Millis,
    ) -> BoxFuture<'_, Result<Vec<(Id, SessionKey)>, StoreError>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT id, kind, name, app FROM session WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
            )
            .bind(now.as_i64())
            .bind(limit_of(BLOCK))
            .fetch_all(&self.pool)
            .await?;
            rows.iter()
                .map(|row| Ok((id(row, "id")?, key(row)?)))
                .collect()
        })
    }

    fn recover(&self, now: Millis) -> BoxFuture<'_, Result<Vec<KeptSession>, StoreError>> {
        Box::pin(recover(&self.pool, now))
    }

    fn last_message(&self) -> BoxFuture<'_, Result<Option<Id>, StoreError>> {
        Box::pin(queue::last(&self.pool))
    }
}

async fn claim(tx: &mut Transaction<'_, Sqlite>, claim: &Claim) -> Result<Claimed, StoreError> {
    let (kind, name, app) = columns(&claim.key);
    let known =
        sqlx::query("SELECT id, epoch, expires_at FROM session WHERE kind = $1 AND name = $2")
            .bind(kind)
            .bind(name)
            .fetch_optional(&mut **tx)
            .await?;
    let mut claimed = Claimed::default();
    // Never lower than one of another node's with a clock of its own.
    let now = Millis::now().as_i64();
    let mut epoch = now;
    if let Some(row) = &known {
        let session = id(row, "id")?;
        epoch = epoch.max(row.try_get::<i64, _>("epoch")?.saturating_add(1));
        let expires_at: Option<i64> = row.try_get("expires_at")?;
        // One whose time is over is gone, also where nobody has looked yet.
        if claim.is_clean || expires_at.is_some_and(|at| at <= now) {
            discard(tx, session.as_i64()).await?;
            claimed.discarded = Some(session);
        } else {
            sqlx::query(
                "UPDATE session SET epoch = $1, expiry_secs = $2, expires_at = NULL WHERE id = $3",
            )
            .bind(epoch)
            .bind(i64::from(claim.expiry_secs))
            .bind(session.as_i64())
            .execute(&mut **tx)
            .await?;
            claimed.session = Some(SessionRef { id: session, epoch });
            claimed.is_present = true;
            claimed.subscriptions = subscriptions(tx, session).await?;
            claimed.unreleased = unreleased(tx, session).await?;
            claimed.outbound = outbound(tx, session).await?;
            return Ok(claimed);
        }
    }
    if claim.expiry_secs > 0 {
        sqlx::query(
            "INSERT INTO session (id, kind, name, app, epoch, expiry_secs) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(claim.id.as_i64())
        .bind(kind)
        .bind(name)
        .bind(app)
        .bind(epoch)
        .bind(i64::from(claim.expiry_secs))
        .execute(&mut **tx)
        .await?;
        let id = claim.id;
        claimed.session = Some(SessionRef { id, epoch });
    }
    Ok(claimed)
}

async fn commit(
    tx: &mut Transaction<'_, Sqlite>,
    batch: &Batch<'_>,
) -> Result<Committed, StoreError> {
    mailbox::insert(tx, &batch.mail).await?;
    queue::insert(tx, &batch.messages).await?;
    let mut committed = Committed {
        mail_gone: mailbox::delete(tx, batch.mail_gone).await?,
        messages_gone: queue::delete(tx, batch.messages_gone).await?,
        ..Committed::default()
    };
    for (session, changes) in &batch.changes {
        let current = sqlx::query("SELECT epoch FROM session WHERE id = $1")
            .bind(session.id.as_i64())
            .fetch_optional(&mut **tx)
            .await?;
        let epoch = current
            .map(|row| row.try_get::<i64, _>("epoch"))
            .transpose()?;
        if epoch != Some(session.epoch) {
            committed.stale.push(*session);
            continue;
        }
        for change in *changes {
            if *change == SessionChange::Ended {
                discard(tx, session.id.as_i64()).await?;
            } else {
                apply(tx, session.id, change).await?;
            }
        }
    }
    Ok(committed)
}

async fn apply(
    tx: &mut SqliteConnection,
    session: Id,
    change: &SessionChange,
) -> Result<(), StoreError> {
    let query = match change {
        SessionChange::Subscribed(kept) => sqlx::query(
            "INSERT INTO subscription (session, filter, options, identifier) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (session, filter) DO UPDATE SET options = excluded.options, identifier = excluded.identifier",
        )
        .bind(session.as_i64())
        .bind(kept.asked.filter.to_string())
        .bind(options(&kept.asked))
        .bind(kept.identifier.map(|identifier| i64::from(identifier.get()))),
        SessionChange::Unsubscribed(filter) => {
            sqlx::query("DELETE FROM subscription WHERE session = $1 AND filter = $2")
                .bind(session.as_i64())
                .bind(filter.to_string())
        }
        SessionChange::Taken(packet_id) => {
            sqlx::query("INSERT OR IGNORE INTO inbound (session, packet_id) VALUES ($1, $2)")
                .bind(session.as_i64())
                .bind(i64::from(packet_id.get()))
        }
        SessionChange::Released(packet_id) => {
            sqlx::query("DELETE FROM inbound WHERE session = $1 AND packet_id = $2")
                .bind(session.as_i64())
                .bind(i64::from(packet_id.get()))
        }
        SessionChange::Sending(packet_id, message) => sqlx::query(
            "INSERT OR REPLACE INTO outbound (session, packet_id, message, received) VALUES ($1, $2, $3, 0)",
        )
        .bind(session.as_i64())
        .bind(i64::from(packet_id.get()))
        .bind(message.as_i64()),
        SessionChange::Received(message) => {
            sqlx::query("UPDATE outbound SET received = 1 WHERE session = $1 AND message = $2")
                .bind(session.as_i64())
                .bind(message.as_i64())
        }
        SessionChange::Completed(message) => {
            sqlx::query("DELETE FROM outbound WHERE session = $1 AND message = $2")
                .bind(session.as_i64())
                .bind(message.as_i64())
        }
        SessionChange::Suspended(expires_at) => {
            sqlx::query("UPDATE session SET expires_at = $2 WHERE id = $1")
                .bind(session.as_i64())
                .bind(expires_at.as_i64())
        }
        // More than one statement: its caller's.
        SessionChange::Ended => return Ok(()),
    };
    query.execute(tx).await?;
    Ok(())
}

async fn discard(tx: &mut Transaction<'_, Sqlite>, session: i64) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM session WHERE id = $1",
        "DELETE FROM subscription WHERE session = $1",
        "DELETE FROM inbound WHERE session = $1",
        "DELETE FROM outbound WHERE session = $1",
    ] {
        sqlx::query(statement)
            .bind(session)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn recover(pool: &SqlitePool, now: Millis) -> Result<Vec<KeptSession>, StoreError> {
    // The links of those that were connected ended with the process.
    sqlx::query("UPDATE session SET expires_at = $1 + expiry_secs * 1000 WHERE expires_at IS NULL")
        .bind(now.as_i64())
        .execute(pool)
        .await?;
    queue::drop_orphans(pool).await?;
    let rows = sqlx::query("SELECT id, kind, name, app FROM session")
        .fetch_all(pool)
        .await?;
    let mut kept = Vec::with_capacity(rows.len());
    let mut tx = pool.begin().await?;
    for row in &rows {
        let session = KeptSession {
            id: id(row, "id")?,
            key: key(row)?,
            subscriptions: Vec::new(),
            messages: 0,
            bytes: 0,
            node: None,
        };
        kept.push(match session.key {
            // A device's are read when it comes, and its messages wait in its mailbox.
            SessionKey::Device(_) => session,
            SessionKey::Application(..) => {
                let (messages, bytes) = queue::count(&mut tx, session.id).await?;
                KeptSession {
                    subscriptions: subscriptions(&mut tx, session.id).await?,
                    messages,
                    bytes,
                    ..session
                }
            }
        });
    }
    tx.commit().await?;
    Ok(kept)
}

async fn subscriptions(
    tx: &mut SqliteConnection,
    session: Id,
) -> Result<Vec<KeptSubscription>, StoreError> {
    let rows =
        sqlx::query("SELECT filter, options, identifier FROM subscription WHERE session = $1")
            .bind(session.as_i64())
            .fetch_all(tx)
            .await?;
    rows.iter()
        .map(|row| {
            let filter = mailbox::parsed(row, "filter")?;
            let options: i64 = row.try_get("options")?;
            let identifier: Option<u32> = row.try_get("identifier")?;
            Ok(KeptSubscription {
                asked: asked(filter, options)?,
                identifier: identifier.and_then(NonZeroU32::new),
            })
        })
        .collect()
}

async fn unreleased(tx: &mut SqliteConnection, session: Id) -> Result<Vec<PacketId>, StoreError> {
    let rows = sqlx::query("SELECT packet_id FROM inbound WHERE session = $1")
        .bind(session.as_i64())
        .fetch_all(tx)
        .await?;
    rows.iter().map(packet_id).collect()
}

async fn outbound(tx: &mut SqliteConnection, session: Id) -> Result<Vec<Outbound>, StoreError> {
    let rows = sqlx::query(
        "SELECT packet_id, message, received FROM outbound WHERE session = $1 ORDER BY at",
    )
    .bind(session.as_i64())
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Outbound {
                packet_id: packet_id(row)?,
                message: id(row, "message")?,
                is_received: row.try_get("received")?,
            })
        })
        .collect()
}

fn columns(key: &SessionKey) -> (i64, &str, &str) {
    match key {
        SessionKey::Device(device) => (DEVICE, device.as_str(), ""),
        SessionKey::Application(app, client_id) => (APPLICATION, client_id, app.as_str()),
    }
}

fn key(row: &SqliteRow) -> Result<SessionKey, StoreError> {
    match row.try_get("kind")? {
        DEVICE => Ok(SessionKey::Device(mailbox::parsed(row, "name")?)),
        APPLICATION => Ok(SessionKey::Application(
            mailbox::parsed::<AppId>(row, "app")?,
            row.try_get::<&str, _>("name")?.into(),
        )),
        other => Err(mailbox::corrupt("kind", other)),
    }
}

pub(super) fn id(row: &SqliteRow, column: &'static str) -> Result<Id, StoreError> {
    Id::from_i64(row.try_get(column)?).map_err(|error| mailbox::corrupt(column, error))
}

fn packet_id(row: &SqliteRow) -> Result<PacketId, StoreError> {
    let number: u16 = row.try_get("packet_id")?;
    PacketId::new(number).ok_or_else(|| mailbox::corrupt("packet_id", number))
}

/// The options as they stand in SUBSCRIBE.
pub(super) fn options(asked: &Subscription) -> i64 {
    let handling = match asked.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DoNotSend => 2,
    };
    i64::from(asked.qos.bits())
        | i64::from(asked.no_local) << 2
        | i64::from(asked.retain_as_published) << 3
        | handling << 4
}

pub(super) fn asked(filter: TopicFilter, options: i64) -> Result<Subscription, StoreError> {
    let corrupt = || mailbox::corrupt("options", options);
    let bits = u8::try_from(options).map_err(|_| corrupt())?;
    Ok(Subscription {
        filter,
        qos: QoS::from_bits(bits & 0b11).ok_or_else(corrupt)?,
        no_local: bits & 0b100 != 0,
        retain_as_published: bits & 0b1000 != 0,
        retain_handling: match bits >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(corrupt()),
        },
    })
}

pub(super) fn limit_of(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
