//! Failed logins over several nodes: each tells the others, twice a second, what it counted.
//!
//! Names and networks stand there as hashes under a key that all nodes have. Invariants: bounded; what is too much to be
//! told is counted here alone, and what cannot be told while the sessions are away is told when they are back.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    service::{
        auth::DeviceAuthenticator,
        cluster::{Cluster, Handler, Telling},
    },
    shutdown::Shutdown,
};

/// By which other nodes are told.
const LOGINS: &str = "logins";
/// How often they are.
const INTERVAL: Duration = Duration::from_millis(500);
/// Logins of each kind that are told at once.
const MAX_TOLD: usize = 4_096;

/// What of this node's logins other nodes are to be told.
pub(in crate::service::auth) struct Shared {
    key: Vec<u8>,
    told: Mutex<Logins>,
}

/// Logins by name and network.
#[derive(Default, Serialize, Deserialize)]
pub(in crate::service::auth) struct Logins {
    /// Those that were refused.
    pub(in crate::service::auth) failed: Vec<(u64, u64)>,
    /// Those that were let in, as far as that was news.
    pub(in crate::service::auth) admitted: Vec<(u64, u64)>,
}

impl Shared {
    /// Nothing is to be told yet; `key` is the same on all nodes and known to nobody else.
    pub(in crate::service::auth) fn new(key: Vec<u8>) -> Self {
        Self {
            key,
            told: Mutex::default(),
        }
    }

    /// Tells other nodes, under this kind, what has been counted, again and again.
    pub(in crate::service::auth) async fn tell(&self, kind: &'static str, cluster: &Cluster) {
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            let Some(told) = self.take() else {
                continue;
            };
            let Ok(body) = serde_json::to_vec(&told) else {
                continue;
            };
            if let Err(error) = cluster.tell_all(kind, &body).await {
                tracing::debug!(%error, kind, "other nodes could not be told of logins");
                self.put_back(told);
            }
        }
    }

    pub(in crate::service::auth) fn hash(&self, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish()
    }

    pub(in crate::service::auth) fn failed(&self, name: u64, network: u64) {
        let mut told = self.told.lock();
        if told.failed.len() < MAX_TOLD {
            told.failed.push((name, network));
        }
    }

    pub(in crate::service::auth) fn admitted(&self, name: u64, network: u64) {
        let mut told = self.told.lock();
        if told.admitted.len() < MAX_TOLD {
            told.admitted.push((name, network));
        }
    }

    pub(in crate::service::auth) fn take(&self) -> Option<Logins> {
        let told = std::mem::take(&mut *self.told.lock());
        (!told.failed.is_empty() || !told.admitted.is_empty()).then_some(told)
    }

    /// What could not be told is to be told later, the latest of it where there is too much.
    fn put_back(&self, untold: Logins) {
        let mut told = self.told.lock();
        let room = MAX_TOLD.saturating_sub(told.failed.len());
        told.failed
            .extend(untold.failed.into_iter().rev().take(room));
        let room = MAX_TOLD.saturating_sub(told.admitted.len());
        let admitted = untold.admitted.into_iter().rev().take(room);
        told.admitted.extend(admitted);
    }
}

/// Counts logins over all nodes from here on; `key` is the same on all of them and known to nobody else.
pub fn connect(
    authenticator: &DeviceAuthenticator,
    key: Vec<u8>,
    cluster: &Cluster,
    shutdown: &Shutdown,
) {
    if authenticator
        .throttle()
        .shared
        .set(Shared::new(key))
        .is_err()
    {
        return;
    }
    let heard = Heard(authenticator.clone());
    cluster.on(LOGINS, std::sync::Arc::new(heard));
    let (authenticator, cluster) = (authenticator.clone(), cluster.clone());
    let stop = shutdown.token().clone();
    shutdown.spawn(async move {
        if let Some(shared) = authenticator.throttle().shared.get() {
            stop.run_until_cancelled(shared.tell(LOGINS, &cluster))
                .await;
        }
    });
}

struct Heard(DeviceAuthenticator);

impl Handler for Heard {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        if let Ok(logins) = serde_json::from_slice::<Logins>(&telling.body) {
            let (throttle, now) = (self.0.throttle(), Instant::now());
            for (name, network) in logins.failed {
                throttle.count_failed(name, network, now);
            }
            for (name, network) in logins.admitted {
                throttle.count_admitted(name, network, now);
            }
        }
        Box::pin(std::future::ready(()))
    }
}
