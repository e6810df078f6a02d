//! The console: the pages that operators see, at `/` of the HTTP listener.
//!
//! Rendered here, whole, from compiled templates; the one script only makes them livelier. Each page has a file here,
//! its templates in `templates/console/` and its words in [`text`]; what it needs comes from the services.
//! Invariants: nothing but the sign-in and the assets answers a stranger; nothing is changed but by a form that was
//! made for the session that sends it ([`form`]); every text from outside is escaped by its template.

mod account;
mod applications;
mod assets;
mod audit;
mod batches;
mod call;
mod deliver;
mod devices;

mod fault;
mod field;
mod form;
mod headers;
mod layout;
mod nodes;
mod operators;
mod overview;
mod paging;
mod products;
mod question;
mod resources;
mod session;
mod show;
mod shown_once;
mod sign_in;
mod tasks;
mod text;
mod tokens;
mod uploads;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

use self::{call::Routes, fault::Fault};
use super::http::{ApiState, request_id};
use crate::{
    service::auth::OperatorSessions,
    telemetry::{health::Readiness, metrics::Metrics, trend::Trend},
};

/// What the pages work with.
#[derive(Debug)]
pub struct Console {
    /// The services, and the bounds of what a request may bring.
    pub services: ApiState,
    /// Who is signed in.
    pub sessions: OperatorSessions,
    /// What is counted.
    pub metrics: Metrics,
    /// What went on in the last hour.
    pub trend: Trend,
    /// Whether the backends answer.
    pub readiness: Readiness,
    /// Whether the listener speaks TLS: then the cookie is never sent without.
    pub is_secure: bool,
}

/// The console at `/`, and the API below `/api`.
pub fn router(console: Console, api: Router) -> Router {
    let console = Arc::new(console);
    let within = Routes::new()
        .merge(overview::routes())
        .merge(resources::routes())
        .merge(deliver::routes())
        .merge(tasks::routes())
        .merge(uploads::routes())
        .merge(devices::routes())
        .merge(batches::routes())
        .merge(products::routes())
        .merge(applications::routes())
        .merge(nodes::routes())
        .merge(operators::routes())
        .merge(tokens::routes())
        .merge(audit::routes())
        .merge(account::routes())
        .merge(sign_in::routes_within())
        .done()
        .fallback(async || Fault::no_page())
        .method_not_allowed_fallback(async || Fault::no_page())
        .layer(from_fn_with_state(Arc::clone(&console), session::enter));
    let pages = Router::new()
        .merge(sign_in::routes().done())
        .merge(within)
        .with_state(console)
        .merge(assets::routes())
        .layer(CatchPanicLayer::custom(on_panic))
        .layer(from_fn(headers::protect))
        .layer(from_fn(request_id::stamp));
    Router::new()
        .fallback(choose)
        .with_state(Sides { pages, api })
}

/// What is asked for by its path.
#[derive(Clone)]
struct Sides {
    pages: Router,
    api: Router,
}

async fn choose(State(sides): State<Sides>, request: Request) -> Response {
    let path = request.uri().path();
    let is_api = path == "/api" || path.starts_with("/api/");
    let side = if is_api { sides.api } else { sides.pages };
    match side.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Answers for a page that panicked; where it did is in the log, by the panic hook.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the payload over"
)]
fn on_panic(payload: Box<dyn Any + Send>) -> Response {
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Fault::internal(&message.unwrap_or("unknown")).into_response()
}
