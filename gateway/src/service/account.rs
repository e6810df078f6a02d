//! Who may operate the gateway: operators, API tokens, and the record of what they did.
//!
//! Every change is stored together with its audit entry. What is shown once, a password that was made or a token, is
//! never stored. Invariants: there is always an administrator who may come in; a name of an operator is its for ever,
//! so that the audit stays readable.

mod operator;
mod token;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::{
    operator::{CreatedOperator, NewOperator, Operator},
    token::{CreatedToken, NewToken, Token},
};
use crate::{
    model::{AuditEntry, InvalidField, NoRandomness, Page, Paged},
    service::auth::{AuthError, TokenAuthenticator},
    store::{
        StoreError,
        registry::{AuditFilter, Registry},
    },
};

/// Why an operator or a token cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is none of that name or id.
    #[error("no such {what}")]
    NotFound {
        /// `operator` or `token`.
        what: &'static str,
    },
    /// The name is taken.
    #[error("{what} is taken by {with}")]
    Conflict {
        /// `operator name`.
        what: &'static str,
        /// Which record has it.
        with: String,
    },
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// It is not any more as whoever wants to change it read it.
    #[error("the {what} was changed meanwhile")]
    Stale {
        /// What.
        what: &'static str,
    },
    /// It cannot go, nor be less, while others need it.
    #[error("the {what} is in use by {by}")]
    InUse {
        /// `operator`.
        what: &'static str,
        /// What needs it.
        by: String,
    },
    /// There are as many as may be.
    #[error("there are {limit} {what}, and no more may be")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// A password cannot be hashed.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Nothing secret can be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The registry failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Conflict { what, with } => Self::Conflict { what, with },
            StoreError::Stale { what } => Self::Stale { what },
            StoreError::InUse { what, by } => Self::InUse { what, by },
            StoreError::Quota { unit, limit } => Self::TooMany { what: unit, limit },
            StoreError::Page(error) => Self::Invalid(InvalidField::from(error)),
            other => Self::Store(other),
        }
    }
}

/// The service of operators and tokens. Cloning shares everything.
#[derive(Clone)]
pub struct AccountService {
    registry: Registry,
    authenticator: TokenAuthenticator,
}

impl AccountService {
    /// The service over a registry, whose tokens `authenticator` checks.
    pub const fn new(registry: Registry, authenticator: TokenAuthenticator) -> Self {
        Self {
            registry,
            authenticator,
        }
    }

    /// What was changed and by whom, newest first.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] for a wrong cursor.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Paged<AuditEntry>, AccountError> {
        Ok(self.registry.audit(filter, page).await?)
    }
}

impl fmt::Debug for AccountService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountService").finish_non_exhaustive()
    }
}
