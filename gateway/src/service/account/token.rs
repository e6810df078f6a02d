//! API tokens: made, shown once, revoked.

use zeroize::Zeroizing;

use super::{AccountError, AccountService};
use crate::{
    model::{Actor, Id, InvalidField, Millis, Page, Paged, Role, text},
    service::auth::new_token,
    store::registry::TokenRow,
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
    /// When it ends; `None`: never.
    pub expires_at: Option<Millis>,
    /// When it was last used, to the minute; `None`: never.
    pub last_used_at: Option<Millis>,
}

/// A token to be made.
#[derive(Debug)]
pub struct NewToken {
    /// A label of 1 to 64 characters.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it ends; `None`: never.
    pub expires_at: Option<Millis>,
}

/// A token that was made.
#[derive(Debug)]
pub struct CreatedToken {
    /// What is kept of it.
    pub token: Token,
    /// The token itself, to be shown this once.
    pub secret: Zeroizing<String>,
}

impl AccountService {
    /// Makes an API token.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] naming the field, [`AccountError::TooMany`].
    pub async fn create_token(
        &self,
        actor: &Actor,
        new: NewToken,
    ) -> Result<CreatedToken, AccountError> {
        text::check_label("name", &new.name, 1)?;
        let now = Millis::now();
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(InvalidField::new("expires_at", "is past").into());
        }
        let (secret, digest) = new_token()?;
        let row = TokenRow {
            id: self.registry.next_id(),
            name: new.name,
            role: new.role,
            digest,
            created_at: now,
            expires_at: new.expires_at,
            last_used_at: None,
        };
        let detail = format!("{} {}", row.name, row.role.as_str());
        let audit = actor.did("token.create", row.id, detail);
        self.registry.insert_token(&row, MAX_TOKENS, &audit).await?;
        Ok(CreatedToken {
            token: row.into(),
            secret,
        })
    }

    /// API tokens in the order in which they were made.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] for a wrong cursor.
    pub async fn tokens(&self, page: &Page) -> Result<Paged<Token>, AccountError> {
        Ok(self.registry.tokens(page).await?.map(Token::from))
    }

    /// The token of an id.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn token(&self, id: Id) -> Result<Token, AccountError> {
        let row = self.registry.token_of(id).await?;
        row.map(Token::from)
            .ok_or(AccountError::NotFound { what: "token" })
    }

    /// Revokes a token: on this node at once, on others within a minute.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn revoke_token(&self, actor: &Actor, id: Id) -> Result<(), AccountError> {
        let row = self.registry.token_of(id).await?;
        let row = row.ok_or(AccountError::NotFound { what: "token" })?;
        let audit = actor.did("token.revoke", id, row.name.as_str());
        self.registry.delete_token(id, &audit).await?;
        self.authenticator.forget(&row.digest);
        Ok(())
    }
}

impl From<TokenRow> for Token {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            role: row.role,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// Tokens at one time: no more than are kept in memory.
const MAX_TOKENS: u64 = 1_000;
