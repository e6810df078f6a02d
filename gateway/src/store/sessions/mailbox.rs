//! Messages that wait for devices.

use std::{fmt::Display, str::FromStr};

use bytes::Bytes;
use headgate_protocol::{
    identity::DeviceId,
    mqtt::{PayloadFormat, QoS},
};
use serde::{Deserialize, Serialize};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use crate::{
    model::{DeviceName, Id, Message, MessageProperties, Millis},
    store::{
        StoreError,
        sessions::{BLOCK, MAIL_BLOCK, local::LocalSessions},
    },
};

/// How much waits for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailCount {
    /// The device.
    pub device: DeviceId,
    /// Messages.
    pub messages: usize,
    /// What they take, in bytes.
    pub bytes: u64,
}

/// A message that was taken out of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailGone {
    /// Its id.
    pub id: Id,
    /// The device that it waited for.
    pub device: DeviceId,
    /// What it took, in bytes.
    pub bytes: u64,
}

/// Properties as they are stored.
#[derive(Serialize, Deserialize)]
struct StoredProperties {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_topic: Option<Box<str>>,
    /// In hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    user: Vec<(Box<str>, Box<str>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    retain: bool,
}

/// Makes the table where there is none.
pub(super) async fn create(pool: &SqlitePool) -> Result<(), StoreError> {
    for statement in [
        "CREATE TABLE IF NOT EXISTS mailbox (id INTEGER NOT NULL PRIMARY KEY, device TEXT NOT NULL, \
         product TEXT NOT NULL, node TEXT NOT NULL, topic TEXT NOT NULL, qos INTEGER NOT NULL, payload BLOB NOT NULL, \
         properties TEXT NOT NULL, at INTEGER NOT NULL, expires_at INTEGER NOT NULL, bytes INTEGER NOT NULL)",
        "CREATE INDEX IF NOT EXISTS mailbox_by_device ON mailbox (device, id)",
        "CREATE INDEX IF NOT EXISTS mailbox_by_expiry ON mailbox (expires_at)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

/// Stores messages with their ids and times of expiry.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    new: &[(Id, &Message, Millis)],
) -> Result<(), StoreError> {
    for block in new.chunks(MAIL_BLOCK) {
        let mut properties = Vec::with_capacity(block.len());
        for (_, message, _) in block {
            properties.push(encode(message)?);
        }
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO mailbox (id, device, product, node, topic, qos, payload, properties, at, expires_at, bytes) ",
        );
        let rows = block.iter().zip(properties);
        sql.push_values(rows, |mut row, ((id, message, expires_at), properties)| {
            row.push_bind(id.as_i64())
                .push_bind(message.device.device_id.to_string())
                .push_bind(message.device.product_id.to_string())
                .push_bind(message.device.node_id.to_string())
                .push_bind(message.topic.to_string())
                .push_bind(i64::from(message.qos.bits()))
                .push_bind(message.payload.to_vec())
                .push_bind(properties)
                .push_bind(message.at.as_i64())
                .push_bind(expires_at.as_i64())
                .push_bind(stored_size(message));
        });
        sql.build()
            .persistent(block.len() == 1 || block.len() == MAIL_BLOCK)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Takes messages out; gives those that were there.
pub(super) async fn delete(
    tx: &mut SqliteConnection,
    gone: &[Id],
) -> Result<Vec<MailGone>, StoreError> {
    let mut removed = Vec::with_capacity(gone.len());
    for block in gone.chunks(BLOCK) {
        let mut sql = QueryBuilder::<Sqlite>::new("DELETE FROM mailbox WHERE id IN (");
        let mut ids = sql.separated(", ");
        for id in block {
            ids.push_bind(id.as_i64());
        }
        sql.push(") RETURNING id, device, bytes");
        let rows = sql
            .build()
            .persistent(block.len() == BLOCK || block.len() == 1)
            .fetch_all(&mut *tx)
            .await?;
        for row in &rows {
            removed.push(read_gone(row)?);
        }
    }
    Ok(removed)
}

impl LocalSessions {
    /// Takes out what waits for a device; gives it.
    pub(super) async fn clear_mail(&self, device: &DeviceId) -> Result<Vec<MailGone>, StoreError> {
        let rows = sqlx::query("DELETE FROM mailbox WHERE device = $1 RETURNING id, device, bytes")
            .bind(device.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read_gone).collect()
    }

    /// Takes out up to [`BLOCK`] messages whose time is over; gives them.
    pub(super) async fn expire_mail(&self, now: Millis) -> Result<Vec<MailGone>, StoreError> {
        let rows = sqlx::query(
            "DELETE FROM mailbox WHERE id IN (SELECT id FROM mailbox WHERE expires_at <= $1 ORDER BY expires_at \
             LIMIT $2) RETURNING id, device, bytes",
        )
        .bind(now.as_i64())
        .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_gone).collect()
    }

    /// Up to `limit` messages that wait for a device, in the order of their storing, those after `after`.
    pub(super) async fn mail(
        &self,
        device: &DeviceId,
        after: Option<Id>,
        limit: usize,
        now: Millis,
    ) -> Result<Vec<(Id, Message)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, device, product, node, topic, qos, payload, properties, at, expires_at, bytes FROM mailbox \
             WHERE device = $1 AND id > $2 AND expires_at > $3 ORDER BY id LIMIT $4",
        )
        .bind(device.as_str())
        .bind(after.map_or(0, Id::as_i64))
        .bind(now.as_i64())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Those of these messages that wait for a device.
    pub(super) async fn mail_of(
        &self,
        device: &DeviceId,
        ids: &[Id],
    ) -> Result<Vec<(Id, Message)>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut sql = QueryBuilder::<Sqlite>::new(
                "SELECT id, device, product, node, topic, qos, payload, properties, at FROM mailbox WHERE device = ",
            );
            sql.push_bind(device.to_string()).push(" AND id IN (");
            let mut list = sql.separated(", ");
            for id in block {
                list.push_bind(id.as_i64());
            }
            sql.push(")");
            let rows = sql.build().persistent(false).fetch_all(&self.pool).await?;
            for row in &rows {
                found.push(read(row)?);
            }
        }
        Ok(found)
    }

    /// How much waits for each device that anything waits for.
    pub(super) async fn mail_counts(&self) -> Result<Vec<MailCount>, StoreError> {
        let rows = sqlx::query(
            "SELECT device, COUNT(*) AS messages, SUM(bytes) AS bytes FROM mailbox GROUP BY device",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(MailCount {
                    device: parsed(row, "device")?,
                    messages: usize::try_from(row.try_get::<i64, _>("messages")?).unwrap_or(0),
                    bytes: row.try_get::<i64, _>("bytes")?.cast_unsigned(),
                })
            })
            .collect()
    }

    /// The greatest id of a message that waits.
    pub(super) async fn last_mail(&self) -> Result<Option<Id>, StoreError> {
        let row = sqlx::query("SELECT MAX(id) AS last FROM mailbox")
            .fetch_one(&self.pool)
            .await?;
        let last: Option<i64> = row.try_get("last")?;
        last.map(|last| Id::from_i64(last).map_err(|error| corrupt("id", error)))
            .transpose()
    }
}

