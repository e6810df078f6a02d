//! Whose topic it is: from the ids that stand in a topic to the device.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use quick_cache::sync::Cache;

use crate::{
    model::DeviceName,
    store::{StoreError, registry::Registry},
};

/// Where a device's ids stand in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// Product and node id, with a `/` between.
    Node(&'a str),
    /// The id in the whole gateway.
    Device(&'a str),
}

/// Beginnings of topics of Tencent's that `{product}/{device}` follows.
const TENCENT: [&str; 10] = [
    "$ota/report/",
    "$ota/update/",
    "$sys/operation/result/",
    "$sys/operation/",
    "$shadow/operation/result/",
    "$shadow/operation/",
    "$broadcast/rxd/",
    "$rrpc/rxd/",
    "$rrpc/txd/",
    "$thing/down/property/",
];
/// What `{device_id}` follows in Huawei's topics.
const HUAWEI: &str = "$oc/devices/";

/// Finds devices by their topics; the latest are kept in memory.
pub(super) struct Owners {
    registry: Registry,
    /// By device id, or by product and node id with a `/` between. Names of no device are not kept.
    known: Cache<Box<str>, Arc<DeviceName>>,
    changes: AtomicU64,
}

impl Owners {
    pub(super) fn new(registry: Registry, cache_entries: usize) -> Self {
        Self {
            registry,
            known: Cache::new(cache_entries),
            changes: AtomicU64::new(0),
        }
    }

    /// The device whose topic this is.
    pub(super) async fn of_topic(
        &self,
        topic: &str,
    ) -> Result<Option<Arc<DeviceName>>, StoreError> {
        match place(topic) {
            Some(Place::Node(name)) => self.of_node(name).await,
            Some(Place::Device(id)) => match DeviceId::new(id) {
                Ok(id) => self.of_id(&id).await,
                Err(_) => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// All ids of the device with this one.
    pub(super) async fn of_id(&self, id: &DeviceId) -> Result<Option<Arc<DeviceName>>, StoreError> {
        if let Some(known) = self.known.get(id.as_str()) {
            return Ok(Some(known));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let found = self.registry.names_by_ids(&[id.as_str()]).await?;
        let device = found.into_iter().next();
        Ok(device.map(|device| self.keep(id.as_str(), device, changes)))
    }

    async fn of_node(&self, name: &str) -> Result<Option<Arc<DeviceName>>, StoreError> {
        if let Some(known) = self.known.get(name) {
            return Ok(Some(known));
        }
        let Some((product, node)) = name.split_once('/') else {
            return Ok(None);
        };
        let (Ok(product), Ok(node)) = (ProductId::new(product), NodeId::new(node)) else {
            return Ok(None);
        };
        let changes = self.changes.load(Ordering::SeqCst);
        let found = self
            .registry
            .names_by_node_ids(&product, &[node.as_str()])
            .await?;
        let device = found.into_iter().next();
        Ok(device.map(|device| self.keep(name, device, changes)))
    }

    /// Forgets a device that was deleted.
    pub(super) fn forget(&self, device: &DeviceName) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known.remove(device.device_id.as_str());
        let key = format!("{}/{}", device.product_id, device.node_id);
        self.known.remove(key.as_str());
    }

    /// Forgets every device: some may have been deleted elsewhere.
    pub(super) fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known.clear();
    }

    fn keep(&self, key: &str, name: DeviceName, changes: u64) -> Arc<DeviceName> {
        let name = Arc::new(name);
        self.known.insert(key.into(), Arc::clone(&name));
        // One that was deleted since it was read is not kept.
        if self.changes.load(Ordering::SeqCst) != changes {
            self.known.remove(key);
        }
        name
    }
}

fn place(topic: &str) -> Option<Place<'_>> {
    if let Some(rest) = topic.strip_prefix(HUAWEI) {
        let (id, below) = rest.split_once('/')?;
        return (!below.is_empty()).then_some(Place::Device(id));
    }
    if topic.starts_with('$') {
        let mut rests = TENCENT.iter().filter_map(|begin| topic.strip_prefix(begin));
        let rest = rests.next()?;
        let name = second_slash(rest).map_or(Some(rest), |end| rest.get(..end))?;
        return name.contains('/').then_some(Place::Node(name));
    }
    let end = second_slash(topic)?;
    let has_more = topic.len() > end + 1;
    topic.get(..end).filter(|_| has_more).map(Place::Node)
}

fn second_slash(topic: &str) -> Option<usize> {
    topic.match_indices('/').nth(1).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_its_device() {
        let node = Some(Place::Node("P/d"));
        for (topic, expected) in [
            ("P/d/data", node),
            ("P/d/a/b", node),
            ("$ota/update/P/d", node),
            ("$shadow/operation/P/d", node),
            ("$shadow/operation/result/P/d", node),
            ("$sys/operation/result/P/d", node),
            ("$rrpc/rxd/P/d/17", node),
            ("$broadcast/rxd/P/d", node),
            (
                "$oc/devices/P_d/sys/messages/down",
                Some(Place::Device("P_d")),
            ),
            ("$oc/devices/P_d", None),
            ("$oc/devices/P_d/", None),
            ("$resource/down/service/P/d", None),
            ("$resource/down/chunk/P/d/x/0", None),
            ("$SYS/x/y", None),
            ("$ota/update/P", None),
            ("P/d", None),
            ("P/d/", None),
            ("P", None),
            ("", None),
        ] {
            assert_eq!(place(topic), expected, "{topic}");
        }
    }
}
