//! Counts of what was changed in the registry, so that what was read before is not kept, nor let in, after it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// A count for everything, and one for each of a few hundred sets of names.
///
/// Changes of one name leave almost all others alone: a fleet logs in while another one is being registered.
pub(super) struct Changes {
    hasher: RandomState,
    all: AtomicU64,
    names: Box<[AtomicU64]>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            all: AtomicU64::new(0),
            names: (0..SETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Something that concerns every name was changed.
    pub(super) fn note_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    /// Something that concerns this name was changed.
    pub(super) fn note(&self, name: &str) {
        self.set(name).fetch_add(1, Ordering::SeqCst);
    }

    /// A number that is another one after any change that concerns the name.
    pub(super) fn of(&self, name: &str) -> u64 {
        let all = self.all.load(Ordering::SeqCst);
        all.wrapping_add(self.set(name).load(Ordering::SeqCst))
    }

    fn set(&self, name: &str) -> &AtomicU64 {
        let hash = usize::try_from(self.hasher.hash_one(name)).unwrap_or_default();
        &self.names[hash % SETS]
    }
}

const SETS: usize = 256;
