//! Operators.

use sqlx::any::AnyRow;

use super::token::{TokenRow, insert_token};
use crate::{
    model::{Actor, AuditEntry, Id, Millis, Page, Paged, Role},
    store::{
        StoreError,
        registry::{Registry, Tx, rows::Fields, sql::Sql},
    },
};

/// An operator as stored.
#[derive(Clone)]
pub struct OperatorRow {
    /// Its id.
    pub id: Id,
    /// The name it logs in with, unique.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may come in.
    pub enabled: bool,
    /// Its password's Argon2id hash, in PHC form.
    pub password_hash: String,
    /// When its password was set: what was opened with an earlier one is over.
    pub password_set_at: Millis,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// What is changed of an operator; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorPatch {
    /// What it may do.
    pub role: Option<Role>,
    /// Whether it may come in.
    pub enabled: Option<bool>,
    /// The `updated_at` that it must still have.
    pub revision: Option<Millis>,
}

impl Registry {
    /// Whether there is any operator: none at the first start.
    pub async fn has_operators(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM operator LIMIT 1")
            .fetch_optional(&self.read)
            .await?;
        Ok(row.is_some())
    }

    /// Stores the first operator and the first token, unless there is an operator already; says whether it did.
    pub async fn insert_first_operator(
        &self,
        operator: &OperatorRow,
        token: &TokenRow,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let first = sqlx::query("SELECT 1 FROM operator LIMIT 1")
            .fetch_optional(&mut *tx)
            .await?;
        // Of several nodes that start at once, the name lets one alone pass.
        if first.is_some() || !insert_row(&mut tx, operator).await? {
            return Ok(false);
        }
        insert_token(&mut tx, token).await?;
        let entry = Actor::gateway().did("operator.create", &operator.name, "first start");
        self.record_in(&mut tx, &entry).await?;
        let entry = Actor::gateway().did("token.create", &token.name, "first start");
        self.record_in(&mut tx, &entry).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Stores an operator.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where its name is taken.
    pub async fn insert_operator(
        &self,
        operator: &OperatorRow,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if !insert_row(&mut tx, operator).await? {
            return Err(StoreError::Conflict {
                what: "operator name",
                with: format!("operator {}", operator.name),
            });
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The operator of a name.
    pub async fn operator(&self, name: &str) -> Result<Option<OperatorRow>, StoreError> {
        let mut sql = Sql::new(SELECT_OPERATOR);
        sql.push(" WHERE name = ").bind(name.to_owned());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read_operator).transpose()
    }

    /// Operators in the order of their names.
    pub async fn operators(&self, page: &Page) -> Result<Paged<OperatorRow>, StoreError> {
        let mut sql = Sql::new(SELECT_OPERATOR);
        if let Some(after) = page.after()? {
            sql.push(" WHERE name > ").bind(after);
        }
        sql.push(" ORDER BY name LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let operators = rows.iter().map(read_operator);
        let operators = operators.collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(operators, page.limit, |row| row.name.clone()))
    }

    /// Changes an operator.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`], or [`StoreError::InUse`] where no administrator would be left
    /// who may come in.
    pub async fn patch_operator(
        &self,
        name: &str,
        patch: &OperatorPatch,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<OperatorRow, StoreError> {
        let mut tx = self.begin().await?;
        lock_administrators(&mut tx).await?;
        let before = one(&mut tx, name).await?;
        let updated = sqlx::query(
            "UPDATE operator SET role = COALESCE($1, role), enabled = COALESCE($2, enabled), \
             updated_at = $3 WHERE name = $4 AND updated_at = COALESCE($5, updated_at)",
        )
        .bind(patch.role.map(Role::as_str))
        .bind(patch.enabled.map(i64::from))
        .bind(super::after(before.updated_at, at).as_i64())
        .bind(name)
        .bind(patch.revision.map(Millis::as_i64))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        super::was_current("operator", updated)?;
        refuse_without_administrator(&mut tx).await?;
        let after = one(&mut tx, name).await?;
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Replaces an operator's password.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_operator_password(
        &self,
        name: &str,
        hash: &str,
        at: Millis,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let before = one(&mut tx, name).await?;
        sqlx::query(
            "UPDATE operator SET password_hash = $1, password_set_at = $2, updated_at = $3 WHERE name = $4",
        )
        .bind(hash)
        .bind(at.as_i64())
        .bind(super::after(before.updated_at, at).as_i64())
        .bind(name)
        .execute(&mut *tx)
        .await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes an operator.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::InUse`] where no administrator would be left who may come in.
    pub async fn delete_operator(&self, name: &str, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        lock_administrators(&mut tx).await?;
        let deleted = sqlx::query("DELETE FROM operator WHERE name = $1")
            .bind(name)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Err(StoreError::NotFound { what: "operator" });
        }
        refuse_without_administrator(&mut tx).await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }
}

/// Stores a row unless its name is taken; says whether it did.
async fn insert_row(tx: &mut Tx, operator: &OperatorRow) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO operator (id, account_id, name, role, enabled, password_hash, password_set_at, created_at, \
         updated_at) VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING",
    )
    .bind(operator.id.as_i64())
    .bind(operator.name.as_str())
    .bind(operator.role.as_str())
    .bind(i64::from(operator.enabled))
    .bind(operator.password_hash.as_str())
    .bind(operator.password_set_at.as_i64())
    .bind(operator.created_at.as_i64())
    .bind(operator.updated_at.as_i64())
    .execute(&mut **tx)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

async fn one(tx: &mut Tx, name: &str) -> Result<OperatorRow, StoreError> {
    let mut sql = Sql::new(SELECT_OPERATOR);
    sql.push(" WHERE name = ").bind(name.to_owned());
    let row = sql.build(tx.dialect())?.fetch_optional(&mut **tx).await?;
    let row = row.ok_or(StoreError::NotFound { what: "operator" })?;
    read_operator(&row)
}

/// Makes changes of administrators queue: of two that are taken away at once, each sees what the other did.
async fn lock_administrators(tx: &mut Tx) -> Result<(), StoreError> {
    sqlx::query("UPDATE operator SET role = role WHERE role = 'admin'")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn refuse_without_administrator(tx: &mut Tx) -> Result<(), StoreError> {
    let left = sqlx::query("SELECT 1 FROM operator WHERE role = 'admin' AND enabled = 1 LIMIT 1")
        .fetch_optional(&mut **tx)
        .await?;
    left.map(drop).ok_or_else(|| StoreError::InUse {
        what: "operator",
        by: "the gateway, which needs one administrator".to_owned(),
    })
}

fn read_operator(row: &AnyRow) -> Result<OperatorRow, StoreError> {
    let fields = Fields(row);
    Ok(OperatorRow {
        id: fields.id("id")?,
        name: fields.text("name")?.to_owned(),
        role: fields.parsed("role")?,
        enabled: fields.flag("enabled")?,
        password_hash: fields.text("password_hash")?.to_owned(),
        password_set_at: fields.time("password_set_at")?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

const SELECT_OPERATOR: &str = "SELECT id, name, role, enabled, password_hash, password_set_at, created_at, updated_at FROM operator";

impl std::fmt::Debug for OperatorRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorRow")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
