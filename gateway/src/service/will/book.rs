//! Which wills there are, and when each is due.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::WillConfig,
    model::{Will, WillKey},
};

/// The most changes that are stored in one commit.
const MAX_COMMIT: usize = 500;

/// A will that cannot be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many wills are held as may be")]
pub struct TooManyWills;

/// Stands for a will that was entered; a later one of the same client has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillTicket {
    key: WillKey,
    number: u64,
}

#[derive(Debug)]
struct Kept {
    will: Arc<Will>,
    number: u64,
    due: Option<Instant>,
}

/// A will that has changed, with the time when it is due, or one that is gone.
type Changed = (WillKey, Option<(Arc<Will>, Option<Instant>)>);

/// Every will, by client.
#[derive(Debug)]
pub(super) struct Book {
    config: WillConfig,
    wills: HashMap<WillKey, Kept>,
    bytes: usize,
    due: BTreeSet<(Instant, u64)>,
    /// Whose is due, by number.
    losers: HashMap<u64, WillKey>,
    changed: HashSet<WillKey>,
    numbers: u64,
}

impl WillTicket {
    pub(super) const fn key(&self) -> &WillKey {
        &self.key
    }
}

impl Book {
    pub(super) fn new(config: WillConfig) -> Self {
        Self {
            config,
            wills: HashMap::new(),
            bytes: 0,
            due: BTreeSet::new(),
            losers: HashMap::new(),
            changed: HashSet::new(),
            numbers: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wills.len()
    }

    /// How many changes wait to be stored.
    pub(super) fn unstored(&self) -> usize {
        self.changed.len()
    }

    /// Takes note of a will that was left by an earlier process.
    pub(super) fn restore(&mut self, key: WillKey, will: Will, due: Instant) {
        let ticket = self.insert(key, will);
        self.postpone(&ticket, due);
        self.changed.clear();
    }

    /// Takes over a will that another node held, unless its client has left one here since.
    pub(super) fn adopt(&mut self, key: WillKey, will: Will, due: Instant) {
        if self.wills.contains_key(&key) {
            return;
        }
        let ticket = self.insert(key, will);
        self.postpone(&ticket, due);
    }

    /// How long clients have after a restart before their wills are due.
    pub(super) fn held_back(&self) -> Duration {
        self.config.after_restart
    }

    /// Everything is to be stored.
    pub(super) fn note_all(&mut self) {
        self.changed.extend(self.wills.keys().cloned());
    }

    /// Takes note of a client's will.
    pub(super) fn enter(&mut self, key: &WillKey, will: Will) -> Result<WillTicket, TooManyWills> {
        let bytes = self.bytes.saturating_add(will.size());
        if self.wills.len() >= self.config.max_wills || bytes > self.config.max_bytes {
            return Err(TooManyWills);
        }
        // Another connection of the client may have been quicker; the later one counts.
        self.take(key);
        Ok(self.insert(key.clone(), will))
    }

    /// Takes a client's will out.
    pub(super) fn take(&mut self, key: &WillKey) -> Option<Arc<Will>> {
        let kept = self.wills.remove(key)?;
        self.bytes = self.bytes.saturating_sub(kept.will.size());
        self.undue(kept.due, kept.number);
        self.changed.insert(key.clone());
        Some(kept.will)
    }

    /// Takes a will out, unless a later one has replaced it; says whether it did.
    pub(super) fn remove(&mut self, ticket: &WillTicket) -> bool {
        let is_it = self
            .wills
            .get(&ticket.key)
            .is_some_and(|kept| kept.number == ticket.number);
        is_it && self.take(&ticket.key).is_some()
    }

    /// The client is lost: its will is due after the delay, or when its session ends. Says whether it was still this one.
    pub(super) fn lose(
        &mut self,
        ticket: &WillTicket,
        now: Instant,
        session_expiry: Duration,
    ) -> bool {
        let kept = self.wills.get(&ticket.key);
        let Some(kept) = kept.filter(|kept| kept.number == ticket.number) else {
            return false;
        };
        let delay = kept.will.delay.min(session_expiry);
        self.postpone(ticket, now + delay);
        true
    }

    /// Sets when a will is due.
    pub(super) fn postpone(&mut self, ticket: &WillTicket, due: Instant) {
        let Some(kept) = self.wills.get_mut(&ticket.key) else {
            return;
        };
        if kept.number != ticket.number {
            return;
        }
        let former = kept.due.replace(due);
        self.undue(former, ticket.number);
        self.due.insert((due, ticket.number));
        self.losers.insert(ticket.number, ticket.key.clone());
        self.changed.insert(ticket.key.clone());
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Up to `max` that are due; they stay until they are removed or postponed.
    pub(super) fn due(&self, now: Instant, max: usize) -> Vec<(WillTicket, Arc<Will>)> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now).take(max);
        due.filter_map(|(_, number)| {
            let key = self.losers.get(number)?.clone();
            let will = Arc::clone(&self.wills.get(&key)?.will);
            let number = *number;
            Some((WillTicket { key, number }, will))
        })
        .collect()
    }

