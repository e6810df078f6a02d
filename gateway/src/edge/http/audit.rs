//! `/audit`: what was done, by whom, and from where.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::Admin,
    extract::QueryOf,
    problem::Problem,
    schema,
    view::{PageQuery, PageView},
};
use crate::{
    model::{AuditEntry, Millis},
    service::AuditFilter,
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(audit))
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
    /// From which address; absent where the gateway did it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    origin: String,
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
            origin: entry.origin,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
        }
    }
}

/// Which entries are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only what this operator or token did, by its name.
    actor: Option<String>,
    /// Only this, such as `device.freeze`; a noun alone is all that was done to its kind.
    action: Option<String>,
    /// Only what was done to this.
    subject: Option<String>,
    /// Only what was done at this time or later.
    #[param(schema_with = schema::time)]
    since: Option<Millis>,
    /// Only what was done before this time.
    #[param(schema_with = schema::time)]
    until: Option<Millis>,
}

/// Lists what was changed, by whom and from where, newest first.
#[utoipa::path(get, path = "/audit", tag = "access", params(AuditQuery),
    responses((status = 200, body = PageView<AuditView>)))]
async fn audit(
    _admin: Admin,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<PageView<AuditView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let filter = AuditFilter {
        actor: query.actor,
        action: query.action,
        subject: query.subject,
        since: query.since,
        until: query.until,
    };
    Ok(Json(PageView::of(
        state.accounts.audit(&filter, &page).await?,
    )))
}
