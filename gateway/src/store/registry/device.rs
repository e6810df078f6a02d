//! Devices, their aliases and their sealed credentials.

use headgate_protocol::identity::{AppId, DeviceId, ProductId};
use sqlx::any::AnyRow;

use crate::{
    model::{
        Alias, AuditEntry, AuthKind, CredentialSlot, Device, Fingerprint, Id, Millis, Page, Paged,
        PskEncoding,
    },
    store::{
        StoreError,
        registry::{
            BLOCK, Registry, Tx,
            rows::{self, Fields},
            sql::{self, Sql},
        },
    },
};

/// Which devices a list holds; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Of this product.
    pub product: Option<ProductId>,
    /// Enabled (true) or frozen (false).
    pub enabled: Option<bool>,
    /// Whose name holds this text, in any case.
    pub name: Option<String>,
    /// Whose name, node id or device id holds this text, in any case. Looks at every device.
    pub text: Option<String>,
    /// Whose device id, node id or name begins with this text, in any case. Looks at those alone.
    pub begins: Option<String>,
    /// Bound to this application.
    pub app: Option<AppId>,
}

/// What is changed of a device; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePatch {
    /// Its label.
    pub name: Option<String>,
    /// What people note about it.
    pub description: Option<String>,
    /// Whether it may connect.
    pub enabled: Option<bool>,
    /// The `updated_at` that it must still have.
    pub revision: Option<Millis>,
}

/// A secret as stored.
#[derive(Clone)]
pub struct SealedCredential {
    /// Which of the device's two.
    pub slot: CredentialSlot,
    /// The key that sealed it.
    pub key_id: String,
    /// The sealed secret.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedCredential")
            .field("slot", &self.slot)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// What a new device proves itself with.
#[derive(Clone, Debug, Default)]
pub struct DeviceCredentials {
    /// Its secrets.
    pub secrets: Vec<SealedCredential>,
    /// Fingerprints of its certificates.
    pub fingerprints: Vec<(CredentialSlot, Fingerprint)>,
}

/// Which credentials a device has; a secret is not shown, a fingerprint is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSlots {
    /// Where it has secrets.
    pub secrets: Vec<CredentialSlot>,
    /// Its fingerprints.
    pub fingerprints: Vec<(CredentialSlot, Fingerprint)>,
}

impl DeviceFilter {
    /// Adds what a device must be to a statement that begins with [`SELECT`].
    pub(super) fn narrow(&self, sql: &mut Sql) {
        if let Some(app) = &self.app {
            sql.push(
                " JOIN app_device ON app_device.device_id = device.id WHERE app_device.app_id = ",
            )
            .bind(app.as_str());
        } else {
            sql.push(" WHERE 1 = 1");
        }
        if let Some(product) = &self.product {
            // By the names where there are any: the index of products would have all of its devices looked at.
            sql.push(match self.begins {
                Some(_) => " AND product_id || '' = ",
                None => " AND product_id = ",
            })
            .bind(product.as_str());
        }
        // As literals: only then the index of frozen ones is seen to fit.
        if let Some(enabled) = self.enabled {
            sql.push(if enabled {
                " AND enabled = 1"
            } else {
                " AND enabled = 0"
            });
        }
        if let Some(name) = &self.name {
            sql.push(" AND LOWER(name) LIKE ")
                .bind(sql::contains(name))
                .push(" ESCAPE '\\'");
        }
        if let Some(text) = &self.text {
            let pattern = sql::contains(text);
            sql.push(" AND (LOWER(name) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\' OR LOWER(id) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\' OR LOWER(node_id) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\')");
        }
    }
}

