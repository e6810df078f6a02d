//! What the writer takes out: what was emptied, unbound or ended, and what is over.

use std::sync::Arc;

use headgate_protocol::identity::DeviceId;
use tokio::sync::oneshot;

use super::{
    super::{queue::Queue, subscribers::Ended},
    Writer,
};
use crate::{
    model::{Id, Millis},
    store::sessions::SessionKey,
    telemetry::metrics::DropReason,
};

impl Writer {
    pub(super) async fn clear(&self, device: &DeviceId, cleared: oneshot::Sender<usize>) {
        match self.store.clear_mail(device).await {
            Ok(gone) => {
                self.mailbox.release(&[], &gone);
                let _gone = cleared.send(gone.len());
            }
            Err(error) => {
                tracing::error!(%error, device_id = %device, "a mailbox could not be emptied");
            }
        }
    }

    pub(super) async fn revoke(
        &self,
        queues: &[Arc<Queue>],
        devices: &[DeviceId],
        revoked: oneshot::Sender<()>,
    ) {
        for queue in queues {
            match self.backend.revoke(queue.session(), devices).await {
                Ok(gone) => self.sessions.release(&[], &gone),
                Err(error) => {
                    tracing::error!(%error, "messages of devices that were unbound could not be taken out");
                    return;
                }
            }
        }
        let _gone = revoked.send(());
    }

    pub(super) async fn end_session(&self, session: Id, key: &SessionKey) {
        match self.backend.discard(session).await {
            Ok(()) => {
                if let Some(link) = self.sessions.forget(session, key) {
                    link.close(Ended::SessionEnded);
                }
            }
            Err(error) => tracing::error!(%error, "a session could not be ended"),
        }
    }

    /// Takes out what waited for sessions that have ended, a bounded number each time.
    pub(super) async fn purge(&self) {
        let Some(session) = self.sessions.next_to_purge() else {
            return;
        };
        match self.backend.purge(session).await {
            Ok(gone) => {
                let dropped = self.metrics.messages_dropped(DropReason::SessionEnded);
                dropped.inc_by(gone.len() as u64);
                self.sessions.on_purged(session, &gone);
            }
            Err(error) => tracing::warn!(%error, "messages of an ended session stay for now"),
        }
    }

    /// Looks for what is over, a bounded number in each step.
    pub(super) async fn sweep(&mut self) {
        self.held.forgive();
        let now = Millis::now();
        self.expire_mail(now).await;
        match self.backend.expire_messages(now).await {
            Ok(gone) => {
                self.sessions.release(&[], &gone);
                let dropped = self.metrics.messages_dropped(DropReason::Expired);
                dropped.inc_by(gone.len() as u64);
            }
            Err(error) => tracing::warn!(%error, "expired messages could not be taken out"),
        }
        match self.backend.expired_sessions(now).await {
            Ok(expired) => {
                for (session, key) in expired {
                    self.end_session(session, &key).await;
                }
            }
            Err(error) => tracing::warn!(%error, "expired sessions could not be found"),
        }
        for (session, key) in self.sessions.stuck() {
            tracing::warn!(
                ?key,
                "a session of an application took nothing for too long and was ended"
            );
            self.end_session(session, &key).await;
        }
        self.purge().await;
    }

    async fn expire_mail(&self, now: Millis) {
        loop {
            match self.store.expire_mail(now).await {
                Ok(gone) if gone.is_empty() => return,
                Ok(gone) => {
                    self.mailbox.release(&[], &gone);
                    let dropped = self.metrics.messages_dropped(DropReason::Expired);
                    dropped.inc_by(gone.len() as u64);
                }
                Err(error) => {
                    tracing::warn!(%error, "expired messages could not be taken out");
                    return;
                }
            }
            if !self.orders.is_empty() {
                // Who stores goes first; the rest is for the next sweep.
                return;
            }
        }
    }
}
