//! `/operators`: who may sign in to the console.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

use super::{
    ApiState,
    auth::Admin,
    extract::{JsonBody, PathOf, QueryOf},
    openapi::BASE,
    problem::Problem,
    schema, tag,
    view::{PageQuery, PageView},
};
use crate::{
    model::{Millis, Role},
    service::{
        OperatorPatch,
        account::{NewOperator, Operator},
    },
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, patch, delete))
        .routes(routes!(reset_password))
}

/// Someone who signs in to the console.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operator)]
struct OperatorView {
    /// The name that it signs in with.
    name: String,
    /// What it may do.
    #[schema(schema_with = schema::role)]
    role: Role,
    /// Whether it may come in.
    enabled: bool,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it was last changed.
    #[schema(schema_with = schema::time)]
    updated_at: Millis,
    /// When its password was set.
    #[schema(schema_with = schema::time)]
    password_set_at: Millis,
}

impl From<Operator> for OperatorView {
    fn from(operator: Operator) -> Self {
        Self {
            name: operator.name,
            role: operator.role,
            enabled: operator.enabled,
            created_at: operator.created_at,
            updated_at: operator.updated_at,
            password_set_at: operator.password_set_at,
        }
    }
}

/// An operator to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOperator, example = json!({"name": "ann", "role": "operator"}))]
struct NewOperatorBody {
    /// 1 to 64 letters, digits, `_`, `-`, `.` and `@`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.@-]+$")]
    name: String,
    /// What it may do.
    #[schema(schema_with = schema::role)]
    role: Role,
    /// 12 to 1,024 characters; default: one is made.
    #[serde(default)]
    #[schema(min_length = 12, max_length = 1024, format = Password)]
    password: Option<String>,
}

/// An operator that was just made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedOperator)]
struct CreatedOperatorView {
    /// The operator.
    #[serde(flatten)]
    operator: OperatorView,
    /// The password that was made, shown this once; absent where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// What of an operator can be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OperatorPatch, example = json!({"enabled": false}))]
struct OperatorPatchBody {
    /// What it may do.
    #[serde(default)]
    #[schema(schema_with = schema::role)]
    role: Option<Role>,
    /// False: it cannot come in any more.
    #[serde(default)]
    enabled: Option<bool>,
}

/// A password to be set.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPassword)]
struct NewPasswordBody {
    /// 12 to 1,024 characters; default: one is made.
    #[serde(default)]
    #[schema(min_length = 12, max_length = 1024, format = Password)]
    password: Option<String>,
}

/// A password that was set.
#[derive(Serialize, ToSchema)]
#[schema(as = PasswordSet)]
struct PasswordSetView {
    /// Whose.
    name: String,
    /// The password that was made, shown this once; absent where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// Lists operators in the order of their names.
#[utoipa::path(get, path = "/operators", tag = "access", operation_id = "operators", params(PageQuery),
    responses((status = 200, body = PageView<OperatorView>)))]
async fn list(
    _admin: Admin,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<OperatorView>>, Problem> {
    Ok(Json(PageView::of(
        state.accounts.operators(&query.page()?).await?,
    )))
}

/// Makes an operator. A password that is made is in the answer and never shown again.
#[utoipa::path(post, path = "/operators", tag = "access", operation_id = "create_operator",
    request_body = NewOperatorBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = CreatedOperatorView)))]
async fn create(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<NewOperatorBody>,
) -> Result<impl IntoResponse, Problem> {
    let new = NewOperator {
        name: body.name,
        role: body.role,
        password: body.password.map(Zeroizing::new),
    };
    let created = state.accounts.create_operator(&actor, new).await?;
    let location = format!("{BASE}/operators/{}", created.operator.name);
    let view = CreatedOperatorView {
        operator: created.operator.into(),
        password: created.password.map(|password| password.to_string()),
    };
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(view)))
}

/// Shows an operator.
#[utoipa::path(get, path = "/operators/{operator}", tag = "access", operation_id = "operator",
    params(("operator" = String, Path, description = "The operator's name")),
    responses((status = 200, body = OperatorView)))]
async fn one(
    _admin: Admin,
    State(state): State<ApiState>,
    PathOf(name): PathOf<String>,
) -> Result<Response, Problem> {
    let operator = state.accounts.operator(&name).await?;
    Ok(tag::tagged(
        operator.updated_at,
        OperatorView::from(operator),
    ))
}

/// Gives an operator another role, locks it out, or lets it in again. The last administrator stays one.
#[utoipa::path(patch, path = "/operators/{operator}", tag = "access", operation_id = "patch_operator",
    request_body = OperatorPatchBody,
    params(("operator" = String, Path, description = "The operator's name"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the operator as it was read")),
    responses((status = 200, body = OperatorView)))]
async fn patch(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(name): PathOf<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<OperatorPatchBody>,
) -> Result<Response, Problem> {
    let patch = OperatorPatch {
        role: body.role,
        enabled: body.enabled,
        revision: tag::revision(&headers)?,
    };
    let operator = state.accounts.patch_operator(&actor, &name, &patch).await?;
    Ok(tag::tagged(
        operator.updated_at,
        OperatorView::from(operator),
    ))
}

/// Deletes an operator and ends what it has open; the last administrator stays.
#[utoipa::path(delete, path = "/operators/{operator}", tag = "access", operation_id = "delete_operator",
    params(("operator" = String, Path, description = "The operator's name")),
    responses((status = 204)))]
async fn delete(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    state.accounts.delete_operator(&actor, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces an operator's password and ends what it has open. One that is made is in the answer and never shown again.
#[utoipa::path(post, path = "/operators/{operator}/password", tag = "access", request_body = NewPasswordBody,
    params(("operator" = String, Path, description = "The operator's name")),
    responses((status = 200, body = PasswordSetView)))]
async fn reset_password(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(name): PathOf<String>,
    JsonBody(body): JsonBody<NewPasswordBody>,
) -> Result<Json<PasswordSetView>, Problem> {
    let made = state
        .accounts
        .reset_password(&actor, &name, body.password.map(Zeroizing::new))
        .await?;
    Ok(Json(PasswordSetView {
        name,
        password: made.map(|password| password.to_string()),
    }))
}
