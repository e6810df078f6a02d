//! Wills of clients that are connected or whose will delay runs: a line of JSON, and the message behind it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RedisSessions, form};
use crate::{
    model::{Millis, Will, WillKey},
    store::{
        StoreError,
        sessions::{StoredWill, WillChange},
    },
};

#[derive(Serialize, Deserialize)]
struct Head {
    /// Of an application's: which.
    app: Option<String>,
    expiry_secs: Option<u64>,
    delay_secs: u64,
    due_at: Option<i64>,
}

impl RedisSessions {
    pub(in super::super) async fn change_wills(
        &self,
        changes: &[WillChange<'_>],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut call = self.call(&self.scripts.wills);
        for (key, change) in changes {
            let (name, app) = match key {
                WillKey::Device(id) => (format!("d:{id}"), None),
                WillKey::Application(app, client) => (format!("a:{client}"), Some(app.to_string())),
            };
            let stored = match change {
                Some((will, due_at)) => encode(app, will, *due_at)?,
                None => Vec::new(),
            };
            call.arg(name).arg(stored);
        }
        call.run().await
    }

    pub(in super::super) async fn load_wills(&self) -> Result<Vec<StoredWill>, StoreError> {
        let found = self.scan("will").await?;
        found
            .into_iter()
            .map(|(name, stored)| decode(&form::text("will", name)?, &stored))
            .collect()
    }
}

fn encode(app: Option<String>, will: &Will, due_at: Option<Millis>) -> Result<Vec<u8>, StoreError> {
    let head = Head {
        app,
        expiry_secs: will.expiry.map(|span| span.as_secs()),
        delay_secs: will.delay.as_secs(),
        due_at: due_at.map(Millis::as_i64),
    };
    let mut stored = serde_json::to_vec(&head).map_err(|error| form::corrupt("will", error))?;
    stored.push(b'\n');
    stored.extend(form::encode(&will.message)?);
    Ok(stored)
}

pub(super) fn decode(name: &str, stored: &[u8]) -> Result<StoredWill, StoreError> {
    let corrupt = || form::corrupt("will", "no owner and message");
    let end = stored.iter().position(|byte| *byte == b'\n');
    let (head, message) = end
        .and_then(|end| stored.split_at_checked(end))
        .ok_or_else(corrupt)?;
    let head: Head = serde_json::from_slice(head).map_err(|error| form::corrupt("will", error))?;
    let key = match (name.split_once(':'), head.app) {
        (Some(("d", id)), None) => WillKey::Device(form::parsed("device", id)?),
        (Some(("a", client)), Some(app)) => {
            WillKey::Application(form::parsed("app", &app)?, client.into())
        }
        _ => return Err(corrupt()),
    };
    let mut message = form::decode(message.get(1..).unwrap_or_default())?;
    message.at = Millis::from_i64(0);
    Ok(StoredWill {
        key,
        will: Will {
            message,
            expiry: head.expiry_secs.map(Duration::from_secs),
            delay: Duration::from_secs(head.delay_secs),
        },
        due_at: head.due_at.map(Millis::from_i64),
    })
}
