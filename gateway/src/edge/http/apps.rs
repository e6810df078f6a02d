//! `/apps`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use headgate_protocol::identity::AppId;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Caller, Operator, Viewer},
    extract::{JsonBody, PathOf, QueryOf},
    openapi::BASE,
    problem::Problem,
    tag,
    view::{
        AppPatchBody, AppSecretView, AppView, CreatedAppView, NewAppBody, PageQuery, PageView,
        ResetAppSecretBody,
    },
};
use crate::service::{AppFilter, AppPatch};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, patch, delete))
        .routes(routes!(reset_secret))
}

/// Which applications are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AppQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only those whose name or id holds this text, in any case.
    filter: Option<String>,
}

/// Lists applications in the order of their ids.
#[utoipa::path(get, path = "/apps", tag = "apps", params(AppQuery),
    responses((status = 200, body = PageView<AppView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<AppQuery>,
) -> Result<Json<PageView<AppView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let filter = AppFilter { text: query.filter };
    Ok(Json(PageView::of(state.apps.apps(&filter, &page).await?)))
}

/// Makes an application. Its primary secret is in the answer and never shown again.
#[utoipa::path(post, path = "/apps", tag = "apps", request_body = NewAppBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = CreatedAppView)))]
async fn create(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<NewAppBody>,
) -> Result<impl IntoResponse, Problem> {
    let name = body.name.unwrap_or_else(|| body.id.to_string());
    let created = state.apps.create(&actor, body.id, name).await?;
    let location = format!("{BASE}/apps/{}", created.app.id);
    let view = CreatedAppView {
        app: created.app.into(),
        secret: created.secret.reveal().to_owned(),
    };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    ))
}

/// Shows an application.
#[utoipa::path(get, path = "/apps/{app}", tag = "apps",
    params(("app" = String, Path, description = "The application's id")),
    security(("token" = []), ("application" = [])),
    responses((status = 200, body = AppView)))]
async fn one(
    caller: Caller,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
) -> Result<Response, Problem> {
    caller.may_read_of(&id)?;
    let app = state.apps.app(&id).await?;
    let updated_at = app.updated_at;
    let mut view = AppView::from(app);
    view.devices = Some(state.apps.binding_count(&id).await?);
    Ok(tag::tagged(updated_at, view))
}

/// Renames an application, or says whether it may come in. A disabled one's sessions and streams are ended.
#[utoipa::path(patch, path = "/apps/{app}", tag = "apps", request_body = AppPatchBody,
    params(("app" = String, Path, description = "The application's id"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the application as it was read")),
    responses((status = 200, body = AppView)))]
async fn patch(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<AppPatchBody>,
) -> Result<Response, Problem> {
    let patch = AppPatch {
        name: body.name,
        enabled: body.enabled,
        revision: tag::revision(&headers)?,
    };
    let app = state.apps.patch(&actor, &id, patch).await?;
    Ok(tag::tagged(app.updated_at, AppView::from(app)))
}

/// Deletes an application with its bindings and ends its sessions and streams.
#[utoipa::path(delete, path = "/apps/{app}", tag = "apps",
    params(("app" = String, Path, description = "The application's id")),
    responses((status = 204)))]
async fn delete(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
) -> Result<StatusCode, Problem> {
    state.apps.delete(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces one of an application's two secrets. The new one is in the answer and never shown again.
#[utoipa::path(post, path = "/apps/{app}/secret", tag = "apps", request_body = ResetAppSecretBody,
    params(("app" = String, Path, description = "The application's id")),
    responses((status = 200, body = AppSecretView)))]
async fn reset_secret(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    JsonBody(body): JsonBody<ResetAppSecretBody>,
) -> Result<Json<AppSecretView>, Problem> {
    let secret = state
        .apps
        .reset_secret(&actor, &id, body.which, body.disconnect)
        .await?;
    Ok(Json(AppSecretView {
        app_id: id,
        which: body.which,
        secret: secret.reveal().to_owned(),
    }))
}
