//! Sessions of operators in the console.

use sqlx::any::AnyRow;

use crate::{
    model::{Actor, AuditEntry, Id, Millis},
    store::{
        StoreError,
        registry::{Registry, rows::Fields},
    },
};

/// A session as stored, with the operator as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSessionRow {
    /// Whose it is.
    pub operator_id: Id,
    /// The operator, in its present role.
    pub actor: Actor,
    /// When it began.
    pub created_at: Millis,
    /// When it was last used, to the minute.
    pub seen_at: Millis,
}

/// From when on sessions count.
#[derive(Clone, Copy, Debug)]
pub struct SessionBounds {
    /// Sessions that began before this are over.
    pub created_since: Millis,
    /// Sessions that were not used since this are over.
    pub seen_since: Millis,
}

impl Registry {
    /// Begins a session, ends what is over and the operator's oldest beyond `max_sessions`, and notes that the
    /// operator signed in.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is no such operator any more.
    pub async fn insert_operator_session(
        &self,
        digest: &[u8; 32],
        operator: Id,
        bounds: SessionBounds,
        max_sessions: u32,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM operator_session WHERE created_at < $1 OR seen_at < $2")
            .bind(bounds.created_since.as_i64())
            .bind(bounds.seen_since.as_i64())
            .execute(&mut *tx)
            .await?;
        let known = sqlx::query("UPDATE operator SET last_sign_in_at = $1 WHERE id = $2")
            .bind(audit.at.as_i64())
            .bind(operator.as_i64())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if known == 0 {
            return Err(StoreError::NotFound { what: "operator" });
        }
        sqlx::query(
            "DELETE FROM operator_session WHERE operator_id = $1 AND digest NOT IN \
             (SELECT digest FROM operator_session WHERE operator_id = $1 \
              ORDER BY created_at DESC LIMIT $2)",
        )
        .bind(operator.as_i64())
        .bind(i64::from(max_sessions.saturating_sub(1)))
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO operator_session (digest, operator_id, created_at, seen_at) \
             VALUES ($1, $2, $3, $3)",
        )
        .bind(digest.as_slice())
        .bind(operator.as_i64())
        .bind(audit.at.as_i64())
        .execute(&mut *tx)
        .await?;
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The session of a digest, unless it is over: by time, because its operator is locked out, or because the operator
    /// has another password since.
    pub async fn operator_session(
        &self,
        digest: &[u8; 32],
        bounds: SessionBounds,
    ) -> Result<Option<OperatorSessionRow>, StoreError> {
        let row = sqlx::query(
            "SELECT s.operator_id, s.created_at, s.seen_at, o.name, o.role \
             FROM operator_session s JOIN operator o ON o.id = s.operator_id \
             WHERE s.digest = $1 AND s.created_at >= $2 AND s.seen_at >= $3 \
             AND o.enabled = 1 AND s.created_at >= o.password_set_at",
        )
        .bind(digest.as_slice())
        .bind(bounds.created_since.as_i64())
        .bind(bounds.seen_since.as_i64())
        .fetch_optional(&self.read)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Notes that a session is used.
    pub async fn touch_operator_session(
        &self,
        digest: &[u8; 32],
        at: Millis,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE operator_session SET seen_at = $1 WHERE digest = $2")
            .bind(at.as_i64())
            .bind(digest.as_slice())
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Ends a session; says whether there was one.
    pub async fn delete_operator_session(
        &self,
        digest: &[u8; 32],
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let deleted = sqlx::query("DELETE FROM operator_session WHERE digest = $1")
            .bind(digest.as_slice())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Ok(false);
        }
        self.record_in(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Whether any operator has ever signed in to the console.
    pub async fn has_signed_in(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM operator WHERE last_sign_in_at IS NOT NULL LIMIT 1")
            .fetch_optional(&self.read)
            .await?;
        Ok(row.is_some())
    }
}

fn read(row: &AnyRow) -> Result<OperatorSessionRow, StoreError> {
    let fields = Fields(row);
    Ok(OperatorSessionRow {
        operator_id: fields.id("operator_id")?,
        actor: Actor::new(fields.text("name")?.to_owned(), fields.parsed("role")?),
        created_at: fields.time("created_at")?,
        seen_at: fields.time("seen_at")?,
    })
}
