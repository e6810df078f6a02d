//! Keeping the lease, and noticing who comes and goes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::time::MissedTickBehavior;

use super::{Cluster, FORGET, Inner, LiveNode, NodeRecord, PROTOCOL, clock, earlier};
use crate::{
    model::Millis,
    shutdown::Shutdown,
    store::{StoreError, sessions::NodeRow},
};

/// Beats in one lease: two may be lost.
const BEATS: u32 = 3;

/// Why a node needs another lease.
const ENDED: &str = "the lease of this node has ended";
const FORGOTTEN: &str =
    "the session store restarted or failed over, and may have lost what it was told last";

impl Cluster {
    /// Renews the lease from here on, with what `status` says, and looks once who is there. `registry` is what time it is
    /// to the registry's server.
    ///
    /// # Errors
    /// [`StoreError::Refused`] beside nodes that speak otherwise; else what the store says.
    pub async fn start(
        &self,
        status: impl Fn() -> NodeRecord + Send + Sync + 'static,
        registry: Millis,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        let _second = self.inner.status.set(Box::new(status));
        clock::begin(self.inner.beat().await?, registry);
        self.inner.show();
        for node in &*self.live() {
            let record = &node.record;
            if record.protocol != PROTOCOL && node.number != self.number() && record.protocol != 0 {
                return Err(StoreError::Refused(format!(
                    "node {:?} runs version {}, which does not work side by side with this one: stop the nodes of the other \
                     version first",
                    record.name, record.version
                )));
            }
        }
        let (inner, stop) = (Arc::clone(&self.inner), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(inner.keep()).await });
        Ok(())
    }

    /// Hears what it is told from here on, until `shutdown` stops.
    pub fn spawn(&self, shutdown: &Shutdown) {
        let (inner, stop) = (Arc::clone(&self.inner), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(inner.follow()).await });
        let (inner, stop) = (Arc::clone(&self.inner), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(inner.hear()).await });
    }

    /// Gives the lease up: the last thing that a node does.
    pub async fn end(&self) {
        if let Err(error) = self.inner.store.part().await {
            tracing::warn!(%error, "the other nodes could not be told that this one has ended");
        }
    }
}

impl Inner {
    /// Renews the lease for ever. Nothing here waits for anything but the store.
    async fn keep(&self) {
        let mut tick = tokio::time::interval(self.config.lease / BEATS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.beat().await {
                Ok(_) if self.may_be_forgotten() => self.rejoin(FORGOTTEN).await,
                Ok(_) => {
                    self.check.pass();
                    self.changed.notify_one();
                    self.say_unsaid().await;
                }
                Err(StoreError::Fenced) => self.rejoin(ENDED).await,
                Err(error) => {
                    tracing::warn!(%error, "the lease of this node could not be renewed");
                    self.check
                        .fail("the lease of this node could not be renewed");
                }
            }
        }
    }

    /// Renews the lease, and takes note of who is there; gives what time it is to the store.
    async fn beat(&self) -> Result<Millis, StoreError> {
        let number = self.store.number();
        let seen = {
            let seen = self.seen.lock();
            (seen.0 == Some(number)).then(|| seen.1.clone())
        };
        let (record, asked) = (self.record(), Millis::now());
        let begun = Instant::now();
        let beat = self.store.beat(&record, &seen.unwrap_or_default()).await?;
        clock::keep(beat.time, begun.elapsed(), &self.metrics);
        self.alive.store(asked.as_i64(), Ordering::Release);
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.inbox.set(gauge(beat.waiting));
        *self.rows.lock() = beat.nodes;
        let mut processes = self.processes.lock();
        processes.0.get_or_insert_with(|| beat.process.clone());
        processes.1 = beat.process;
        Ok(beat.time)
    }

    /// Whether another process of the store answers than when this node took its lease: a restart, or a replica that
    /// took over, may have lost where clients are, while the lease is still there.
    fn may_be_forgotten(&self) -> bool {
        let (first, last) = &*self.processes.lock();
        first.as_ref().is_some_and(|first| first != last)
    }

