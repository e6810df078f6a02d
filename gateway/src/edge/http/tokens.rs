//! `/tokens`: what programs come in with.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::Admin,
    extract::{JsonBody, PathOf, QueryOf},
    openapi::BASE,
    problem::Problem,
    schema,
    view::{PageQuery, PageView},
};
use crate::{
    model::{Id, Millis, Role},
    service::account::{NewToken, Token},
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, revoke))
}

/// An API token; never the token itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
struct TokenView {
    /// Its id.
    #[schema(schema_with = schema::id)]
    id: Id,
    /// What it is called, as the audit shows it.
    name: String,
    /// What it may do.
    #[schema(schema_with = schema::role)]
    role: Role,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it ends; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    expires_at: Option<Millis>,
    /// When it was last used, to the minute; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    last_used_at: Option<Millis>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            role: token.role,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken, example = json!({"name": "ci", "role": "operator"}))]
struct NewTokenBody {
    /// A label of 1 to 64 characters, which the audit shows.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What it may do.
    #[schema(schema_with = schema::role)]
    role: Role,
    /// When it ends; default: never.
    #[serde(default)]
    #[schema(schema_with = schema::time)]
    expires_at: Option<Millis>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedToken)]
struct CreatedTokenView {
    /// What is kept of it.
    #[serde(flatten)]
    token: TokenView,
    /// The token itself, shown this once.
    secret: String,
}

/// Lists API tokens and when they were last used.
#[utoipa::path(get, path = "/tokens", tag = "access", operation_id = "tokens", params(PageQuery),
    responses((status = 200, body = PageView<TokenView>)))]
async fn list(
    _admin: Admin,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<TokenView>>, Problem> {
    Ok(Json(PageView::of(
        state.accounts.tokens(&query.page()?).await?,
    )))
}

/// Makes an API token. The token itself is in the answer and never shown again.
#[utoipa::path(post, path = "/tokens", tag = "access", operation_id = "create_token", request_body = NewTokenBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = CreatedTokenView)))]
async fn create(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<NewTokenBody>,
) -> Result<impl IntoResponse, Problem> {
    let new = NewToken {
        name: body.name,
        role: body.role,
        expires_at: body.expires_at,
    };
    let created = state.accounts.create_token(&actor, new).await?;
    let location = format!("{BASE}/tokens/{}", created.token.id);
    let view = CreatedTokenView {
        token: created.token.into(),
        secret: created.secret.to_string(),
    };
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(view)))
}

/// Shows what is kept of a token.
#[utoipa::path(get, path = "/tokens/{token}", tag = "access", operation_id = "token",
    params(("token" = String, Path, description = "The token's id")),
    responses((status = 200, body = TokenView)))]
async fn one(
    _admin: Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<TokenView>, Problem> {
    Ok(Json(state.accounts.token(id).await?.into()))
}

/// Revokes a token: nobody comes in with it any more. On other nodes that takes up to a minute.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "access", operation_id = "revoke_token",
    params(("token" = String, Path, description = "The token's id")),
    responses((status = 204)))]
async fn revoke(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<StatusCode, Problem> {
    state.accounts.revoke_token(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
