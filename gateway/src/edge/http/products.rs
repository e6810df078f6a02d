//! `/products`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use headgate_protocol::identity::ProductId;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Admin, Viewer},
    extract::{JsonBody, PathOf, QueryOf},
    openapi::BASE,
    problem::Problem,
    tag,
    view::{PageQuery, PageView, ProductBody, ProductView},
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, replace, delete))
}

/// Lists products in the order of their ids.
#[utoipa::path(get, path = "/products", tag = "products", params(PageQuery),
    responses((status = 200, body = PageView<ProductView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<ProductView>>, Problem> {
    let products = state.registry.products(&query.page()?).await?;
    Ok(Json(PageView::of(products)))
}

/// Makes a product.
#[utoipa::path(post, path = "/products", tag = "products", request_body = ProductBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = ProductView)))]
async fn create(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<ProductBody>,
) -> Result<impl IntoResponse, Problem> {
    let Some(id) = body.id.as_deref() else {
        return Err(Problem::field("id", "missing field `id`"));
    };
    let id = product_id(id)?;
    let product = state
        .registry
        .create_product(&actor, body.into_product(id))
        .await?;
    let location = format!("{BASE}/products/{}", product.id);
    let view = ProductView::from(product);
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    ))
}

/// Shows a product.
#[utoipa::path(get, path = "/products/{product}", tag = "products",
    params(("product" = String, Path, description = "The product's id")),
    responses((status = 200, body = ProductView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<ProductId>,
) -> Result<Response, Problem> {
    let product = state.registry.product(&id).await?;
    Ok(tag::tagged(product.updated_at, ProductView::from(product)))
}

/// Replaces everything that is said of a product.
#[utoipa::path(put, path = "/products/{product}", tag = "products", request_body = ProductBody,
    params(("product" = String, Path, description = "The product's id"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the product as it was read")),
    responses((status = 200, body = ProductView)))]
async fn replace(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<ProductId>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ProductBody>,
) -> Result<Response, Problem> {
    if body.id.as_deref().is_some_and(|given| given != id.as_str()) {
        return Err(Problem::field("id", "a product's id cannot be changed"));
    }
    let product = state
        .registry
        .update_product(&actor, body.into_product(id), tag::revision(&headers)?)
        .await?;
    Ok(tag::tagged(product.updated_at, ProductView::from(product)))
}

/// Deletes a product that has neither devices nor resources.
#[utoipa::path(delete, path = "/products/{product}", tag = "products",
    params(("product" = String, Path, description = "The product's id")),
    responses((status = 204)))]
async fn delete(
    Admin(actor): Admin,
    State(state): State<ApiState>,
    PathOf(id): PathOf<ProductId>,
) -> Result<StatusCode, Problem> {
    state.registry.delete_product(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn product_id(text: &str) -> Result<ProductId, Problem> {
    ProductId::new(text).map_err(|error| Problem::field("id", error.to_string()))
}
