//! Messages from applications to the device: into batches, and out of the mailbox once acknowledged.
//!
//! They come from the session's inbox or, where that was too small or the device was away, are read
//! from the mailbox page by page, and only as fast as the device takes them. One that is stored
//! stays in the mailbox until the device acknowledged it, so a lost connection costs nothing: the
//! next one sends it again.
//! Invariants: a message is under way at most once on a connection; one to which the device has not
//! subscribed stays in the mailbox.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_protocol::mqtt::{NotSent, TopicFilter};

use super::{DeviceSession, Sent};
use crate::{
    model::{Handing, Id, Millis},
    service::uplink::{Replay, Stored},
    session::{batch::Batch, link::NotPushed},
    telemetry::metrics::DropReason,
};

/// Messages that are read from the mailbox at a time: of the largest, half a mebibyte.
const PAGE: usize = 8;
/// Bytes of messages in one batch, unless it begins with a larger one.
const BATCH_BYTES: usize = 64 * 1024;
/// When a mailbox that could not be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// What is on its way to the device; a device at rest has none.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// To be sent next.
    queue: VecDeque<(Arc<Stored>, Handing)>,
    queue_bytes: usize,
    /// Sent and not acknowledged.
    in_flight: Vec<Id>,
    reading: Option<Reading>,
    /// What is retained and still to be read for subscriptions.
    replays: Vec<Replay>,
}

/// A pass through the mailbox, oldest first.
#[derive(Debug, Default)]
struct Reading {
    after: Option<Id>,
    /// Not before; after a failure.
    not_before: Option<Instant>,
}

impl Mail {
    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.in_flight.is_empty()
            && self.reading.is_none()
            && self.replays.is_empty()
    }

    /// Whether messages are to go before anything else does.
    pub(super) fn waits(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.queue_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// When the mailbox is to be read again.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.reading.as_ref()?.not_before
    }

    /// These are sent again by the connection.
    pub(super) fn resume(&mut self, ids: Vec<Id>) {
        self.in_flight = ids;
    }

    fn holds(&self, id: Id) -> bool {
        self.in_flight.contains(&id) || self.queue.iter().any(|(known, _)| known.id == Some(id))
    }

    fn push(&mut self, stored: Arc<Stored>, handing: Handing) {
        self.queue_bytes += stored.message.size();
        self.queue.push_back((stored, handing));
    }

    fn pop(&mut self) {
        if let Some((stored, _)) = self.queue.pop_front() {
            self.queue_bytes = self.queue_bytes.saturating_sub(stored.message.size());
        }
    }
}

impl DeviceSession {
    /// Takes note that messages wait in the inbox.
    pub(super) fn note_mail(&mut self) {
        self.mail.get_or_insert_default();
    }

    /// Looks through the mailbox from its beginning: the device may want more of it than before.
    pub(super) fn read_mailbox(&mut self) {
        let mailbox = self.link.node.uplink.mailbox();
        if mailbox.has(&self.device.device_id) {
            let mail = self.mail.get_or_insert_default();
            mail.reading = Some(Reading::default());
        }
    }

    /// Has what is retained sent for a subscription.
    pub(super) fn replay(&mut self, filter: &TopicFilter) {
        let uplink = &self.link.node.uplink;
        if let Some(replay) = uplink.retained_for_device(&self.device.device_id, filter) {
            let mail = self.mail.get_or_insert_default();
            // A second SUBSCRIBE begins anew; so there are no more than subscriptions.
            mail.replays.retain(|known| known.filter() != Some(filter));
            mail.replays.push(replay);
        }
    }

    /// Puts messages into the batch, as many as the device takes now.
    pub(super) async fn fill_mail(&mut self, now: Instant, batch: &mut Batch) {
        let Some(mut mail) = self.mail.take() else {
            return;
        };
        loop {
            self.send_mail(&mut mail, batch);
            if mail.waits() || !self.find_mail(&mut mail, now).await {
                break;
            }
        }
        if mail.is_idle() {
            self.handle.release_memory();
        } else {
            self.mail = Some(mail);
        }
    }

    /// The device has it.
    pub(super) fn on_mail_acknowledged(&mut self, id: Id) {
        self.link.node.uplink.mailbox().delivered([id]);
        if let Some(mail) = &mut self.mail {
            mail.in_flight.retain(|known| *known != id);
        }
        if let Some(kept) = &mut self.kept {
            kept.acknowledged(id);
        }
    }