impl Registry {
    /// Stores a new device with the strings that name it and its credentials.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] naming the device that has its id, its node id or one of its aliases;
    /// [`StoreError::NotFound`] when its product is gone.
    pub async fn insert_device(
        &self,
        device: &Device,
        aliases: &[Alias],
        credentials: &DeviceCredentials,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let product = sqlx::query("SELECT 1 FROM product WHERE id = $1")
            .bind(device.product_id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if product.is_none() {
            return Err(StoreError::NotFound { what: "product" });
        }
        let inserted = sqlx::query(
            "INSERT INTO device (id, product_id, node_id, name, description, auth, psk_encoding, enabled, \
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        )
        .bind(device.id.as_str())
        .bind(device.product_id.as_str())
        .bind(device.node_id.as_str())
        .bind(device.name.as_str())
        .bind(device.description.as_str())
        .bind(device.auth.as_str())
        .bind(device.psk_encoding.as_str())
        .bind(i64::from(device.enabled))
        .bind(device.created_at.as_i64())
        .bind(device.updated_at.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            return Err(device_clash(&mut tx, device).await?);
        }
        insert_aliases(&mut tx, device, aliases).await?;
        for credential in &credentials.secrets {
            put_credential(&mut tx, &device.id, credential, device.created_at).await?;
        }
        for &(slot, fingerprint) in &credentials.fingerprints {
            put_fingerprint(&mut tx, &device.id, slot, fingerprint, device.created_at).await?;
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Changes a device and returns it as it is then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`].
    pub async fn patch_device(
        &self,
        id: &DeviceId,
        patch: &DevicePatch,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<Device, StoreError> {
        let mut tx = self.begin().await?;
        let before = sqlx::query("SELECT updated_at FROM device WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(StoreError::NotFound { what: "device" })?;
        let at = super::after(Fields(&before).time("updated_at")?, at);
        let row = sqlx::query(
            "UPDATE device SET name = COALESCE($1, name), description = COALESCE($2, description), \
             enabled = COALESCE($3, enabled), updated_at = $4 \
             WHERE id = $5 AND updated_at = COALESCE($6, updated_at) RETURNING id, product_id, node_id, \
             name, description, auth, psk_encoding, enabled, created_at, updated_at, last_seen_at",
        )
        .bind(patch.name.clone())
        .bind(patch.description.clone())
        .bind(patch.enabled.map(i64::from))
        .bind(at.as_i64())
        .bind(id.as_str())
        .bind(patch.revision.map(Millis::as_i64))
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(StoreError::Stale { what: "device" })?;
        let device = read(&row)?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(device)
    }

    /// Replaces one of a device's credentials.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_credential(
        &self,
        id: &DeviceId,
        credential: &SealedCredential,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        touch(&mut tx, id, at).await?;
        put_credential(&mut tx, id, credential, at).await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Replaces one of a device's fingerprints.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_fingerprint(
        &self,
        id: &DeviceId,
        slot: CredentialSlot,
        fingerprint: Fingerprint,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        touch(&mut tx, id, at).await?;
        put_fingerprint(&mut tx, id, slot, fingerprint, at).await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Takes away what a device has in a slot, secret or fingerprint.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn clear_credential(
        &self,
        id: &DeviceId,
        slot: CredentialSlot,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        touch(&mut tx, id, at).await?;
        for delete in [
            "DELETE FROM device_credential WHERE device_id = $1 AND slot = $2",
            "DELETE FROM device_fingerprint WHERE device_id = $1 AND slot = $2",
        ] {
            sqlx::query(delete)
                .bind(id.as_str())
                .bind(slot.as_str())
                .execute(&mut *tx)
                .await?;
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Which credentials a device has.
    pub async fn device_slots(&self, id: &DeviceId) -> Result<DeviceSlots, StoreError> {
        let rows = sqlx::query(
            "SELECT slot, NULL AS fingerprint FROM device_credential WHERE device_id = $1 \
             UNION ALL SELECT slot, fingerprint FROM device_fingerprint WHERE device_id = $2",
        )
        .bind(id.as_str())
        .bind(id.as_str())
        .fetch_all(&self.read)
        .await?;
        let mut slots = DeviceSlots::default();
        for row in &rows {
            let fields = Fields(row);
            let slot = rows::slot("slot", fields.text("slot")?)?;
            if fields.optional_bytes("fingerprint")?.is_none() {
                slots.secrets.push(slot);
            } else {
                let fingerprint = Fingerprint::new(fields.digest("fingerprint")?);
                slots.fingerprints.push((slot, fingerprint));
            }
        }
        Ok(slots)
    }

    /// Deletes a device with its aliases and credentials. What was delivered to it stays in its tasks.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::InUse`] by a task that still delivers to it.
    pub async fn delete_device(&self, id: &DeviceId, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let open =
            sqlx::query("SELECT task_id FROM delivery WHERE device_id = $1 AND state < 3 LIMIT 1")
                .bind(id.as_str())
                .fetch_optional(&mut *tx)
                .await?;
        if let Some(row) = open {
            let task: Id = Fields(&row).id("task_id")?;
            return Err(StoreError::InUse {
                what: "device",
                by: format!("task {task}"),
            });
        }
        let deleted = sqlx::query("DELETE FROM device WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Err(StoreError::NotFound { what: "device" });
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The device of an id.
    pub async fn device(&self, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let found = self.devices_by_ids(&[id.as_str()]).await?;
        Ok(found.into_iter().next())
    }

    /// Devices in the order of their ids; those that [`DeviceFilter::begins`] finds, in the order of what it found.
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        page: &Page,
    ) -> Result<Paged<Device>, StoreError> {
        if let Some(begins) = &filter.begins {
            return self.devices_beginning(begins, filter, page).await;
        }
        let mut sql = Sql::new(SELECT);
        filter.narrow(&mut sql);
        // Of an application's devices the order is that of its bindings: they are few, or as good as all.
        let key = if filter.app.is_some() {
            "device_id"
        } else {
            "id"
        };
        if let Some(after) = page.after()? {
            sql.push(" AND ").push(key).push(" > ").bind(after);
        }
        sql.push(" ORDER BY ")
            .push(key)
            .push(" LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let devices = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(devices, page.limit, |device| {
            device.id.to_string()
        }))
    }

    /// Notes when devices were last connected; an older time than the stored one changes nothing.
    pub async fn touch_last_seen(&self, seen: &[(DeviceId, Millis)]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for block in seen.chunks(BLOCK) {
            let mut sql = Sql::new("WITH seen (id, at) AS (VALUES ");
            sql.rows(block, |row, (id, at)| {
                row.bind(id.as_str()).bind(at.as_i64());
            })
            .push(
                ") UPDATE device SET last_seen_at = seen.at FROM seen WHERE device.id = seen.id \
                 AND (device.last_seen_at IS NULL OR device.last_seen_at < seen.at)",
            );
            sql.build_rows(tx.dialect(), block.len())?
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Notes that a device was changed.
async fn touch(tx: &mut Tx, id: &DeviceId, at: Millis) -> Result<(), StoreError> {
    let updated = sqlx::query("UPDATE device SET updated_at = $1 WHERE id = $2")
        .bind(at.as_i64())
        .bind(id.as_str())
        .execute(&mut **tx)
        .await?
        .rows_affected();
    if updated == 0 {
        return Err(StoreError::NotFound { what: "device" });
    }
    Ok(())
}

async fn insert_aliases(tx: &mut Tx, device: &Device, aliases: &[Alias]) -> Result<(), StoreError> {
    let mut sql = Sql::new("INSERT INTO device_alias (alias, kind, device_id) VALUES ");
    sql.rows(aliases, |row, alias| {
        row.bind(alias.alias.as_str())
            .bind(alias.kind.as_str())
            .bind(device.id.as_str());
    })
    .push(" ON CONFLICT (alias) DO NOTHING");
    let inserted = sql
        .build(tx.dialect())?
        .execute(&mut **tx)
        .await?
        .rows_affected();
    if inserted == aliases.len() as u64 {
        return Ok(());
    }
    let names: Vec<&str> = aliases.iter().map(|alias| alias.alias.as_str()).collect();
    let mut sql = Sql::new("SELECT device_id FROM device_alias WHERE alias IN ");
    sql.texts(&names)
        .push(" AND device_id <> ")
        .bind(device.id.as_str())
        .push(" LIMIT 1");
    let row = sql.build(tx.dialect())?.fetch_one(&mut **tx).await?;
    Err(StoreError::Conflict {
        what: "device alias",
        with: format!("device {}", Fields(&row).text("device_id")?),
    })
}

/// Which device has the id or the node id that a new one wants.
async fn device_clash(tx: &mut Tx, device: &Device) -> Result<StoreError, StoreError> {
    let row =
        sqlx::query("SELECT id FROM device WHERE id = $1 OR (product_id = $2 AND node_id = $3)")
            .bind(device.id.as_str())
            .bind(device.product_id.as_str())
            .bind(device.node_id.as_str())
            .fetch_one(&mut **tx)
            .await?;
    let other = Fields(&row).text("id")?;
    let what = if other == device.id.as_str() {
        "device id"
    } else {
        "node id"
    };
    Ok(StoreError::Conflict {
        what,
        with: format!("device {other}"),
    })
}

async fn put_credential(
    tx: &mut Tx,
    device: &DeviceId,
    credential: &SealedCredential,
    at: Millis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_credential (device_id, slot, key_id, sealed, created_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (device_id, slot) DO UPDATE SET \
         key_id = excluded.key_id, sealed = excluded.sealed, created_at = excluded.created_at",
    )
    .bind(device.as_str())
    .bind(credential.slot.as_str())
    .bind(credential.key_id.as_str())
    .bind(credential.sealed.as_slice())
    .bind(at.as_i64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn put_fingerprint(
    tx: &mut Tx,
    device: &DeviceId,
    slot: CredentialSlot,
    fingerprint: Fingerprint,
    at: Millis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_fingerprint (device_id, slot, fingerprint, created_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (device_id, slot) DO UPDATE SET \
         fingerprint = excluded.fingerprint, created_at = excluded.created_at",
    )
    .bind(device.as_str())
    .bind(slot.as_str())
    .bind(fingerprint.as_bytes().as_slice())
    .bind(at.as_i64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) fn read(row: &AnyRow) -> Result<Device, StoreError> {
    let fields = Fields(row);
    Ok(Device {
        id: fields.parsed("id")?,
        product_id: fields.parsed("product_id")?,
        node_id: fields.parsed("node_id")?,
        name: fields.text("name")?.to_owned(),
        description: fields.text("description")?.to_owned(),
        auth: auth(&fields)?,
        psk_encoding: psk_encoding(&fields)?,
        enabled: fields.flag("enabled")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
        last_seen_at: fields.optional_time("last_seen_at")?,
    })
}

pub(super) fn psk_encoding(fields: &Fields<'_>) -> Result<PskEncoding, StoreError> {
    match fields.text("psk_encoding")? {
        "text" => Ok(PskEncoding::Text),
        "hex" => Ok(PskEncoding::Hex),
        "base64" => Ok(PskEncoding::Base64),
        other => Err(rows::corrupt("psk_encoding", other)),
    }
}

pub(super) fn auth(fields: &Fields<'_>) -> Result<AuthKind, StoreError> {
    match fields.text("auth")? {
        "secret" => Ok(AuthKind::Secret),
        "x509" => Ok(AuthKind::X509),
        "none" => Ok(AuthKind::None),
        other => Err(rows::corrupt("auth", other)),
    }
}

pub(super) const SELECT: &str = "SELECT id, product_id, node_id, name, description, auth, psk_encoding, enabled, created_at, \
     updated_at, last_seen_at FROM device";
