//! `/tokens` and `/audit`: who may do what, and what was done.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::Admin,
    extract::QueryOf,
    openapi::Problems,
    problem::Problem,
    schema,
    view::{PageQuery, PageView},
};
use crate::{
    model::{AuditEntry, Millis},
    service::registry::Token,
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(tokens))
        .routes(routes!(audit))
}

/// An API token; never the token itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
struct TokenView {
    /// Its id.
    id: String,
    /// What it is called, as the audit shows it.
    name: String,
    /// What it may do: `viewer`, `operator` or `admin`.
    role: &'static str,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it was last used, to the minute; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    last_used_at: Option<Millis>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name,
            role: token.role.as_str(),
            created_at: token.created_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct AuditView {
    /// When.
    #[schema(schema_with = schema::time)]
    at: Millis,
    /// By whom: the name of an operator or a token, or `gateway`.
    actor: String,
    /// What: a noun and a verb, such as `device.freeze`.
    action: String,
    /// To what.
    subject: String,
    /// What else is to be said; may be empty.
    detail: String,
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
        }
    }
}

/// Lists API tokens and when they were last used.
#[utoipa::path(get, path = "/tokens", tag = "access", params(PageQuery),
    responses((status = 200, body = PageView<TokenView>), Problems))]
async fn tokens(
    _admin: Admin,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<TokenView>>, Problem> {
    Ok(Json(PageView::of(
        state.registry.tokens(&query.page()?).await?,
    )))
}

/// Lists what was changed and by whom, newest first.
#[utoipa::path(get, path = "/audit", tag = "access", params(PageQuery),
    responses((status = 200, body = PageView<AuditView>), Problems))]
async fn audit(
    _admin: Admin,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<AuditView>>, Problem> {
    Ok(Json(PageView::of(
        state.registry.audit(&query.page()?).await?,
    )))
}
