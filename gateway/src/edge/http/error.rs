//! What went wrong in a service, as a problem; the one place that decides statuses.

use std::borrow::Cow;

use super::{
    auth::unauthenticated,
    problem::{Kind, Problem, RowProblem},
};
use crate::{
    model::InvalidField,
    service::{
        account::AccountError,
        app::AppError,
        auth::AuthError,
        delivery::{DeliveryError, RowError, RowErrorCode},
        node::NodeError,
        registration::{FileError, RegistrationError},
        registry::RegistryError,
        resource::ResourceError,
        uplink::{NotOpened, NotSent},
        vendor::NotExpected,
    },
};

impl From<InvalidField> for Problem {
    fn from(error: InvalidField) -> Self {
        // The two fields of a page come from the query, all others from a body.
        let kind = match error.field {
            "limit" | "cursor" => Kind::InvalidQuery,
            _ => Kind::InvalidField,
        };
        Self::new(kind, error.to_string()).with_field(error.field)
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound { what } => Self::not_found(what),
            RegistryError::Stale { .. } => Self::new(Kind::Stale, error.to_string()),
            RegistryError::Conflict { what, .. } => taken(what, error.to_string()),
            RegistryError::Invalid(error) => error.into(),
            RegistryError::InUse { ref by, .. } => in_use(by, error.to_string()),
            RegistryError::Store(_) | RegistryError::Seal(_) | RegistryError::Random(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NotFound { what } => Self::not_found(what),
            AccountError::Stale { .. } => Self::new(Kind::Stale, error.to_string()),
            AccountError::Conflict { what, .. } => taken(what, error.to_string()),
            AccountError::Invalid(error) => error.into(),
            AccountError::InUse { ref by, .. } => in_use(by, error.to_string()),
            AccountError::TooMany { .. } => Self::new(Kind::QuotaExceeded, error.to_string()),
            AccountError::Auth(_) | AccountError::Random(_) | AccountError::Store(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NotFound => Self::not_found("node"),
            NodeError::Certificate(_) | NodeError::Elsewhere => {
                Self::new(Kind::WrongState, error.to_string())
            }
            NodeError::Busy => Self::new(Kind::Overloaded, error.to_string()),
            NodeError::Store(_) => Self::internal(&error),
        }
    }
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        match error {
            AppError::NotFound { what } => Self::not_found(what),
            AppError::Stale { .. } => Self::new(Kind::Stale, error.to_string()),
            AppError::Conflict { what, .. } => taken(what, error.to_string()),
            AppError::Invalid(error) => error.into(),
            AppError::TooMany { .. } => Self::new(Kind::QuotaExceeded, error.to_string()),
            AppError::Store(_) | AppError::Random(_) | AppError::Interrupted => {
                Self::internal(&error)
            }
        }
    }
}

impl From<NotSent> for Problem {
    fn from(error: NotSent) -> Self {
        match error {
            // An application learns of no device that is not its own.
            NotSent::NotBound | NotSent::UnknownDevice => Self::not_found("device"),
            NotSent::ForeignTopic => Self::field("topic", error.to_string()),
            NotSent::TooLarge { .. } => {
                Self::new(Kind::TooLarge, error.to_string()).with_field("payload")
            }
            NotSent::RetainedFull => Self::new(Kind::RetainedFull, error.to_string()),
            NotSent::MailboxFull => {
                Self::new(Kind::MailboxFull, error.to_string()).with_retry_after(60)
            }
            NotSent::Offline => Self::new(Kind::Offline, error.to_string()),
            NotSent::Unavailable => {
                Self::new(Kind::Overloaded, error.to_string()).with_retry_after(5)
            }
            NotSent::Store(_) => Self::internal(&error),
        }
    }
}

impl From<NotOpened> for Problem {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::TooMany => {
                Self::new(Kind::TooManyStreams, error.to_string()).with_retry_after(30)
            }
            NotOpened::Changed => {
                Self::new(Kind::Overloaded, error.to_string()).with_retry_after(1)
            }
        }
    }
}

