//! The retained messages that whoever subscribed is to get, found and read by the page.
//!
//! For an application the devices bound to it are gone through, a page of bindings at a time, or those that have
//! retained messages, where these are fewer: what a subscription costs is bounded by the application's own devices.

use std::{collections::VecDeque, sync::Arc};

use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::TopicFilter,
};

use super::{
    super::{
        Offered, Uplink,
        subscribers::RetainedReceiver,
        writer::{Order, Put},
    },
    Retained,
    index::Found,
};
use crate::{
    model::{Message, Millis, Page},
    store::{StoreError, registry::Registry},
    telemetry::metrics::DropReason,
};

/// Messages that are read at a time.
const PAGE: usize = 32;
/// What they may take, unless the first is larger.
const PAGE_BYTES: u64 = 512 * 1024;
/// Devices that are looked at in one go; below this many the devices that have messages are, and not the bindings.
const DEVICES: usize = 256;

/// Retained messages that are still to be read.
#[derive(Debug)]
pub struct Replay {
    filter: Option<TopicFilter>,
    devices: VecDeque<DeviceId>,
    /// Whose bindings give more devices, and behind which.
    bindings: Option<(AppId, Option<String>)>,
    found: VecDeque<Found>,
}

impl Replay {
    /// Those of one device that `filter` matches.
    fn of_device(filter: &TopicFilter, device: DeviceId) -> Self {
        Self::of_devices(Some(filter.clone()), vec![device])
    }

    /// Those of these devices that `filter` matches, all without one.
    fn of_devices(filter: Option<TopicFilter>, devices: Vec<DeviceId>) -> Self {
        Self {
            filter,
            devices: devices.into(),
            bindings: None,
            found: VecDeque::new(),
        }
    }

    /// Those of the devices of an application that `filter` matches.
    fn of_app(filter: &TopicFilter, app: &AppId, retained: &Retained) -> Self {
        let index = retained.shared.index.lock();
        let is_short = index.len() <= DEVICES;
        Self {
            filter: Some(filter.clone()),
            devices: if is_short {
                index.devices().cloned().collect()
            } else {
                VecDeque::new()
            },
            bindings: (!is_short).then(|| (app.clone(), None)),
            found: VecDeque::new(),
        }
    }

    /// Which subscription it is for, where it is for one.
    pub const fn filter(&self) -> Option<&TopicFilter> {
        self.filter.as_ref()
    }

    /// Whether there is nothing left.
    pub fn is_done(&self) -> bool {
        self.found.is_empty() && self.devices.is_empty() && self.bindings.is_none()
    }

    /// Reads some more, which may be none; after a failure the same are read again.
    async fn next(
        &mut self,
        retained: &Retained,
        registry: &Registry,
    ) -> Result<Vec<(Found, Arc<Message>)>, StoreError> {
        if self.found.is_empty() {
            self.look(retained, registry).await?;
        }
        let mut bytes = 0;
        let mut page: Vec<Found> = Vec::new();
        for found in self.found.iter().take(PAGE) {
            bytes += found.bytes;
            if !page.is_empty() && bytes > PAGE_BYTES {
                break;
            }
            page.push(found.clone());
        }
        let wanted: Vec<_> = page
            .iter()
            .map(|found| (&found.device, &*found.topic))
            .collect();
        let store = &retained.shared.store;
        let read = store.retained(&wanted, Millis::now()).await?;
        self.found.drain(..page.len());
        let mut read: Vec<Option<Message>> = read.into_iter().map(Some).collect();
        // In the order in which they were found; one that is not there has gone meanwhile.
        let mut messages = Vec::with_capacity(page.len());
        for found in page {
            let is_it = |message: &Message| {
                message.device.device_id == found.device && message.topic == found.topic
            };
            let message = read.iter_mut().find(|one| one.as_ref().is_some_and(is_it));
            if let Some(message) = message.and_then(Option::take) {
                messages.push((found, Arc::new(message)));
            }
        }
        Ok(messages)
    }

