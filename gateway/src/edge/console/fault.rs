//! Pages that say why there is none: what a handler returns instead of its own.

use std::fmt::Display;

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    layout::{Bare, render_with},
    text::{TEXTS, Texts},
};
use crate::{
    edge::http::problem::Problem,
    service::{
        account::AccountError,
        app::AppError,
        auth::{AuthError, SignInError},
        delivery::DeliveryError,
        node::NodeError,
        registration::RegistrationError,
        registry::RegistryError,
        resource::ResourceError,
        upload::UploadError,
    },
};

/// Why there is no page; nothing has been changed.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    title: &'static str,
    detail: String,
    retry_after_secs: Option<u64>,
}

#[derive(Template)]
#[template(path = "console/fault.html")]
struct FaultPage<'a> {
    t: &'static Texts,
    layout: Bare,
    title: &'a str,
    detail: &'a str,
}

impl Fault {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            retry_after_secs: None,
        }
    }

    /// There is no such page.
    pub(super) fn no_page() -> Self {
        let t = &TEXTS.fault;
        Self::new(StatusCode::NOT_FOUND, t.no_page, t.no_page_detail)
    }

    /// There is no such thing any more, or never was.
    pub(super) fn gone() -> Self {
        let t = &TEXTS.fault;
        Self::new(StatusCode::NOT_FOUND, t.gone, t.gone_detail)
    }

    /// The operator's role does not allow it.
    pub(super) fn forbidden() -> Self {
        let t = &TEXTS.fault;
        Self::new(StatusCode::FORBIDDEN, t.forbidden, t.forbidden_detail)
    }

    /// A form that was not made for this session.
    pub(super) fn forged() -> Self {
        let t = &TEXTS.fault;
        Self::new(StatusCode::FORBIDDEN, t.forged, t.forged_detail)
    }

    /// The session is over, or there was none.
    pub(super) fn signed_out() -> Self {
        let t = &TEXTS.fault;
        Self::new(StatusCode::UNAUTHORIZED, t.signed_out, t.signed_out_detail)
    }

    /// What was sent cannot be used.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, TEXTS.fault.bad_request, detail)
    }

    /// The state of things does not allow it.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, TEXTS.fault.conflict, detail)
    }

    /// As much is under way as may be.
    pub(super) fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXTS.fault.overloaded,
            detail,
        )
        .after(5)
    }

    /// A fault of the gateway; what it was stands in the log alone.
    pub(super) fn internal(error: &impl Display) -> Self {
        tracing::error!(%error, "a page of the console failed");
        let t = &TEXTS.fault;
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            t.internal,
            t.internal_detail,
        )
    }

    /// Says when it is worth another try.
    pub(super) fn after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let page = FaultPage {
            t: &TEXTS,
            layout: Bare::new(),
            title: self.title,
            detail: &self.detail,
        };
        let mut response = render_with(self.status, &page);
        if let Some(secs) = self.retry_after_secs {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

impl From<AuthError> for Fault {
    fn from(error: AuthError) -> Self {
        Self::internal(&error)
    }
}

impl From<SignInError> for Fault {
    fn from(error: SignInError) -> Self {
        Self::internal(&error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::new(
            problem.status(),
            TEXTS.fault.bad_request,
            problem.detail().to_owned(),
        )
    }
}

impl From<ResourceError> for Fault {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::NotFound { .. } => Self::gone(),
            ResourceError::Store(_) => Self::internal(&error),
            ResourceError::Conflict { .. }
            | ResourceError::Stale { .. }
            | ResourceError::InUse { .. }
            | ResourceError::QuotaExceeded { .. } => Self::conflict(error.to_string()),
            _ => Self::bad_request(error.to_string()),
        }
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound { .. } => Self::gone(),
            RegistryError::Invalid(_) => Self::bad_request(error.to_string()),
            RegistryError::Conflict { .. } | RegistryError::InUse { .. } => {
                Self::conflict(error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<DeliveryError> for Fault {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::NotFound(_) => Self::gone(),
            DeliveryError::Store(_) | DeliveryError::NotRecorded(_) => Self::internal(&error),
            DeliveryError::TooManyOpen { .. }
            | DeliveryError::TooManyCreations
            | DeliveryError::TooManyWatchers { .. } => Self::overloaded(error.to_string()),
            DeliveryError::Stale | DeliveryError::Conflict(_) => Self::conflict(error.to_string()),
            _ => Self::bad_request(error.to_string()),
        }
    }
}

impl From<UploadError> for Fault {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::NotFound => Self::gone(),
            UploadError::Invalid(_) => Self::bad_request(error.to_string()),
            UploadError::Store(_) | UploadError::NotRecorded => Self::internal(&error),
        }
    }
}

impl From<AppError> for Fault {
    fn from(error: AppError) -> Self {
        match error {
            AppError::NotFound { .. } => Self::gone(),
            AppError::Invalid(_) => Self::bad_request(error.to_string()),
            AppError::Conflict { .. } | AppError::TooMany { .. } => {
                Self::conflict(error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<RegistrationError> for Fault {
    fn from(error: RegistrationError) -> Self {
        match error {
            RegistrationError::NotFound { .. } => Self::gone(),
            RegistrationError::Invalid(_) => Self::bad_request(error.to_string()),
            RegistrationError::Running => Self::conflict(error.to_string()),
            RegistrationError::Busy { .. } => Self::overloaded(error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<AccountError> for Fault {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NotFound { .. } => Self::gone(),
            AccountError::Invalid(_) => Self::bad_request(error.to_string()),
            AccountError::Conflict { .. }
            | AccountError::Stale { .. }
            | AccountError::InUse { .. }
            | AccountError::TooMany { .. } => Self::conflict(error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<NodeError> for Fault {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NotFound => Self::gone(),
            NodeError::Certificate(_) | NodeError::Elsewhere => Self::conflict(error.to_string()),
            NodeError::Busy => Self::overloaded(error.to_string()),
            NodeError::Store(_) => Self::internal(&error),
        }
    }
}