    fn send_mail(&mut self, mail: &mut Mail, batch: &mut Batch) {
        while let Some((stored, handing)) = mail.queue.front() {
            if batch.len() >= BATCH_BYTES {
                return;
            }
            let message = &stored.message;
            if message.is_expired(Millis::now()) {
                // The mailbox takes it out itself.
                mail.pop();
                continue;
            }
            let tag = stored.id.map_or(Sent::Message, Sent::Mail);
            let unstored;
            let handing = if stored.id.is_none() {
                unstored = handing.at_most(self.max_unstored_qos());
                &unstored
            } else {
                handing
            };
            let is_kept = match self.link.push(batch, message, handing, tag) {
                Ok(packet_id) => {
                    if let Some(id) = stored.id {
                        let qos = handing.qos;
                        self.note_sending(packet_id, id, qos);
                    }
                    packet_id.is_some()
                }
                Err(NotPushed::NotSent(NotSent::NoQuota | NotSent::NotOpen)) => return,
                Err(error) => {
                    self.link
                        .node
                        .metrics
                        .messages_dropped(DropReason::TooLarge)
                        .inc();
                    tracing::info!(device_id = %self.device.device_id, %error, "a message to a device was dropped");
                    false
                }
            };
            match stored.id {
                Some(id) if is_kept => mail.in_flight.push(id),
                Some(id) => self.link.node.uplink.mailbox().delivered([id]),
                None => {}
            }
            mail.pop();
        }
    }

    /// Finds messages to send next; says whether to look again.
    async fn find_mail(&mut self, mail: &mut Mail, now: Instant) -> bool {
        let Some(reading) = &mut mail.reading else {
            return Box::pin(self.read_retained(mail)).await || self.take_inbox(mail);
        };
        if reading.not_before.is_some_and(|due| now < due) {
            return false;
        }
        let mailbox = self.link.node.uplink.mailbox();
        let page = Box::pin(mailbox.pending(&self.device.device_id, reading.after, PAGE)).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, device_id = %self.device.device_id, "a mailbox could not be read");
                reading.not_before = Some(now + RETRY_INTERVAL);
                return false;
            }
        };
        let Some(last) = page.last() else {
            mail.reading = None;
            return true;
        };
        reading.after = last.id;
        reading.not_before = None;
        self.read_to = self.read_to.max(last.id);
        for stored in page {
            let is_new = stored.id.is_none_or(|id| !mail.holds(id));
            if is_new && let Some(handing) = self.handing(&stored.message) {
                mail.push(stored, handing);
            }
        }
        true
    }

    /// Reads what is retained; says whether there was anything.
    async fn read_retained(&self, mail: &mut Mail) -> bool {
        while let Some(replay) = mail.replays.last_mut() {
            let page = match self.link.node.uplink.read_retained(replay).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, device_id = %self.device.device_id, "retained messages could not be read");
                    mail.replays.clear();
                    return false;
                }
            };
            let asked = replay
                .filter()
                .and_then(|filter| self.subscriptions.of(filter));
            let is_done = replay.is_done();
            if is_done {
                mail.replays.pop();
            }
            if let Some(asked) = asked
                && !page.is_empty()
            {
                for message in page {
                    let handing = asked.retained(&message);
                    mail.push(Arc::new(Stored { id: None, message }), handing);
                }
                return true;
            }
        }
        false
    }

    /// Takes what was handed over; says whether there was anything.
    fn take_inbox(&self, mail: &mut Mail) -> bool {
        let inbox = self.handle.take_mail();
        if inbox.is_empty() {
            return false;
        }
        if inbox.is_behind {
            mail.reading = Some(Reading::default());
        }
        for stored in inbox.queue {
            // What was read from the mailbox already has been seen to.
            let is_read = stored.id.is_some() && stored.id <= self.read_to;
            if is_read || stored.id.is_some_and(|id| mail.holds(id)) {
                continue;
            }
            match self.handing(&stored.message) {
                Some(handing) => mail.push(stored, handing),
                None if stored.id.is_none() => self
                    .link
                    .node
                    .metrics
                    .messages_dropped(DropReason::NoSubscription)
                    .inc(),
                // It waits for the device to subscribe.
                None => {}
            }
        }
        true
    }
}
