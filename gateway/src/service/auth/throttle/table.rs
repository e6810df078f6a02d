//! A bounded table of what has an end.

use std::{
    collections::{HashMap, hash_map},
    time::Instant,
};

use parking_lot::Mutex;

/// What stands in a table until it has no effect any more.
pub(in crate::service::auth) trait Entry {
    /// From when on it has none.
    fn ends(&self) -> Instant;
}

/// Entries by the hash of what they are about, in shards with a lock each.
///
/// A full shard is swept; is it still full, then the one of a few entries that ends first makes room.
pub(in crate::service::auth) struct Table<E> {
    shards: Box<[Mutex<HashMap<u64, E>>]>,
    shard_capacity: usize,
}

impl<E: Entry> Table<E> {
    pub(in crate::service::auth) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// Whether there is an entry of this key for which something holds.
    pub(in crate::service::auth) fn any(&self, key: u64, holds: impl FnOnce(&E) -> bool) -> bool {
        self.shard(key).lock().get(&key).is_some_and(holds)
    }

    /// Something about the entry of a key, where there is one that has it.
    pub(super) fn of<T>(&self, key: u64, what: impl FnOnce(&E) -> Option<T>) -> Option<T> {
        self.shard(key).lock().get(&key).and_then(what)
    }

    /// Changes the entry of a key, which is made where there is none.
    pub(in crate::service::auth) fn update(
        &self,
        key: u64,
        now: Instant,
        make: impl FnOnce() -> E,
        change: impl FnOnce(&mut E),
    ) {
        let mut shard = self.shard(key).lock();
        if shard.len() >= self.shard_capacity && !shard.contains_key(&key) {
            shard.retain(|_, entry| entry.ends() > now);
            if shard.len() >= self.shard_capacity {
                let sample = shard.iter().take(SAMPLE);
                let first = sample.min_by_key(|(_, entry)| entry.ends());
                if let Some(key) = first.map(|(key, _)| *key) {
                    shard.remove(&key);
                }
            }
        }
        match shard.entry(key) {
            hash_map::Entry::Occupied(mut entry) => change(entry.get_mut()),
            hash_map::Entry::Vacant(entry) => change(entry.insert(make())),
        }
    }

    pub(in crate::service::auth) fn remove(&self, key: u64) {
        self.shard(key).lock().remove(&key);
    }

    /// Drops what has ended, and the memory that it took.
    pub(in crate::service::auth) fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, entry| entry.ends() > now);
            if shard.capacity() > 4 * shard.len().max(SHARDS) {
                shard.shrink_to_fit();
            }
        }
    }

    pub(in crate::service::auth) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The shard of a key, by bits that the map inside hashes once more.
    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, E>> {
        let index = usize::try_from(key >> 32).unwrap_or_default() % SHARDS;
        &self.shards[index]
    }
}

/// Enough that 10,000 logins a second do not wait for each other.
const SHARDS: usize = 16;
/// Entries of which the one that ends first is dropped.
const SAMPLE: usize = 8;
