//! `/deliveries`: one resource on its way to one device.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    extract::PathOf,
    problem::Problem,
    tasks::carry_through,
    view::{DeliveryView, TimelineEntryView},
};
use crate::model::Id;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(one))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(timeline))
}

/// Shows a delivery as its latest attempt stands.
#[utoipa::path(get, path = "/deliveries/{delivery}", tag = "deliveries",
    params(("delivery" = String, Path, description = "The delivery's id")),
    responses((status = 200, body = DeliveryView)))]
async fn one(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(state.delivery.delivery(id).await?.into()))
}

/// Cancels a delivery that has not ended; its device is told.
#[utoipa::path(post, path = "/deliveries/{delivery}/cancel", tag = "deliveries",
    params(("delivery" = String, Path, description = "The delivery's id")),
    responses((status = 200, body = DeliveryView)))]
async fn cancel(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<DeliveryView>, Problem> {
    let delivery = state.delivery.clone();
    let canceling = async move { delivery.cancel_delivery(&actor, id).await };
    carry_through(&state, canceling).await?;
    Ok(Json(state.delivery.delivery(id).await?.into()))
}

/// Tries a failed delivery again, as a new attempt.
#[utoipa::path(post, path = "/deliveries/{delivery}/retry", tag = "deliveries",
    params(("delivery" = String, Path, description = "The delivery's id")),
    responses((status = 200, body = DeliveryView)))]
async fn retry(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<DeliveryView>, Problem> {
    let delivery = state.delivery.clone();
    let retrying = async move { delivery.retry_delivery(&actor, id).await };
    carry_through(&state, retrying).await?;
    Ok(Json(state.delivery.delivery(id).await?.into()))
}

/// Lists every state that every attempt of a delivery came to, in order.
#[utoipa::path(get, path = "/deliveries/{delivery}/timeline", tag = "deliveries",
    params(("delivery" = String, Path, description = "The delivery's id")),
    responses((status = 200, body = Vec<TimelineEntryView>)))]
async fn timeline(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
) -> Result<Json<Vec<TimelineEntryView>>, Problem> {
    let entries = state.delivery.timeline(id).await?;
    Ok(Json(entries.into_iter().map(Into::into).collect()))
}
