//! `/devices`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use headgate_protocol::identity::{AppId, DeviceId, ProductId};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    certificates,
    extract::{JsonBody, PathOf, QueryOf},
    openapi::BASE,
    problem::Problem,
    tag,
    view::{
        CreatedDeviceView, DeviceDetailView, DevicePatchBody, DeviceView, NewDeviceBody, PageQuery,
        PageView,
    },
};
use crate::{
    model::{Actor, AuthKind, Secret},
    service::{DeviceFilter, DevicePatch, registry::NewDevice},
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, patch, delete))
        .routes(routes!(freeze))
        .routes(routes!(unfreeze))
}

/// Which devices are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeviceQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only devices of this product.
    #[param(value_type = Option<String>)]
    product: Option<ProductId>,
    /// Only those that may connect (true) or not (false).
    enabled: Option<bool>,
    /// Only those whose name holds this text, in any case.
    name: Option<String>,
    /// Only those whose name, node id or device id holds this text, in any case.
    filter: Option<String>,
    /// Only those that are bound to this application.
    #[param(value_type = Option<String>)]
    app: Option<AppId>,
}

/// Lists devices in the order of their ids.
#[utoipa::path(get, path = "/devices", tag = "devices", params(DeviceQuery),
    responses((status = 200, body = PageView<DeviceView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<DeviceQuery>,
) -> Result<Json<PageView<DeviceView>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .page()?;
    let filter = DeviceFilter {
        product: query.product,
        enabled: query.enabled,
        name: query.name,
        text: query.filter,
        begins: None,
        app: query.app,
    };
    Ok(Json(PageView::of(
        state.registry.devices(&filter, &page).await?,
    )))
}

/// Registers a device. Its secret is in the answer and never shown again.
#[utoipa::path(post, path = "/devices", tag = "devices", request_body = NewDeviceBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    responses((status = 201, body = CreatedDeviceView)))]
async fn create(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    JsonBody(body): JsonBody<NewDeviceBody>,
) -> Result<impl IntoResponse, Problem> {
    let primary = certificates::given(body.fingerprint.as_deref(), body.certificate.as_deref())?;
    let secondary = certificates::given(body.secondary_fingerprint.as_deref(), None)
        .map_err(|problem| problem.with_field("secondary_fingerprint"))?;
    let new = NewDevice {
        device_id: body.device_id,
        name: body.name,
        description: body.description,
        auth: body
            .auth
            .or_else(|| primary.as_ref().map(|_| AuthKind::X509)),
        secret: body.secret.map(Secret::given).transpose()?,
        psk_encoding: body.psk_encoding,
        fingerprint: primary.as_ref().map(|(fingerprint, _)| *fingerprint),
        secondary_fingerprint: secondary.map(|(fingerprint, _)| fingerprint),
        ..NewDevice::of(body.product_id, body.node_id)
    };
    let created = state.registry.create_device(&actor, new).await?;
    let location = format!("{BASE}/devices/{}", created.device.id);
    let view = CreatedDeviceView {
        device: created.device.into(),
        secret: created.secret.map(|secret| secret.reveal().to_owned()),
        fingerprint: primary.as_ref().map(|(fingerprint, _)| *fingerprint),
        certificate: primary.and_then(|(_, certificate)| certificate),
    };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    ))
}

/// Shows a device.
#[utoipa::path(get, path = "/devices/{device}", tag = "devices",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = DeviceDetailView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Response, Problem> {
    let device = state.registry.device(&id).await?;
    let slots = state.registry.credentials(&id).await?;
    let updated_at = device.updated_at;
    Ok(tag::tagged(
        updated_at,
        DeviceDetailView::of(device, &slots),
    ))
}

/// Renames a device, or says whether it may connect.
#[utoipa::path(patch, path = "/devices/{device}", tag = "devices", request_body = DevicePatchBody,
    params(("device" = String, Path, description = "The device's id in the whole gateway"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the device as it was read")),
    responses((status = 200, body = DeviceView)))]
async fn patch(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<DevicePatchBody>,
) -> Result<Response, Problem> {
    let patch = DevicePatch {
        name: body.name,
        description: body.description,
        enabled: body.enabled,
        revision: tag::revision(&headers)?,
    };
    let device = state.registry.patch_device(&actor, &id, &patch).await?;
    Ok(tag::tagged(device.updated_at, DeviceView::from(device)))
}

/// Lets a device in no more, and closes its connection.
#[utoipa::path(post, path = "/devices/{device}/freeze", tag = "devices",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = DeviceView)))]
async fn freeze(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Json<DeviceView>, Problem> {
    enable(&state, &actor, &id, false).await
}

/// Lets a frozen device in again.
#[utoipa::path(post, path = "/devices/{device}/unfreeze", tag = "devices",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = DeviceView)))]
async fn unfreeze(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Json<DeviceView>, Problem> {
    enable(&state, &actor, &id, true).await
}

async fn enable(
    state: &ApiState,
    actor: &Actor,
    id: &DeviceId,
    enabled: bool,
) -> Result<Json<DeviceView>, Problem> {
    let patch = DevicePatch {
        enabled: Some(enabled),
        ..DevicePatch::default()
    };
    let device = state.registry.patch_device(actor, id, &patch).await?;
    Ok(Json(device.into()))
}

/// Deletes a device to which nothing is being delivered.
#[utoipa::path(delete, path = "/devices/{device}", tag = "devices",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 204)))]
async fn delete(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<StatusCode, Problem> {
    state.registry.delete_device(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
