//! The latest messages of an application, which its event streams read at their own pace.
//!
//! A stream is a place in the history and owns no queue: however many read, and however slowly, a
//! message is kept once. Who is overtaken by the history's end is told how many messages it lost.
//! An application has a history while it has a stream, and for a while after, so that a stream that
//! was cut off goes on where it was.
//! Invariants: numbers grow by one with each message of an application, whether or not a stream's
//! filter matches it; a message of a device that was unbound is not read any more.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::TopicFilter,
};
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::Ended;
use crate::{
    config::ApplicationsConfig,
    model::{Id, IdGenerator, Message, Millis},
};

/// Where a message stands in the history of its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Tells this history from the application's earlier ones.
    history: Id,
    number: u64,
}

/// What a stream reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A message.
    Message(EventId, Arc<Message>),
    /// Messages of the application were overtaken by the history's end, whether or not the stream's filter matches
    /// them; `None`: it is not known how many.
    Lost(Option<u64>),
}

/// Why a stream is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// The application, or all of them, have as many open as they may.
    #[error("as many event streams are open as may be")]
    TooMany,
    /// The application was changed while it was let in.
    #[error("the application was changed meanwhile")]
    Changed,
}

/// The histories of all applications.
pub(super) struct Histories {
    apps: DashMap<AppId, Arc<History>>,
    ids: IdGenerator,
    open: AtomicUsize,
    config: ApplicationsConfig,
    gauge: IntGauge,
}

struct History {
    id: Id,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<(u64, Arc<Message>)>,
    bytes: usize,
    /// Of the latest message.
    last: u64,
    /// Of the latest message that is not kept any more.
    lost: u64,
    streams: usize,
    idle_since: Option<Instant>,
    ended: Option<Ended>,
}

/// An open stream; dropped, it is closed.
pub struct EventStream {
    histories: Arc<Histories>,
    history: Arc<History>,
    filter: Option<TopicFilter>,
    /// Number of the next message to read.
    next: u64,
    /// The place that was asked for is not known.
    is_unknown: bool,
}

impl Histories {
    pub(super) fn new(config: ApplicationsConfig, node: u16, gauge: IntGauge) -> Self {
        Self {
            apps: DashMap::new(),
            ids: IdGenerator::new(node),
            open: AtomicUsize::new(0),
            config,
            gauge,
        }
    }

    /// The applications that have a history.
    pub(super) fn apps(&self) -> Vec<AppId> {
        self.apps.iter().map(|entry| entry.key().clone()).collect()
    }

    /// Opens a stream behind `after`, or behind what there is now.
    pub(super) fn open(
        self: &Arc<Self>,
        app: &AppId,
        filter: Option<TopicFilter>,
        after: Option<EventId>,
    ) -> Result<EventStream, NotOpened> {
        let max = self.config.max_streams;
        let place = |open| (open < max).then_some(open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, place)
            .map_err(|_| NotOpened::TooMany)?;
        // The entry stays locked, so that it is not swept away meanwhile.
        let history = self.apps.entry(app.clone()).or_insert_with(|| {
            Arc::new(History {
                id: self.ids.next(),
                state: Mutex::default(),
                changed: Notify::new(),
            })
        });
        let mut state = history.state.lock();
        if state.streams >= self.config.max_streams_per_application {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NotOpened::TooMany);
        }
        state.streams += 1;
        state.idle_since = None;
        self.gauge.inc();
        let known = after.filter(|after| after.history == history.id && after.number <= state.last);
        let next = known.map_or(state.last, |after| after.number) + 1;
        drop(state);
        Ok(EventStream {
            histories: Arc::clone(self),
            history: Arc::clone(&history),
            filter,
            next,
            is_unknown: after.is_some() && known.is_none(),
        })
    }

    /// Adds a message; says whether a stream is there to read it.
    pub(super) fn push(&self, app: &AppId, message: &Arc<Message>) -> bool {
        let Some(history) = self.apps.get(app).map(|entry| Arc::clone(&entry)) else {
            return false;
        };
        let mut state = history.state.lock();
        state.last += 1;
        state.bytes += message.size();
        let number = state.last;
        state.messages.push_back((number, Arc::clone(message)));
        state.cut(&self.config);
        let has_streams = state.streams > 0;
        drop(state);
        history.changed.notify_waiters();
        has_streams
    }

    /// Takes out what there is of devices that were unbound.
    pub(super) fn revoke(&self, app: &AppId, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        if let Some(history) = self.apps.get(app) {
            let mut state = history.state.lock();
            state
                .messages
                .retain(|(_, message)| !is_revoked(&message.device.device_id));
            state.bytes = state
                .messages
                .iter()
                .map(|(_, message)| message.size())
                .sum();
        }
    }

    /// Ends the streams of an application, and its history.
    pub(super) fn close(&self, app: &AppId, reason: Ended) {
        if let Some((_, history)) = self.apps.remove(app) {
            history.state.lock().ended = Some(reason);
            history.changed.notify_waiters();
        }
    }

    /// Takes out histories that nobody has read for as long as they are kept.
    pub(super) fn sweep(&self) {
        let kept_for = self.config.history_for;
        self.apps.retain(|_, history| {
            let idle = history.state.lock().idle_since;
            idle.is_none_or(|since| since.elapsed() < kept_for)
        });
    }

    /// Sweeps again and again, until it is dropped.
    pub(super) async fn run(&self) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tick.tick().await;
            self.sweep();
        }
    }
}

