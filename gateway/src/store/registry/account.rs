//! Operators and API tokens.

use sqlx::any::AnyRow;

use crate::{
    model::{Actor, Id, Millis, Page, Paged, Role},
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
    /// Its password's Argon2id hash, in PHC form.
    pub password_hash: String,
    /// When it was made.
    pub created_at: Millis,
}

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
    /// When it was last used.
    pub last_used_at: Option<Millis>,
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
        let inserted = sqlx::query(
            "INSERT INTO operator (id, account_id, name, role, password_hash, created_at) \
             SELECT $1, 1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM operator)",
        )
        .bind(operator.id.as_i64())
        .bind(operator.name.as_str())
        .bind(operator.role.as_str())
        .bind(operator.password_hash.as_str())
        .bind(operator.created_at.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
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

    /// The operator of a name.
    pub async fn operator(&self, name: &str) -> Result<Option<OperatorRow>, StoreError> {
        let row = sqlx::query(
            "SELECT id, name, role, password_hash, created_at FROM operator WHERE name = $1",
        )
        .bind(name)
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| {
            let fields = Fields(&row);
            Ok(OperatorRow {
                id: fields.id("id")?,
                name: fields.text("name")?.to_owned(),
                role: fields.parsed("role")?,
                password_hash: fields.text("password_hash")?.to_owned(),
                created_at: fields.time("created_at")?,
            })
        })
        .transpose()
    }

    /// The token of a digest.
    pub async fn token(&self, digest: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let mut sql = Sql::new(SELECT_TOKEN);
        sql.push(" WHERE digest = ").bind(digest.as_slice());
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
        last_used_at: fields.optional_time("last_used_at")?,
    })
}

const SELECT_TOKEN: &str = "SELECT id, name, role, digest, created_at, last_used_at FROM api_token";

async fn insert_token(tx: &mut Tx, token: &TokenRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_token (id, account_id, name, role, digest, created_at) \
         VALUES ($1, 1, $2, $3, $4, $5)",
    )
    .bind(token.id.as_i64())
    .bind(token.name.as_str())
    .bind(token.role.as_str())
    .bind(token.digest.as_slice())
    .bind(token.created_at.as_i64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl std::fmt::Debug for OperatorRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorRow")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRow")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
