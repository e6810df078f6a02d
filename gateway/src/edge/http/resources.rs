//! `/resources`: uploads that are streamed, and what became of them.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::from_fn,
    response::{IntoResponse, Response},
};
use headgate_protocol::identity::{ProductId, ResourceName};
use serde::Deserialize;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    content,
    extract::{JsonBody, PathOf, QueryOf},
    form::{Fields, Form, too_large},
    linger::linger,
    openapi::BASE,
    problem::Problem,
    tag,
    upload::{self, Announced, digest},
    view::{CountsView, NewResourceForm, PageQuery, PageView, ResourcePatchBody, ResourceView},
};
use crate::{
    model::Id,
    service::{
        ResourceFilter, ResourcePatch,
        resource::{Expected, NewResource},
    },
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create).layer(from_fn(linger)))
        .routes(routes!(one, patch, delete))
        .routes(routes!(content::download, replace).layer(from_fn(linger)))
        .routes(routes!(statistics))
}

/// Which resources are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ResourceQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only resources of this product.
    #[param(value_type = Option<String>)]
    product: Option<ProductId>,
    /// Only those whose name or description holds this text, in any case.
    filter: Option<String>,
}

/// Lists resources, newest first.
#[utoipa::path(get, path = "/resources", tag = "resources", params(ResourceQuery),
    responses((status = 200, body = PageView<ResourceView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<ResourceQuery>,
) -> Result<Json<PageView<ResourceView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let filter = ResourceFilter {
        product: query.product,
        text: query.filter,
    };
    Ok(Json(PageView::of(
        state.resources.resources(&filter, &page).await?,
    )))
}

/// Uploads a resource. Everything that can be wrong besides the bytes is said before they are read.
#[utoipa::path(post, path = "/resources", tag = "resources",
    request_body(content = NewResourceForm, content_type = "multipart/form-data"),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = ResourceView)))]
async fn create(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    request: Request,
) -> Result<impl IntoResponse, Problem> {
    const FIELDS: &[&str] = &["product", "name", "description", "sha256", "md5", "size"];
    let form = Form::of(request, state.limits.max_resource_bytes)?;
    let (mut fields, file) = form.fields(FIELDS).await?;
    let product = fields.needed("product")?;
    let name = fields.needed("name")?;
    let announced = announced(&mut fields, state.limits.max_resource_bytes)?;
    let new = NewResource {
        product_id: ProductId::new(&product)
            .map_err(|error| Problem::field("product", error.to_string()))?,
        name: ResourceName::new(&name)
            .map_err(|error| Problem::field("name", error.to_string()))?,
        description: fields.optional("description").unwrap_or_default(),
        expected: expected(announced),
    };
    let (stream, slot) = upload::of_part(file, announced);
    let created = state.resources.upload(&actor, new, stream).await;
    let view = ResourceView::from(created.map_err(|error| slot.or(error))?);
    let location = format!("{BASE}/resources/{}", view.id());
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    ))
}

fn announced(fields: &mut Fields, max_bytes: u64) -> Result<Announced, Problem> {
    let sha256 = fields
        .optional("sha256")
        .map(|text| digest("sha256", &text))
        .transpose()?;
    let md5 = fields
        .optional("md5")
        .map(|text| digest("md5", &text))
        .transpose()?;
    let size = match fields.optional("size") {
        None => None,
        Some(text) => match text.parse() {
            Ok(size) => Some(size),
            Err(_) => return Err(Problem::field("size", "size must be a number of bytes")),
        },
    };
    if size.is_some_and(|size| size > max_bytes) {
        return Err(too_large(max_bytes));
    }
    Ok(Announced { sha256, md5, size })
}

/// What the service checks; the MD5 is checked on the way to it.
const fn expected(announced: Announced) -> Expected {
    Expected {
        sha256: announced.sha256,
        size: announced.size,
    }
}

/// Shows a resource.
#[utoipa::path(get, path = "/resources/{resource}", tag = "resources",
    params(("resource" = String, Path, description = "The resource's id")),
    responses((status = 200, body = ResourceView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Problem> {
    let resource = state.resources.resource(id).await?;
    Ok(tag::tagged(
        resource.updated_at,
        ResourceView::from(resource),
    ))
}

/// Changes a resource's name or description; its bytes and version stay.
#[utoipa::path(patch, path = "/resources/{resource}", tag = "resources", request_body = ResourcePatchBody,
    params(("resource" = String, Path, description = "The resource's id"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the resource as it was read")),
    responses((status = 200, body = ResourceView)))]
async fn patch(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ResourcePatchBody>,
) -> Result<Response, Problem> {
    let patch = ResourcePatch {
        name: body.name,
        description: body.description,
        revision: tag::revision(&headers)?,
    };
    let resource = state.resources.patch(&actor, id, &patch).await?;
    Ok(tag::tagged(
        resource.updated_at,
        ResourceView::from(resource),
    ))
}

/// Deletes a resource that no open task delivers, with all its versions.
#[utoipa::path(delete, path = "/resources/{resource}", tag = "resources",
    params(("resource" = String, Path, description = "The resource's id")),
    responses((status = 204)))]
async fn delete(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<StatusCode, Problem> {
    state.resources.delete(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the new bytes must be.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ContentQuery {
    /// SHA-256 that they must have, in hexadecimal.
    sha256: Option<String>,
    /// MD5 that they must have, in hexadecimal.
    md5: Option<String>,
}

/// Gives a resource new bytes: a new version. Tasks that exist deliver the version they were made
/// for.
#[utoipa::path(put, path = "/resources/{resource}/content", tag = "resources",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("resource" = String, Path, description = "The resource's id"), ContentQuery),
    responses((status = 200, body = ResourceView)))]
async fn replace(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    QueryOf(query): QueryOf<ContentQuery>,
    request: Request,
) -> Result<Json<ResourceView>, Problem> {
    let size = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    if size.is_some_and(|size: u64| size > state.limits.max_resource_bytes) {
        return Err(too_large(state.limits.max_resource_bytes));
    }
    let announced = Announced {
        sha256: query
            .sha256
            .map(|text| digest("sha256", &text))
            .transpose()?,
        md5: query.md5.map(|text| digest("md5", &text)).transpose()?,
        size,
    };
    let (stream, slot) = upload::of_body(request.into_body(), announced);
    let replaced = state
        .resources
        .replace_content(&actor, id, expected(announced), stream)
        .await;
    Ok(Json(replaced.map_err(|error| slot.or(error))?.into()))
}

/// Counts the deliveries of a resource, over all its versions and tasks, by state.
#[utoipa::path(get, path = "/resources/{resource}/statistics", tag = "resources",
    params(("resource" = String, Path, description = "The resource's id")),
    responses((status = 200, body = CountsView)))]
async fn statistics(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<CountsView>, Problem> {
    Ok(Json(state.resources.statistics(id).await?.into()))
}
