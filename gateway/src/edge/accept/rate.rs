//! How many connections are accepted in a second.
//!
//! A generic cell rate: each accepted connection moves a mark forward by its share of a second, and
//! while the mark lies too far ahead nothing is accepted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How far the mark may lie ahead: connections come in bursts.
const BURST: Duration = Duration::from_millis(250);

/// How long accepting rests once it has to: what comes meanwhile is taken at once after it, which costs the
/// processor less than a wake-up for each connection.
const REST: Duration = Duration::from_millis(50);

/// The rate that all listeners share.
#[derive(Debug)]
pub(super) struct AcceptRate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of a second, for one connection.
    share: Duration,
    mark: Instant,
}

impl AcceptRate {
    pub(super) fn new(per_second: u32) -> Self {
        let state = State {
            share: share(per_second),
            mark: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Has another rate from here on.
    pub(super) fn set(&self, per_second: u32) {
        self.state.lock().share = share(per_second);
    }

    /// Waits until one may be accepted; says whether it had to.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn wait(&self) -> bool {
        let wait = self.ahead(Instant::now());
        if wait.is_zero() {
            return false;
        }
        tokio::time::sleep(wait + REST).await;
        true
    }

    /// Counts one that was accepted.
    pub(super) fn count(&self) {
        self.count_at(Instant::now());
    }

    fn ahead(&self, now: Instant) -> Duration {
        let mark = self.state.lock().mark;
        // At least one connection is always allowed, however long its share is.
        mark.saturating_duration_since(now + BURST)
    }

    fn count_at(&self, now: Instant) {
        let mut state = self.state.lock();
        state.mark = state.mark.max(now) + state.share;
    }
}

fn share(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_in_and_then_one_after_the_other() {
        let rate = AcceptRate::new(100);
        let now = Instant::now() + Duration::from_secs(1);
        let mut let_in = 0;
        while rate.ahead(now).is_zero() {
            rate.count_at(now);
            let_in += 1;
        }
        // A quarter of a second's worth, and the one that filled it.
        assert_eq!(let_in, 26);
        assert_eq!(rate.ahead(now), Duration::from_millis(10));
        let later = now + Duration::from_millis(10);
        assert!(rate.ahead(later).is_zero());
        rate.count_at(later);
        assert!(!rate.ahead(later).is_zero());
        // What was not used is not saved up.
        let much_later = now + Duration::from_mins(1);
        let again = (0..100)
            .take_while(|_| {
                rate.count_at(much_later);
                rate.ahead(much_later).is_zero()
            })
            .count();
        assert_eq!(again, 25);
    }
}
