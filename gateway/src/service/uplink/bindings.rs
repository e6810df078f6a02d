//! Which applications a device is bound to: kept in memory, bounded, and never older than the last
//! change.
//!
//! A message is handed out under the read lock of its device's shard. A change is first committed,
//! then applied under the write lock: when that is done, nothing is being handed out by what was
//! bound before, and nothing will be.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, sync::Arc};

use headgate_protocol::identity::{AppId, DeviceId};
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use crate::store::{StoreError, registry::Registry};

/// Locks that share the devices among them.
const SHARDS: usize = 64;

/// The bindings of devices.
pub(super) struct Bindings {
    registry: Registry,
    known: Cache<DeviceId, Arc<[AppId]>>,
    hasher: RandomState,
    /// Each counts the changes of its devices.
    shards: Box<[RwLock<u64>]>,
}

impl Bindings {
    pub(super) fn new(registry: Registry, cache_entries: usize) -> Self {
        Self {
            registry,
            known: Cache::new(cache_entries),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::new(0)).collect(),
        }
    }

    /// Runs `act` with the applications that a device is bound to, which do not change meanwhile. Asks the registry
    /// only when they are not in memory. `act` must neither block nor call back.
    ///
    /// # Cancel safety
    /// Safe: `act` runs whole or not at all.
    pub(super) async fn with<R>(
        &self,
        device: &DeviceId,
        act: impl FnOnce(&[AppId]) -> R,
    ) -> Result<R, StoreError> {
        let mut before = {
            let changes = self.shard(device).read();
            if let Some(apps) = self.known.get(device) {
                return Ok(act(&apps));
            }
            *changes
        };
        loop {
            let apps: Arc<[AppId]> = self.registry.apps_of_device(device).await?.into();
            let changes = self.shard(device).read();
            if *changes == before {
                self.known.insert(device.clone(), Arc::clone(&apps));
                return Ok(act(&apps));
            }
            // One of the shard's devices was changed while the registry was asked.
            before = *changes;
        }
    }

    /// Forgets devices whose bindings were changed in the registry. Afterwards nothing is handed out by the old
    /// ones.
    pub(super) fn forget<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) {
        for device in devices {
            let mut changes = self.shard(device).write();
            *changes += 1;
            self.known.remove(device);
        }
    }

    /// Forgets every device.
    pub(super) fn forget_all(&self) {
        for shard in &self.shards {
            *shard.write() += 1;
        }
        self.known.clear();
        for shard in &self.shards {
            *shard.write() += 1;
        }
    }

    fn shard(&self, device: &DeviceId) -> &RwLock<u64> {
        let hash = self.hasher.hash_one(device);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        &self.shards[index]
    }
}
