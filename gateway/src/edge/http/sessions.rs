//! `/devices/{device}/session`: the connection of a device, shown and ended.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use headgate_protocol::{
    identity::DeviceId,
    mqtt::{ProtocolVersion, QoS},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    extract::PathOf,
    openapi::Problems,
    problem::{Kind, Problem},
};
use crate::session::{CloseReason, SessionInfo};

/// How long a session has to say how it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(session, kick))
}

/// The connection of a device as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
struct SessionView {
    /// When the device connected.
    #[schema(value_type = String, format = DateTime)]
    since: crate::model::Millis,
    /// The client identifier of its CONNECT.
    client_id: String,
    /// `mqtt-3.1`, `mqtt-3.1.1`, `mqtt-5` or `coap`.
    protocol: &'static str,
    /// From where, as address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Seconds.
    keep_alive: u64,
    /// What it subscribed to.
    subscriptions: Vec<SubscriptionView>,
    /// Bytes that wait for it on this connection.
    outbox_bytes: usize,
    /// Messages that wait for it on this connection.
    outbox_messages: usize,
}

/// One subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
struct SubscriptionView {
    /// The topic filter.
    filter: String,
    /// The granted QoS, 0 or 1.
    qos: u8,
}

impl From<SessionInfo> for SessionView {
    fn from(info: SessionInfo) -> Self {
        Self {
            since: info.since,
            client_id: info.client_id,
            protocol: match info.version {
                Some(ProtocolVersion::V31) => "mqtt-3.1",
                Some(ProtocolVersion::V311) => "mqtt-3.1.1",
                Some(ProtocolVersion::V5) => "mqtt-5",
                None => "coap",
            },
            address: info.address.map(|address| address.to_string()),
            keep_alive: info.keep_alive.as_secs(),
            subscriptions: info.subscriptions.into_iter().map(Into::into).collect(),
            outbox_bytes: info.outbox_bytes,
            outbox_messages: info.outbox_messages,
        }
    }
}

impl From<(String, QoS)> for SubscriptionView {
    fn from((filter, qos): (String, QoS)) -> Self {
        Self {
            filter,
            qos: qos.bits(),
        }
    }
}

/// Shows the connection of a device; 404 where it has none.
#[utoipa::path(get, path = "/devices/{device}/session", tag = "sessions",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = SessionView), Problems))]
async fn session(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Json<SessionView>, Problem> {
    state.registry.device(&id).await?;
    let session = state.sessions.of(&id).ok_or_else(not_connected)?;
    match tokio::time::timeout(ANSWER_TIMEOUT, session.inspect()).await {
        Ok(Ok(info)) => Ok(Json(info.into())),
        // It ended before it could answer.
        Ok(Err(_)) => Err(not_connected()),
        Err(_elapsed) => Err(Problem::new(
            Kind::Overloaded,
            "the session did not answer in time",
        )),
    }
}

/// Ends the connection of a device, which may connect again; 404 where it has none.
#[utoipa::path(delete, path = "/devices/{device}/session", tag = "sessions",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 204), Problems))]
async fn kick(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<StatusCode, Problem> {
    state.registry.device(&id).await?;
    let session = state.sessions.of(&id).ok_or_else(not_connected)?;
    state.registry.record_kick(&actor, &id).await?;
    session.close(CloseReason::Administrative);
    Ok(StatusCode::NO_CONTENT)
}

fn not_connected() -> Problem {
    Problem::new(Kind::NotFound, "the device is not connected")
}
