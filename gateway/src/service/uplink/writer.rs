//! The one task that stores messages and persistent sessions, many in one commit.
//!
//! What it is asked is done in the order of asking. A message is offered to whoever is connected once it is stored, and
//! then whoever sent it is told. A message for a device that is connected, and for nobody else, is handed to it before
//! ([`super::held`]). Invariants: ids grow in the order of asking; nobody is told of what is neither committed nor
//! acknowledged by its receiver.

mod chores;
mod order;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::Histogram;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

pub use self::order::Receipt;
pub(super) use self::order::{Order, Placed, Put};
use super::{
    held::Held,
    mailbox::Mailbox,
    persistent::{Granted, PersistentSessions},
    queue::Queued,
};
use crate::{
    model::{Handing, Id, IdGenerator},
    store::{
        StoreError,
        sessions::{
            Batch, Claim, Committed, NewMessage, Numbered, SessionBackend, SessionChange,
            SessionKey, SessionRef, SessionStore, Shared, SharedLimits,
        },
    },
    telemetry::metrics::{DropReason, Metrics},
};

/// Orders that may wait; beyond them whoever has one waits.
pub(super) const CAPACITY: usize = 1_024;
/// The most orders in one commit.
const MAX_COMMIT: usize = 256;
/// How often what is over is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The writer, to be driven by one task.
pub(super) struct Writer {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) has_work: Arc<Notify>,
    pub(super) mailbox: Mailbox,
    pub(super) sessions: PersistentSessions,
    pub(super) store: SessionStore,
    pub(super) backend: Arc<dyn SessionBackend>,
    pub(super) ids: IdGenerator,
    /// The greatest id that was given.
    pub(super) last: i64,
    pub(super) seconds: Histogram,
    pub(super) metrics: Metrics,
    pub(super) held: Held,
}

/// What goes into the next commit.
#[derive(Default)]
struct Gathered {
    puts: Vec<(Id, Put)>,
    changes: Vec<(
        SessionRef,
        Vec<SessionChange>,
        Option<oneshot::Sender<bool>>,
    )>,
}

