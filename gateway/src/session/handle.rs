//! How others reach a session: a few signals and a short list, never a queue of work.
//!
//! A signal says that something waits; what waits is looked up by the session itself. So nothing
//! here grows with what is to be sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use headgate_protocol::{identity::DeviceId, mqtt::ReasonCode};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    inbox::{Inbox, InboxLimits},
    inspect::SessionInfo,
    signals::{Signal, SignalSet, Signals},
};
use crate::{
    model::Millis,
    service::{
        topics::ProductRules,
        uplink::{SessionKey, Standing, Stored},
        upload::{ChunkSink, Ended, Refusal},
    },
    telemetry::metrics::DisconnectReason,
};

/// Cancelled transfers that a session has not told its device of; one more is dropped, and the
/// device learns of it when it asks for bytes.
const MAX_CANCELED: usize = 16;

/// Who may ask at one time how a session is.
const MAX_INSPECTORS: usize = 8;

/// Why a session is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The device connected again.
    Takeover,
    /// An operator wants it, or the device was frozen or deleted.
    Administrative,
    /// The client took nothing of what waits for it for too long.
    QueueFull,
    /// An operator wants the client on another node.
    Evacuated,
    /// The node stops.
    Shutdown,
}

impl CloseReason {
    /// What an MQTT 5 client is told, and what is counted.
    pub(super) fn explain(reason: Option<Self>) -> (ReasonCode, DisconnectReason) {
        match reason {
            Some(Self::Takeover) => (ReasonCode::SessionTakenOver, DisconnectReason::Takeover),
            Some(Self::QueueFull) => (ReasonCode::QuotaExceeded, DisconnectReason::Administrative),
            Some(Self::Evacuated) => (
                ReasonCode::UseAnotherServer,
                DisconnectReason::Administrative,
            ),
            Some(Self::Shutdown) => (
                ReasonCode::ServerShuttingDown,
                DisconnectReason::ServerShutdown,
            ),
            Some(Self::Administrative) | None => (
                ReasonCode::AdministrativeAction,
                DisconnectReason::Administrative,
            ),
        }
    }
}

/// A transfer that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canceled {
    /// Its id.
    pub transfer: Box<str>,
    /// The resource's name.
    pub name: Box<str>,
}

/// One session as others see it.
#[derive(Debug)]
pub struct SessionHandle {
    /// Whose it is.
    pub device_id: DeviceId,
    /// Of the claim, where nodes share the sessions.
    epoch: AtomicI64,
    /// Tells it from sessions that began in the same millisecond: below 1,000.
    number: u16,
    /// When it began.
    pub since: Millis,
    /// What its product lets it publish and see.
    pub rules: Arc<ProductRules>,
    signals: SignalSet,
    slot: AtomicU64,
    details: Mutex<Details>,
}

#[derive(Debug, Default)]
struct Details {
    close: Option<CloseReason>,
    /// What most sessions never have.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    mail: Inbox,
    canceled: Vec<Canceled>,
    chunks_written: Vec<Result<(), Refusal>>,
    uploads_ended: Vec<Ended>,
    inspectors: Vec<oneshot::Sender<SessionInfo>>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.mail.is_empty()
            && self.canceled.is_empty()
            && self.chunks_written.is_empty()
            && self.uploads_ended.is_empty()
            && self.inspectors.is_empty()
    }
}

impl SessionHandle {
    /// A session of `device_id` that nobody has signalled.
    pub fn new(device_id: DeviceId, number: u16, rules: Arc<ProductRules>) -> Self {
        Self {
            device_id,
            epoch: AtomicI64::new(0),
            number,
            since: Millis::now(),
            rules,
            signals: SignalSet::default(),
            slot: AtomicU64::new(0),
            details: Mutex::default(),
        }
    }

    /// By what its deliveries are claimed: greater than of every session of the device that began before.
    pub fn claim(&self) -> i64 {
        let epoch = self.epoch();
        if epoch > 0 {
            return epoch;
        }
        self.since
            .as_i64()
            .saturating_mul(1_000)
            .saturating_add(i64::from(self.number))
    }

    /// The epoch of the device's claim; 0 where no other node could have it.
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The claim by which this session has the device, where another node could have it.
    pub(super) fn standing(&self) -> Option<Standing> {
        let epoch = self.epoch();
        (epoch > 0).then(|| Standing {
            key: SessionKey::Device(self.device_id.clone()),
            epoch,
        })
    }

