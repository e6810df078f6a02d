//! What time it is to this process.
//!
//! By itself that is what the system's clock says. A process that works side by side with others settles with them what
//! time it is and goes on evenly from there, by the clock that nobody sets: the age of nothing changes when the system's
//! clock is set. There is one such time in a process.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime},
};

use super::Millis;

/// From when on it is counted.
static ORIGIN: OnceLock<Instant> = OnceLock::new();
/// What time it was then, in ms since 1970.
static AT_ORIGIN: AtomicI64 = AtomicI64::new(UNSETTLED);
/// The system's clock counts.
const UNSETTLED: i64 = i64::MIN;

impl Millis {
    /// Now: by the system's clock, or evenly from the time that was settled last.
    pub fn now() -> Self {
        let at_origin = AT_ORIGIN.load(Ordering::Acquire);
        match ORIGIN.get().filter(|_| at_origin != UNSETTLED) {
            Some(origin) => Self(at_origin.saturating_add(millis_since(*origin))),
            None => Self::of_system(),
        }
    }

    /// What the system's clock says.
    pub fn of_system() -> Self {
        SystemTime::now().into()
    }

    /// Settles that it is this time now: it goes on evenly from here, whatever becomes of the system's clock.
    pub fn settle(self) {
        let origin = ORIGIN.get_or_init(Instant::now);
        let at_origin = self.0.saturating_sub(millis_since(*origin));
        AT_ORIGIN.store(at_origin, Ordering::Release);
    }
}

fn millis_since(origin: Instant) -> i64 {
    i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX)
}