    /// Some of what has changed since it was stored.
    pub(super) fn take_changed(&mut self) -> Vec<Changed> {
        let wills = &self.wills;
        let keys = self.changed.extract_if(|_| true).take(MAX_COMMIT);
        keys.map(|key| {
            let kept = wills.get(&key);
            let kept = kept.map(|kept| (Arc::clone(&kept.will), kept.due));
            (key, kept)
        })
        .collect()
    }

    /// These could not be stored.
    pub(super) fn note_changed(&mut self, keys: impl Iterator<Item = WillKey>) {
        self.changed.extend(keys);
    }

    fn insert(&mut self, key: WillKey, will: Will) -> WillTicket {
        self.numbers += 1;
        let number = self.numbers;
        self.bytes += will.size();
        let kept = Kept {
            will: Arc::new(will),
            number,
            due: None,
        };
        self.wills.insert(key.clone(), kept);
        self.changed.insert(key.clone());
        WillTicket { key, number }
    }

    fn undue(&mut self, due: Option<Instant>, number: u64) {
        if let Some(due) = due {
            self.due.remove(&(due, number));
            self.losers.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::app::tests::message;

    fn book() -> Book {
        Book::new(WillConfig {
            max_wills: 2,
            ..WillConfig::default()
        })
    }

    fn key(device: &str) -> WillKey {
        WillKey::Device(device.parse().expect("legal"))
    }

    fn will(device: &str, delay: u64) -> Will {
        Will {
            message: message(device, &format!("P/{device}/gone")),
            expiry: None,
            delay: Duration::from_secs(delay),
        }
    }

    #[test]
    fn a_delay_is_cut_by_the_end_of_the_session() {
        let (mut book, now) = (book(), Instant::now());
        let at = |secs| now + Duration::from_secs(secs);
        let a = book.enter(&key("a"), will("a", 60)).expect("room");
        let b = book.enter(&key("b"), will("b", 60)).expect("room");
        assert!(book.lose(&a, now, Duration::from_secs(90)));
        assert!(book.lose(&b, now, Duration::from_secs(5)));
        assert_eq!(book.next_due(), Some(at(5)));
        assert!(book.due(at(4), 9).is_empty());
        assert_eq!(book.due(at(5), 9)[0].0, b);
        assert!(book.remove(&b));
        assert_eq!(book.next_due(), Some(at(60)));
        assert!(book.remove(&a));
        assert!(book.due.is_empty() && book.losers.is_empty() && book.bytes == 0);
    }

    #[test]
    fn a_later_will_of_a_client_is_not_touched_by_the_end_of_an_earlier_connection() {
        let (mut book, now) = (book(), Instant::now());
        let first = book.enter(&key("a"), will("a", 0)).expect("room");
        let second = book.enter(&key("a"), will("a", 0)).expect("room");
        assert!(!book.lose(&first, now, Duration::ZERO) && !book.remove(&first));
        assert_eq!(book.next_due(), None);
        assert!(book.lose(&second, now, Duration::ZERO));
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn one_too_many_is_refused() {
        let mut book = book();
        for device in ["a", "b"] {
            book.enter(&key(device), will(device, 0)).expect("room");
        }
        assert_eq!(book.enter(&key("c"), will("c", 0)), Err(TooManyWills));
        book.take(&key("a"));
        assert!(book.enter(&key("c"), will("c", 0)).is_ok());
        assert_eq!(book.take_changed().len(), 3, "a is gone, b and c are new");
        assert!(book.take_changed().is_empty());
    }
}
