//! Serves changed certificates: looks at their files at an interval and at SIGHUP.

use std::{io, time::Duration};

use tokio::time::{MissedTickBehavior, interval_at};

use super::start::StartError;
use crate::{
    edge::tls::Certificates,
    shutdown::{Hangups, Shutdown},
    telemetry::metrics::Metrics,
};

/// Starts to look at the files; `edges` ends it.
///
/// # Errors
/// `Signals`: SIGHUP cannot be taken over.
pub(super) fn watch(
    certificates: Certificates,
    interval: Option<Duration>,
    metrics: &Metrics,
    edges: &Shutdown,
) -> Result<(), StartError> {
    let hangups = Hangups::install().map_err(StartError::Signals)?;
    note_end(&certificates, metrics);
    let (metrics, stop) = (metrics.clone(), edges.clone());
    edges.spawn(async move {
        tokio::select! {
            biased;
            () = stop.draining() => {}
            () = run(&certificates, interval, hangups, &metrics, &stop) => {}
        }
    });
    Ok(())
}

async fn run(
    certificates: &Certificates,
    interval: Option<Duration>,
    mut hangups: Hangups,
    metrics: &Metrics,
    shutdown: &Shutdown,
) {
    // A file that stays as it is is complained of once.
    let mut last_fault = None;
    let mut turns = interval.map(|interval| {
        let mut turns = interval_at(tokio::time::Instant::now() + interval, interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turns
    });
    loop {
        let turn = async {
            match &mut turns {
                Some(turns) => {
                    turns.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        let was_asked = tokio::select! {
            () = hangups.recv() => true,
            () = turn => false,
        };
        let reading = certificates.clone();
        let read = shutdown.spawn_blocking(move || reading.reload()).await;
        match read.map_err(io::Error::other) {
            Ok(Ok(changed)) => {
                last_fault = None;
                if changed > 0 {
                    metrics.tls_certificates.changed.inc();
                    note_end(certificates, metrics);
                    tracing::info!(changed, "other certificates are served");
                } else if was_asked {
                    tracing::info!("the certificates are as they were");
                }
            }
            Ok(Err(error)) => {
                let fault = error.to_string();
                metrics.tls_certificates.failed.inc();
                if was_asked || last_fault.as_ref() != Some(&fault) {
                    tracing::warn!(%error, "a certificate cannot be used: those from before are still served");
                }
                last_fault = Some(fault);
            }
            Err(error) => tracing::warn!(%error, "the certificates could not be looked at"),
        }
    }
}

fn note_end(certificates: &Certificates, metrics: &Metrics) {
    if let Some(end) = certificates.first_end() {
        metrics.set_certificate_end(end);
    }
}
