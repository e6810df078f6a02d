//! What stands in the registry sealed, for a change of the key.

use sqlx::Row as _;

use crate::{
    model::AuditEntry,
    store::{
        StoreError,
        registry::{BLOCK, Registry, rows::Fields},
    },
};

/// A device's secret as it is stored.
pub struct SealedSecret {
    /// Whose it is.
    pub device_id: String,
    /// Which of the device's two.
    pub slot: String,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedSecret")
            .field("device_id", &self.device_id)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Up to [`BLOCK`] secrets that were sealed with another key than this one.
    pub async fn secrets_under_other_keys(
        &self,
        key_id: &str,
    ) -> Result<Vec<SealedSecret>, StoreError> {
        let rows = sqlx::query(
            "SELECT device_id, slot, sealed FROM device_credential WHERE key_id <> $1 LIMIT $2",
        )
        .bind(key_id)
        .bind(i64::try_from(BLOCK).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                let fields = Fields(row);
                Ok(SealedSecret {
                    device_id: fields.text("device_id")?.to_owned(),
                    slot: fields.text("slot")?.to_owned(),
                    sealed: row.try_get("sealed")?,
                })
            })
            .collect()
    }

    /// Replaces secrets by the same ones sealed with this key, all or none.
    pub async fn replace_sealed(
        &self,
        key_id: &str,
        secrets: &[SealedSecret],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for secret in secrets {
            sqlx::query(
                "UPDATE device_credential SET sealed = $1, key_id = $2 WHERE device_id = $3 AND slot = $4",
            )
            .bind(secret.sealed.as_slice())
            .bind(key_id)
            .bind(secret.device_id.as_str())
            .bind(secret.slot.as_str())
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Every setting with its value.
    pub async fn settings(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM setting ORDER BY key")
            .fetch_all(&self.read)
            .await?;
        rows.iter()
            .map(|row| {
                let key = Fields(row).text("key")?.to_owned();
                Ok((key, row.try_get("value")?))
            })
            .collect()
    }

    /// Stores settings whatever they were, with the audit entry of the change, all or none.
    pub async fn replace_settings(
        &self,
        settings: &[(String, Vec<u8>)],
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (key, value) in settings {
            sqlx::query("UPDATE setting SET value = $1 WHERE key = $2")
                .bind(value.as_slice())
                .bind(key.as_str())
                .execute(&mut *tx)
                .await?;
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }
}
