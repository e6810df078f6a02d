//! Failed logins over several nodes: each tells the others, twice a second, what it counted.
//!
//! Names and networks stand there as hashes under a key that all nodes have. Invariants: bounded; what is too much to be
//! told is counted here alone.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Throttle;
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
pub(super) struct Shared {
    key: Vec<u8>,
    told: Mutex<Logins>,
}

/// Logins by name and network.
#[derive(Default, Serialize, Deserialize)]
struct Logins {
    failed: Vec<(u64, u64)>,
    /// Of names that were not known.
    admitted: Vec<(u64, u64)>,
}

impl Shared {
    pub(super) fn hash(&self, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn failed(&self, name: u64, network: u64) {
        let mut told = self.told.lock();
        if told.failed.len() < MAX_TOLD {
            told.failed.push((name, network));
        }
    }

    pub(super) fn admitted(&self, name: u64, network: u64) {
        let mut told = self.told.lock();
        if told.admitted.len() < MAX_TOLD {
            told.admitted.push((name, network));
        }
    }

    fn take(&self) -> Option<Logins> {
        let told = std::mem::take(&mut *self.told.lock());
        (!told.failed.is_empty() || !told.admitted.is_empty()).then_some(told)
    }
}

/// Counts logins over all nodes from here on; `key` is the same on all of them and known to nobody else.
pub fn connect(
    authenticator: &DeviceAuthenticator,
    key: Vec<u8>,
    cluster: &Cluster,
    shutdown: &Shutdown,
) {
    let shared = Shared {
        key,
        told: Mutex::default(),
    };
    if authenticator.throttle().shared.set(shared).is_err() {
        return;
    }
    let heard = Heard(authenticator.clone());
    cluster.on(LOGINS, std::sync::Arc::new(heard));
    let (authenticator, cluster) = (authenticator.clone(), cluster.clone());
    let stop = shutdown.token().clone();
    shutdown.spawn(async move {
        stop.run_until_cancelled(tell(authenticator.throttle(), &cluster))
            .await
    });
}

async fn tell(throttle: &Throttle, cluster: &Cluster) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        let told = throttle.shared.get().and_then(Shared::take);
        let Some(body) = told.and_then(|told| serde_json::to_vec(&told).ok()) else {
            continue;
        };
        if let Err(error) = cluster.tell_all(LOGINS, &body).await {
            tracing::debug!(%error, "other nodes could not be told of logins");
        }
    }
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