impl From<RegistrationError> for Problem {
    fn from(error: RegistrationError) -> Self {
        match error {
            RegistrationError::NotFound { what } => Self::not_found(what),
            RegistrationError::Busy { .. } => {
                Self::new(Kind::Overloaded, error.to_string()).with_retry_after(10)
            }
            RegistrationError::TooLarge { limit } => super::form::too_large(limit),
            RegistrationError::File(FileError::Unreadable(_))
            | RegistrationError::Spool { .. }
            | RegistrationError::Seal(_)
            | RegistrationError::Store(_) => Self::internal(&error),
            RegistrationError::File(_) => Self::new(Kind::InvalidCsv, error.to_string()),
            RegistrationError::Body(_) => {
                Self::new(Kind::Incomplete, "the connection ended within the body")
            }
            RegistrationError::Running => Self::new(Kind::WrongState, error.to_string()),
            RegistrationError::Invalid(error) => error.into(),
        }
    }
}

impl From<NotExpected> for Problem {
    fn from(error: NotExpected) -> Self {
        match error {
            NotExpected::NoResponse => Self::field("topic", error.to_string()),
            NotExpected::SameId => Self::new(Kind::WrongState, error.to_string()),
            NotExpected::TooMany => Self::new(Kind::Overloaded, error.to_string()),
        }
    }
}

impl From<ResourceError> for Problem {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::NotFound { what } => Self::not_found(what),
            ResourceError::Stale { .. } => Self::new(Kind::Stale, error.to_string()),
            ResourceError::Conflict { what, .. } => taken(what, error.to_string()),
            ResourceError::Invalid(error) => error.into(),
            ResourceError::InUse { ref by, .. } => in_use(by, error.to_string()),
            ResourceError::TooLarge { limit } => super::form::too_large(limit),
            ResourceError::QuotaExceeded { .. } => {
                Self::new(Kind::QuotaExceeded, error.to_string())
            }
            ResourceError::DigestMismatch { .. } => {
                Self::new(Kind::ContentMismatch, error.to_string()).with_field("sha256")
            }
            ResourceError::SizeMismatch { .. } => {
                Self::new(Kind::ContentMismatch, error.to_string()).with_field("size")
            }
            ResourceError::Body(_) => Self::new(Kind::Incomplete, error.to_string()),
            ResourceError::Store(_) => Self::internal(&error),
        }
    }
}

impl From<DeliveryError> for Problem {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::NotFound(what) => Self::not_found(what),
            DeliveryError::Invalid { field, ref reason } => InvalidField::new(field, reason).into(),
            DeliveryError::Rows(rows) => {
                Self::rows(rows.into_iter().map(RowProblem::from).collect())
            }
            DeliveryError::TooManyOpen { .. }
            | DeliveryError::TooManyCreations
            | DeliveryError::TooManyWatchers { .. } => {
                Self::new(Kind::Overloaded, error.to_string()).with_retry_after(60)
            }
            DeliveryError::Stale => Self::new(Kind::Stale, error.to_string()),
            DeliveryError::Conflict(detail) => Self::new(Kind::WrongState, detail),
            DeliveryError::Store(_) | DeliveryError::NotRecorded(_) => Self::internal(&error),
        }
    }
}

impl From<RowError> for RowProblem {
    fn from(error: RowError) -> Self {
        let code = match error.code {
            RowErrorCode::UnknownDevice => "unknown_device",
            RowErrorCode::Duplicate => "duplicate",
            RowErrorCode::WrongProduct => "wrong_product",
            RowErrorCode::InvalidName => "invalid_name",
        };
        Self {
            row: error.row,
            device: error.device,
            code: Cow::Borrowed(code),
            message: error.message,
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        if error.is_refusal() {
            unauthenticated("the token or secret is not valid")
        } else {
            Self::internal(&error)
        }
    }
}

/// A unique value that another record has, under the name that the API gives its field.
fn taken(what: &'static str, detail: String) -> Problem {
    let field = match what {
        "product id" | "application id" => "id",
        "device id" => "device_id",
        "node id" | "device alias" => "node_id",
        "resource name" | "operator name" => "name",
        other => other,
    };
    Problem::new(Kind::AlreadyExists, detail).with_field(field)
}

fn in_use(by: &str, detail: String) -> Problem {
    Problem::new(Kind::InUse, detail).with_used_by(vec![by.to_owned()])
}
