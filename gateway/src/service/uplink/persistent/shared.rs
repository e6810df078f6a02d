//! Sessions in a store that nodes share: a client is claimed wherever it comes, and what applications' sessions subscribed
//! to is known on every node.
//!
//! A claim goes to the store at once, which knows who had the client and tells that node. What an older connection still
//! wants to write is refused by its epoch. Invariants: a session of a device is in memory only while its device is here.

use std::sync::{Arc, atomic::Ordering};

use headgate_protocol::identity::DeviceId;

use super::{NotKept, Opened, Opening, PersistentSessions, kind};
use crate::{
    model::{Id, Millis},
    service::uplink::{
        queue::{Queue, QueueLimits},
        subscribers::SubscribeOptions,
    },
    store::{
        StoreError,
        sessions::{
            AppSession, Came, Claim, KeptSession, KeptSubscription, NodeNumber, Resubscribed,
            SessionKey,
        },
    },
};

impl PersistentSessions {
    /// Whether other nodes have the store too.
    pub fn is_shared(&self) -> bool {
        self.shared.store.is_remote()
    }

    /// Claims the client for this node, with its session where it has or wants one.
    pub(super) async fn open_shared(&self, opening: Opening) -> Result<Opened, NotKept> {
        let shared = &self.shared;
        let claim = Claim {
            key: opening.key,
            id: shared.ids.next(),
            is_clean: opening.is_clean,
            expiry_secs: opening.expiry_secs,
            max_sessions: shared.limits.sessions,
        };
        shared.opening.fetch_add(1, Ordering::Relaxed);
        let claimed = shared.backend.claim(&claim).await;
        shared.opening.fetch_sub(1, Ordering::Relaxed);
        let claimed = claimed.map_err(|error| {
            tracing::warn!(%error, "a client could not be claimed");
            NotKept::Unavailable
        })?;
        let place = claimed.place;
        if place.is_some_and(|place| place.is_refused) {
            shared.metrics.sessions.refused.inc();
        }
        let subscriptions = claimed.subscriptions.clone();
        let granted = self.on_claimed(&claim, claimed);
        if let Some(app) = granted.known.as_ref().and_then(|known| known.app.as_ref()) {
            app.subscriber.lock().reset(&wanted(&subscriptions));
        }
        match self.opened(granted, opening.expiry_secs).await {
            Ok(opened) => Ok(Opened { place, ..opened }),
            Err(error) => {
                self.left(claim.key, place.map_or(0, |place| place.epoch));
                Err(error)
            }
        }
    }

    /// A client's connection is gone: other nodes need not look for it here. Never waits.
    pub(in crate::service::uplink) fn left(&self, key: SessionKey, epoch: i64) {
        self.shared.left.lock().push((key, epoch));
        self.shared.has_work.notify_one();
    }

    pub(in crate::service::uplink) fn take_left(&self) -> Vec<(SessionKey, i64)> {
        std::mem::take(&mut *self.shared.left.lock())
    }

    pub(in crate::service::uplink) fn put_back_left(&self, left: Vec<(SessionKey, i64)>) {
        self.shared.left.lock().extend(left);
    }

    pub(in crate::service::uplink) fn queue_limits(&self) -> QueueLimits {
        self.shared.limits.queue
    }

    /// What waits for applications over all nodes.
    pub(in crate::service::uplink) fn show_depth(&self, messages: i64, bytes: i64) {
        let metrics = &self.shared.metrics.sessions;
        metrics.queue_messages.set(messages);
        metrics.queue_bytes.set(bytes);
    }

    /// A client is with another node: the session is in its hands.
    pub fn came(&self, came: &Came) {
        let known = self
            .shared
            .known
            .get(&came.key)
            .map(|known| Arc::clone(&known));
        let Some(known) = known else { return };
        {
            let mut state = known.state.lock();
            if state.epoch >= came.epoch {
                return;
            }
            if let Some(app) = &known.app {
                app.queue.detach(state.epoch);
            }
            state.epoch = came.epoch;
            state.in_flight = Vec::new();
        }
        if known.app.is_none() {
            self.forget(known.id, &came.key);
        }
    }

    /// The id of a client's session, where that is here.
    pub fn session_of(&self, key: &SessionKey, epoch: i64) -> Option<Id> {
        let known = self.shared.known.get(key)?;
        (known.state.lock().epoch == epoch).then_some(known.id)
    }

