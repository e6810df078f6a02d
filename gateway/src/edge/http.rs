//! The HTTP API for operators and applications: `/api/v1`.
//!
//! [`router`] puts it together, [`serve`] speaks it on a socket. A handler takes the role it needs
//! and the parts of the request, calls one service and returns a view; every error is a problem.
//! Invariants: a stranger learns nothing but that a token is needed; no body is held in memory
//! beyond the limits in [`Limits`]; JSON has no field that is not read.

mod apps;
mod audit;
pub mod auth;
pub(super) mod batches;
mod bindings;
pub mod certificates;
pub(super) mod content;
pub(super) mod csv_rows;
mod deliveries;
mod device_credentials;
pub mod device_csv;
mod devices;
mod error;
mod events;
pub mod extract;
pub(super) mod form;
pub mod idempotency;
pub mod idle;
pub(super) mod linger;
pub mod listener;
mod messages;
mod nodes;
pub mod openapi;
mod operators;
pub mod problem;
mod products;
pub mod range;
pub mod rate;
pub(super) mod report;
pub mod request_id;
mod resources;
mod schema;
mod sessions;
mod tag;
mod tasks;
mod tokens;
pub(super) mod upload;
mod uploads;
pub mod view;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

use self::{
    idempotency::Answers,
    listener::AcceptStream,
    openapi::Document,
    problem::{Kind, Problem},
    rate::Rates,
};
use crate::{
    config::{ApplicationsConfig, DeliveryConfig, HttpConfig, MqttConfig, ResourceConfig},
    service::{
        account::AccountService,
        app::AppService,
        auth::{DeviceAuthenticator, TokenAuthenticator},
        delivery::DeliveryService,
        node::NodeService,
        registration::RegistrationService,
        registry::RegistryService,
        resource::ResourceService,
        uplink::Uplink,
        upload::UploadService,
        vendor::Requests,
    },
    session::{Directory, SessionTable},
    shutdown::Shutdown,
};

/// Time for the TLS handshake of an operator's client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Read buffer of a connection, so also the longest request head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Bounds of what a request may bring.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a JSON body.
    pub max_json_bytes: usize,
    /// Bytes of a CSV.
    pub max_csv_bytes: usize,
    /// Bytes of a resource.
    pub max_resource_bytes: u64,
    /// Rows of a CSV.
    pub max_task_rows: u32,
    /// Rows of a CSV of bindings.
    pub max_binding_rows: usize,
    /// Longest topic, in bytes.
    pub max_topic_bytes: usize,
    /// Most levels in a topic.
    pub max_topic_levels: usize,
    /// How often a stream without messages is sent a comment.
    pub stream_keep_alive: Duration,
}

impl Limits {
    /// The bounds that the configuration sets.
    pub fn new(
        http: &HttpConfig,
        mqtt: &MqttConfig,
        resources: &ResourceConfig,
        delivery: &DeliveryConfig,
        applications: &ApplicationsConfig,
    ) -> Self {
        Self {
            max_json_bytes: http.max_request_bytes,
            max_csv_bytes: http.max_csv_bytes,
            max_resource_bytes: resources.max_size_bytes,
            max_task_rows: u32::try_from(delivery.max_task_rows).unwrap_or(u32::MAX),
            max_binding_rows: applications.max_csv_rows,
            max_topic_bytes: mqtt.max_topic_bytes,
            max_topic_levels: mqtt.max_topic_levels,
            stream_keep_alive: applications.stream_keep_alive,
        }
    }
}

/// What the handlers work with; clones share it.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// Products and devices.
    pub registry: RegistryService,
    /// Registration in batches.
    pub registration: RegistrationService,
    /// Resources.
    pub resources: ResourceService,
    /// What devices send.
    pub uploads: UploadService,
    /// Tasks and deliveries.
    pub delivery: DeliveryService,
    /// Which devices are connected.
    pub sessions: Arc<SessionTable>,
    /// Who is connected to any node.
    pub directory: Directory,
    /// Operators, tokens and the audit.
    pub accounts: AccountService,
    /// The nodes.
    pub nodes: NodeService,
    /// Whoever counts logins that failed.
    pub authenticator: DeviceAuthenticator,
    /// How often a caller may ask.
    pub rates: Rates,
    /// Applications.
    pub apps: AppService,
    /// Messages between devices and applications.
    pub uplink: Uplink,
    /// Who waits for the response of a device.
    pub requests: Requests,
    /// Who has which token.
    pub tokens: TokenAuthenticator,
    /// Bounds of what a request may bring.
    pub limits: Limits,
    /// Owner of requests that go on when their client goes away.
    pub shutdown: Shutdown,
    /// Answers that were given to idempotency keys; starts empty.
    pub answers: Answers,
}

/// The whole API.
pub fn router(state: ApiState) -> Router {
    // A list of ten thousand devices may be as long in JSON as in a CSV.
    let max_body_bytes = state.limits.max_json_bytes.max(state.limits.max_csv_bytes);
    let (api, mut openapi) = OpenApiRouter::with_openapi(openapi::base())
        .merge(audit::routes())
        .merge(operators::routes())
        .merge(tokens::routes())
        .merge(nodes::routes())
        .merge(products::routes())
        .merge(devices::routes())
        .merge(apps::routes())
        .merge(bindings::routes())
        .merge(messages::routes())
        .merge(device_credentials::routes())
        .merge(batches::routes())
        .merge(sessions::routes())
        .merge(resources::routes())
        .merge(deliveries::routes())
        .merge(uploads::routes())
        .layer(DefaultBodyLimit::max(state.limits.max_json_bytes))
        .merge(tasks::routes().layer(DefaultBodyLimit::max(max_body_bytes)))
        .split_for_parts();
    openapi::finish(&mut openapi);
    let document = Document::of(&openapi);
    let api = api
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(state.clone(), idempotency::replay))
        .layer(from_fn_with_state(state.clone(), rate::limit))
        .layer(from_fn_with_state(state.clone(), auth::authenticate))
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .with_state(state);
    Router::new()
        .nest(openapi::BASE, api)
        .route("/api/openapi.json", get(async move || document.response()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(on_panic))
        .layer(from_fn(request_id::stamp))
}

/// Serves `router` on `listener` until the node drains, then the requests in hand until it stops.
///
/// # Cancel safety
/// Dropping the future closes every connection at once.
pub async fn serve<A: AcceptStream>(
    listener: TcpListener,
    acceptor: A,
    router: Router,
    config: &HttpConfig,
    shutdown: Shutdown,
) {
    let limits = listener::Limits {
        max_connections: config.max_connections,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        header_timeout: config.header_timeout,
        idle_timeout: config.body_idle_timeout.max(config.header_timeout),
        max_head_bytes: MAX_HEAD_BYTES,
        title_case_headers: false,
        open_connections: None,
    };
    let service = TowerToHyperService::new(router);
    listener::run(listener, acceptor, service, limits, shutdown).await;
}

async fn no_such_path() -> Problem {
    Problem::new(Kind::NotFound, "there is no such path")
}

async fn no_such_method() -> Problem {
    Problem::new(
        Kind::MethodNotAllowed,
        "the Allow header names the methods of this path",
    )
}

/// Answers for a handler that panicked; where it did is in the log, by the panic hook.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the payload over"
)]
fn on_panic(payload: Box<dyn Any + Send>) -> Response {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown");
    tracing::error!(message, "a handler panicked");
    Problem::new(
        Kind::Internal,
        "the gateway could not carry out the request; its log says why",
    )
    .into_response()
}

#[cfg(test)]
mod tests;
