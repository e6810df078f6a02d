//! Messages that are kept for whoever subscribes later: at most one for each device and topic.

use bytes::Bytes;
use headgate_protocol::{
    identity::{DeviceId, ProductId},
    mqtt::{QoS, TopicName},
};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqlitePool, sqlite::SqliteRow};

use super::{
    BLOCK, Standing,
    local::LocalSessions,
    mailbox::{corrupt, decode, encode, mail_bytes, parsed},
};
use crate::{
    model::{DeviceName, Message, Millis},
    store::StoreError,
};

/// What is to become of retained messages.
#[derive(Clone, Copy, Debug)]
pub enum RetainedChange<'a> {
    /// This is the one of its device and topic from now on; by which claim it was sent.
    Set(&'a Message, Option<&'a Standing>),
    /// The one of this device and topic goes; by which claim that was sent.
    Remove(&'a Message, Option<&'a Standing>),
    /// All of a device go.
    Forget(&'a DeviceId),
}

/// Where there is a retained message, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedEntry {
    /// The device.
    pub device: DeviceId,
    /// The device's product.
    pub product: ProductId,
    /// The topic.
    pub topic: TopicName,
    /// In bytes.
    pub bytes: u64,
}

/// Makes the table where there is none.
pub(super) async fn create(pool: &SqlitePool) -> Result<(), StoreError> {
    for statement in [
        "CREATE TABLE IF NOT EXISTS retained (device TEXT NOT NULL, topic TEXT NOT NULL, product TEXT NOT NULL, \
         node TEXT NOT NULL, qos INTEGER NOT NULL, payload BLOB NOT NULL, properties TEXT NOT NULL, \
         at INTEGER NOT NULL, expires_at INTEGER, bytes INTEGER NOT NULL, PRIMARY KEY (device, topic))",
        "CREATE INDEX IF NOT EXISTS retained_by_expiry ON retained (expires_at) WHERE expires_at IS NOT NULL",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

impl LocalSessions {
    /// Carries changes out in their order, all or none; none is late where no other node can have a client.
    ///
    /// # Cancel safety
    /// Safe: all or none are carried out.
    pub(super) async fn change_retained(
        &self,
        changes: &[RetainedChange<'_>],
    ) -> Result<Vec<usize>, StoreError> {
        let mut tx = self.pool.begin().await?;
        for change in changes {
            let query = match change {
                RetainedChange::Set(message, _) => sqlx::query(
                    "INSERT INTO retained (device, topic, product, node, qos, payload, properties, at, expires_at, bytes) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (device, topic) DO UPDATE SET \
                     qos = excluded.qos, payload = excluded.payload, properties = excluded.properties, \
                     at = excluded.at, expires_at = excluded.expires_at, bytes = excluded.bytes",
                )
                .bind(message.device.device_id.as_str())
                .bind(&*message.topic)
                .bind(message.device.product_id.as_str())
                .bind(message.device.node_id.as_str())
                .bind(i64::from(message.qos.bits()))
                .bind(&message.payload[..])
                .bind(encode(message)?)
                .bind(message.at.as_i64())
                .bind(message.properties.expires_at.map(Millis::as_i64))
                .bind(i64::try_from(mail_bytes(message)).unwrap_or(i64::MAX)),
                RetainedChange::Remove(message, _) => {
                    sqlx::query("DELETE FROM retained WHERE device = $1 AND topic = $2")
                        .bind(message.device.device_id.as_str())
                        .bind(&*message.topic)
                }
                RetainedChange::Forget(device) => {
                    sqlx::query("DELETE FROM retained WHERE device = $1").bind(device.as_str())
                }
            };
            query.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Vec::new())
    }

    /// Where there are retained messages.
    pub(super) async fn retained_entries(&self) -> Result<Vec<RetainedEntry>, StoreError> {
        let rows = sqlx::query("SELECT device, product, topic, bytes FROM retained")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read_entry).collect()
    }

    /// The retained messages of these devices and topics that have not expired, in no order; at most [`BLOCK`] are
    /// looked up.
    pub(super) async fn retained(
        &self,
        wanted: &[(&DeviceId, &str)],
        now: Millis,
    ) -> Result<Vec<Message>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT device, topic, product, node, qos, payload, properties, at FROM retained \
             WHERE (device, topic) IN (VALUES ",
        );
        for (place, (device, topic)) in wanted.iter().take(BLOCK).enumerate() {
            sql.push(if place == 0 { "(" } else { ", (" });
            sql.push_bind(device.to_string()).push(", ");
            sql.push_bind((*topic).to_owned()).push(")");
        }
        sql.push(") AND (expires_at IS NULL OR expires_at > ");
        sql.push_bind(now.as_i64()).push(")");
        let query = sql.build().persistent(wanted.len() == 1);
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(read).collect()
    }

    /// Takes out up to [`BLOCK`] retained messages whose time is over; gives them.
    pub(super) async fn expire_retained(
        &self,
        now: Millis,
    ) -> Result<Vec<RetainedEntry>, StoreError> {
        let rows = sqlx::query(
            "DELETE FROM retained WHERE (device, topic) IN (SELECT device, topic FROM retained \
             WHERE expires_at <= $1 LIMIT $2) RETURNING device, product, topic, bytes",
        )
        .bind(now.as_i64())
        .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_entry).collect()
    }
}

fn read_entry(row: &SqliteRow) -> Result<RetainedEntry, StoreError> {
    Ok(RetainedEntry {
        device: parsed(row, "device")?,
        product: parsed(row, "product")?,
        topic: topic(row)?,
        bytes: row.try_get::<i64, _>("bytes")?.cast_unsigned(),
    })
}

fn read(row: &SqliteRow) -> Result<Message, StoreError> {
    let qos: i64 = row.try_get("qos")?;
    let (properties, _) = decode(row.try_get("properties")?)?;
    Ok(Message {
        device: DeviceName {
            device_id: parsed(row, "device")?,
            product_id: parsed(row, "product")?,
            node_id: parsed(row, "node")?,
        },
        topic: topic(row)?,
        payload: Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
        qos: u8::try_from(qos)
            .ok()
            .and_then(QoS::from_bits)
            .ok_or_else(|| corrupt("qos", qos))?,
        retain: true,
        properties,
        at: Millis::from_i64(row.try_get("at")?),
    })
}

fn topic(row: &SqliteRow) -> Result<TopicName, StoreError> {
    parsed(row, "topic")
}
