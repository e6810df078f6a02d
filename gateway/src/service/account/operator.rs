//! Operators: made, changed, locked out, deleted.

use zeroize::Zeroizing;

use super::{AccountError, AccountService};
use crate::{
    model::{Actor, InvalidField, Millis, Page, Paged, Role},
    service::auth::{MAX_PASSWORD_BYTES, new_password},
    store::registry::{OperatorPatch, OperatorRow},
};

/// An operator as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The name it signs in with; never changed.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may come in.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last changed; also tells this state of it from others.
    pub updated_at: Millis,
    /// When its password was set.
    pub password_set_at: Millis,
}

/// An operator to be made.
#[derive(Debug)]
pub struct NewOperator {
    /// 1 to 64 letters, digits, `_`, `-`, `.` and `@`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its password, 12 characters or more; `None`: one is made.
    pub password: Option<Zeroizing<String>>,
}

/// An operator that was made.
#[derive(Debug)]
pub struct CreatedOperator {
    /// The operator.
    pub operator: Operator,
    /// The password that was made, to be shown this once; `None` where one was given.
    pub password: Option<Zeroizing<String>>,
}

impl AccountService {
    /// Makes an operator.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] naming the field, [`AccountError::Conflict`] where the name is taken.
    pub async fn create_operator(
        &self,
        actor: &Actor,
        new: NewOperator,
    ) -> Result<CreatedOperator, AccountError> {
        check_name(&new.name)?;
        let (password, made) = password_or_new(new.password)?;
        let now = Millis::now();
        let row = OperatorRow {
            id: self.registry.next_id(),
            name: new.name,
            role: new.role,
            enabled: true,
            password_hash: self.authenticator.hash(password).await?,
            password_set_at: now,
            created_at: now,
            updated_at: now,
        };
        let audit = actor.did("operator.create", &row.name, row.role.as_str());
        self.registry.insert_operator(&row, &audit).await?;
        Ok(CreatedOperator {
            operator: row.into(),
            password: made,
        })
    }

    /// Operators in the order of their names.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] for a wrong cursor.
    pub async fn operators(&self, page: &Page) -> Result<Paged<Operator>, AccountError> {
        Ok(self.registry.operators(page).await?.map(Operator::from))
    }

    /// The operator of a name.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn operator(&self, name: &str) -> Result<Operator, AccountError> {
        let row = self.registry.operator(name).await?;
        row.map(Operator::from)
            .ok_or(AccountError::NotFound { what: "operator" })
    }

    /// Gives an operator another role, locks it out or lets it in again.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Stale`], [`AccountError::InUse`] where no administrator would be
    /// left who may come in.
    pub async fn patch_operator(
        &self,
        actor: &Actor,
        name: &str,
        patch: &OperatorPatch,
    ) -> Result<Operator, AccountError> {
        let action = match patch.enabled {
            Some(false) => "operator.disable",
            Some(true) => "operator.enable",
            None => "operator.update",
        };
        let audit = actor.did(action, name, patch.role.map_or("", Role::as_str));
        let row = self
            .registry
            .patch_operator(name, patch, Millis::now(), &audit)
            .await?;
        Ok(row.into())
    }

    /// Replaces an operator's password; what it opened with the former one is over. Gives the password where one was
    /// made.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Invalid`].
    pub async fn reset_password(
        &self,
        actor: &Actor,
        name: &str,
        password: Option<Zeroizing<String>>,
    ) -> Result<Option<Zeroizing<String>>, AccountError> {
        let (password, made) = password_or_new(password)?;
        // Before tens of milliseconds go into a hash.
        self.operator(name).await?;
        let hash = self.authenticator.hash(password).await?;
        let audit = actor.did("operator.reset_password", name, "");
        self.registry
            .set_operator_password(name, &hash, Millis::now(), &audit)
            .await?;
        Ok(made)
    }

    /// Deletes an operator. What it did stays in the audit.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::InUse`] where no administrator would be left who may come in.
    pub async fn delete_operator(&self, actor: &Actor, name: &str) -> Result<(), AccountError> {
        let audit = actor.did("operator.delete", name, "");
        Ok(self.registry.delete_operator(name, &audit).await?)
    }
}

impl From<OperatorRow> for Operator {
    fn from(row: OperatorRow) -> Self {
        Self {
            name: row.name,
            role: row.role,
            enabled: row.enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
            password_set_at: row.password_set_at,
        }
    }
}

fn check_name(name: &str) -> Result<(), InvalidField> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
    if !(1..=MAX_NAME_CHARS).contains(&name.len()) || !name.chars().all(is_legal) {
        let rule = "must be 1 to 64 letters, digits, '_', '-', '.' and '@'";
        return Err(InvalidField::new("name", rule));
    }
    // As parts of a path they would name another one.
    if matches!(name, "." | "..") {
        return Err(InvalidField::new("name", "needs a letter or a digit"));
    }
    Ok(())
}

/// The password that was given, checked; or one that is made, and shown.
fn password_or_new(
    given: Option<Zeroizing<String>>,
) -> Result<(Zeroizing<String>, Option<Zeroizing<String>>), AccountError> {
    let Some(given) = given else {
        let made = new_password()?;
        return Ok((made.clone(), Some(made)));
    };
    if given.chars().count() < MIN_PASSWORD_CHARS {
        let rule = "is shorter than 12 characters";
        return Err(InvalidField::new("password", rule).into());
    }
    if given.len() > MAX_PASSWORD_BYTES {
        let rule = "is longer than 1,024 bytes";
        return Err(InvalidField::new("password", rule).into());
    }
    Ok((given, None))
}

/// Longest name.
const MAX_NAME_CHARS: usize = 64;
/// Shortest password that is taken.
const MIN_PASSWORD_CHARS: usize = 12;
