//! Cursors of transfers: `attempt acked updated_at` and the ranges behind them.

use super::{BLOCK, RedisSessions, form};
use crate::{
    model::{Id, Millis},
    store::{
        StoreError,
        sessions::{Cursor, ranges},
    },
};

impl RedisSessions {
    pub(in super::super) async fn save_cursors(
        &self,
        cursors: &[Cursor],
    ) -> Result<(), StoreError> {
        for block in cursors.chunks(BLOCK) {
            let mut call = self.call(&self.scripts.cursors);
            for cursor in block {
                let (attempt, acked) = (cursor.attempt, cursor.acked);
                let at = cursor.updated_at.as_i64();
                let mut stored = format!("{attempt} {acked} {at} ").into_bytes();
                stored.extend(ranges::encode(&cursor.ranges));
                let (device, epoch) = match &cursor.claim {
                    Some((device, epoch)) => (device.as_str(), *epoch),
                    None => ("", 0),
                };
                call.arg(cursor.delivery.to_string())
                    .arg(attempt)
                    .arg(stored)
                    .arg(device)
                    .arg(epoch);
            }
            let () = call.run().await?;
        }
        Ok(())
    }

    pub(in super::super) async fn load_cursors(&self) -> Result<Vec<Cursor>, StoreError> {
        let found = self.scan("cursor").await?;
        found
            .into_iter()
            .map(|(delivery, stored)| {
                let delivery = form::id(&form::text("delivery", delivery)?)?;
                read(delivery, &stored)
            })
            .collect()
    }

    pub(in super::super) async fn cursors_of(
        &self,
        deliveries: &[Id],
    ) -> Result<Vec<Cursor>, StoreError> {
        let mut connection = self.connection.clone();
        let mut cursors = Vec::new();
        for block in deliveries.chunks(BLOCK) {
            let mut command = ::redis::cmd("HMGET");
            command.arg(self.key("cursor"));
            for delivery in block {
                command.arg(delivery.to_string());
            }
            let found: Vec<Option<Vec<u8>>> = command.query_async(&mut connection).await?;
            for (delivery, stored) in block.iter().zip(found) {
                if let Some(stored) = stored {
                    cursors.push(read(*delivery, &stored)?);
                }
            }
        }
        Ok(cursors)
    }

    pub(in super::super) async fn delete_cursors(
        &self,
        deliveries: &[Id],
    ) -> Result<(), StoreError> {
        for block in deliveries.chunks(BLOCK) {
            let mut call = self.call(&self.scripts.change);
            call.arg("cursor");
            for delivery in block {
                call.arg(delivery.to_string()).arg("");
            }
            let () = call.run().await?;
        }
        Ok(())
    }
}

fn read(delivery: Id, stored: &[u8]) -> Result<Cursor, StoreError> {
    let corrupt = || form::corrupt("cursor", "no numbers and ranges");
    let mut parts = stored.splitn(4, |byte| *byte == b' ');
    let mut number = || -> Option<i64> {
        let part = std::str::from_utf8(parts.next()?).ok()?;
        part.parse::<u64>().ok().map(u64::cast_signed)
    };
    let (attempt, acked, at) = (number(), number(), number());
    Ok(Cursor {
        delivery,
        attempt: attempt
            .and_then(|attempt| attempt.try_into().ok())
            .ok_or_else(corrupt)?,
        acked: acked.ok_or_else(corrupt)?.cast_unsigned(),
        ranges: parts.next().and_then(ranges::decode).ok_or_else(corrupt)?,
        updated_at: Millis::from_i64(at.ok_or_else(corrupt)?),
        claim: None,
    })
}
