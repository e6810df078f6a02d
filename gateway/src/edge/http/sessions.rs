//! `/sessions` and `/devices/{device}/session`: who is connected by MQTT, shown and ended.
//!
//! A session is named `device:{device_id}` or, an application's, by its whole ClientId, which begins with `app:`; the
//! list is in the order of these names, applications first.

use std::{sync::Arc, time::Duration};

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
    view::{PageView, invalid_page},
};
use crate::{
    model::{Actor, Page, Paged},
    session::{ApplicationHandle, CloseReason, SessionHandle, SessionInfo},
};

/// How long a session has to say how it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Shows the connection of a device; 404 where it has none.
#[utoipa::path(get, path = "/devices/{device}/session", tag = "sessions",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = SessionView)))]
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
    kind: Option<SessionKind>,
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
#[serde(rename_all = "snake_case")]
enum SessionKind {
    /// A device's.
    Device,
    /// An application's.
    Application,
}

/// One entry of the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedSession)]
struct ListedView {
    /// The session's name.
    id: String,
    kind: SessionKind,
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

/// What goes before a device's id in the name of its session: behind `app:`, so applications are listed first.
const DEVICE: &str = "device:";

/// Lists who is connected to this node by MQTT.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(SessionsQuery),
    responses((status = 200, body = PageView<ListedView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<SessionsQuery>,
) -> Result<Json<PageView<ListedView>>, Problem> {
    let page = Page::new(query.limit, query.cursor).map_err(invalid_page)?;
    let after = page.after().map_err(invalid_page)?;
    if query.node.is_some_and(|node| node != state.nodes.id()) {
        let (items, next) = (Vec::new(), None);
        return Ok(Json(PageView { items, next }));
    }
    let wants = |kind| query.kind.is_none_or(|asked| asked == kind);
    // One more than fits says that there is more.
    let limit = page.limit as usize + 1;
    let mut found: Vec<Found> = Vec::new();
    let is_among_devices = after
        .as_deref()
        .and_then(|after| after.strip_prefix(DEVICE));
    let lists_apps = wants(SessionKind::Application)
        && query.product.is_none()
        && query.persistent.is_none()
        && query.listener.is_none()
        && is_among_devices.is_none();
    if lists_apps {
        let apps = state.app_sessions.page(after.as_deref(), limit);
        found.extend(apps.into_iter().map(Found::Application));
    }
    if wants(SessionKind::Device) && found.len() < limit {
        let rest = limit - found.len();
        let devices = state
            .sessions
            .page(is_among_devices, rest, query.product.as_ref());
        found.extend(devices.into_iter().map(Found::Device));
    }
    let page = Paged::cut(found, page.limit, Found::name);
    let views = page.items.iter().map(|found| found.view(state.nodes.id()));
    let mut items = futures_util::future::join_all(views).await;
    if let Some(persistent) = query.persistent {
        items.retain(|item| {
            let connection = item.connection.as_ref();
            connection.is_some_and(|shown| (shown.session_expiry > 0) == persistent)
        });
    }
    if let Some(listener) = &query.listener {
        items.retain(|item| {
            let address = item
                .connection
                .as_ref()
                .and_then(|of| of.listener.as_deref());
            let port = address.and_then(|address| address.rsplit(':').next());
            address == Some(listener) || port == Some(listener)
        });
    }
    Ok(Json(PageView {
        items,
        next: page.next,
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
    if let Some(device) = name.strip_prefix(DEVICE) {
        let device = DeviceId::new(device).map_err(|_| not_connected())?;
        return end_device(&actor, &state, &device).await;
    }
    let session = state.app_sessions.of(&name).ok_or_else(not_connected)?;
    state.apps.record_kick(&actor, session.client_id()).await?;
    session.end(CloseReason::Administrative);
    Ok(StatusCode::NO_CONTENT)
}

/// A session of the list.
enum Found {
    Application(Arc<ApplicationHandle>),
    Device(Arc<SessionHandle>),
}

impl Found {
    fn name(&self) -> String {
        match self {
            Self::Application(session) => session.client_id().to_owned(),
            Self::Device(session) => format!("{DEVICE}{}", session.device_id),
        }
    }

    async fn view(&self, node: &str) -> ListedView {
        match self {
            Self::Application(session) => ListedView {
                id: self.name(),
                kind: SessionKind::Application,
                device_id: None,
                node: node.to_owned(),
                since: session.since(),
                connection: None,
            },
            Self::Device(session) => {
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, session.inspect()).await;
                ListedView {
                    id: self.name(),
                    kind: SessionKind::Device,
                    device_id: Some(session.device_id.to_string()),
                    node: node.to_owned(),
                    since: session.since,
                    connection: answer.ok().and_then(Result::ok).map(Into::into),
                }
            }
        }
    }
}

fn not_connected() -> Problem {
    Problem::new(Kind::NotFound, "the client is not connected")
}
