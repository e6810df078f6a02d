//! The console: its pages over the services that the API stands on.

use super::start::Stores;
use crate::{
    config::Config,
    edge::{console::Console, http::ApiState},
    service::auth::OperatorSessions,
    telemetry::{health::Readiness, metrics::Metrics},
};

/// What the console's pages work with.
pub(super) fn open(
    config: &Config,
    stores: &Stores,
    api: &ApiState,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Console {
    Console {
        services: api.clone(),
        sessions: OperatorSessions::new(
            stores.registry.clone(),
            api.tokens.clone(),
            config.console.clone(),
        ),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        is_secure: config.http.certificate.is_some(),
    }
}
