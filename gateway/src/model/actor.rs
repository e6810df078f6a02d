//! Who acts, and the record of what was done.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::time::Millis;

/// Someone who was let in: an operator or an API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The operator's or the token's name, as the audit shows it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// From where it asks; `None` where that is the gateway itself.
    pub origin: Option<IpAddr>,
}

impl Actor {
    /// Someone of whom nothing else is known.
    pub const fn new(name: String, role: Role) -> Self {
        Self {
            name,
            role,
            origin: None,
        }
    }

    /// The same, asking from an address.
    #[must_use]
    pub const fn at(mut self, origin: Option<IpAddr>) -> Self {
        self.origin = origin;
        self
    }

    /// The gateway itself, for changes that no one asked for.
    pub fn gateway() -> Self {
        Self::new("gateway".to_owned(), Role::Admin)
    }

    /// An audit entry of this actor, stamped now. `action` is `<noun>.<verb>`, `detail` never holds a secret.
    pub fn did(
        &self,
        action: &'static str,
        subject: impl fmt::Display,
        detail: impl Into<String>,
    ) -> AuditEntry {
        AuditEntry {
            at: Millis::now(),
            actor: self.name.clone(),
            action: action.to_owned(),
            subject: subject.to_string(),
            detail: detail.into(),
            origin: self
                .origin
                .map_or_else(String::new, |origin| origin.to_canonical().to_string()),
        }
    }
}

/// What an actor may do; each role may do what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Changes devices, resources and tasks.
    Operator,
    /// Changes products, operators and tokens.
    Admin,
}

impl Role {
    /// The role's name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownName)
    }
}

/// A stored word that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownName;

/// One change: who did what to what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// When.
    pub at: Millis,
    /// Who.
    pub actor: String,
    /// What, as `<noun>.<verb>`.
    pub action: String,
    /// To which record.
    pub subject: String,
    /// More, as text for people; never a secret.
    pub detail: String,
    /// From which address; empty where the gateway did it.
    pub origin: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_named() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(UnknownName));
    }
}
