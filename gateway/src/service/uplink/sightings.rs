//! Messages of the devices that someone looks at, as they pass through this node.
//!
//! Nothing is kept of a device that nobody looks at. Of one that is looked at the latest messages are kept, each by
//! its beginning, until nobody has looked for a while: a page that is loaded anew shows what passed meanwhile, too.
//! Invariants: at most [`MAX_DEVICES`] devices with [`KEPT`] messages of [`SHOWN_BYTES`] bytes each; numbers grow
//! over all devices.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dashmap::DashMap;
use headgate_protocol::{
    identity::DeviceId,
    mqtt::{QoS, TopicName},
};
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::model::{Message, Millis};

/// Devices that are looked at at a time.
const MAX_DEVICES: usize = 64;
/// Messages that are kept of a device.
pub const KEPT: usize = 50;
/// Bytes of a payload that are kept.
const SHOWN_BYTES: usize = 1_024;
/// So long after the last look a device is looked at no more.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// Time between two batches of one watcher.
const INTERVAL: Duration = Duration::from_millis(500);

/// A message that went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Grows with each message that is seen on this node.
    pub number: u64,
    /// Whether it came from the device, or was taken to be sent to it.
    pub is_from_device: bool,
    /// Its topic.
    pub topic: TopicName,
    /// Of its sender.
    pub qos: QoS,
    /// Whether it is kept for whoever subscribes later.
    pub retain: bool,
    /// When it reached the gateway.
    pub at: Millis,
    /// Bytes of its payload.
    pub size: usize,
    /// How the payload begins: [`SHOWN_BYTES`] at most.
    pub start: Bytes,
}

/// As many devices are looked at as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many devices are looked at as may be")]
pub struct TooManyLooks;

/// The devices that are looked at.
pub(super) struct Sightings {
    devices: DashMap<DeviceId, Arc<Sighting>>,
    /// How many those are: what every message looks at.
    count: AtomicUsize,
    last: AtomicU64,
    gauge: IntGauge,
}

/// One of them.
struct Sighting {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    seen: VecDeque<Arc<Seen>>,
    watchers: usize,
    looked_at: Instant,
}

/// Someone who watches the messages of a device; dropped, it is one look less.
pub struct DeviceWatch {
    sighting: Arc<Sighting>,
    /// Number of the last message that was told.
    told: u64,
    told_at: Option<Instant>,
}

