//! Which retained messages there are, without what is in them.

use std::collections::HashMap;

use headgate_protocol::{
    identity::{DeviceId, ProductId},
    mqtt::{TopicFilter, TopicName},
};

use crate::{
    config::RetainedConfig,
    model::Message,
    store::sessions::{RetainedEntry, mail_bytes},
};

/// Every retained message, by device.
#[derive(Debug)]
pub(super) struct Index {
    config: RetainedConfig,
    devices: HashMap<DeviceId, Held>,
    products: HashMap<ProductId, Share>,
    total: Share,
    /// Tells each version of a message from those before it.
    version: u64,
}

#[derive(Debug)]
struct Held {
    product: ProductId,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    topic: TopicName,
    bytes: u64,
    version: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    messages: usize,
    bytes: u64,
}

/// One retained message, to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service::uplink) struct Found {
    pub(super) device: DeviceId,
    pub(super) topic: TopicName,
    pub(super) bytes: u64,
    pub(super) version: u64,
}

impl Index {
    pub(super) fn new(config: RetainedConfig) -> Self {
        Self {
            config,
            devices: HashMap::new(),
            products: HashMap::new(),
            total: Share::default(),
            version: 0,
        }
    }

    /// Holds these and no others.
    pub(super) fn load(&mut self, entries: Vec<RetainedEntry>) {
        self.devices.clear();
        self.products.clear();
        self.total = Share::default();
        for entry in entries {
            self.insert(&entry.device, &entry.product, entry.topic, entry.bytes);
        }
    }

    /// Takes note of one that another node has kept.
    pub(super) fn put(&mut self, entry: RetainedEntry) {
        self.remove(&entry.device, &entry.topic);
        self.insert(&entry.device, &entry.product, entry.topic, entry.bytes);
    }

    /// Takes note of a message that replaces the one before, or with an empty payload takes it out; says whether there
    /// is room.
    pub(super) fn keep(&mut self, message: &Message) -> bool {
        let (device, product) = (&message.device.device_id, &message.device.product_id);
        if message.payload.is_empty() {
            self.remove(device, &message.topic);
            return true;
        }
        let bytes = mail_bytes(message);
        let held = self.devices.get(device);
        let former = held
            .and_then(|held| held.entries.iter().find(|one| one.topic == message.topic))
            .map(|entry| entry.bytes);
        let added = Share {
            messages: usize::from(former.is_none()),
            bytes: bytes.saturating_sub(former.unwrap_or(0)),
        };
        let of_product = self.products.get(product).copied().unwrap_or_default();
        let of_device = held.map_or(0, |held| held.entries.len());
        let config = &self.config;
        let has_room = of_device + added.messages <= config.max_per_device
            && of_product.fits(added, config.max_per_product, config.max_bytes_per_product)
            && self
                .total
                .fits(added, config.max_total_messages, config.max_total_bytes);
        if has_room {
            self.remove(device, &message.topic);
            self.insert(device, product, message.topic.clone(), bytes);
        }
        has_room
    }

    pub(super) fn remove(&mut self, device: &DeviceId, topic: &TopicName) {
        let Some(held) = self.devices.get_mut(device) else {
            return;
        };
        if let Some(place) = held.entries.iter().position(|one| one.topic == *topic) {
            let entry = held.entries.swap_remove(place);
            let product = held.product.clone();
            if held.entries.is_empty() {
                self.devices.remove(device);
            }
            self.give_back(&product, entry.bytes);
        }
    }

    /// Drops all of a device.
    pub(super) fn forget(&mut self, device: &DeviceId) {
        if let Some(held) = self.devices.remove(device) {
            for entry in held.entries {
                self.give_back(&held.product, entry.bytes);
            }
        }
    }

    /// Whether a device has any.
    pub(super) fn has(&self, device: &DeviceId) -> bool {
        self.devices.contains_key(device)
    }