impl Writer {
    /// Stores what comes; after `stop` what was handed over before, and then no more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut orders = Vec::with_capacity(MAX_COMMIT);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_work = Arc::clone(&self.has_work);
            let due = self.held.next_due();
            tokio::select! {
                biased;
                received = self.orders.recv_many(&mut orders, MAX_COMMIT) => {
                    self.carry_out(&mut orders).await;
                    if received == 0 {
                        let held = self.held.take_all();
                        return self.store_held(held).await;
                    }
                }
                () = has_work.notified() => self.carry_out(&mut orders).await,
                () = until(due) => {
                    let late = self.held.take_due(Instant::now());
                    self.store_held(late).await;
                }
                () = stop.cancelled(), if !self.orders.is_closed() => self.orders.close(),
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn carry_out(&mut self, orders: &mut Vec<Order>) {
        self.settle_acknowledged();
        let mut gathered = Gathered::default();
        for order in orders.drain(..) {
            match order {
                Order::Put(put) => {
                    self.take(put, &mut gathered);
                    continue;
                }
                Order::Change {
                    session,
                    changes,
                    stored,
                } => {
                    gathered.changes.push((session, changes, Some(stored)));
                    continue;
                }
                _ => {}
            }
            // What was asked before it comes before it.
            self.commit(&mut gathered).await;
            match order {
                Order::Put(_) | Order::Change { .. } => {}
                Order::Clear { device, cleared } => {
                    // What was sent before it is to go with it.
                    let held = self.held.take_of(&device);
                    self.store_held(held).await;
                    self.clear(&device, cleared).await;
                }
                Order::Settle { device, settled } => {
                    let held = self.held.take_of(&device);
                    self.store_held(held).await;
                    let _gone = settled.send(());
                }
                Order::Claim { claim, granted } => self.claim(&claim, granted).await,
                Order::Revoke {
                    queues,
                    devices,
                    revoked,
                } => self.revoke(&queues, &devices, revoked).await,
                Order::End { sessions, ended } => {
                    for (session, key) in sessions {
                        self.end_session(session, &key).await;
                    }
                    let _gone = ended.send(());
                }
            }
        }
        self.commit(&mut gathered).await;
        self.purge().await;
    }

    /// Has a message stored, or first handed to its device, if that is there.
    fn take(&mut self, mut put: Put, gathered: &mut Gathered) {
        let id = self.next_id();
        let device = &put.message.device.device_id;
        // What is for the same device and is offered only once it is stored must not be overtaken.
        let is_first = !gathered
            .puts
            .iter()
            .any(|(_, other)| other.message.device.device_id == *device);
        if is_first
            && !self.mailbox.is_shared()
            && self.held.admits(&put)
            && self.mailbox.offer_stored(id, Arc::clone(&put.message))
        {
            put.is_offered = true;
            self.held.insert(id, put, Instant::now());
            self.mailbox.set_held(self.held.len());
        } else {
            gathered.puts.push((id, put));
        }
    }

    /// Devices have acknowledged messages: those that are held need not be stored.
    fn settle_acknowledged(&mut self) {
        if self.held.len() == 0 {
            return;
        }
        let now = Instant::now();
        for id in self.mailbox.take_delivered() {
            if let Some(put) = self.held.acknowledged(id, now) {
                self.mailbox.release(&[id], &[]);
                let _gone = put.stored.send(Placed {
                    id,
                    is_online: true,
                    is_full: false,
                    refused: 0,
                });
            }
        }
        self.mailbox.set_held(self.held.len());
    }

    /// Stores what was held.
    async fn store_held(&self, puts: Vec<(Id, Put)>) {
        if puts.is_empty() {
            return;
        }
        let mut gathered = Gathered {
            puts,
            ..Gathered::default()
        };
        self.commit(&mut gathered).await;
        self.mailbox.set_held(self.held.len());
    }

    /// Stores messages and changes, and takes out acknowledged messages, in one commit.
    async fn commit(&self, gathered: &mut Gathered) {
        let mut mail_gone = self.mailbox.take_delivered();
        // These have no row, and whoever sent them waits to be told.
        mail_gone.retain(|id| !self.held.contains(*id));
        let messages_gone = self.sessions.take_delivered();
        let closings = self.sessions.take_closings();
        for one in &closings {
            let changes = vec![one.change.clone()];
            gathered.changes.push((one.session, changes, None));
        }
        for (_, put) in &gathered.puts {
            if let Some(receipt) = put.receipt {
                let change = SessionChange::Taken(receipt.packet_id);
                gathered.changes.push((receipt.session, vec![change], None));
            }
        }
        let left = self.sessions.take_left();
        let is_idle = gathered.puts.is_empty() && gathered.changes.is_empty() && left.is_empty();
        if is_idle && mail_gone.is_empty() && messages_gone.is_empty() {
            return;
        }
        let timer = self.seconds.start_timer();
        let result = self
            .backend_commit(gathered, &mail_gone, &messages_gone, &left)
            .await;
        timer.observe_duration();
        match result {
            Ok(Committed {
                stale, numbered, ..
            }) => {
                for (session, _, stored) in gathered.changes.drain(..) {
                    if let Some(stored) = stored {
                        let _gone = stored.send(!stale.contains(&session));
                    }
                }
                let mut numbered = numbered.into_iter();
                for (id, put) in gathered.puts.drain(..) {
                    self.hand_over(id, put, numbered.next());
                }
                self.sessions.on_closed(&closings, &stale);
            }
            Err(error) => {
                tracing::error!(%error, messages = gathered.puts.len(), "messages and sessions could not be stored");
                gathered.puts.clear();
                gathered.changes.clear();
                self.sessions.put_back(closings);
                self.sessions.put_back_left(left);
            }
        }
    }

    async fn backend_commit(
        &self,
        gathered: &Gathered,
        mail_gone: &[Id],
        messages_gone: &[(Id, Id)],
        left: &[(SessionKey, i64)],
    ) -> Result<Committed, StoreError> {
        let receivers: Vec<Vec<(Id, Handing)>> = gathered
            .puts
            .iter()
            .map(|(_, put)| {
                let receivers = put.receivers.iter();
                receivers
                    .filter(|(place, _)| !place.queue().is_over())
                    .map(|(place, handing)| (place.queue().session(), handing.clone()))
                    .collect()
            })
            .collect();
        let mut batch = Batch {
            mail_gone,
            messages_gone,
            ..Batch::default()
        };
        for ((id, put), receivers) in gathered.puts.iter().zip(&receivers) {
            if let Some((expires_at, _)) = &put.mail {
                batch.mail.push((*id, &put.message, *expires_at));
            }
            if !receivers.is_empty() {
                batch.messages.push(NewMessage {
                    id: *id,
                    message: &put.message,
                    receivers,
                });
            }
        }
        for (session, changes, _) in &gathered.changes {
            batch.changes.push((*session, changes));
        }
        if self.mailbox.is_shared() {
            let puts = gathered.puts.iter();
            let senders = puts.map(|(id, put)| (*id, put.sender.as_ref()));
            let puts = gathered.puts.iter();
            let forwards = puts.flat_map(|(id, put)| {
                let forwards = put.forwards.iter();
                forwards.map(|(node, body)| (*id, *node, &**body))
            });
            batch.shared = Some(Shared {
                limits: self.limits(),
                senders: senders.collect(),
                forwards: forwards.collect(),
                left,
            });
        }
        let committed = self.backend.commit(&batch).await?;
        if let Some(totals) = committed.totals {
            self.mailbox.show_depth(totals.mail_messages);
            self.sessions
                .show_depth(totals.queue_messages, totals.queue_bytes);
        }
        self.mailbox.release(mail_gone, &committed.mail_gone);
        self.sessions
            .release(messages_gone, &committed.messages_gone);
        Ok(committed)
    }

    /// How much may wait over all nodes.
    fn limits(&self) -> SharedLimits {
        let (mail, queue) = (self.mailbox.limits(), self.sessions.queue_limits());
        SharedLimits {
            mail_messages: mail.max_messages,
            mail_total: mail.max_total_messages,
            mail_total_bytes: mail.max_total_bytes,
            queue_messages: queue.messages,
            queue_bytes: queue.bytes,
            queue_total_bytes: queue.total_bytes,
        }
    }

    /// A message is stored: whoever is connected is offered it, here, so that it is in the order of ids.
    fn hand_over(&self, id: Id, put: Put, numbered: Option<Numbered>) {
        if numbered.as_ref().is_some_and(|numbered| numbered.is_late) {
            // It comes again by the connection that has its sender now; that this one is told nothing says so.
            tracing::debug!(topic = %put.message.topic, "a message came after its sender was with another connection");
            return;
        }
        let id = numbered.as_ref().map_or(id, |numbered| numbered.id);
        let is_full = numbered.as_ref().is_some_and(|numbered| numbered.is_full);
        let is_elsewhere = numbered.as_ref().is_some_and(|numbered| numbered.is_online);
        let refused = numbered
            .map(|numbered| numbered.refused)
            .unwrap_or_default();
        let is_online = put.mail.is_some_and(|(_, place)| {
            place.keep();
            put.is_offered
                || is_elsewhere
                || !is_full && self.mailbox.offer_stored(id, Arc::clone(&put.message))
        });
        for (place, handing) in put.receivers {
            let queue = Arc::clone(place.queue());
            if refused.contains(&queue.session()) {
                queue.note_full();
                let dropped = self.metrics.messages_dropped(DropReason::QueueFull);
                dropped.inc();
                continue;
            }
            if queue.is_over() {
                // Nobody will ask for it: its place goes with it.
                continue;
            }
            place.keep();
            queue.offer_stored(Queued {
                id,
                message: Arc::clone(&put.message),
                handing,
            });
        }
        // Whoever waited may be gone; the message stands all the same.
        let _gone = put.stored.send(Placed {
            id,
            is_online,
            is_full,
            refused: refused.len(),
        });
    }

    async fn claim(&self, claim: &Claim, granted: oneshot::Sender<Granted>) {
        match self.backend.claim(claim).await {
            Ok(claimed) => {
                let grant = self.sessions.on_claimed(claim, claimed);
                let _gone = granted.send(grant);
            }
            Err(error) => tracing::error!(%error, "a session could not be claimed"),
        }
    }

    /// Greater than every id before, those of earlier runs that still wait included.
    fn next_id(&mut self) -> Id {
        let next = self.ids.next();
        let next = Id::from_i64(next.as_i64().max(self.last.saturating_add(1))).unwrap_or(next);
        self.last = next.as_i64();
        next
    }
}

/// Waits until then; without a time, for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