    /// Tells the others to forget what they keep, where a change could not be told.
    async fn say_unsaid(&self) {
        let unsaid = self.unsaid.lock().take();
        let Some(since) = unsaid else { return };
        let body = since.as_i64().to_string();
        if let Err(error) = self.store.tell(&[], FORGET, 0, body.as_bytes()).await {
            tracing::warn!(%error, "other nodes still miss a change");
            earlier(&self.unsaid, since);
        }
    }

    /// Others took this node for dead, or the store forgot it or may have: it is another one from now on.
    async fn rejoin(&self, why: &'static str) {
        self.metrics.leases_lost.inc();
        self.check.fail(why);
        // Before it has another one, by which it hears everything again.
        let sure = Millis::from_i64(self.sure.load(Ordering::Acquire));
        earlier(&self.doubt, sure);
        match self.store.join(&self.record()).await {
            Ok(None) => {
                self.processes.lock().0 = None;
                tracing::warn!(
                    why,
                    "this node has a new lease, and says again who is with it"
                );
                self.has_rejoined.store(true, Ordering::Release);
                self.changed.notify_one();
            }
            Ok(Some(_)) => {
                tracing::error!("another node has taken this one's name while its lease had ended");
                self.check.fail("another node has taken this one's name");
            }
            Err(error) => tracing::warn!(%error, "no new lease could be had"),
        }
    }

    /// Tells the members who came and went, for ever.
    async fn follow(&self) {
        let mut known: Vec<LiveNode> = Vec::new();
        loop {
            if self.has_rejoined.swap(false, Ordering::AcqRel) {
                for member in self.members() {
                    member.rejoined().await;
                }
                self.missed_since(None).await;
            }
            let live = self.show();
            let me = self.store.number();
            let without = |one: &[LiveNode], other: &[LiveNode]| -> Vec<LiveNode> {
                let is_in = |node: &LiveNode| other.iter().any(|two| two.number == node.number);
                let one = one.iter().filter(|node| node.number != me && !is_in(node));
                one.cloned().collect()
            };
            for node in without(&known, &live) {
                tracing::info!(node = %node.record.name, "a node is gone");
                self.gone(node.number);
                for member in self.members() {
                    member.left(node.number).await;
                }
            }
            for node in without(&live, &known) {
                tracing::info!(node = %node.record.name, "a node is there");
                for member in self.members() {
                    member.joined(node.number).await;
                }
            }
            known = live.to_vec();
            let dead: Vec<_> = {
                let rows = self.rows.lock();
                rows.iter().filter(|row| !row.is_alive).cloned().collect()
            };
            for node in dead {
                self.see_off(&node).await;
            }
            self.changed.notified().await;
        }
    }

    /// Has a dead node's devices seen off by one node, which is this one if none is quicker.
    async fn see_off(&self, node: &NodeRow) {
        match self.store.may_see_off(node.number).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(node = %node.name, %error, "a dead node cannot be seen off yet");
                return;
            }
        }
        tracing::warn!(node = %node.name, "a node has died: its devices are seen off");
        for member in self.members() {
            if let Err(error) = member.died(node.number).await {
                tracing::warn!(node = %node.name, %error, "a dead node could not be seen off yet");
                return;
            }
        }
        if let Err(error) = self.store.bury(node.number).await {
            tracing::warn!(node = %node.name, %error, "a dead node is still listed");
        }
    }

    /// Says which nodes live, as of the last beat.
    fn show(&self) -> Arc<[LiveNode]> {
        let mut live: Vec<_> = {
            let rows = self.rows.lock();
            let alive = rows.iter().filter(|row| row.is_alive);
            alive.map(LiveNode::read).collect()
        };
        live.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        let gauge = i64::try_from(live.len()).unwrap_or(i64::MAX);
        self.metrics.nodes.set(gauge);
        let live: Arc<[LiveNode]> = live.into();
        *self.nodes.write() = Arc::clone(&live);
        live
    }

    /// What others said may be lost: since when it is not certain, or since then.
    pub(super) async fn missed_since(&self, since: Option<Millis>) {
        self.metrics.missed.inc();
        let sure = Millis::from_i64(self.sure.load(Ordering::Acquire));
        earlier(&self.doubt, since.map_or(sure, |since| since.min(sure)));
        for member in self.members() {
            member.missed().await;
        }
        // Only now that nothing is remembered from before.
        self.doubted.notify_one();
    }
}
