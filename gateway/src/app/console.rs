//! The console: its pages over the services that the API stands on.

use std::net::{IpAddr, Ipv4Addr};

use super::stores::Stores;
use crate::{
    config::{Config, data_dir::Ports},
    edge::{console::Console, http::ApiState},
    service::auth::{OperatorSessions, TokenAuthenticator},
    telemetry::{health::Readiness, metrics::Metrics, trend::Trend},
};

/// What the console's pages work with; starts to take samples for its charts, until the edges end.
pub(super) fn open(
    config: &Config,
    sessions: OperatorSessions,
    api: &ApiState,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Console {
    let trend = Trend::new(metrics.clone());
    let (sampler, stop) = (trend.clone(), api.shutdown.clone());
    api.shutdown.spawn(async move {
        tokio::select! {
            biased;
            () = stop.draining() => {}
            () = sampler.run() => {}
        }
    });
    Console {
        services: api.clone(),
        sessions,
        metrics: metrics.clone(),
        trend,
        readiness: readiness.clone(),
        is_secure: config.http.certificate.is_some(),
    }
}

/// The sessions of operators.
pub(super) fn sessions(
    config: &Config,
    stores: &Stores,
    tokens: &TokenAuthenticator,
) -> OperatorSessions {
    let (registry, config) = (stores.registry.clone(), config.console.clone());
    OperatorSessions::new(registry, tokens.clone(), config)
}

/// Where a browser on this machine finds the console.
pub(super) fn address(config: &Config, ports: &Ports) -> Option<String> {
    let mut address = ports.http?;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let is_secure = config.http.certificate.is_some();
    let scheme = if is_secure { "https" } else { "http" };
    Some(format!("{scheme}://{address}/"))
}