impl State {
    /// Drops the oldest messages until there are no more than may be.
    fn cut(&mut self, config: &ApplicationsConfig) {
        while self.messages.len() > config.history_messages || self.bytes > config.history_bytes {
            let Some((number, message)) = self.messages.pop_front() else {
                return;
            };
            self.bytes -= message.size();
            self.lost = number;
        }
    }
}

impl EventStream {
    /// The next message that the filter matches, or what was lost before it.
    ///
    /// # Errors
    /// [`Ended`] where the application may not read any more.
    ///
    /// # Cancel safety
    /// Safe: an event that was not given is given by the next call.
    pub async fn next(&mut self) -> Result<StreamEvent, Ended> {
        if std::mem::take(&mut self.is_unknown) {
            return Ok(StreamEvent::Lost(None));
        }
        let history = Arc::clone(&self.history);
        loop {
            let changed = history.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no message between is slept through.
            changed.as_mut().enable();
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            changed.await;
        }
    }

    fn take(&mut self) -> Result<Option<StreamEvent>, Ended> {
        let state = self.history.state.lock();
        if let Some(reason) = state.ended {
            return Err(reason);
        }
        if self.next <= state.lost {
            let count = state.lost - self.next + 1;
            self.next = state.lost + 1;
            return Ok(Some(StreamEvent::Lost(Some(count))));
        }
        let start = state
            .messages
            .partition_point(|(number, _)| *number < self.next);
        let now = Millis::now();
        for (number, message) in state.messages.range(start..) {
            self.next = number + 1;
            let is_wanted = self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&message.topic));
            if is_wanted && !message.is_expired(now) {
                let id = EventId {
                    history: self.history.id,
                    number: *number,
                };
                return Ok(Some(StreamEvent::Message(id, Arc::clone(message))));
            }
        }
        Ok(None)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let mut state = self.history.state.lock();
        state.streams -= 1;
        if state.streams == 0 {
            state.idle_since = Some(Instant::now());
        }
        drop(state);
        self.histories.open.fetch_sub(1, Ordering::Relaxed);
        self.histories.gauge.dec();
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.history, self.number)
    }
}

/// A text is no event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an event")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (history, number) = text.split_once('-').ok_or(InvalidEventId)?;
        Ok(Self {
            history: history.parse().map_err(|_| InvalidEventId)?,
            number: number.parse().map_err(|_| InvalidEventId)?,
        })
    }
}

