//! What the writer does to the sessions: which of them begin, go and are over.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Closing, Granted, Known, KnownApp, PersistentSessions, kind};
use crate::{
    model::Id,
    service::uplink::queue::{Queue, QueueLink, QueueSink},
    store::sessions::{
        Claim, Claimed, KeptSession, QueueGone, SessionChange, SessionKey, SessionRef,
    },
};

impl PersistentSessions {
    /// A claim was stored.
    pub(in crate::service::uplink) fn on_claimed(
        &self,
        claim: &Claim,
        claimed: Claimed,
    ) -> Granted {
        if let Some(discarded) = claimed.discarded {
            // Its connection, if there is one, is told that it was taken over.
            self.forget(discarded, &claim.key);
        }
        let known = claimed.session.map(|session| {
            let known = self
                .shared
                .known
                .get(&claim.key)
                .map(|known| Arc::clone(&known));
            let known = known.unwrap_or_else(|| {
                self.know(&KeptSession {
                    id: session.id,
                    key: claim.key.clone(),
                    subscriptions: Vec::new(),
                    messages: 0,
                    bytes: 0,
                    node: None,
                })
            });
            let mut state = known.state.lock();
            state.epoch = state.epoch.max(session.epoch);
            drop(state);
            known
        });
        Granted { claimed, known }
    }

    /// A session is no more; gives the connection that it had.
    pub(in crate::service::uplink) fn forget(
        &self,
        session: Id,
        key: &SessionKey,
    ) -> Option<Arc<dyn QueueLink>> {
        let shared = &self.shared;
        let is_it = |_: &SessionKey, known: &Arc<Known>| known.id == session;
        let (_, known) = shared.known.remove_if(key, is_it)?;
        shared.metrics.sessions.of(kind(key)).dec();
        let app = known.app.as_ref()?;
        shared.to_purge.lock().push(session);
        shared.has_work.notify_one();
        app.queue.end()
    }

    /// Messages that sessions of applications have and that are to be taken out: which session, which message.
    pub(in crate::service::uplink) fn take_delivered(&self) -> Vec<(Id, Id)> {
        let mut delivered: Vec<_> = self.shared.delivered.lock().iter().copied().collect();
        delivered.sort_unstable();
        delivered
    }

    /// Messages were taken out.
    pub(in crate::service::uplink) fn release(&self, asked: &[(Id, Id)], gone: &[QueueGone]) {
        {
            let mut delivered = self.shared.delivered.lock();
            for one in asked {
                delivered.remove(one);
            }
        }
        for one in gone {
            if let Some(queue) = self.shared.queues.get(&one.session) {
                queue.release(one.bytes);
            }
        }
    }

    /// Ends of connections that are to be stored.
    pub(in crate::service::uplink) fn take_closings(&self) -> Vec<Closing> {
        std::mem::take(&mut *self.shared.closings.lock())
    }

    /// They could not be stored: the next time.
    pub(in crate::service::uplink) fn put_back(&self, closings: Vec<Closing>) {
        self.shared.closings.lock().extend(closings);
    }

    /// They were stored, but for the stale ones.
    pub(in crate::service::uplink) fn on_closed(&self, closings: &[Closing], stale: &[SessionRef]) {
        for one in closings {
            if stale.contains(&one.session) {
                continue;
            }
            if one.change == SessionChange::Ended {
                self.forget(one.session.id, &one.key);
            } else if self.is_shared() {
                self.rest(one.session.id, one.session.epoch, &one.key);
            }
        }
    }

    /// A session that has ended and for which messages may wait.
    pub(in crate::service::uplink) fn next_to_purge(&self) -> Option<Id> {
        self.shared.to_purge.lock().last().copied()
    }

    /// These were taken out of it; none: there are no more.
    pub(in crate::service::uplink) fn on_purged(&self, session: Id, gone: &[QueueGone]) {
        self.release(&[], gone);
        if gone.is_empty() {
            self.shared
                .to_purge
                .lock()
                .retain(|other| *other != session);
            self.shared.queues.remove(&session);
        }
        if !self.shared.to_purge.lock().is_empty() {
            self.shared.has_work.notify_one();
        }
    }

    /// Sessions whose queues have refused messages for too long while their clients took none.
    pub(in crate::service::uplink) fn stuck(&self) -> Vec<(Id, SessionKey)> {
        let limit = self.shared.limits.stuck;
        let is_stuck = |known: &Known| {
            let since = known.app.as_ref().and_then(|app| app.queue.full_since());
            since.is_some_and(|since| since.elapsed() >= limit)
        };
        self.shared
            .known
            .iter()
            .filter(|known| is_stuck(known))
            .map(|known| (known.id, known.key.clone()))
            .collect()
    }

    pub(super) fn know(&self, kept: &KeptSession) -> Arc<Known> {
        let shared = &self.shared;
        let app = match &kept.key {
            SessionKey::Device(_) => None,
            SessionKey::Application(app, _) => {
                let queue = Queue::new(&shared.totals, kept.id, kept.messages, kept.bytes);
                shared.queues.insert(kept.id, Arc::clone(&queue));
                let sink = Arc::new(QueueSink(Arc::clone(&queue)));
                let max = shared.limits.subscriptions;
                let mut subscriber = shared.subscribers.attach(app, sink, max);
                for subscription in &kept.subscriptions {
                    subscriber.restore(subscription);
                }
                let subscriber = Mutex::new(subscriber);
                Some(KnownApp { queue, subscriber })
            }
        };
        let known = Arc::new(Known {
            id: kept.id,
            key: kept.key.clone(),
            state: Mutex::default(),
            app,
        });
        shared.known.insert(kept.key.clone(), Arc::clone(&known));
        shared.metrics.sessions.of(kind(&kept.key)).inc();
        known
    }
}
