//! API tokens: their digests, never the tokens themselves.

use sqlx::any::AnyRow;

use crate::{
    model::{AuditEntry, Id, Millis, Page, Paged, Role},
    store::{
        StoreError,
        registry::{Registry, Tx, rows::Fields, sql::Sql},
    },
};

/// An API token as stored: never the token itself.
#[derive(Clone)]
pub struct TokenRow {
    /// Its id.
    pub id: Id,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// When it was made.
    pub created_at: Millis,
    /// When it ends; `None`: never.
    pub expires_at: Option<Millis>,
    /// When it was last used.
    pub last_used_at: Option<Millis>,
}

impl Registry {
    /// Stores a token, unless there are `max` already.
    ///
    /// # Errors
    /// [`StoreError::Quota`].
    pub async fn insert_token(
        &self,
        token: &TokenRow,
        max: u64,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT COUNT(*) AS tokens FROM api_token")
            .fetch_one(&mut *tx)
            .await?;
        if Fields(&row).number::<u64>("tokens")? >= max {
            return Err(StoreError::Quota {
                unit: "tokens",
                limit: max,
            });
        }
        insert_token(&mut tx, token).await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The token of a digest.
    pub async fn token(&self, digest: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let mut sql = Sql::new(SELECT_TOKEN);
        sql.push(" WHERE digest = ").bind(digest.as_slice());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read_token).transpose()
    }

    /// The token of an id.
    pub async fn token_of(&self, id: Id) -> Result<Option<TokenRow>, StoreError> {
        let mut sql = Sql::new(SELECT_TOKEN);
        sql.push(" WHERE id = ").bind(id.as_i64());
        let row = sql.build(self.dialect)?.fetch_optional(&self.read).await?;
        row.as_ref().map(read_token).transpose()
    }

    /// API tokens in the order of their ids.
    pub async fn tokens(&self, page: &Page) -> Result<Paged<TokenRow>, StoreError> {
        let mut sql = Sql::new(SELECT_TOKEN);
        if let Some(after) = super::id_cursor(page)? {
            sql.push(" WHERE id > ").bind(after);
        }
        sql.push(" ORDER BY id LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let tokens = rows.iter().map(read_token).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(tokens, page.limit, |token| token.id.to_string()))
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_token(&self, id: Id, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let deleted = sqlx::query("DELETE FROM api_token WHERE id = $1")
            .bind(id.as_i64())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Err(StoreError::NotFound { what: "token" });
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Notes when tokens were last used; an older time than the stored one changes nothing.
    pub async fn touch_tokens(&self, used: &[(Id, Millis)]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (id, at) in used {
            sqlx::query(
                "UPDATE api_token SET last_used_at = $1 \
                 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
            )
            .bind(at.as_i64())
            .bind(id.as_i64())
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }
}

fn read_token(row: &AnyRow) -> Result<TokenRow, StoreError> {
    let fields = Fields(row);
    Ok(TokenRow {
        id: fields.id("id")?,
        name: fields.text("name")?.to_owned(),
        role: fields.parsed("role")?,
        digest: fields.digest("digest")?,
        created_at: fields.time("created_at")?,
        expires_at: fields.optional_time("expires_at")?,
        last_used_at: fields.optional_time("last_used_at")?,
    })
}

const SELECT_TOKEN: &str =
    "SELECT id, name, role, digest, created_at, expires_at, last_used_at FROM api_token";

pub(super) async fn insert_token(tx: &mut Tx, token: &TokenRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_token (id, account_id, name, role, digest, created_at, expires_at) \
         VALUES ($1, 1, $2, $3, $4, $5, $6)",
    )
    .bind(token.id.as_i64())
    .bind(token.name.as_str())
    .bind(token.role.as_str())
    .bind(token.digest.as_slice())
    .bind(token.created_at.as_i64())
    .bind(token.expires_at.map(Millis::as_i64))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl std::fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRow")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