    /// How many devices have any.
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// The devices that have any.
    pub(super) fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.keys()
    }

    /// Those of a device that `filter` matches, all without one.
    pub(super) fn find(&self, device: &DeviceId, filter: Option<&TopicFilter>) -> Vec<Found> {
        let Some(held) = self.devices.get(device) else {
            return Vec::new();
        };
        let entries = held.entries.iter();
        entries
            .filter(|entry| filter.is_none_or(|filter| filter.matches(&entry.topic)))
            .map(|entry| Found {
                device: device.clone(),
                topic: entry.topic.clone(),
                bytes: entry.bytes,
                version: entry.version,
            })
            .collect()
    }

    /// Whether it is still the one that was found.
    pub(super) fn is_current(&self, found: &Found) -> bool {
        let held = self.devices.get(&found.device);
        held.is_some_and(|held| {
            let mut entries = held.entries.iter();
            entries.any(|one| one.topic == found.topic && one.version == found.version)
        })
    }

    /// Messages and bytes.
    pub(super) const fn totals(&self) -> (usize, u64) {
        (self.total.messages, self.total.bytes)
    }

    fn insert(&mut self, device: &DeviceId, product: &ProductId, topic: TopicName, bytes: u64) {
        self.version += 1;
        let held = self.devices.entry(device.clone()).or_insert_with(|| Held {
            product: product.clone(),
            entries: Vec::new(),
        });
        held.entries.push(Entry {
            topic,
            bytes,
            version: self.version,
        });
        let share = self.products.entry(product.clone()).or_default();
        for share in [share, &mut self.total] {
            share.messages += 1;
            share.bytes += bytes;
        }
    }

    fn give_back(&mut self, product: &ProductId, bytes: u64) {
        let of_product = self.products.get_mut(product);
        for share in of_product.into_iter().chain([&mut self.total]) {
            share.messages = share.messages.saturating_sub(1);
            share.bytes = share.bytes.saturating_sub(bytes);
        }
        if self.products.get(product) == Some(&Share::default()) {
            self.products.remove(product);
        }
    }
}

impl Share {
    fn fits(self, added: Self, max_messages: usize, max_bytes: u64) -> bool {
        self.messages + added.messages <= max_messages
            && self.bytes.saturating_add(added.bytes) <= max_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::app::tests::message;

    fn index() -> Index {
        Index::new(RetainedConfig {
            max_per_device: 2,
            max_per_product: 3,
            ..RetainedConfig::default()
        })
    }

    #[test]
    fn a_device_and_a_product_hold_so_many_and_a_newer_one_takes_no_place() {
        let mut index = index();
        for (node, topic, taken) in [
            ("d", "P/d/a", true),
            ("d", "P/d/b", true),
            ("d", "P/d/c", false),
            ("d", "P/d/a", true),
            ("e", "P/e/a", true),
            ("f", "P/f/a", false),
        ] {
            assert_eq!(index.keep(&message(node, topic)), taken, "{topic}");
        }
        let mut empty = message("d", "P/d/b");
        empty.payload = bytes::Bytes::new();
        assert!(index.keep(&empty));
        assert!(index.keep(&message("f", "P/f/a")));
        assert_eq!(index.totals().0, 3);
        for node in ["d", "e", "f"] {
            index.forget(&node.parse().expect("legal"));
        }
        assert_eq!(index.totals(), (0, 0));
        assert!(index.products.is_empty() && index.len() == 0);
    }

    #[test]
    fn what_was_replaced_is_not_current() {
        let mut index = index();
        assert!(index.keep(&message("d", "P/d/a")));
        let device = "d".parse().expect("legal");
        let filter = "+/d/#".parse().expect("a filter");
        let found = index.find(&device, Some(&filter));
        assert!(found.len() == 1 && index.is_current(&found[0]));
        assert!(index.keep(&message("d", "P/d/a")));
        assert!(!index.is_current(&found[0]));
        let other = "+/d/b".parse().expect("a filter");
        assert!(index.find(&device, Some(&other)).is_empty());
    }
}