/// What a message takes of the mailboxes' budget: itself, and what a row costs.
pub fn mail_bytes(message: &Message) -> u64 {
    const ROW_BYTES: u64 = 200;
    ROW_BYTES + message.size() as u64
}

fn stored_size(message: &Message) -> i64 {
    i64::try_from(mail_bytes(message)).unwrap_or(i64::MAX)
}

fn read_gone(row: &SqliteRow) -> Result<MailGone, StoreError> {
    Ok(MailGone {
        id: Id::from_i64(row.try_get("id")?).map_err(|error| corrupt("id", error))?,
        device: parsed(row, "device")?,
        bytes: row.try_get::<i64, _>("bytes")?.cast_unsigned(),
    })
}

/// A message out of its columns.
pub(super) fn read(row: &SqliteRow) -> Result<(Id, Message), StoreError> {
    let id = Id::from_i64(row.try_get("id")?).map_err(|error| corrupt("id", error))?;
    let qos: i64 = row.try_get("qos")?;
    let (properties, retain) = decode(row.try_get("properties")?)?;
    let message = Message {
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
        at: Millis::from_i64(row.try_get("at")?),
    };
    Ok((id, message))
}

/// Everything of a message that has no column.
pub(super) fn encode(message: &Message) -> Result<String, StoreError> {
    let properties = &message.properties;
    let stored = StoredProperties {
        text: properties
            .payload_format
            .map(|format| format == PayloadFormat::Utf8),
        content_type: properties.content_type.clone(),
        response_topic: properties
            .response_topic
            .as_ref()
            .map(|topic| topic.as_str().into()),
        correlation_data: properties.correlation_data.as_ref().map(hex::encode),
        user: properties.user.clone(),
        expires_at: properties.expires_at.map(Millis::as_i64),
        retain: message.retain,
    };
    serde_json::to_string(&stored).map_err(|error| corrupt("properties", error))
}

pub(super) fn decode(text: &str) -> Result<(MessageProperties, bool), StoreError> {
    let stored: StoredProperties =
        serde_json::from_str(text).map_err(|error| corrupt("properties", error))?;
    let response_topic = stored.response_topic.as_deref().map(str::parse).transpose();
    let correlation_data = stored.correlation_data.map(hex::decode).transpose();
    let properties = MessageProperties {
        payload_format: stored.text.map(|text| {
            if text {
                PayloadFormat::Utf8
            } else {
                PayloadFormat::Unspecified
            }
        }),
        content_type: stored.content_type,
        response_topic: response_topic.map_err(|error| corrupt("properties", error))?,
        correlation_data: correlation_data
            .map_err(|error| corrupt("properties", error))?
            .map(Bytes::from),
        user: stored.user,
        expires_at: stored.expires_at.map(Millis::from_i64),
    };
    Ok((properties, stored.retain))
}

pub(super) fn parsed<T: FromStr<Err: Display>>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error| corrupt(column, error))
}

pub(super) fn corrupt(column: &'static str, reason: impl Display) -> StoreError {
    StoreError::Corrupt {
        column,
        reason: reason.to_string(),
    }
}
