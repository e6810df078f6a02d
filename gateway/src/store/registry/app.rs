//! Applications and the digests of their secrets.

use headgate_protocol::identity::AppId;
use sqlx::any::AnyRow;

use crate::{
    model::{Application, AuditEntry, CredentialSlot, Millis, Page, Paged},
    store::{
        StoreError,
        registry::{
            Registry, Tx,
            rows::Fields,
            sql::{self, Sql},
        },
    },
};

/// Which applications a list holds; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppFilter {
    /// Whose name or id holds this text, in any case.
    pub text: Option<String>,
}

/// What is changed of an application; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppPatch {
    /// Its label.
    pub name: Option<String>,
    /// Whether it may come in.
    pub enabled: Option<bool>,
    /// The `updated_at` that it must still have.
    pub revision: Option<Millis>,
}

/// Whose secret a digest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSecretRow {
    /// The application.
    pub app_id: AppId,
    /// Whether it may come in.
    pub enabled: bool,
}

impl Registry {
    /// Stores a new application with its first secret's digest.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when its id is taken, [`StoreError::Quota`] when there are `max` already.
    pub async fn insert_app(
        &self,
        app: &Application,
        digest: &[u8; 32],
        max: usize,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT COUNT(*) AS apps FROM application")
            .fetch_one(&mut *tx)
            .await?;
        if Fields(&row).number::<usize>("apps")? >= max {
            return Err(StoreError::Quota {
                unit: "applications",
                limit: max as u64,
            });
        }
        let inserted = sqlx::query(
            "INSERT INTO application (id, account_id, name, enabled, created_at, updated_at) \
             VALUES ($1, 1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING",
        )
        .bind(app.id.as_str())
        .bind(app.name.as_str())
        .bind(i64::from(app.enabled))
        .bind(app.created_at.as_i64())
        .bind(app.updated_at.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            return Err(StoreError::Conflict {
                what: "application id",
                with: format!("application {}", app.id),
            });
        }
        let slot = CredentialSlot::Primary;
        put_secret(&mut tx, &app.id, slot, digest, app.created_at).await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The application of an id.
    pub async fn app(&self, id: &AppId) -> Result<Option<Application>, StoreError> {
        let row = sqlx::query(
            "SELECT id, name, enabled, created_at, updated_at FROM application WHERE id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.read)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Applications in the order of their ids.
    pub async fn apps(
        &self,
        filter: &AppFilter,
        page: &Page,
    ) -> Result<Paged<Application>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, name, enabled, created_at, updated_at FROM application WHERE 1 = 1",
        );
        if let Some(text) = &filter.text {
            let pattern = sql::contains(text);
            sql.push(" AND (LOWER(name) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\' OR LOWER(id) LIKE ")
                .bind(pattern.as_str())
                .push(" ESCAPE '\\')");
        }
        if let Some(after) = page.after()? {
            sql.push(" AND id > ").bind(after);
        }
        sql.push(" ORDER BY id LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let apps = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(apps, page.limit, |app| app.id.to_string()))
    }

    /// Changes an application and returns it as it is then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`].
    pub async fn patch_app(
        &self,
        id: &AppId,
        patch: &AppPatch,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<Application, StoreError> {
        let mut tx = self.begin().await?;
        let before = sqlx::query("SELECT updated_at FROM application WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(StoreError::NotFound {
                what: "application",
            })?;
        let at = super::after(Fields(&before).time("updated_at")?, at);
        let row = sqlx::query(
            "UPDATE application SET name = COALESCE($1, name), enabled = COALESCE($2, enabled), updated_at = $3 \
             WHERE id = $4 AND updated_at = COALESCE($5, updated_at) \
             RETURNING id, name, enabled, created_at, updated_at",
        )
        .bind(patch.name.clone())
        .bind(patch.enabled.map(i64::from))
        .bind(at.as_i64())
        .bind(id.as_str())
        .bind(patch.revision.map(Millis::as_i64))
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(StoreError::Stale {
            what: "application",
        })?;
        let app = read(&row)?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(app)
    }

    /// Replaces one of an application's two secrets.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_app_secret(
        &self,
        id: &AppId,
        slot: CredentialSlot,
        digest: &[u8; 32],
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let updated = sqlx::query("UPDATE application SET updated_at = $1 WHERE id = $2")
            .bind(at.as_i64())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if updated == 0 {
            return Err(StoreError::NotFound {
                what: "application",
            });
        }
        put_secret(&mut tx, id, slot, digest, at).await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes an application with its secrets and bindings.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_app(&self, id: &AppId, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let deleted = sqlx::query("DELETE FROM application WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Err(StoreError::NotFound {
                what: "application",
            });
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The application whose secret has this digest.
    pub async fn app_by_secret(
        &self,
        digest: &[u8; 32],
    ) -> Result<Option<AppSecretRow>, StoreError> {
        let row = sqlx::query(
            "SELECT a.id, a.enabled FROM application_secret s JOIN application a ON a.id = s.app_id \
             WHERE s.digest = $1",
        )
        .bind(digest.as_slice())
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| {
            let fields = Fields(&row);
            Ok(AppSecretRow {
                app_id: fields.parsed("id")?,
                enabled: fields.flag("enabled")?,
            })
        })
        .transpose()
    }
}

async fn put_secret(
    tx: &mut Tx,
    app: &AppId,
    slot: CredentialSlot,
    digest: &[u8; 32],
    at: Millis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO application_secret (app_id, slot, digest, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (app_id, slot) DO UPDATE SET digest = excluded.digest, created_at = excluded.created_at",
    )
    .bind(app.as_str())
    .bind(slot.as_str())
    .bind(digest.as_slice())
    .bind(at.as_i64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Application, StoreError> {
    let fields = Fields(row);
    Ok(Application {
        id: fields.parsed("id")?,
        name: fields.text("name")?.to_owned(),
        enabled: fields.flag("enabled")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}
