//! Who is connected to this node: at most one session for each device.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU16, Ordering},
};

use dashmap::{DashMap, Entry};
use headgate_protocol::identity::{DeviceId, ProductId, ResourceName};

use super::{
    handle::{Canceled, CloseReason, SessionHandle},
    inbox::InboxLimits,
};
use crate::{
    model::Product,
    service::{
        delivery::DeviceLinks,
        registry::DeviceWatch,
        topics::{ProductRules, TopicBook},
        uplink::{MessageLinks, SessionKey, Stored, Uplink},
        upload::{Ended, UploadLinks},
    },
};

/// The sessions of this node, by device.
#[derive(Debug, Default)]
pub struct SessionTable {
    sessions: DashMap<DeviceId, Arc<SessionHandle>>,
    numbers: AtomicU16,
    /// Where nodes share the sessions: who is told which devices are gone.
    departures: OnceLock<Uplink>,
    topics: TopicBook,
    inbox_limits: InboxLimits,
}

impl SessionTable {
    /// A table without sessions, each of which will hold so much that it has not looked at.
    pub fn new(inbox_limits: InboxLimits) -> Self {
        Self {
            inbox_limits,
            ..Self::default()
        }
    }

    /// Enters a session of `device`; one that it has already is told to end.
    ///
    /// Gives the new session, and whether it took over.
    pub fn enter(&self, device: &DeviceId, rules: Arc<ProductRules>) -> (Arc<SessionHandle>, bool) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) % 1_000;
        let handle = Arc::new(SessionHandle::new(device.clone(), number, rules));
        let former = match self.sessions.entry(device.clone()) {
            Entry::Occupied(mut entry) => Some(entry.insert(Arc::clone(&handle))),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(&handle));
                None
            }
        };
        let took_over = former.is_some();
        if let Some(former) = former {
            former.close(CloseReason::Takeover);
        }
        (handle, took_over)
    }

    /// What the products of devices let them publish and see.
    pub fn topics(&self) -> &TopicBook {
        &self.topics
    }

    /// Strikes a session out, unless the device has a newer one; says whether it did.
    pub fn leave(&self, handle: &SessionHandle) -> bool {
        let struck = self.sessions.remove_if(&handle.device_id, |_, known| {
            std::ptr::eq(Arc::as_ptr(known), handle)
        });
        let was_here = struck.is_some();
        if was_here && let Some(uplink) = self.departures.get() {
            let key = SessionKey::Device(handle.device_id.clone());
            uplink.left(key, handle.epoch());
        }
        was_here
    }

    /// Has other nodes told which devices are gone from here; the first call counts.
    pub fn connect_departures(&self, uplink: Uplink) {
        let _second = self.departures.set(uplink);
    }

    /// The session of a device.
    pub fn of(&self, device: &DeviceId) -> Option<Arc<SessionHandle>> {
        self.sessions
            .get(device)
            .map(|entry| Arc::clone(entry.value()))
    }

    /// Ends the session of a device; says whether there was one.
    pub fn close(&self, device: &DeviceId, reason: CloseReason) -> bool {
        self.of(device)
            .inspect(|session| session.close(reason))
            .is_some()
    }

    /// Every session, to be ended at a rate of the caller's choice.
    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.sessions
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect()
    }

    /// Up to `limit` sessions in the order of their devices' ids, those behind `after`; only those of a product, where
    /// one is given. Looks at every session once, and holds no more than the page.
    pub fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        product: Option<&ProductId>,
    ) -> Vec<Arc<SessionHandle>> {
        let rules = match product.map(|product| self.topics.known(product)) {
            // None of its devices has been here.
            Some(None) => return Vec::new(),
            Some(rules) => rules,
            None => None,
        };
        let handles = self.sessions.iter().map(|entry| Arc::clone(entry.value()));
        smallest(
            handles.filter(|handle| {
                let is_of_product = rules
                    .as_ref()
                    .is_none_or(|rules| Arc::ptr_eq(rules, &handle.rules));
                is_of_product && after.is_none_or(|after| handle.device_id.as_str() > after)
            }),
            limit,
            |handle| handle.device_id.as_str(),
        )
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// The `limit` smallest by `key`, in order.
pub(super) fn smallest<T>(
    items: impl Iterator<Item = T>,
    limit: usize,
    key: impl Fn(&T) -> &str,
) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for item in items {
        if kept.len() == limit && kept.last().is_none_or(|last| key(last) <= key(&item)) {
            continue;
        }
        let place = kept.partition_point(|known| key(known) < key(&item));
        kept.insert(place, item);
        kept.truncate(limit);
    }
    kept
}