impl Sightings {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self {
            devices: DashMap::new(),
            count: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            gauge,
        }
    }

    /// Takes note of a message, if someone looks at its device.
    pub(super) fn note(&self, message: &Message, is_from_device: bool) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let found = self.devices.get(&message.device.device_id);
        let Some(sighting) = found.map(|entry| Arc::clone(&entry)) else {
            return;
        };
        let shown = message.payload.len().min(SHOWN_BYTES);
        let mut state = sighting.state.lock();
        // Under the lock, so that what is kept is in the order of its numbers.
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if state.seen.len() == KEPT {
            state.seen.pop_front();
        }
        state.seen.push_back(Arc::new(Seen {
            number,
            is_from_device,
            topic: message.topic.clone(),
            qos: message.qos,
            retain: message.retain,
            at: message.at,
            size: message.payload.len(),
            // A copy: a slice would keep the whole.
            start: message
                .payload
                .get(..shown)
                .map(Bytes::copy_from_slice)
                .unwrap_or_default(),
        }));
        drop(state);
        sighting.changed.notify_waiters();
    }

    /// What was seen of a device since it was first looked at, the oldest first.
    pub(super) fn look(
        &self,
        device: &DeviceId,
        now: Instant,
    ) -> Result<Vec<Arc<Seen>>, TooManyLooks> {
        let sighting = self.sighting(device, false, now)?;
        let seen = sighting.state.lock().seen.iter().map(Arc::clone).collect();
        Ok(seen)
    }

    /// Watches a device, from behind the message of a number.
    pub(super) fn watch(&self, device: &DeviceId, after: u64) -> Result<DeviceWatch, TooManyLooks> {
        Ok(DeviceWatch {
            sighting: self.sighting(device, true, Instant::now())?,
            told: after,
            told_at: None,
        })
    }

    fn sighting(
        &self,
        device: &DeviceId,
        watches: bool,
        now: Instant,
    ) -> Result<Arc<Sighting>, TooManyLooks> {
        self.sweep(now);
        if !self.devices.contains_key(device) && self.devices.len() >= MAX_DEVICES {
            self.forget_one()?;
        }
        let entry = self.devices.entry(device.clone()).or_insert_with(|| {
            Arc::new(Sighting {
                state: Mutex::new(State {
                    seen: VecDeque::new(),
                    watchers: 0,
                    looked_at: now,
                }),
                changed: Notify::new(),
            })
        });
        let sighting = Arc::clone(&entry);
        {
            let mut state = sighting.state.lock();
            state.looked_at = now;
            state.watchers += usize::from(watches);
        }
        drop(entry);
        self.show_count();
        Ok(sighting)
    }

    /// Forgets what nobody has looked at for long.
    fn sweep(&self, now: Instant) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.devices.retain(|_, sighting| {
            let state = sighting.state.lock();
            let idle = now.saturating_duration_since(state.looked_at);
            state.watchers > 0 || idle < KEPT_FOR
        });
        self.show_count();
    }

    /// Makes room: the device that was looked at longest ago goes, unless all are being watched.
    fn forget_one(&self) -> Result<(), TooManyLooks> {
        let unwatched = self.devices.iter().filter_map(|entry| {
            let state = entry.state.lock();
            (state.watchers == 0).then(|| (state.looked_at, entry.key().clone()))
        });
        let (_, device) = unwatched.min_by_key(|(at, _)| *at).ok_or(TooManyLooks)?;
        self.devices.remove(&device);
        Ok(())
    }

    fn show_count(&self) {
        let count = self.devices.len();
        self.count.store(count, Ordering::Relaxed);
        self.gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl DeviceWatch {
    /// Waits for messages: the next ones, in their order, at most every half second and at most [`KEPT`]. What went by
    /// faster is left out.
    ///
    /// # Cancel safety
    /// Safe: what was not told is told by the next call.
    pub async fn next(&mut self) -> Vec<Arc<Seen>> {
        if let Some(told_at) = self.told_at {
            sleep_until(told_at + INTERVAL).await;
        }
        let sighting = Arc::clone(&self.sighting);
        loop {
            let changed = sighting.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no message between is slept through.
            changed.as_mut().enable();
            let news = sighting.behind(self.told);
            if let Some(last) = news.last() {
                self.told = last.number;
                self.told_at = Some(Instant::now());
                return news;
            }
            changed.await;
        }
    }
}

impl Sighting {
    fn behind(&self, number: u64) -> Vec<Arc<Seen>> {
        let state = self.state.lock();
        let start = state.seen.partition_point(|seen| seen.number <= number);
        state.seen.range(start..).map(Arc::clone).collect()
    }
}

impl Drop for DeviceWatch {
    fn drop(&mut self) {
        let mut state = self.sighting.state.lock();
        state.watchers -= 1;
        state.looked_at = Instant::now();
    }
}

impl fmt::Debug for DeviceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceWatch")
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::app::tests::message;

    fn sightings() -> Sightings {
        Sightings::new(IntGauge::new("watched", "watched").unwrap())
    }

    fn id(name: &str) -> DeviceId {
        message(name, &format!("P/{name}/x")).device.device_id
    }

    #[tokio::test]
    async fn what_passes_is_seen_where_someone_looks_and_nowhere_else() {
        let sightings = sightings();
        sightings.note(&message("d1", "P/d1/before"), true);
        let now = Instant::now();
        assert!(sightings.look(&id("d1"), now).unwrap().is_empty());
        sightings.note(&message("d1", "P/d1/up"), true);
        sightings.note(&message("d2", "P/d2/up"), true);
        sightings.note(&message("d1", "P/d1/down"), false);
        let seen = sightings.look(&id("d1"), now).unwrap();
        let told: Vec<_> = seen
            .iter()
            .map(|seen| (seen.topic.to_string(), seen.is_from_device))
            .collect();
        assert_eq!(
            told,
            [
                ("P/d1/up".to_owned(), true),
                ("P/d1/down".to_owned(), false)
            ]
        );
        let later = now + KEPT_FOR;
        sightings.look(&id("d2"), later).unwrap();
        assert_eq!((sightings.devices.len(), sightings.gauge.get()), (1, 1));
        let anew = sightings.look(&id("d1"), later).unwrap();
        assert!(anew.is_empty(), "{anew:?}");
    }

    #[tokio::test]
    async fn a_watcher_is_told_in_batches_and_only_the_beginning_of_each() {
        let sightings = sightings();
        let mut watch = sightings.watch(&id("d1"), 0).unwrap();
        let mut large = message("d1", "P/d1/large");
        large.payload = Bytes::from(vec![7; 5_000]);
        sightings.note(&large, true);
        let first = watch.next().await;
        assert_eq!((first[0].size, first[0].start.len()), (5_000, SHOWN_BYTES));
        let begun = Instant::now();
        for _ in 0..200 {
            sightings.note(&message("d1", "P/d1/x"), true);
        }
        let second = watch.next().await;
        assert_eq!((second.len(), second[KEPT - 1].number), (KEPT, 201));
        assert!(begun.elapsed() + Duration::from_millis(50) >= INTERVAL);
        let after = second[KEPT - 2].number;
        let mut again = sightings.watch(&id("d1"), after).unwrap();
        assert_eq!(
            again.next().await.len(),
            1,
            "it goes on where it was cut off"
        );
    }

    #[tokio::test]
    async fn devices_that_are_looked_at_are_bounded() {
        let sightings = sightings();
        let mut watches = Vec::new();
        let begun = Instant::now();
        for n in 0..MAX_DEVICES {
            let device = id(&format!("n{n}"));
            let at = begun + Duration::from_millis(u64::try_from(n).unwrap());
            sightings.look(&device, at).unwrap();
            if n > 0 {
                watches.push(sightings.watch(&device, 0).unwrap());
            }
        }
        sightings.look(&id("more"), begun).unwrap();
        assert!(
            !sightings.devices.contains_key(&id("n0")),
            "the oldest went"
        );
        let last = sightings.watch(&id("more"), 0).unwrap();
        assert_eq!(sightings.look(&id("x"), begun), Err(TooManyLooks));
        drop(last);
        sightings.look(&id("x"), begun).unwrap();
        assert_eq!(sightings.devices.len(), MAX_DEVICES);
    }
}
