//! Messages that wait for devices.

use headgate_protocol::identity::DeviceId;

use super::{BLOCK, RedisSessions, form};
use crate::{
    model::{Id, Message, Millis},
    store::{
        StoreError,
        sessions::{MailCount, MailGone},
    },
};

impl RedisSessions {
    pub(in super::super) async fn clear_mail(
        &self,
        device: &DeviceId,
    ) -> Result<Vec<MailGone>, StoreError> {
        let mut call = self.call(&self.scripts.mail_drop);
        call.arg(device.as_str()).arg("").arg(0);
        gone(call.run().await?)
    }

    pub(in super::super) async fn expire_mail(
        &self,
        now: Millis,
    ) -> Result<Vec<MailGone>, StoreError> {
        let mut call = self.call(&self.scripts.mail_drop);
        call.arg("").arg(now.as_i64()).arg(BLOCK);
        gone(call.run().await?)
    }

    pub(in super::super) async fn mail(
        &self,
        device: &DeviceId,
        after: Option<Id>,
        limit: usize,
        now: Millis,
    ) -> Result<Vec<(Id, Message)>, StoreError> {
        let mut call = self.call(&self.scripts.mail_page);
        call.arg(device.as_str())
            .arg(after.map(|id| id.to_string()).unwrap_or_default())
            .arg(limit.min(BLOCK))
            .arg(now.as_i64());
        let (ids, bodies): (Vec<String>, Vec<Vec<u8>>) = call.run().await?;
        ids.iter()
            .zip(&bodies)
            .map(|(id, body)| Ok((form::id(id)?, form::decode(body)?)))
            .collect()
    }

    pub(in super::super) async fn mail_of(
        &self,
        device: &DeviceId,
        ids: &[Id],
    ) -> Result<Vec<(Id, Message)>, StoreError> {
        let mut connection = self.connection.clone();
        let mut found = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut command = ::redis::cmd("HMGET");
            command.arg(self.key("mail"));
            for id in block {
                command.arg(id.to_string());
            }
            let bodies: Vec<Option<Vec<u8>>> = command.query_async(&mut connection).await?;
            for (id, body) in block.iter().zip(bodies) {
                let Some(body) = body else { continue };
                let message = form::decode(&body)?;
                if message.device.device_id == *device {
                    found.push((*id, message));
                }
            }
        }
        Ok(found)
    }

    pub(in super::super) async fn mail_counts(&self) -> Result<Vec<MailCount>, StoreError> {
        let bytes = self.scan("mailb").await?;
        let counts = self.scan("mailc").await?;
        let bytes: std::collections::HashMap<_, _> = bytes.into_iter().collect();
        counts
            .into_iter()
            .map(|(device, messages)| {
                let bytes = bytes.get(&device).cloned().unwrap_or_default();
                Ok(MailCount {
                    messages: form::parsed("messages", &form::text("messages", messages)?)?,
                    bytes: form::parsed("bytes", &form::text("bytes", bytes)?)?,
                    device: form::parsed("device", &form::text("device", device)?)?,
                })
            })
            .collect()
    }

    pub(in super::super) async fn last_mail(&self) -> Result<Option<Id>, StoreError> {
        self.last("mail").await
    }

    /// The greatest id of a message of a kind that was ever stored.
    pub(super) async fn last(&self, kind: &str) -> Result<Option<Id>, StoreError> {
        let mut connection = self.connection.clone();
        let last: Option<String> = ::redis::cmd("HGET")
            .arg(self.key("last"))
            .arg(kind)
            .query_async(&mut connection)
            .await?;
        last.map(|last| form::id(&last)).transpose()
    }
}

/// Messages out of `id, bytes, device` each.
pub(super) fn gone(rows: Vec<(String, u64, String)>) -> Result<Vec<MailGone>, StoreError> {
    rows.into_iter()
        .map(|(id, bytes, device)| {
            Ok(MailGone {
                id: form::id(&id)?,
                device: form::parsed("device", &device)?,
                bytes,
            })
        })
        .collect()
}
