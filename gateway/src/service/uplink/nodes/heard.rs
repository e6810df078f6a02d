//! What other nodes say of messages and of sessions of applications, and what they are told of them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use headgate_protocol::identity::{AppId, DeviceId};

use super::{Elsewhere, Own, RemoteSink, SessionWord, forwarded};
use crate::{
    service::{
        cluster::{Cluster, Handler, Member, NodeNumber, Telling},
        uplink::{
            Uplink,
            subscribers::{Offered, Receiver, SubscriberId},
        },
    },
    shutdown::Shutdown,
    store::{
        StoreError,
        sessions::{AppSession, Resubscribed, RetainedTold, decode_message},
    },
    telemetry::metrics::DropReason,
};

/// When what could not be told is told again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A session of an application that ends with its connection has changed.
const SESSION: &str = "app_session";
/// All of those are to be told.
const SESSIONS: &str = "app_sessions";
/// Applications whose messages are read as streams.
const STREAMS: &str = "app_streams";
/// Messages wait for a device. Told by the store's scripts, as those below are.
const MAIL: &str = "mail";
/// A message for a device that is not kept.
const ONCE: &str = "once";
/// Messages wait for a session of an application.
const QUEUE: &str = "queue";
/// A message for sessions of applications.
const PUBLISH: &str = "publish";
/// Where a persistent session of an application is.
const SESSION_AT: &str = "session_at";
/// One has ended.
const SESSION_ENDED: &str = "session_ended";
/// One has other subscriptions.
const SUBSCRIBED: &str = "subscribed";

/// Messages are retained, or no more.
const RETAINED: &str = "retained";

const KINDS: [&str; 11] = [
    SESSION,
    SESSIONS,
    STREAMS,
    MAIL,
    ONCE,
    QUEUE,
    PUBLISH,
    SESSION_AT,
    SESSION_ENDED,
    SUBSCRIBED,
    RETAINED,
];

/// Has messages go between the nodes from here on; before anybody is let in.
pub(in super::super) fn connect(uplink: &Uplink, cluster: &Cluster, shutdown: &Shutdown) {
    let own = Arc::new(Own::default());
    uplink.inner.subscribers.connect(Arc::clone(&own));
    let elsewhere = Arc::new(Elsewhere::new(cluster.clone(), own));
    if uplink.inner.elsewhere.set(Arc::clone(&elsewhere)).is_err() {
        return;
    }
    for kind in KINDS {
        let uplink = uplink.clone();
        cluster.on(kind, Arc::new(Heard { kind, uplink }));
    }
    cluster.enlist(Arc::new(uplink.clone()));
    let (uplink, stop) = (uplink.clone(), shutdown.token().clone());
    shutdown.spawn(async move { stop.run_until_cancelled(uplink.tell_own(&elsewhere)).await });
}

/// Takes one kind of what others say.
struct Heard {
    kind: &'static str,
    uplink: Uplink,
}

impl Handler for Heard {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.uplink.heard(self.kind, &telling).await {
                tracing::warn!(%error, kind = self.kind, "what another node said could not be done");
            }
        })
    }
}

impl Uplink {
    async fn heard(&self, kind: &str, telling: &Telling) -> Result<(), StoreError> {
        let inner = &self.inner;
        let Some(elsewhere) = inner.elsewhere.get() else {
            return Ok(());
        };
        let (body, me) = (&telling.body, elsewhere.cluster.number());
        let text = || std::str::from_utf8(body).unwrap_or_default();
        match kind {
            PUBLISH => self.hand_on(telling).await?,
            MAIL => {
                if let Ok(device) = text().parse::<DeviceId>() {
                    inner.mailbox.waits(&device);
                }
            }
            ONCE => {
                inner.mailbox.offer_once(Arc::new(decode_message(body)?));
            }
            QUEUE => {
                let session = text().parse().ok();
                if let Some(queue) = session.and_then(|id| inner.sessions.queue(id)) {
                    queue.look();
                }
            }
            SESSION_AT => inner.sessions.on_app_session(&AppSession::read(body)?, me),
            SESSION_ENDED => inner.sessions.on_app_ended(&AppSession::read(body)?),
            SUBSCRIBED => inner.sessions.on_resubscribed(Resubscribed::read(body)?),
            RETAINED => inner.retained.heard(RetainedTold::read(body)?),
            SESSION => self.take_session(elsewhere, telling),
            SESSIONS => self.tell_to(elsewhere, telling.from).await?,
            STREAMS => {
                let apps: Vec<String> = serde_json::from_slice(body).unwrap_or_default();
                let apps: HashSet<AppId> = apps.iter().filter_map(|app| app.parse().ok()).collect();
                elsewhere.streams.write().insert(telling.from, apps);
            }
            _ => {}
        }
        Ok(())
    }

