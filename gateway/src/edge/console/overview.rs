//! `/`: how all is.

use std::sync::Arc;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};

use super::{
    Console,
    fault::Fault,
    layout::{Layout, Place, render},
    session::Visit,
    text::{TEXTS, Texts, fill},
};

/// The routes of this file.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/", get(page))
}

#[derive(Template)]
#[template(path = "console/overview.html")]
struct OverviewPage {
    t: &'static Texts,
    layout: Layout,
    by_mqtt: i64,
    by_coap: i64,
    warnings: Vec<String>,
}

async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Fault> {
    let metrics = &console.metrics;
    let page = OverviewPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Overview, TEXTS.overview.title),
        by_mqtt: metrics.connections_mqtt.secret.get() + metrics.connections_mqtt.x509.get(),
        by_coap: metrics.connections_coap.get(),
        warnings: warnings(&console),
    };
    Ok(render(&page))
}

fn warnings(console: &Console) -> Vec<String> {
    let failing = console.readiness.report().into_iter();
    failing
        .filter_map(|check| {
            let reason = check.failure?;
            let values: [(&str, &dyn std::fmt::Display); 2] =
                [("name", &check.name), ("reason", &reason)];
            Some(fill(TEXTS.overview.backend, &values))
        })
        .collect()
}