impl DeviceLinks for SessionTable {
    fn wake(&self, device: &DeviceId) -> bool {
        self.of(device).inspect(|session| session.wake()).is_some()
    }

    fn cancel(&self, device: &DeviceId, transfer: &str, name: &ResourceName) {
        if let Some(session) = self.of(device) {
            session.cancel(Canceled {
                transfer: transfer.into(),
                name: name.as_str().into(),
            });
        }
    }

    fn is_connected(&self, device: &DeviceId) -> bool {
        self.sessions.contains_key(device)
    }
}

impl MessageLinks for SessionTable {
    fn offer(&self, device: &DeviceId, message: Arc<Stored>) -> bool {
        self.of(device)
            .is_some_and(|session| session.offer(message, self.inbox_limits))
    }

    fn is_here(&self, device: &DeviceId) -> bool {
        self.sessions.contains_key(device)
    }

    fn mail_waits(&self, device: &DeviceId) -> bool {
        self.of(device)
            .inspect(|session| session.mail_waits())
            .is_some()
    }
}

impl UploadLinks for SessionTable {
    fn upload_ended(&self, device: &DeviceId, ended: Ended) {
        if let Some(session) = self.of(device) {
            session.upload_ended(ended);
        }
    }
}

impl DeviceWatch for SessionTable {
    fn device_barred(&self, device: &DeviceId) {
        self.close(device, CloseReason::Administrative);
    }

    fn product_changed(&self, product: &Product) {
        let rules = self.topics.update(product);
        for session in &self.sessions {
            if Arc::ptr_eq(&session.rules, &rules) {
                session.rules_changed();
            }
        }
    }

    fn product_deleted(&self, product: &ProductId) {
        self.topics.forget(product);
    }

    fn connected(&self) -> Vec<DeviceId> {
        let devices = self.sessions.iter().map(|entry| entry.key().clone());
        devices.collect()
    }

    fn products(&self) -> Vec<ProductId> {
        self.topics.ids()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::product::tests::product;

    #[test]
    fn pages_are_in_order_and_of_one_product() {
        let table = SessionTable::default();
        let rules = |id| table.topics().rules(&product(id));
        for (device, of) in [("d", "P"), ("a", "P"), ("c", "Q"), ("b", "P"), ("e", "Q")] {
            table.enter(&device.parse().expect("legal"), rules(of));
        }
        let ids = |after, limit, product: Option<&str>| -> Vec<String> {
            let product = product.map(|id| id.parse().expect("legal"));
            let page = table.page(after, limit, product.as_ref());
            page.iter().map(|one| one.device_id.to_string()).collect()
        };
        assert_eq!(ids(None, 3, None), ["a", "b", "c"]);
        assert_eq!(ids(Some("c"), 3, None), ["d", "e"]);
        assert_eq!(ids(Some("a"), 1, Some("P")), ["b"]);
        assert_eq!(ids(None, 9, Some("Q")), ["c", "e"]);
        assert!(ids(None, 9, Some("R")).is_empty() && ids(None, 0, None).is_empty());
    }

    #[test]
    fn a_second_session_of_a_device_ends_the_first_and_outlives_its_leaving() {
        let table = SessionTable::default();
        let device: DeviceId = "d".parse().expect("legal");
        let rules = table.topics().rules(&product("P"));
        let (first, took_over) = table.enter(&device, Arc::clone(&rules));
        assert!(!took_over);
        let (second, took_over) = table.enter(&device, rules);
        assert!(took_over);
        assert_eq!(first.close_reason(), Some(CloseReason::Takeover));
        assert!(!table.leave(&first), "the second session stays");
        assert!(table.is_connected(&device));
        assert!(table.leave(&second));
        assert!(table.is_empty() && !table.wake(&device));
    }
}
