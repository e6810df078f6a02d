//! Serves changed certificates: looks at their files at an interval, at SIGHUP, and when an operator asks.
//!
//! Whoever asks means the settings, too. Invariants: settings and certificates are taken over together or not at all.

use std::{io, time::Duration};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval_at},
};

use super::{settings::Settings, start::StartError};
use crate::{
    config::Config,
    edge::tls::Certificates,
    service::node::Reload,
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
    reloads: mpsc::Receiver<Reload>,
    settings: Settings,
    metrics: &Metrics,
    edges: &Shutdown,
) -> Result<(), StartError> {
    let hangups = Hangups::install().map_err(StartError::Signals)?;
    note_end(&certificates, metrics);
    let watch = Watch {
        certificates,
        settings,
        metrics: metrics.clone(),
        shutdown: edges.clone(),
        last_fault: None,
    };
    let stop = edges.clone();
    edges.spawn(async move {
        tokio::select! {
            biased;
            () = stop.draining() => {}
            () = watch.run(interval, hangups, reloads) => {}
        }
    });
    Ok(())
}

struct Watch {
    certificates: Certificates,
    settings: Settings,
    metrics: Metrics,
    shutdown: Shutdown,
    /// A file that stays as it is is complained of once.
    last_fault: Option<String>,
}

impl Watch {
    async fn run(
        mut self,
        interval: Option<Duration>,
        mut hangups: Hangups,
        mut reloads: mpsc::Receiver<Reload>,
    ) {
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
            let (was_asked, asker) = tokio::select! {
                () = hangups.recv() => (true, None),
                Some(asker) = reloads.recv() => (true, Some(asker)),
                () = turn => (false, None),
            };
            let outcome = if was_asked {
                self.look_at_all().await
            } else {
                self.look(false).await
            };
            if let Some(asker) = asker {
                // Whoever asked may have gone.
                let _gone = asker.send(outcome);
            }
        }
    }

    /// Looks at settings and certificates, and takes over both or neither; gives how many certificates had changed.
    async fn look_at_all(&mut self) -> Result<usize, String> {
        let read = self.read().await.inspect_err(|problems| {
            tracing::warn!(%problems, "the configuration cannot be used: all stays as it was");
        })?;
        let changed = self.look(true).await?;
        if let Some(read) = read {
            self.settings.take(&read);
        }
        Ok(changed)
    }

    /// The configuration as it would be read now; `None` where it is not read again.
    async fn read(&self) -> Result<Option<Config>, String> {
        let Some(reread) = self.settings.reread.clone() else {
            return Ok(None);
        };
        let read = self.shutdown.spawn_blocking(move || reread()).await;
        let read = read.map_err(|error| error.to_string())?;
        read.map(Some).map_err(|error| error.to_string())
    }

    /// Looks once; gives how many had changed, or what is wrong.
    async fn look(&mut self, was_asked: bool) -> Result<usize, String> {
        let reading = self.certificates.clone();
        let read = self.shutdown.spawn_blocking(move || reading.reload()).await;
        match read.map_err(io::Error::other) {
            Ok(Ok(changed)) => {
                self.last_fault = None;
                if changed > 0 {
                    self.metrics.tls_certificates.changed.inc();
                    note_end(&self.certificates, &self.metrics);
                    tracing::info!(changed, "other certificates are served");
                } else if was_asked {
                    tracing::info!("the certificates are as they were");
                }
                Ok(changed)
            }
            Ok(Err(error)) => {
                let fault = error.to_string();
                self.metrics.tls_certificates.failed.inc();
                if was_asked || self.last_fault.as_ref() != Some(&fault) {
                    tracing::warn!(%error, "a certificate cannot be used: those from before are still served");
                }
                self.last_fault = Some(fault.clone());
                Err(fault)
            }
            Err(error) => {
                tracing::warn!(%error, "the certificates could not be looked at");
                Err(error.to_string())
            }
        }
    }
}

fn note_end(certificates: &Certificates, metrics: &Metrics) {
    if let Some(end) = certificates.first_end() {
        metrics.set_certificate_end(end);
    }
}
