//! Error answers of the HTTP API as problem details.
//!
//! Every error that leaves the API is a [`Problem`]; handlers and extractors return it and the
//! outermost layer stamps the request id into it. Invariants: `type` of a kind never changes once
//! published; `detail` never quotes a secret or an internal path. Spec: RFC 9457.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Media type of every error answer.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Most row errors that one answer lists; the count of all stands in `error_count`.
pub const MAX_ROW_ERRORS: usize = 1_000;

/// What kind of problem it is; each has a stable `type`, a title and a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The body is no well-formed JSON.
    MalformedJson,
    /// The multipart body does not follow its grammar or lacks a part.
    MalformedMultipart,
    /// The query string has an unknown parameter or one with a wrong value.
    InvalidQuery,
    /// A header has a wrong value.
    InvalidHeader,
    /// The request ended before it was whole.
    Incomplete,
    /// No token, or one that is not valid.
    Unauthenticated,
    /// The token's role does not allow this.
    Forbidden,
    /// No such thing, or no such path.
    NotFound,
    /// The path exists, not with this method.
    MethodNotAllowed,
    /// The body did not come in time.
    RequestTimeout,
    /// A name or an identity is taken.
    AlreadyExists,
    /// Something else still uses what was to be deleted.
    InUse,
    /// The thing is in a state that does not allow this.
    WrongState,
    /// The thing is not what `If-Match` says any more.
    Stale,
    /// The account holds as much as it may.
    QuotaExceeded,
    /// The first request with this idempotency key has not been answered yet.
    KeyInProgress,
    /// The body is larger than this path takes.
    TooLarge,
    /// The body has a media type that this path does not read.
    UnsupportedMediaType,
    /// The range asked for lies outside the content.
    RangeNotSatisfiable,
    /// A field has a value that is not allowed, is missing or unknown.
    InvalidField,
    /// The CSV cannot be read.
    InvalidCsv,
    /// Rows of the list or the CSV cannot be used; `errors` names them.
    InvalidRows,
    /// The content is not what the announced digest or size says.
    ContentMismatch,
    /// This idempotency key was used for another request.
    KeyReused,
    /// The caller asks more often than it may.
    RateLimited,
    /// Too many wrong credentials came from there lately: nothing was looked at.
    TooManyFailures,
    /// As many messages wait for the device as may.
    MailboxFull,
    /// As many messages are retained as may be.
    RetainedFull,
    /// The device is not connected.
    Offline,
    /// As many event streams are open as may be.
    TooManyStreams,
    /// Too much is under way; try again later.
    Overloaded,
    /// A fault of the gateway.
    Internal,
}

