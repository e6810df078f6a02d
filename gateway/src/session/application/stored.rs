//! Messages to the application: into batches, and what is stored of them out of the store and back.
//!
//! Invariants: a stored message is under way at most once on a connection, and leaves the store when the client has it;
//! what is not stored of the session is not said.

use std::time::{Duration, Instant};

use headgate_protocol::mqtt::{NotSent, QoS};

use super::ApplicationSession;
use crate::{
    model::{Id, Millis},
    service::uplink::{NotKept, Queued},
    session::{batch::Batch, device::Sent, link::NotPushed},
    telemetry::metrics::{DisconnectReason, DropReason},
};

/// Bytes of messages in one batch, unless it begins with a larger one.
const BATCH_BYTES: usize = 64 * 1024;
/// Messages that are read from the store at a time.
const PAGE: usize = 32;
/// When a store that could not be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

impl ApplicationSession {
    /// Stores what has changed of the session; says whether what follows may be said.
    pub(super) async fn keep(&mut self, batch: &mut Batch) -> bool {
        let Some(kept) = self.attached.kept().filter(|kept| kept.is_changed()) else {
            return true;
        };
        match kept.flush().await {
            Ok(()) => true,
            Err(error) => {
                self.link.break_off(batch);
                if error == NotKept::TakenOver {
                    self.link.closing = Some(DisconnectReason::Takeover);
                }
                false
            }
        }
    }

    pub(super) async fn fill_messages(&mut self, batch: &mut Batch) {
        loop {
            self.push_messages(batch);
            if batch.len() >= BATCH_BYTES || !self.read_page().await {
                return;
            }
        }
    }

    /// The client has a message of QoS 2: it is not sent again.
    pub(super) fn handle_received(&mut self, sent: Sent) {
        if let (Sent::Mail(id), Some(kept)) = (sent, self.attached.kept()) {
            kept.delivered(id);
            kept.received(id);
        }
    }

    /// The exchange of a message is over.
    pub(super) fn handle_acknowledged(&mut self, sent: Sent) {
        if let (Sent::Mail(id), Some(kept)) = (sent, self.attached.kept()) {
            kept.delivered(id);
            kept.acknowledged(id);
        }
    }

    fn push_messages(&mut self, batch: &mut Batch) {
        let Self {
            link,
            handle,
            attached,
            ..
        } = self;
        handle.drain(|id, message, handing| {
            if batch.len() >= BATCH_BYTES {
                return false;
            }
            let tag = id.map_or(Sent::Message, Sent::Mail);
            let dropped = if message.is_expired(Millis::now()) {
                DropReason::Expired
            } else {
                let unstored;
                let handing = match attached.kept().filter(|_| id.is_none()) {
                    // The client would hold on to an identifier of QoS 2.
                    Some(_) => {
                        unstored = handing.at_most(QoS::AtLeastOnce);
                        &unstored
                    }
                    None => handing,
                };
                match link.push(batch, message, handing, tag) {
                    Ok(packet_id) => {
                        let stored = attached.kept().zip(id).zip(packet_id);
                        if let Some(((kept, id), packet_id)) = stored {
                            kept.sending(packet_id, id, handing.qos);
                        }
                        return true;
                    }
                    Err(NotPushed::NotSent(NotSent::NoQuota | NotSent::NotOpen)) => return false,
                    Err(error) => {
                        tracing::info!(client_id = handle.client_id(), %error, "a message to an application was dropped");
                        DropReason::TooLarge
                    }
                }
            };
            link.node.metrics.messages_dropped(dropped).inc();
            if let Some((kept, id)) = attached.kept().zip(id) {
                kept.delivered(id);
            }
            true
        });
    }

    /// Reads messages from the store where the session needs some; says whether to look again.
    async fn read_page(&mut self) -> bool {
        let Some(wanted) = self.handle.wanted() else {
            return false;
        };
        let now = Instant::now();
        if self.retry_at.is_some_and(|due| now < due) {
            return false;
        }
        self.retry_at = None;
        let read = match self.attached.kept() {
            Some(kept) => kept.pending(wanted.after, PAGE).await,
            None => return false,
        };
        let page = match read {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, app_id = %self.app, "what waits for an application could not be read");
                self.retry_at = Some(now + RETRY_INTERVAL);
                return false;
            }
        };
        let last = page.last().map(|queued| queued.id);
        let Some(page) = self.still_bound(page).await else {
            self.retry_at = Some(now + RETRY_INTERVAL);
            return false;
        };
        self.handle.add_page(wanted, page, last);
        true
    }

    /// Leaves out what the application may not see any more; `None` where that cannot be found out now.
    async fn still_bound(&mut self, page: Vec<Queued>) -> Option<Vec<Queued>> {
        let mut bound = Vec::with_capacity(page.len());
        for queued in page {
            let device = &queued.message.device.device_id;
            let is_bound = self.link.node.uplink.is_bound(&self.app, device).await;
            match is_bound {
                Ok(true) => bound.push(queued),
                Ok(false) => self.drop_stored(queued.id),
                Err(error) => {
                    tracing::warn!(%error, app_id = %self.app, "bindings could not be looked up");
                    return None;
                }
            }
        }
        Some(bound)
    }

    fn drop_stored(&mut self, id: Id) {
        if let Some(kept) = self.attached.kept() {
            kept.delivered(id);
        }
    }
}