    /// Finds messages of some more devices.
    async fn look(&mut self, retained: &Retained, registry: &Registry) -> Result<(), StoreError> {
        if self.devices.is_empty()
            && let Some((app, after)) = &self.bindings
        {
            let page = Page {
                limit: Page::MAX_LIMIT,
                cursor: after.clone(),
            };
            let bound = registry.bindings(app, &page).await?;
            let devices = bound.items.iter().map(|binding| &binding.device_id);
            self.devices = retained.having(devices).into();
            let app = app.clone();
            self.bindings = bound.next.map(|next| (app, Some(next)));
        }
        let index = retained.shared.index.lock();
        for _ in 0..DEVICES {
            if self.found.len() >= PAGE {
                break;
            }
            let Some(device) = self.devices.pop_front() else {
                break;
            };
            self.found.extend(index.find(&device, self.filter.as_ref()));
        }
        Ok(())
    }
}

impl Uplink {
    /// What is retained and a new subscription of an application's session is to get.
    ///
    /// # Errors
    /// What the registry says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn retained_for_app(
        &self,
        app: &AppId,
        filter: &TopicFilter,
    ) -> Result<Replay, StoreError> {
        Ok(match self.resolve(filter.as_str()).await? {
            Some(device) => Replay::of_device(filter, device.device_id.clone()),
            None => Replay::of_app(filter, app, &self.inner.retained),
        })
    }

    /// What is retained on a device's own topics that `filter` matches; `None` where nothing is of this device.
    pub fn retained_for_device(&self, device: &DeviceId, filter: &TopicFilter) -> Option<Replay> {
        let having = self.inner.retained.having(std::iter::once(device));
        let has_any = !having.is_empty();
        has_any.then(|| Replay::of_device(filter, device.clone()))
    }

    /// What is retained of these devices and the subscriptions of an application's session match.
    pub fn retained_of(&self, devices: Vec<DeviceId>) -> Replay {
        Replay::of_devices(None, devices)
    }

    /// Reads some more of a device's; nothing where the end is reached.
    ///
    /// # Errors
    /// What the store says; the same are read the next time.
    pub async fn read_retained(
        &self,
        replay: &mut Replay,
    ) -> Result<Vec<Arc<Message>>, StoreError> {
        while !replay.is_done() {
            let inner = &self.inner;
            let page = replay.next(&inner.retained, &inner.registry).await?;
            if !page.is_empty() {
                return Ok(page.into_iter().map(|(_, message)| message).collect());
            }
        }
        Ok(Vec::new())
    }

    /// Offers a session some more of what is retained: what it is bound to now and what was not replaced meanwhile.
    ///
    /// # Errors
    /// What the stores say; the same are read the next time.
    ///
    /// # Cancel safety
    /// A cancelled call may have offered some.
    pub async fn replay(
        &self,
        to: &impl RetainedReceiver,
        replay: &mut Replay,
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let page = replay.next(&inner.retained, &inner.registry).await?;
        for (found, message) in page {
            // As for any message: what is stored has its place in the line before the bindings are locked.
            let permit = self.permit().await;
            let offer = |apps: &[AppId]| {
                // Whoever replaced it offers the newer one to those who subscribed before.
                let is_wanted = apps.contains(to.app()) && inner.retained.is_current(&found);
                let offered = is_wanted.then(|| to.offer_retained(&message, replay.filter()));
                match offered.flatten() {
                    Some(Offered::Full) => Some(DropReason::ApplicationFull),
                    Some(Offered::ToStore(queue, handing)) => {
                        let Some((permit, place)) = permit.zip(queue.reserve(&message)) else {
                            return Some(DropReason::QueueFull);
                        };
                        permit.send(Order::Put(Put::alone(&message, place, handing)));
                        None
                    }
                    Some(Offered::Taken | Offered::Away | Offered::Elsewhere(..)) | None => None,
                }
            };
            let dropped = inner.bindings.with(&found.device, offer).await?;
            if let Some(reason) = dropped {
                inner.metrics.messages_dropped(reason).inc();
            }
        }
        Ok(())
    }
}