    /// A device's connection is gone and that is stored: its session is nobody's in memory.
    pub(super) fn rest(&self, session: Id, epoch: i64, key: &SessionKey) {
        let shared = &self.shared;
        let rests = shared.known.remove_if(key, |_, known| {
            known.id == session && known.app.is_none() && known.state.lock().epoch == epoch
        });
        if rests.is_some() {
            shared.metrics.sessions.of(kind(key)).dec();
        }
    }

    /// The queue of a session of an application.
    pub(in crate::service::uplink) fn queue(&self, session: Id) -> Option<Arc<Queue>> {
        let queue = self.shared.queues.get(&session)?;
        Some(Arc::clone(&queue))
    }

    /// A session of an application was made, or its client is with another node, or with none.
    pub(in crate::service::uplink) fn on_app_session(&self, told: &AppSession, me: NodeNumber) {
        let known = self
            .shared
            .known
            .get(&told.key)
            .map(|known| Arc::clone(&known));
        let known = match known {
            Some(known) if known.id == told.id => known,
            Some(known) => {
                self.forget(known.id, &told.key);
                self.know_empty(told)
            }
            None => self.know_empty(told),
        };
        if let Some(app) = &known.app {
            app.queue
                .set_elsewhere(told.node.filter(|node| *node != me));
        }
    }

    /// A session of an application has ended.
    pub(in crate::service::uplink) fn on_app_ended(&self, told: &AppSession) {
        self.forget(told.id, &told.key);
    }

    /// What a session of an application is subscribed to has changed.
    pub(in crate::service::uplink) fn on_resubscribed(&self, told: Resubscribed) {
        let known = self.shared.known.iter().find(|known| known.id == told.id);
        let known = known.map(|known| Arc::clone(&known));
        let Some(app) = known.as_ref().and_then(|known| known.app.as_ref()) else {
            return;
        };
        let mut subscriber = app.subscriber.lock();
        match told.change {
            Ok(kept) => subscriber.restore(&kept),
            Err(filter) => {
                subscriber.unsubscribe(&filter);
            }
        }
    }

    /// Reads what applications' sessions there are: what was said of them may have been missed.
    pub(in crate::service::uplink) async fn read_again(
        &self,
        me: NodeNumber,
    ) -> Result<(), StoreError> {
        let kept = self.shared.backend.recover(Millis::now()).await?;
        let apps: Vec<KeptSession> = kept
            .into_iter()
            .filter(|session| matches!(session.key, SessionKey::Application(..)))
            .collect();
        let is_there = |id: Id| apps.iter().any(|session| session.id == id);
        let known = self.shared.known.iter();
        let gone: Vec<_> = known
            .filter(|known| known.app.is_some() && !is_there(known.id))
            .map(|known| (known.id, known.key.clone()))
            .collect();
        for (id, key) in gone {
            self.forget(id, &key);
        }
        for session in apps {
            let told = AppSession {
                id: session.id,
                key: session.key,
                node: session.node,
            };
            self.on_app_session(&told, me);
            let known = self
                .shared
                .known
                .get(&told.key)
                .map(|known| Arc::clone(&known));
            if let Some(app) = known.as_ref().and_then(|known| known.app.as_ref()) {
                app.subscriber.lock().reset(&wanted(&session.subscriptions));
                app.queue.look();
            }
        }
        Ok(())
    }

    /// Ends a device's session whether it is here or not.
    pub(super) async fn end_elsewhere(&self, device: &DeviceId) -> Result<(), NotKept> {
        let claim = Claim {
            key: SessionKey::Device(device.clone()),
            id: self.shared.ids.next(),
            is_clean: true,
            expiry_secs: 0,
            max_sessions: 0,
        };
        let claimed = self.shared.backend.claim(&claim).await;
        let claimed = claimed.map_err(|_| NotKept::Unavailable)?;
        self.left(claim.key, claimed.place.map_or(0, |place| place.epoch));
        Ok(())
    }

    fn know_empty(&self, told: &AppSession) -> Arc<super::Known> {
        self.know(&KeptSession {
            id: told.id,
            key: told.key.clone(),
            subscriptions: Vec::new(),
            messages: 0,
            bytes: 0,
            node: told.node,
        })
    }
}

fn wanted(
    kept: &[KeptSubscription],
) -> Vec<(headgate_protocol::mqtt::TopicFilter, SubscribeOptions)> {
    kept.iter()
        .map(|kept| (kept.asked.filter.clone(), SubscribeOptions::of(kept)))
        .collect()
}
