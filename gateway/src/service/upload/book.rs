//! The uploads in progress, by id and by device.

use std::{collections::HashMap, sync::Arc};

use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::live::LiveUpload;
use crate::model::Id;

/// Every upload in progress.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<Id, Arc<LiveUpload>>,
    by_device: HashMap<DeviceId, SmallVec<[Id; 1]>>,
}

impl Book {
    pub(super) fn insert(&self, upload: &Arc<LiveUpload>) {
        let mut index = self.0.lock();
        index.by_id.insert(upload.id, Arc::clone(upload));
        let of_device = index.by_device.entry(upload.device_id.clone()).or_default();
        of_device.push(upload.id);
    }

    /// Takes one up unless there is one of its id; gives the one that there is then, and whether it is new.
    pub(super) fn enter(&self, upload: Arc<LiveUpload>) -> (Arc<LiveUpload>, bool) {
        let mut index = self.0.lock();
        let known = index
            .by_id
            .get(&upload.id)
            .filter(|known| !known.is_closed());
        if let Some(known) = known {
            return (Arc::clone(known), false);
        }
        if index.by_id.insert(upload.id, Arc::clone(&upload)).is_none() {
            let of_device = index.by_device.entry(upload.device_id.clone()).or_default();
            of_device.push(upload.id);
        }
        (upload, true)
    }

    pub(super) fn remove(&self, upload: &Arc<LiveUpload>) {
        let mut index = self.0.lock();
        // Another one of its id may have been taken up since it ended.
        let is_there = index.by_id.get(&upload.id);
        if !is_there.is_some_and(|known| Arc::ptr_eq(known, upload)) {
            return;
        }
        index.by_id.remove(&upload.id);
        if let Some(of_device) = index.by_device.get_mut(&upload.device_id) {
            of_device.retain(|id| *id != upload.id);
            if of_device.is_empty() {
                index.by_device.remove(&upload.device_id);
            }
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<Arc<LiveUpload>> {
        self.0.lock().by_id.get(&id).cloned()
    }

    /// Those of a device, in the order in which they were announced.
    pub(super) fn of_device(&self, device: &DeviceId) -> Vec<Arc<LiveUpload>> {
        let index = self.0.lock();
        let ids = index.by_device.get(device).into_iter().flatten();
        ids.filter_map(|id| index.by_id.get(id).cloned()).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<LiveUpload>> {
        self.0.lock().by_id.values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().by_id.len()
    }
}
