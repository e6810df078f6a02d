//! `/sessions` and `/devices/{device}/session`: who is connected, on whichever node, shown and ended.
//!
//! A session is named `device:{device_id}` or, an application's, by its whole ClientId, which begins with `app:`; the
//! list is in the order of these names, applications first.

use axum::{Json, extract::State, http::StatusCode};
use headgate_protocol::{
    identity::{DeviceId, ProductId},
    mqtt::{ProtocolVersion, QoS},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Operator, Viewer},
    extract::{PathOf, QueryOf},
    problem::{Kind, Problem},
    view::invalid_page,
};
use crate::{
    model::{Actor, Page},
    session::{CloseReason, SessionEntry, SessionFilter, SessionInfo, SessionKind, SessionOwner},
};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(session, kick))
        .routes(routes!(list))
        .routes(routes!(end))
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
    /// To which listener, as address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
    /// Seconds.
    keep_alive: u64,
    /// Seconds that the session outlives the connection; 0: it ends with it.
    session_expiry: u32,
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
            listener: info.listener.map(|listener| listener.to_string()),
            keep_alive: info.keep_alive.as_secs(),
            session_expiry: info.session_expiry_secs,
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

/// The connection of a device, and where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceSession)]
struct DeviceSessionView {
    /// The node that it is on.
    node: String,
    #[serde(flatten)]
    session: SessionView,
}

/// Shows the connection of a device, on whichever node it is; 404 where it has none.
#[utoipa::path(get, path = "/devices/{device}/session", tag = "sessions",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = DeviceSessionView)))]
async fn session(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Json<DeviceSessionView>, Problem> {
    state.registry.device(&id).await?;
    let found = state.directory.device(&id).await;
    let found = found.map_err(|error| Problem::internal(&error))?;
    let found = found.ok_or_else(not_connected)?;
    let Some(info) = found.info else {
        let detail = format!(
            "the session is on node {} and did not answer in time",
            found.node
        );
        return Err(Problem::new(Kind::Overloaded, detail));
    };
    Ok(Json(DeviceSessionView {
        node: found.node,
        session: info.into(),
    }))
}

/// Ends the connection of a device, which may connect again; 404 where it has none.
#[utoipa::path(delete, path = "/devices/{device}/session", tag = "sessions",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 204)))]
async fn kick(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<StatusCode, Problem> {
    state.registry.device(&id).await?;
    end_device(&actor, &state, &id).await
}

async fn end_device(actor: &Actor, state: &ApiState, id: &DeviceId) -> Result<StatusCode, Problem> {
    let Some(session) = state.sessions.of(id) else {
        let is_kicked = state.registry.kick_elsewhere(actor, id).await?;
        return is_kicked
            .then_some(StatusCode::NO_CONTENT)
            .ok_or_else(not_connected);
    };
    state.registry.record_kick(actor, id).await?;
    session.close(CloseReason::Administrative);
    Ok(StatusCode::NO_CONTENT)
}

/// Which sessions are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SessionsQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// `device` or `application`; default: both.
    kind: Option<SessionKindView>,
    /// Only devices of this product.
    #[param(value_type = Option<String>)]
    product: Option<ProductId>,
    /// Only sessions that outlive their connections, or only others. A page may then have fewer entries than asked for,
    /// and still a `next`.
    persistent: Option<bool>,
    /// Only devices that came to this listener: its port, or its address and port. Pages as with `persistent`.
    listener: Option<String>,
    /// Only sessions on this node.
    node: Option<String>,
}

/// Whose session it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SessionKind)]
#[serde(rename_all = "snake_case")]
enum SessionKindView {
    /// A device's.
    Device,
    /// An application's.
    Application,
}

impl From<SessionKindView> for SessionKind {
    fn from(kind: SessionKindView) -> Self {
        match kind {
            SessionKindView::Device => Self::Device,
            SessionKindView::Application => Self::Application,
        }
    }
}

/// One entry of the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedSession)]
struct ListedView {
    /// The session's name.
    id: String,
    kind: SessionKindView,
    /// The device's id in the whole gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    /// The node that it is on.
    node: String,
    /// When the client connected.
    #[schema(value_type = String, format = DateTime)]
    since: crate::model::Millis,
    /// How a device is connected; absent where it was going away just then, and for applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<SessionView>,
}

impl From<SessionEntry> for ListedView {
    fn from(entry: SessionEntry) -> Self {
        let device_id = entry.device().map(str::to_owned);
        Self {
            kind: match device_id {
                Some(_) => SessionKindView::Device,
                None => SessionKindView::Application,
            },
            device_id,
            id: entry.name,
            node: entry.node,
            since: entry.since,
            connection: entry.connection.map(Into::into),
        }
    }
}

/// One page of the list of sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionPage)]
struct SessionPageView {
    /// The entries, in the order of their names.
    items: Vec<ListedView>,
    /// What to give as `cursor` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Nodes that live and did not answer: what they have is not in the list. Absent where all did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

/// Lists who is connected, to any node. With several nodes a page may have fewer entries than asked for, and still a
/// `next`.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(SessionsQuery),
    responses((status = 200, body = SessionPageView)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<SessionsQuery>,
) -> Result<Json<SessionPageView>, Problem> {
    let page = Page::new(query.limit, query.cursor).map_err(invalid_page)?;
    let after = page.after().map_err(invalid_page)?;
    let filter = SessionFilter {
        kind: query.kind.map(Into::into),
        product: query.product,
        persistent: query.persistent,
        listener: query.listener,
        node: query.node,
    };
    let limit = page.limit as usize;
    let found = state.directory.list(&filter, after.as_deref(), limit).await;
    Ok(Json(SessionPageView {
        items: found.page.items.into_iter().map(Into::into).collect(),
        next: found.page.next,
        silent_nodes: found.silent,
    }))
}

/// Ends a session's connection; its client may connect again. 404 where it is not connected.
#[utoipa::path(delete, path = "/sessions/{session}", tag = "sessions",
    params(("session" = String, Path, description = "The session's name as in the list")),
    responses((status = 204)))]
async fn end(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let client_id = match SessionOwner::of(&name) {
        SessionOwner::Device(device) => {
            let device = DeviceId::new(device).map_err(|_| not_connected())?;
            return end_device(&actor, &state, &device).await;
        }
        SessionOwner::Application(client_id) => client_id,
    };
    let node = state.directory.application(client_id).await;
    let node = node.ok_or_else(not_connected)?;
    state.apps.record_kick(&actor, client_id).await?;
    let ended = state.directory.end_application(&node, client_id).await;
    ended
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(not_connected)
}

fn not_connected() -> Problem {
    Problem::new(Kind::NotFound, "the client is not connected")
}
