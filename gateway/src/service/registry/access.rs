//! Who may ask the gateway for something, and what was done: for reading only.

use crate::{
    model::{AuditEntry, Id, Millis, Page, Paged, Role},
    service::registry::{RegistryError, RegistryService},
};

/// An API token as it may be shown: not the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: Id,
    /// What it is called, as the audit shows it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last used, to the minute; `None`: never.
    pub last_used_at: Option<Millis>,
}

impl RegistryService {
    /// API tokens in the order in which they were made.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for a wrong cursor.
    pub async fn tokens(&self, page: &Page) -> Result<Paged<Token>, RegistryError> {
        let rows = self.registry.tokens(page).await?;
        Ok(rows.map(|row| Token {
            id: row.id,
            name: row.name,
            role: row.role,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }))
    }

    /// What was changed and by whom, newest first.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for a wrong cursor.
    pub async fn audit(&self, page: &Page) -> Result<Paged<AuditEntry>, RegistryError> {
        Ok(self.registry.audit(page).await?)
    }
}
