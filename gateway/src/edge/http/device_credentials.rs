//! `/devices/{id}/secret`, `/devices/{id}/fingerprint`: what a device proves itself with.

use axum::{Json, extract::State, http::StatusCode};
use headgate_protocol::identity::DeviceId;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::Operator,
    certificates,
    extract::{JsonBody, PathOf, QueryOf},
    problem::Problem,
    view::{ClearQuery, FingerprintView, ResetFingerprintBody, ResetSecretBody, SecretView},
};
use crate::model::{AuthKind, Secret};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(reset_secret, clear_secret))
        .routes(routes!(reset_fingerprint, clear_fingerprint))
}

/// Replaces one of a device's two secrets. The new one is in the answer and never shown again.
#[utoipa::path(post, path = "/devices/{device}/secret", tag = "devices", request_body = ResetSecretBody,
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = SecretView)))]
async fn reset_secret(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    JsonBody(body): JsonBody<ResetSecretBody>,
) -> Result<Json<SecretView>, Problem> {
    let given = body.secret.map(Secret::given).transpose()?;
    let secret = state
        .registry
        .reset_secret(&actor, &id, body.which, given, body.disconnect)
        .await?;
    Ok(Json(SecretView {
        device_id: id,
        which: body.which,
        secret: secret.reveal().to_owned(),
    }))
}

/// Takes a device's second secret away.
#[utoipa::path(delete, path = "/devices/{device}/secret", tag = "devices",
    params(("device" = String, Path, description = "The device's id in the whole gateway"), ClearQuery),
    responses((status = 204)))]
async fn clear_secret(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    QueryOf(query): QueryOf<ClearQuery>,
) -> Result<StatusCode, Problem> {
    state
        .registry
        .clear_secondary(&actor, &id, AuthKind::Secret, query.disconnect)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces one of the two fingerprints of a device that comes with a certificate.
#[utoipa::path(post, path = "/devices/{device}/fingerprint", tag = "devices", request_body = ResetFingerprintBody,
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = FingerprintView)))]
async fn reset_fingerprint(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    JsonBody(body): JsonBody<ResetFingerprintBody>,
) -> Result<Json<FingerprintView>, Problem> {
    let given = certificates::given(body.fingerprint.as_deref(), body.certificate.as_deref())?;
    let Some((fingerprint, certificate)) = given else {
        let detail = "one of fingerprint and certificate must be given";
        return Err(Problem::field("fingerprint", detail));
    };
    state
        .registry
        .reset_fingerprint(&actor, &id, body.which, fingerprint, body.disconnect)
        .await?;
    Ok(Json(FingerprintView {
        device_id: id,
        which: body.which,
        fingerprint,
        certificate,
    }))
}

/// Takes a device's second fingerprint away.
#[utoipa::path(delete, path = "/devices/{device}/fingerprint", tag = "devices",
    params(("device" = String, Path, description = "The device's id in the whole gateway"), ClearQuery),
    responses((status = 204)))]
async fn clear_fingerprint(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    QueryOf(query): QueryOf<ClearQuery>,
) -> Result<StatusCode, Problem> {
    state
        .registry
        .clear_secondary(&actor, &id, AuthKind::X509, query.disconnect)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