impl Kind {
    /// Status, slug of the `type` and title.
    #[expect(clippy::too_many_lines, reason = "a table: one entry for each kind")]
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedJson => (
                S::BAD_REQUEST,
                "malformed-json",
                "The body is not well-formed JSON",
            ),
            Self::MalformedMultipart => (
                S::BAD_REQUEST,
                "malformed-multipart",
                "The multipart body cannot be read",
            ),
            Self::InvalidQuery => (
                S::BAD_REQUEST,
                "invalid-query",
                "A query parameter is not valid",
            ),
            Self::InvalidHeader => (S::BAD_REQUEST, "invalid-header", "A header is not valid"),
            Self::Incomplete => (S::BAD_REQUEST, "incomplete-body", "The body ended early"),
            Self::Unauthenticated => (
                S::UNAUTHORIZED,
                "unauthenticated",
                "A valid token is needed",
            ),
            Self::Forbidden => (
                S::FORBIDDEN,
                "forbidden",
                "The token's role does not allow this",
            ),
            Self::NotFound => (S::NOT_FOUND, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The path has no such method",
            ),
            Self::RequestTimeout => (
                S::REQUEST_TIMEOUT,
                "request-timeout",
                "The body did not come in time",
            ),
            Self::AlreadyExists => (S::CONFLICT, "already-exists", "The name is taken"),
            Self::InUse => (S::CONFLICT, "in-use", "It is still in use"),
            Self::WrongState => (S::CONFLICT, "wrong-state", "Its state does not allow this"),
            Self::Stale => (S::PRECONDITION_FAILED, "stale", "It was changed meanwhile"),
            Self::QuotaExceeded => (
                S::CONFLICT,
                "quota-exceeded",
                "The account holds as much as it may",
            ),
            Self::KeyInProgress => (
                S::CONFLICT,
                "idempotency-key-in-progress",
                "The first request with this key is under way",
            ),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body has the wrong media type",
            ),
            Self::RangeNotSatisfiable => (
                S::RANGE_NOT_SATISFIABLE,
                "range-not-satisfiable",
                "The range lies outside the content",
            ),
            Self::InvalidField => (
                S::UNPROCESSABLE_ENTITY,
                "invalid-field",
                "A field is not valid",
            ),
            Self::InvalidCsv => (
                S::UNPROCESSABLE_ENTITY,
                "invalid-csv",
                "The CSV cannot be read",
            ),
            Self::InvalidRows => (
                S::UNPROCESSABLE_ENTITY,
                "invalid-rows",
                "Some rows cannot be used",
            ),
            Self::ContentMismatch => (
                S::UNPROCESSABLE_ENTITY,
                "content-mismatch",
                "The content is not what was announced",
            ),
            Self::KeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The key was used for another request",
            ),
            Self::RateLimited => (
                S::TOO_MANY_REQUESTS,
                "rate-limited",
                "Too many requests of one caller",
            ),
            Self::TooManyFailures => (
                S::TOO_MANY_REQUESTS,
                "too-many-failures",
                "Too many wrong credentials",
            ),
            Self::MailboxFull => (
                S::TOO_MANY_REQUESTS,
                "mailbox-full",
                "As many messages wait as may",
            ),
            Self::RetainedFull => (
                S::TOO_MANY_REQUESTS,
                "retained-full",
                "As many messages are retained as may be",
            ),
            Self::Offline => (S::CONFLICT, "offline", "The device is not connected"),
            Self::TooManyStreams => (
                S::TOO_MANY_REQUESTS,
                "too-many-streams",
                "As many event streams are open as may be",
            ),
            Self::Overloaded => (
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "Too much is under way",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "The gateway failed"),
        }
    }

    /// When to try again, where nothing better is known.
    const fn retry_after_secs(self) -> Option<u32> {
        match self {
            Self::MailboxFull | Self::RetainedFull => Some(60),
            Self::TooManyStreams => Some(30),
            Self::Overloaded => Some(5),
            Self::RateLimited | Self::TooManyFailures | Self::KeyInProgress => Some(1),
            _ => None,
        }
    }

    /// The HTTP status that goes with the kind.
    pub const fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// One row, or one list entry, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RowProblem {
    /// Line in the CSV file, or position in the JSON list; both from 1.
    pub row: u32,
    /// The name as given.
    pub device: String,
    /// Stable code, for example `unknown_device` or `duplicate`.
    pub code: Cow<'static, str>,
    /// What is wrong, for a person.
    pub message: String,
}

/// The body of an error answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Stable identifier of the kind, `urn:headgate:problem:<slug>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:headgate:problem:invalid-field")]
    kind: String,
    /// The kind in words; the same for every problem of the type.
    title: &'static str,
    /// The HTTP status again.
    status: u16,
    /// What is wrong with this request.
    detail: Cow<'static, str>,
    /// The request, `urn:headgate:request:<X-Request-Id>`; the log has it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The field, parameter or header that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Line of the JSON body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// Column in that line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// The rows that cannot be used, at most 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<RowProblem>,
    /// How many rows cannot be used in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_count: Option<usize>,
    /// What still uses the thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    used_by: Vec<String>,
}

/// An error answer under construction; boxed so that `Result<_, Problem>` stays one pointer.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    retry_after_secs: Option<u32>,
    content_range: Option<String>,
    body: ProblemBody,
}