    /// The device was claimed for this session.
    pub(super) fn claimed(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Says that messages wait in the mailbox that were not handed over.
    pub fn mail_waits(&self) {
        {
            let mut details = self.details.lock();
            details.rare.get_or_insert_default().mail.is_behind = true;
        }
        self.signals.raise(Signal::Mail);
    }

    /// Says that something waits for the device.
    pub fn wake(&self) {
        self.signals.raise(Signal::Wake);
    }

    /// Says that the rules of the device's product have changed.
    pub fn rules_changed(&self) {
        self.signals.raise(Signal::Rules);
    }

    /// Ends the session.
    pub fn close(&self, reason: CloseReason) {
        self.details.lock().close.get_or_insert(reason);
        self.signals.raise(Signal::Close);
    }

    /// Hands over a message for the device; says whether the session will send it. One that it will
    /// not, and that is stored, is found in the mailbox by the session itself.
    pub fn offer(&self, message: Arc<Stored>, limits: InboxLimits) -> bool {
        let is_stored = message.id.is_some();
        let taken = {
            let mut details = self.details.lock();
            let rare = details.rare.get_or_insert_default();
            rare.mail.offer(message, limits)
        };
        if taken || is_stored {
            self.signals.raise(Signal::Mail);
        }
        taken
    }

    /// What was handed over since the last look.
    pub(super) fn take_mail(&self) -> Inbox {
        let mut details = self.details.lock();
        let rare = details.rare.as_mut();
        rare.map(|rare| std::mem::take(&mut rare.mail))
            .unwrap_or_default()
    }

    /// Says that a transfer is over.
    pub fn cancel(&self, canceled: Canceled) {
        {
            let mut details = self.details.lock();
            let rare = details.rare.get_or_insert_default();
            if rare.canceled.len() >= MAX_CANCELED {
                return;
            }
            rare.canceled.push(canceled);
        }
        self.signals.raise(Signal::Canceled);
    }

    /// Says how an upload ended; one too many is not said, and the device learns of it when it asks.
    pub fn upload_ended(&self, ended: Ended) {
        {
            let mut details = self.details.lock();
            let rare = details.rare.get_or_insert_default();
            if rare.uploads_ended.len() >= MAX_CANCELED {
                return;
            }
            rare.uploads_ended.push(ended);
        }
        self.signals.raise(Signal::Uploads);
    }

    /// What became of chunks, in order, and which uploads ended, since the last look.
    pub(super) fn take_upload_news(&self) -> (Vec<Result<(), Refusal>>, Vec<Ended>) {
        let mut details = self.details.lock();
        let rare = details.rare.as_mut();
        rare.map(|rare| {
            (
                std::mem::take(&mut rare.chunks_written),
                std::mem::take(&mut rare.uploads_ended),
            )
        })
        .unwrap_or_default()
    }

    /// Gives the session the sending slot that it waits for.
    pub(super) fn grant_slot(&self, ticket: u64) {
        self.slot.store(ticket, Ordering::Release);
        self.signals.raise(Signal::Slot);
    }

    /// The slot that was given, if it has not been taken.
    pub(super) fn take_slot(&self) -> Option<u64> {
        let ticket = self.slot.swap(0, Ordering::AcqRel);
        (ticket != 0).then_some(ticket)
    }

    /// Why the session is to end.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.details.lock().close
    }

    /// The transfers that were cancelled since the last look.
    pub(super) fn take_canceled(&self) -> Vec<Canceled> {
        let mut details = self.details.lock();
        let rare = details.rare.as_mut();
        rare.map(|rare| std::mem::take(&mut rare.canceled))
            .unwrap_or_default()
    }

    /// Asks the session how it is; the answer is dropped where it ends before, or too many ask.
    pub fn inspect(&self) -> oneshot::Receiver<SessionInfo> {
        let (inspector, answer) = oneshot::channel();
        {
            let mut details = self.details.lock();
            let rare = details.rare.get_or_insert_default();
            if rare.inspectors.len() < MAX_INSPECTORS {
                rare.inspectors.push(inspector);
            }
        }
        self.signals.raise(Signal::Inspect);
        answer
    }

    /// Who asked since the last look.
    pub(super) fn take_inspectors(&self) -> Vec<oneshot::Sender<SessionInfo>> {
        let mut details = self.details.lock();
        let rare = details.rare.as_mut();
        rare.map(|rare| std::mem::take(&mut rare.inspectors))
            .unwrap_or_default()
    }

    /// Gives back what only a busy session needs.
    pub(super) fn release_memory(&self) {
        self.details.lock().rare.take_if(|rare| rare.is_empty());
    }

    /// Waits for a signal.
    pub fn poll_signals(&self, cx: &Context<'_>) -> Poll<Signals> {
        self.signals.poll(cx)
    }
}

impl ChunkSink for SessionHandle {
    fn chunks_written(&self, outcomes: Vec<Result<(), Refusal>>) {
        {
            // At most one write is under way for a session, so this is bounded by its window.
            let mut details = self.details.lock();
            let rare = details.rare.get_or_insert_default();
            rare.chunks_written.extend(outcomes);
        }
        self.signals.raise(Signal::Uploads);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{model::product::tests::product, service::topics::TopicBook};

    /// A session of the device `d` that nobody knows.
    pub(in crate::session) fn handle() -> SessionHandle {
        let rules = TopicBook::default().rules(&product("P"));
        SessionHandle::new("d".parse().expect("legal"), 1, rules)
    }

    #[test]
    fn the_first_reason_to_close_stands() {
        let handle = handle();
        handle.close(CloseReason::Takeover);
        handle.close(CloseReason::Shutdown);
        assert_eq!(handle.close_reason(), Some(CloseReason::Takeover));
    }

    #[test]
    fn cancellations_are_bounded() {
        let handle = handle();
        for n in 0..100 {
            handle.cancel(Canceled {
                transfer: n.to_string().into(),
                name: "r".into(),
            });
        }
        assert_eq!(handle.take_canceled().len(), MAX_CANCELED);
        assert!(handle.take_canceled().is_empty());
    }

    #[test]
    fn a_slot_is_taken_once() {
        let handle = handle();
        handle.grant_slot(7);
        assert_eq!(handle.take_slot(), Some(7));
        assert_eq!(handle.take_slot(), None);
    }
}