    /// Hands out a message that another node sent on.
    async fn hand_on(&self, telling: &Telling) -> Result<(), StoreError> {
        let inner = &self.inner;
        let forwarded = forwarded(&telling.body)?;
        let message = &forwarded.message;
        let offer = |bound: &[AppId]| {
            let mut full = 0;
            for (app, receiver, handing) in forwarded.receivers {
                if !bound.contains(&app) {
                    continue;
                }
                let offered = match receiver {
                    Receiver::Streams => {
                        inner.histories.push(&app, message);
                        continue;
                    }
                    Receiver::Subscriber(id) => inner
                        .subscribers
                        .sink(&app, id)
                        .map(|sink| sink.offer(message, handing)),
                    Receiver::Session(id) => inner
                        .sessions
                        .queue(id)
                        .and_then(|queue| queue.offer_now(message, handing)),
                };
                full += u64::from(matches!(offered, Some(Offered::Full)));
            }
            full
        };
        let full = inner
            .bindings
            .with(&message.device.device_id, offer)
            .await?;
        let dropped = inner.metrics.messages_dropped(DropReason::ApplicationFull);
        dropped.inc_by(full);
        Ok(())
    }

    /// Takes note of a session on another node.
    fn take_session(&self, elsewhere: &Elsewhere, telling: &Telling) {
        let Ok(word) = serde_json::from_slice::<SessionWord>(&telling.body) else {
            return;
        };
        let key = (telling.from, word.id);
        let app = word.app.as_ref().and_then(|app| app.parse::<AppId>().ok());
        let Some(app) = app else {
            let gone = elsewhere.sessions.lock().remove(&key);
            drop(gone);
            return;
        };
        let wanted: Vec<_> = word
            .filters
            .iter()
            .filter_map(super::FilterWord::read)
            .collect();
        let mut sessions = elsewhere.sessions.lock();
        let session = sessions.entry(key).or_insert_with(|| {
            let sink = Arc::new(RemoteSink {
                node: telling.from,
                id: word.id,
            });
            self.inner.subscribers.attach(&app, sink, usize::MAX)
        });
        session.reset(&wanted);
    }

    /// Tells one node of all sessions of this one.
    async fn tell_to(&self, elsewhere: &Elsewhere, node: NodeNumber) -> Result<(), StoreError> {
        let _in_order = elsewhere.telling.lock().await;
        for id in elsewhere.own.ids() {
            let word = elsewhere.own.word(id);
            elsewhere.cluster.tell(node, SESSION, &word).await?;
        }
        let streams = self.streams();
        elsewhere.cluster.tell(node, STREAMS, &streams).await?;
        Ok(())
    }

    fn streams(&self) -> Vec<u8> {
        let apps = self.inner.histories.apps();
        let names: Vec<&str> = apps.iter().map(AppId::as_str).collect();
        serde_json::to_vec(&names).unwrap_or_default()
    }

    /// Tells all other nodes what changes of this one's sessions, for ever.
    async fn tell_own(&self, elsewhere: &Elsewhere) {
        loop {
            elsewhere.own.changed.notified().await;
            let changed = elsewhere.own.take_changed();
            if let Err(error) = self.tell_changed(elsewhere, &changed).await {
                tracing::warn!(%error, "other nodes could not be told of subscriptions");
                elsewhere.own.put_back(&changed);
                tokio::time::sleep(RETRY_INTERVAL).await;
                elsewhere.own.notify();
            }
        }
    }

    async fn tell_changed(
        &self,
        elsewhere: &Elsewhere,
        changed: &[SubscriberId],
    ) -> Result<(), StoreError> {
        let _in_order = elsewhere.telling.lock().await;
        for id in changed {
            let word = elsewhere.own.word(*id);
            elsewhere.cluster.tell_all(SESSION, &word).await?;
        }
        let apps: HashSet<AppId> = self.inner.histories.apps().into_iter().collect();
        if *elsewhere.said.lock() != apps {
            elsewhere.cluster.tell_all(STREAMS, &self.streams()).await?;
            *elsewhere.said.lock() = apps;
        }
        Ok(())
    }

    /// Asks the other nodes for their sessions, and waits for them.
    ///
    /// # Errors
    /// What the store says.
    pub async fn ask_for_sessions(&self) -> Result<(), StoreError> {
        if let Some(elsewhere) = self.inner.elsewhere.get() {
            elsewhere.cluster.ask(SESSIONS, b"").await?;
        }
        Ok(())
    }
}

impl Member for Uplink {
    fn joined(&self, node: NodeNumber) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(elsewhere) = self.inner.elsewhere.get() else {
                return;
            };
            if let Err(error) = self.tell_to(elsewhere, node).await {
                tracing::warn!(%error, "a node could not be told of subscriptions");
            }
        })
    }

    fn left(&self, node: NodeNumber) -> BoxFuture<'_, ()> {
        if let Some(elsewhere) = self.inner.elsewhere.get() {
            elsewhere.forget(node);
        }
        Box::pin(std::future::ready(()))
    }

    fn missed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let inner = &self.inner;
            let Some(elsewhere) = inner.elsewhere.get() else {
                return;
            };
            inner.bindings.forget_all();
            inner.owners.forget_all();
            let me = elsewhere.cluster.number();
            if let Err(error) = inner.sessions.read_again(me).await {
                tracing::warn!(%error, "sessions of applications could not be read again");
            }
            inner.retained.reload().await;
            if let Err(error) = elsewhere.cluster.tell_all(SESSIONS, b"").await {
                tracing::warn!(%error, "other nodes could not be asked for subscriptions");
            }
        })
    }

    fn rejoined(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(elsewhere) = self.inner.elsewhere.get() {
                for id in elsewhere.own.ids() {
                    elsewhere.own.put_back(&[id]);
                }
                elsewhere.said.lock().clear();
                elsewhere.own.notify();
            }
        })
    }
}
