//! What is done about uploads without anyone asking: what is unfinished for too long ends, a check that was put off
//! is tried again, and what was stored long ago is deleted.

use std::{sync::Arc, time::Duration};

use headgate_protocol::transfer::upload::UploadResultCode;

use super::{Inner, UploadService, live::Phase, now};
use crate::{
    store::{StoreError, registry::UploadChange},
    telemetry::metrics::UploadEnd,
};

/// How often it is looked, at most.
const INTERVAL: Duration = Duration::from_secs(10);
/// Every so many turns the spool is looked at for files of uploads that are over.
const SWEEPS: u32 = 30;
/// The most old uploads that are deleted in one go; the rest waits for the next.
const MAX_DELETED: u32 = 1_000;

impl UploadService {
    /// Looks again and again, until it is dropped.
    pub(super) async fn run_upkeep(&self) {
        let config = &self.inner.config;
        let shortest = config
            .retention
            .map_or(config.unfinished_lifetime, |retention| {
                retention.min(config.unfinished_lifetime)
            });
        let mut tick = tokio::time::interval(INTERVAL.min(shortest / 4));
        let mut turns = 0_u32;
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.inner.end_silent().await;
            if self.inner.registry.is_shared() {
                turns += 1;
                self.inner.keep_shared(turns).await;
            }
            if let Some(retention) = config.retention {
                self.inner.delete_old(retention).await;
            }
        }
    }
}

impl Inner {
    async fn end_silent(self: &Arc<Self>) {
        let at = now();
        for upload in self.book.all() {
            if upload.take_postponed() {
                self.enqueue(upload);
            } else if upload.phase() == Phase::Receiving
                && at.since(upload.moved_at()) >= self.config.unfinished_lifetime
            {
                tracing::info!(upload = %upload.id, device_id = %upload.device_id, "an upload that got no byte for too long is dropped");
                let (end, code) = (UploadEnd::Expired, UploadResultCode::TimeOut);
                self.drop_upload(&upload, end, code).await;
            }
        }
    }

    /// What is done beside other nodes: each notes how far it is with what it has, and whoever comes first ends what
    /// nobody has.
    async fn keep_shared(self: &Arc<Self>, turns: u32) {
        if let Err(error) = self.look_after().await {
            return tracing::warn!(%error, "how far uploads are could not be noted");
        }
        if let Err(error) = self.end_abandoned().await {
            tracing::warn!(%error, "uploads that nobody has could not be looked up");
        }
        if turns.is_multiple_of(SWEEPS)
            && let Err(error) = self.sweep().await
        {
            tracing::warn!(%error, "files of uploads that are over could not be removed");
        }
    }

    async fn end_abandoned(&self) -> Result<(), StoreError> {
        // Who has it ends it first.
        let silent = self.config.unfinished_lifetime + 3 * INTERVAL;
        let abandoned = self.registry.abandoned_uploads(silent, MAX_DELETED).await?;
        for (id, claim) in abandoned {
            let change = UploadChange::Delete {
                id,
                claim: Some(claim),
                audit: None,
            };
            if let Ok(deleted) = self.journal.commit(change).await
                && deleted.found
            {
                tracing::info!(upload = %id, "an upload that no node has is dropped");
                self.delete_blobs(deleted.freed).await;
                self.metrics.uploads.ended(UploadEnd::Expired).inc();
            }
        }
        Ok(())
    }

    async fn delete_old(&self, retention: Duration) {
        let Some(before) = now().before(retention) else {
            return;
        };
        let old = match self
            .registry
            .uploads_stored_before(before, MAX_DELETED)
            .await
        {
            Ok(old) => old,
            Err(error) => return tracing::warn!(%error, "old uploads could not be looked up"),
        };
        for id in old {
            let change = UploadChange::Delete {
                id,
                claim: None,
                audit: None,
            };
            match self.journal.commit(change).await {
                Ok(deleted) => self.delete_blobs(deleted.freed).await,
                Err(error) => {
                    return tracing::warn!(%error, "an old upload could not be deleted");
                }
            }
        }
    }
}
