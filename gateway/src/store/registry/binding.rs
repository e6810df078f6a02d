//! Which devices are bound to which applications.

use std::collections::{HashMap, HashSet};

use headgate_protocol::identity::{AppId, DeviceId};

use crate::{
    model::{AuditEntry, Binding, Millis, Page, Paged},
    store::{
        StoreError,
        registry::{BLOCK, Registry, Tx, rows::Fields, sql::Sql},
    },
};

/// What became of devices that were to be bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Those that were not bound before.
    pub added: Vec<DeviceId>,
    /// Those that are bound to as many applications as they may, and not to this one.
    pub over_limit: Vec<DeviceId>,
    /// Ids that no device has.
    pub unknown: Vec<DeviceId>,
}

impl Registry {
    /// The applications that a device is bound to, those that may not come in included.
    pub async fn apps_of_device(&self, device: &DeviceId) -> Result<Vec<AppId>, StoreError> {
        let rows =
            sqlx::query("SELECT app_id FROM app_device WHERE device_id = $1 ORDER BY app_id")
                .bind(device.as_str())
                .fetch_all(&self.read)
                .await?;
        rows.iter()
            .map(|row| Fields(row).parsed("app_id"))
            .collect()
    }

    /// Binds devices, at most [`BLOCK`], to an application: those that can be. Each device may be bound to at most
    /// `max_per_device` applications. What is bound already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the application.
    pub async fn bind_devices(
        &self,
        app: &AppId,
        devices: &[DeviceId],
        max_per_device: usize,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<Bound, StoreError> {
        let mut tx = self.begin().await?;
        check_app(&mut tx, app).await?;
        let mut bound = Bound::default();
        for block in devices.chunks(BLOCK) {
            let counts = counts(&mut tx, app, block).await?;
            let mut new = Vec::with_capacity(block.len());
            let mut seen = HashSet::with_capacity(block.len());
            for device in block.iter().filter(|device| seen.insert(*device)) {
                match counts.get(device) {
                    None => bound.unknown.push(device.clone()),
                    Some(known) if known.is_bound => {}
                    Some(known) if known.apps >= max_per_device => {
                        bound.over_limit.push(device.clone());
                    }
                    Some(_) => new.push(device.clone()),
                }
            }
            if new.is_empty() {
                continue;
            }
            let mut sql = Sql::new("INSERT INTO app_device (app_id, device_id, bound_at) VALUES ");
            sql.rows(&new, |row, device| {
                row.bind(app.as_str())
                    .bind(device.as_str())
                    .bind(at.as_i64());
            })
            .push(" ON CONFLICT (app_id, device_id) DO NOTHING");
            sql.build_rows(tx.dialect(), new.len())?
                .execute(&mut *tx)
                .await?;
            bound.added.append(&mut new);
        }
        if !bound.added.is_empty() {
            self.record_in(&mut tx, audit).await?;
        }
        tx.commit().await?;
        Ok(bound)
    }

    /// Unbinds devices from an application; gives those that were bound.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the application.
    pub async fn unbind_devices(
        &self,
        app: &AppId,
        devices: &[DeviceId],
        audit: &AuditEntry,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let mut tx = self.begin().await?;
        check_app(&mut tx, app).await?;
        let mut removed = Vec::new();
        for block in devices.chunks(BLOCK) {
            let mut sql = Sql::new("DELETE FROM app_device WHERE app_id = ");
            sql.bind(app.as_str()).push(" AND device_id IN ");
            sql.texts(block).push(" RETURNING device_id");
            for row in &sql.build(tx.dialect())?.fetch_all(&mut *tx).await? {
                removed.push(Fields(row).parsed("device_id")?);
            }
        }
        if !removed.is_empty() {
            self.record_in(&mut tx, audit).await?;
        }
        tx.commit().await?;
        Ok(removed)
    }

    /// The devices of an application in the order of their ids.
    pub async fn bindings(&self, app: &AppId, page: &Page) -> Result<Paged<Binding>, StoreError> {
        let mut sql = Sql::new("SELECT device_id, bound_at FROM app_device WHERE app_id = ");
        sql.bind(app.as_str());
        if let Some(after) = page.after()? {
            sql.push(" AND device_id > ").bind(after);
        }
        sql.push(" ORDER BY device_id LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let bindings = rows
            .iter()
            .map(|row| {
                let fields = Fields(row);
                Ok(Binding {
                    device_id: fields.parsed("device_id")?,
                    bound_at: fields.time("bound_at")?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Paged::cut(bindings, page.limit, |binding| {
            binding.device_id.to_string()
        }))
    }

    /// How many devices are bound to an application.
    pub async fn binding_count(&self, app: &AppId) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS devices FROM app_device WHERE app_id = $1")
            .bind(app.as_str())
            .fetch_one(&self.read)
            .await?;
        Fields(&row).number("devices")
    }
}

/// How a device that exists stands to an application.
struct Count {
    /// Applications that it is bound to.
    apps: usize,
    is_bound: bool,
}

async fn counts(
    tx: &mut Tx,
    app: &AppId,
    devices: &[DeviceId],
) -> Result<HashMap<DeviceId, Count>, StoreError> {
    let mut sql =
        Sql::new("SELECT d.id, COUNT(b.app_id) AS apps, COALESCE(MAX(CASE WHEN b.app_id = ");
    sql.bind(app.as_str())
        .push(
            " THEN 1 ELSE 0 END), 0) AS is_bound FROM device d LEFT JOIN app_device b ON b.device_id = d.id \
             WHERE d.id IN ",
        )
        .texts(devices)
        .push(" GROUP BY d.id");
    let rows = sql.build(tx.dialect())?.fetch_all(&mut **tx).await?;
    rows.iter()
        .map(|row| {
            let fields = Fields(row);
            let count = Count {
                apps: fields.number("apps")?,
                is_bound: fields.flag("is_bound")?,
            };
            Ok((fields.parsed("id")?, count))
        })
        .collect()
}

async fn check_app(tx: &mut Tx, app: &AppId) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT 1 FROM application WHERE id = $1")
        .bind(app.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    row.map(|_| ()).ok_or(StoreError::NotFound {
        what: "application",
    })
}
