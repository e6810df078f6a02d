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

    pub(super) fn remove(&self, upload: &LiveUpload) {
        let mut index = self.0.lock();
        if index.by_id.remove(&upload.id).is_none() {
            return;
        }
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