impl Problem {
    /// A problem of `kind`, with what is wrong in this request.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let (status, slug, title) = kind.parts();
        Self(Box::new(Inner {
            kind,
            retry_after_secs: kind.retry_after_secs(),
            content_range: None,
            body: ProblemBody {
                kind: format!("urn:headgate:problem:{slug}"),
                title,
                status: status.as_u16(),
                detail: detail.into(),
                instance: None,
                field: None,
                line: None,
                column: None,
                errors: Vec::new(),
                error_count: None,
                used_by: Vec::new(),
            },
        }))
    }

    /// A field whose value is not allowed.
    pub fn field(name: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidField, detail).with_field(name)
    }

    /// Nothing is known under the path or the id.
    pub fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("no such {what}"))
    }

    /// Rows that cannot be used; more than [`MAX_ROW_ERRORS`] are counted, not listed.
    pub fn rows(mut rows: Vec<RowProblem>) -> Self {
        let count = rows.len();
        rows.truncate(MAX_ROW_ERRORS);
        let plural = if count == 1 { "row" } else { "rows" };
        let mut problem = Self::new(
            Kind::InvalidRows,
            format!("{count} {plural} cannot be used, nothing was created"),
        );
        problem.0.body.errors = rows;
        problem.0.body.error_count = Some(count);
        problem
    }

    /// A fault of ours; what happened goes to the log, never to the peer.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %Chain(error), "request failed");
        Self::new(
            Kind::Internal,
            "the gateway could not carry out the request; its log says why",
        )
    }

    /// Names the field, parameter or header that is wrong.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>) -> Self {
        self.0.body.field = Some(name.into());
        self
    }

    /// Says that what it names is part of a field.
    #[must_use]
    pub fn within(mut self, field: &'static str) -> Self {
        let inner = self.0.body.field.take();
        self.0.body.field = Some(match inner {
            Some(inner) => format!("{field}.{inner}"),
            None => field.to_owned(),
        });
        self
    }

    /// Says where in the JSON body it is; both from 1.
    #[must_use]
    pub fn with_position(mut self, line: usize, column: usize) -> Self {
        self.0.body.line = Some(line);
        self.0.body.column = Some(column);
        self
    }

    /// Names what still uses the thing.
    #[must_use]
    pub fn with_used_by(mut self, used_by: Vec<String>) -> Self {
        self.0.body.used_by = used_by;
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, secs: u32) -> Self {
        self.0.retry_after_secs = Some(secs);
        self
    }

    /// Says how long to wait, in whole seconds.
    #[must_use]
    pub fn with_wait(self, wait: std::time::Duration) -> Self {
        let secs = wait.as_millis().div_ceil(1_000).max(1);
        self.with_retry_after(u32::try_from(secs).unwrap_or(u32::MAX))
    }

    /// Says how long the content is whose range was asked for.
    #[must_use]
    pub fn with_content_size(mut self, size_bytes: u64) -> Self {
        self.0.content_range = Some(format!("bytes */{size_bytes}"));
        self
    }

    /// Names the request it answers.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.0.body.instance = Some(format!("urn:headgate:request:{id}"));
        self
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The status that goes with it.
    pub fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// What is wrong in this request.
    pub fn detail(&self) -> &str {
        &self.0.body.detail
    }

    /// The field that is wrong, where it is one.
    pub fn wrong_field(&self) -> Option<&str> {
        self.0.body.field.as_deref()
    }

    /// Rows that cannot be used, as many as are listed, and how many there are in all.
    pub fn wrong_rows(&self) -> (&[RowProblem], usize) {
        let rows = &self.0.body.errors;
        (rows, self.0.body.error_count.unwrap_or(rows.len()))
    }

    /// The body as a value, for assertions.
    #[cfg(test)]
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0.body).unwrap_or_default()
    }

    /// Header and body, without the marker that lets the outermost layer render it again.
    pub(super) fn render(&self) -> Response {
        let inner = &*self.0;
        // A struct of strings and numbers always serializes.
        let body = serde_json::to_vec(&inner.body).unwrap_or_default();
        let mut response = (
            inner.kind.status(),
            [(header::CONTENT_TYPE, MEDIA_TYPE)],
            body,
        )
            .into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if inner.kind == Kind::Unauthenticated {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"headgate\""),
            );
        }
        if let Some(secs) = inner.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(range) = inner
            .content_range
            .as_deref()
            .and_then(|range| HeaderValue::from_str(range).ok())
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error with its sources on one line, for the log.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
