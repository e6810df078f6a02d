//! The metrics and health listener: `/metrics`, `/livez`, `/readyz`.
//!
//! A listener of its own, so that monitoring works while the others are full or closed; it goes on
//! answering while the node drains. Invariants: it changes nothing; it tells no version outside
//! `/metrics`; connections are bounded in number and time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    shutdown::Shutdown,
    telemetry::{
        health::{CheckReport, Readiness},
        metrics::Metrics,
    },
};

/// Connections open at one time; one more waits.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head, the time between two requests included.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause after a failed accept: out of descriptors is not over in an instant.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listener, open.
#[derive(Debug)]
pub struct OpsListener {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Debug, Clone)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
}

impl OpsListener {
    /// Opens the listener.
    ///
    /// # Errors
    /// What the system said.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the last stage of the shutdown.
    ///
    /// # Cancel safety
    /// Safe: open connections end with `shutdown`.
    pub async fn run(self, metrics: Metrics, readiness: Readiness, shutdown: Shutdown) {
        let router = router(metrics, readiness);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = serve(stream, router.clone(), shutdown.clone());
                    shutdown.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics listener: accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router, shutdown: Shutdown) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        biased;
        () = shutdown.stopping() => {}
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "metrics listener: connection");
            }
        }
    }
}

fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(Shown { metrics, readiness })
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    let content_type = HeaderValue::from_static(METRICS_TYPE);
    (
        [(header::CONTENT_TYPE, content_type)],
        shown.metrics.render(),
    )
        .into_response()
}

async fn show_readiness(
    State(shown): State<Shown>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let status = if shown.readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let checks = shown.readiness.report();
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    match (verbose, wants_json) {
        (true, true) => (status, axum::Json(as_json(status, &checks))).into_response(),
        (true, false) => (status, as_list(&checks)).into_response(),
        (false, _) => (status, as_line(&checks)).into_response(),
    }
}

/// One line: `ready`, or `not ready` with every reason.
fn as_line(checks: &[CheckReport]) -> String {
    let failures: Vec<_> = checks
        .iter()
        .filter_map(|check| Some((check.name, check.failure.as_deref()?)))
        .map(|(name, failure)| format!("{name}: {failure}"))
        .collect();
    if failures.is_empty() {
        return "ready\n".to_owned();
    }
    format!("not ready: {}\n", failures.join("; "))
}

/// One line a check.
fn as_list(checks: &[CheckReport]) -> String {
    let line = |check: &CheckReport| match &check.failure {
        None => format!("[+] {}: ok\n", check.name),
        Some(failure) => format!("[-] {}: {failure}\n", check.name),
    };
    checks.iter().map(line).collect()
}

fn as_json(status: StatusCode, checks: &[CheckReport]) -> Value {
    let check = |check: &CheckReport| {
        json!({
            "name": check.name,
            "ok": check.failure.is_none(),
            "reason": check.failure,
        })
    };
    json!({
        "ready": status == StatusCode::OK,
        "checks": checks.iter().map(check).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
