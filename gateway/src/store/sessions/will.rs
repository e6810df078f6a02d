//! Wills of clients that are connected or whose will delay runs, so that they outlive the process.

use std::time::Duration;

use bytes::Bytes;
use headgate_protocol::mqtt::QoS;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use super::{
    local::LocalSessions,
    mailbox::{corrupt, decode, encode, parsed},
};
use crate::{
    model::{DeviceName, Message, Millis, Will, WillKey},
    store::StoreError,
};

const DEVICE: i64 = 0;
const APPLICATION: i64 = 1;

/// A will as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWill {
    /// Whose.
    pub key: WillKey,
    /// What.
    pub will: Will,
    /// When it is to be published; `None`: its client was connected.
    pub due_at: Option<Millis>,
}

/// What is to become of a will: stored, with the time when it is due, or deleted.
pub type WillChange<'a> = (&'a WillKey, Option<(&'a Will, Option<Millis>)>);

/// Makes the table where there is none.
pub(super) async fn create(pool: &SqlitePool) -> Result<(), StoreError> {
    // Of a device's will `name` is its id and `app` empty. `device`, `product` and `node` are those of the topic.
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS will (kind INTEGER NOT NULL, name TEXT NOT NULL, app TEXT NOT NULL, \
         device TEXT NOT NULL, product TEXT NOT NULL, node TEXT NOT NULL, topic TEXT NOT NULL, qos INTEGER NOT NULL, \
         payload BLOB NOT NULL, properties TEXT NOT NULL, expiry_secs INTEGER, delay_secs INTEGER NOT NULL, \
         due_at INTEGER, PRIMARY KEY (kind, name))",
    )
    .execute(pool)
    .await?;
    Ok(())
}

impl LocalSessions {
    /// Stores and deletes wills, all or none.
    ///
    /// # Cancel safety
    /// Safe: all or none are changed.
    pub(super) async fn change_wills(&self, changes: &[WillChange<'_>]) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        for (key, change) in changes {
            let (kind, name, app) = columns(key);
            let query = match change {
                Some((will, due_at)) => {
                    let message = &will.message;
                    let secs = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
                    sqlx::query(
                        "INSERT OR REPLACE INTO will (kind, name, app, device, product, node, topic, qos, payload, \
                         properties, expiry_secs, delay_secs, due_at) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                    )
                    .bind(kind)
                    .bind(name)
                    .bind(app)
                    .bind(message.device.device_id.as_str())
                    .bind(message.device.product_id.as_str())
                    .bind(message.device.node_id.as_str())
                    .bind(&*message.topic)
                    .bind(i64::from(message.qos.bits()))
                    .bind(&message.payload[..])
                    .bind(encode(message)?)
                    .bind(will.expiry.map(secs))
                    .bind(secs(will.delay))
                    .bind(due_at.map(Millis::as_i64))
                }
                None => sqlx::query("DELETE FROM will WHERE kind = $1 AND name = $2")
                    .bind(kind)
                    .bind(name),
            };
            query.execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Every will.
    pub(super) async fn load_wills(&self) -> Result<Vec<StoredWill>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, name, app, device, product, node, topic, qos, payload, properties, expiry_secs, delay_secs, \
             due_at FROM will",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

fn columns(key: &WillKey) -> (i64, &str, &str) {
    match key {
        WillKey::Device(id) => (DEVICE, id.as_str(), ""),
        WillKey::Application(app, client_id) => (APPLICATION, client_id, app.as_str()),
    }
}

fn read(row: &SqliteRow) -> Result<StoredWill, StoreError> {
    let key = match row.try_get("kind")? {
        DEVICE => WillKey::Device(parsed(row, "name")?),
        APPLICATION => {
            let client_id: &str = row.try_get("name")?;
            WillKey::Application(parsed(row, "app")?, client_id.into())
        }
        kind => return Err(corrupt("kind", kind)),
    };
    let qos: i64 = row.try_get("qos")?;
    let (properties, retain) = decode(row.try_get("properties")?)?;
    let secs = |secs: i64| Duration::from_secs(secs.unsigned_abs());
    Ok(StoredWill {
        key,
        will: Will {
            message: Message {
                device: DeviceName {
                    device_id: parsed(row, "device")?,
                    product_id: parsed(row, "product")?,
                    node_id: parsed(row, "node")?,
                },
                topic: parsed(row, "topic")?,
                payload: Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
                qos: u8::try_from(qos)
                    .ok()
                    .and_then(QoS::from_bits)
                    .ok_or_else(|| corrupt("qos", qos))?,
                retain,
                properties,
                at: Millis::from_i64(0),
            },
            expiry: row.try_get::<Option<i64>, _>("expiry_secs")?.map(secs),
            delay: secs(row.try_get("delay_secs")?),
        },
        due_at: row
            .try_get::<Option<i64>, _>("due_at")?
            .map(Millis::from_i64),
    })
}
