//! Messages that are kept for whoever subscribes later. A field is the device and, on a line of its own, the topic.

use headgate_protocol::identity::DeviceId;

use super::{BLOCK, RedisSessions, form, persistent::standing};
use crate::{
    model::{Message, Millis},
    store::{
        StoreError,
        sessions::{RetainedChange, RetainedEntry, mail_bytes},
    },
};

impl RedisSessions {
    pub(in super::super) async fn change_retained(
        &self,
        changes: &[RetainedChange<'_>],
    ) -> Result<Vec<usize>, StoreError> {
        let mut call = self.call(&self.scripts.retained);
        for change in changes {
            match change {
                RetainedChange::Set(message, sender) => {
                    let expires_at = message.properties.expires_at.map(Millis::as_i64);
                    let product = message.device.product_id.as_str();
                    call.arg("set");
                    standing(&mut call, *sender);
                    call.arg(message.device.device_id.as_str())
                        .arg(&*message.topic)
                        .arg(format!("{} {product}", mail_bytes(message)))
                        .arg(expires_at.map(|at| at.to_string()).unwrap_or_default())
                        .arg(form::encode(message)?);
                }
                RetainedChange::Remove(message, sender) => {
                    call.arg("remove");
                    standing(&mut call, *sender);
                    call.arg(message.device.device_id.as_str())
                        .arg(&*message.topic);
                }
                RetainedChange::Forget(device) => {
                    call.arg("forget");
                    standing(&mut call, None);
                    call.arg(device.as_str());
                }
            }
        }
        if call.arguments() == 0 {
            return Ok(Vec::new());
        }
        call.run().await
    }

    pub(in super::super) async fn retained_entries(
        &self,
    ) -> Result<Vec<RetainedEntry>, StoreError> {
        let found = self.scan("rete").await?;
        found.into_iter().map(entry).collect()
    }

    pub(in super::super) async fn retained(
        &self,
        wanted: &[(&DeviceId, &str)],
        now: Millis,
    ) -> Result<Vec<Message>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        let mut command = ::redis::cmd("HMGET");
        command.arg(self.key("ret"));
        for (device, topic) in wanted.iter().take(BLOCK) {
            command.arg(format!("{device}\n{topic}"));
        }
        let bodies: Vec<Option<Vec<u8>>> = command.query_async(&mut connection).await?;
        let mut found = Vec::new();
        for body in bodies.into_iter().flatten() {
            let mut message = form::decode(&body)?;
            message.retain = true;
            if message.properties.expires_at.is_none_or(|at| at > now) {
                found.push(message);
            }
        }
        Ok(found)
    }

    pub(in super::super) async fn expire_retained(
        &self,
        now: Millis,
    ) -> Result<Vec<RetainedEntry>, StoreError> {
        let mut call = self.call(&self.scripts.retained_expire);
        call.arg(now.as_i64()).arg(BLOCK);
        let gone: Vec<(Vec<u8>, Vec<u8>)> = call.run().await?;
        gone.into_iter().map(entry).collect()
    }
}

fn entry((field, entry): (Vec<u8>, Vec<u8>)) -> Result<RetainedEntry, StoreError> {
    let (field, entry) = (form::text("topic", field)?, form::text("entry", entry)?);
    entry_of(&field, &entry)
}

/// What is known of a message, by its device and topic and what stands under them.
pub(in super::super) fn entry_of(field: &str, entry: &str) -> Result<RetainedEntry, StoreError> {
    let corrupt = || form::corrupt("entry", "no device, topic, bytes and product");
    let (device, topic) = field.split_once('\n').ok_or_else(corrupt)?;
    let (bytes, product) = entry.split_once(' ').ok_or_else(corrupt)?;
    Ok(RetainedEntry {
        device: form::parsed("device", device)?,
        product: form::parsed("product", product)?,
        topic: form::parsed("topic", topic)?,
        bytes: form::parsed("bytes", bytes)?,
    })
}