/// How often histories that nobody reads are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::app::tests::message;

    fn histories(change: impl FnOnce(&mut ApplicationsConfig)) -> Arc<Histories> {
        let mut config = ApplicationsConfig::default();
        change(&mut config);
        let gauge = IntGauge::new("streams", "streams").unwrap();
        Arc::new(Histories::new(config, 1, gauge))
    }

    fn push(histories: &Histories, topic: &str) {
        let one = message(topic.split('/').nth(1).unwrap(), topic);
        histories.push(&app(), &Arc::new(one));
    }

    fn app() -> AppId {
        "a".parse().unwrap()
    }

    async fn topic(stream: &mut EventStream) -> String {
        match stream.next().await.unwrap() {
            StreamEvent::Message(_, message) => message.topic.to_string(),
            StreamEvent::Lost(count) => format!("lost {count:?}"),
        }
    }

    #[tokio::test]
    async fn streams_read_what_comes_after_they_were_opened_and_matches() {
        let histories = histories(|_| {});
        push(&histories, "P/d/before");
        let mut all = histories.open(&app(), None, None).unwrap();
        let filter = Some("+/+/data".parse().unwrap());
        let mut some = histories.open(&app(), filter, None).unwrap();
        for topic in ["P/d/other", "$oc/d/x", "P/d/data"] {
            push(&histories, topic);
        }
        assert_eq!(topic(&mut some).await, "P/d/data");
        for expected in ["P/d/other", "$oc/d/x", "P/d/data"] {
            assert_eq!(topic(&mut all).await, expected);
        }
    }

    #[tokio::test]
    async fn who_is_overtaken_is_told_how_many_were_lost() {
        let histories = histories(|config| config.history_messages = 3);
        let mut stream = histories.open(&app(), None, None).unwrap();
        for n in 0..10 {
            push(&histories, &format!("P/d/{n}"));
        }
        assert_eq!(topic(&mut stream).await, "lost Some(7)");
        assert_eq!(topic(&mut stream).await, "P/d/7");
        let histories = self::histories(|config| config.history_bytes = 20);
        let mut stream = histories.open(&app(), None, None).unwrap();
        push(&histories, "P/d/0");
        push(&histories, "P/d/1");
        assert_eq!(topic(&mut stream).await, "lost Some(1)");
    }

    #[tokio::test]
    async fn a_stream_goes_on_where_it_was_cut_off() {
        let histories = histories(|config| config.history_messages = 5);
        let mut stream = histories.open(&app(), None, None).unwrap();
        push(&histories, "P/d/0");
        let StreamEvent::Message(id, _) = stream.next().await.unwrap() else {
            panic!("no message");
        };
        drop(stream);
        assert_eq!(id.to_string().parse(), Ok(id));
        push(&histories, "P/d/1");
        let mut again = histories.open(&app(), None, Some(id)).unwrap();
        assert_eq!(topic(&mut again).await, "P/d/1");
        for n in 2..8 {
            push(&histories, &format!("P/d/{n}"));
        }
        let mut late = histories.open(&app(), None, Some(id)).unwrap();
        assert_eq!(topic(&mut late).await, "lost Some(2)");
        assert_eq!(topic(&mut late).await, "P/d/3");
        // An id of another history says nothing about this one.
        histories.close(&app(), Ended::Disabled);
        let mut strange = histories.open(&app(), None, Some(id)).unwrap();
        assert_eq!(topic(&mut strange).await, "lost None");
        for bad in ["", "x", "1-1", "0000000000001-", "0000000000001-x"] {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad}");
        }
    }

    #[tokio::test]
    async fn unbound_devices_are_read_no_more_and_ended_streams_say_why() {
        let histories = histories(|_| {});
        let mut stream = histories.open(&app(), None, None).unwrap();
        push(&histories, "P/d1/x");
        push(&histories, "P/d2/x");
        histories.revoke(&app(), &|device| device.as_str() == "d1");
        assert_eq!(topic(&mut stream).await, "P/d2/x");
        let reading = stream.next();
        histories.close(&app(), Ended::Deleted);
        assert_eq!(reading.await, Err(Ended::Deleted));
    }

    #[test]
    fn streams_and_idle_histories_are_bounded() {
        let histories = histories(|config| {
            config.max_streams = 3;
            config.max_streams_per_application = 2;
            config.history_for = Duration::ZERO;
        });
        let open = |app: &str| histories.open(&app.parse().unwrap(), None, None);
        let (first, second) = (open("a").unwrap(), open("a").unwrap());
        assert_eq!(open("a").err(), Some(NotOpened::TooMany));
        let third = open("b").unwrap();
        assert_eq!(open("c").err(), Some(NotOpened::TooMany));
        histories.sweep();
        assert_eq!((histories.apps.len(), histories.gauge.get()), (2, 3));
        drop((first, second, third));
        assert_eq!(histories.gauge.get(), 0);
        push(&histories, "P/d/x");
        histories.sweep();
        assert!(histories.apps.is_empty());
    }
}
