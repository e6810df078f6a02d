//! What changes about a task, for those who watch it: which deliveries, and that it ended.
//!
//! Nothing is kept for a task that nobody watches. For one that is watched the ids of the deliveries
//! that changed last are kept, so that a watcher whose connection broke goes on where it was; one that
//! was away for longer is given a fresh snapshot.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::Id;

/// Changes that are kept of a watched task.
const KEPT: usize = 10_000;

/// Where changes of one task are noted; empty until somebody watches.
#[derive(Debug, Default)]
pub(super) struct Feed(OnceLock<Arc<Watched>>);

/// The changes of a watched task.
#[derive(Debug)]
struct Watched {
    /// Tells this feed from those of other processes and of other times of the task.
    origin: u64,
    changes: Mutex<Changes>,
    news: watch::Sender<News>,
}

#[derive(Debug, Default)]
struct Changes {
    /// The number of the first change that is kept.
    first: u64,
    kept: VecDeque<Id>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct News {
    /// Changes so far, those of the task itself included.
    count: u64,
    /// Nothing more will change.
    is_over: bool,
}

/// Someone's place among the changes of a task.
#[derive(Debug)]
pub(super) struct Watcher {
    watched: Arc<Watched>,
    news: watch::Receiver<News>,
    /// The number of the next change to be told; `None`: a snapshot comes first.
    next: Option<u64>,
}

/// What a watcher is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Where the next one goes on, to be given back as `Last-Event-ID`.
    pub(super) position: String,
    /// The deliveries that changed; `None`: all of them may have.
    pub(super) deliveries: Option<Vec<Id>>,
    /// Nothing more will come.
    pub(super) is_over: bool,
}

impl Feed {
    /// Notes that a delivery has changed.
    pub(super) fn note(&self, delivery: Id) {
        if let Some(watched) = self.0.get() {
            {
                let mut changes = watched.changes.lock();
                if changes.kept.len() == KEPT {
                    changes.kept.pop_front();
                    changes.first += 1;
                }
                changes.kept.push_back(delivery);
            }
            watched.news.send_modify(|news| news.count += 1);
        }
    }

    /// Notes that the task itself has changed, and whether it is over.
    pub(super) fn touch(&self, is_over: bool) {
        if let Some(watched) = self.0.get() {
            watched.news.send_modify(|news| {
                news.count += 1;
                news.is_over = is_over;
            });
        }
    }

    /// Begins to watch: after `position` if that is a place of this feed, else with a snapshot.
    pub(super) fn watch(&self, position: Option<&str>) -> Watcher {
        static ORIGINS: AtomicU64 = AtomicU64::new(0);
        let watched = self.0.get_or_init(|| {
            let millis = crate::model::Millis::now().as_i64().cast_unsigned();
            Arc::new(Watched {
                origin: (millis << 10) | (ORIGINS.fetch_add(1, Ordering::Relaxed) & 0x3ff),
                changes: Mutex::default(),
                news: watch::Sender::new(News::default()),
            })
        });
        let next = position.and_then(|position| watched.find(position));
        let mut news = watched.news.subscribe();
        news.mark_changed();
        Watcher {
            watched: Arc::clone(watched),
            news,
            next,
        }
    }
}

impl Watched {
    /// The number of the change that a position names, if it is one of this feed's.
    fn find(&self, position: &str) -> Option<u64> {
        let (origin, next) = position.split_once('-')?;
        let next = next.parse().ok()?;
        let changes = self.changes.lock();
        let end = changes.first + changes.kept.len() as u64;
        (origin.parse() == Ok(self.origin) && (changes.first..=end).contains(&next)).then_some(next)
    }
}

impl Watcher {
    /// Waits for news.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as this watcher.
        let _gone = self.news.changed().await;
    }

    /// Takes what is to be told now.
    pub(super) fn take(&mut self) -> Told {
        let is_over = self.news.borrow_and_update().is_over;
        let changes = self.watched.changes.lock();
        let end = changes.first + changes.kept.len() as u64;
        let deliveries = self.next.filter(|next| *next >= changes.first).map(|next| {
            let skipped = usize::try_from(next - changes.first).unwrap_or(usize::MAX);
            let mut changed: Vec<Id> = changes.kept.iter().skip(skipped).copied().collect();
            changed.sort_unstable();
            changed.dedup();
            changed
        });
        self.next = Some(end);
        Told {
            position: format!("{}-{end}", self.watched.origin),
            deliveries,
            is_over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Id {
        Id::from_i64(i64::try_from(number).expect("small")).expect("positive")
    }

    #[tokio::test]
    async fn a_watcher_begins_with_a_snapshot_and_goes_on_with_changes() {
        let feed = Feed::default();
        feed.note(id(9));
        let mut watcher = feed.watch(None);
        watcher.changed().await;
        assert_eq!(watcher.take().deliveries, None);
        for number in [3, 1, 3] {
            feed.note(id(number));
        }
        watcher.changed().await;
        let told = watcher.take();
        assert_eq!(told.deliveries, Some(vec![id(1), id(3)]));
        assert!(!told.is_over);
        feed.touch(true);
        watcher.changed().await;
        let told = watcher.take();
        assert_eq!((told.deliveries, told.is_over), (Some(Vec::new()), true));
    }

    #[tokio::test]
    async fn a_watcher_that_was_cut_off_misses_nothing_or_gets_a_snapshot() {
        let feed = Feed::default();
        let position = feed.watch(None).take().position;
        feed.note(id(7));
        assert_eq!(
            feed.watch(Some(&position)).take().deliveries,
            Some(vec![id(7)])
        );
        for wrong in ["", "1-1", "x-y", &format!("{position}9")] {
            assert_eq!(feed.watch(Some(wrong)).take().deliveries, None, "{wrong}");
        }
        for number in 0..=KEPT {
            feed.note(id(number + 1));
        }
        assert_eq!(
            feed.watch(Some(&position)).take().deliveries,
            None,
            "too long ago"
        );
    }

    #[test]
    fn nothing_is_kept_where_nobody_watches() {
        let feed = Feed::default();
        feed.note(id(1));
        assert!(feed.0.get().is_none());
    }
}
