//! What goes wrong, when and for whom: drawn from the seed before anything happens.
//!
//! Every device reads the same plan and finds its own part of it, so that nobody needs to be told,
//! in however many processes the devices live, and a run can be had again.

use std::time::Duration;

use crate::rng::Rng;

/// What a device does that no good device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its link is gone, without a word, and it comes back after a moment.
    Flap,
    /// Its link is gone together with those of many others, and all come back at once.
    Storm,
    /// It is gone and its connection stays, as when a NAT forgets it; it comes back by another one.
    HalfOpen,
    /// It reads nothing for this time, and goes on sending.
    Deaf(Duration),
    /// It sends what MQTT forbids; which, is told by the number.
    Malformed(u32),
}

/// Kinds of faults, as the command line names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FaultKind {
    /// Links that are lost one by one.
    Flap,
    /// Links that are lost all at once, and come back at once.
    Storm,
    /// Connections that their devices have left without a word.
    HalfOpen,
    /// Devices that stop reading.
    SlowReader,
    /// Packets that MQTT forbids.
    Malformed,
}

impl FaultKind {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Flap,
        Self::Storm,
        Self::HalfOpen,
        Self::SlowReader,
        Self::Malformed,
    ];
}

/// The plan of one run.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// Nothing goes wrong.
    None,
    /// A share of the devices loses its link again and again.
    Flapping {
        /// Seed of the run.
        seed: u64,
        /// Share of the devices.
        share: f64,
        /// Between two losses of one device's link.
        every: Duration,
    },
    /// Events of all kinds.
    Chaos(Vec<Event>),
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Event {
    /// From the start of the run.
    pub(crate) at: Duration,
    /// What.
    pub(crate) kind: FaultKind,
    /// For which share of the devices.
    pub(crate) share: f64,
    /// Draws the devices, and the details.
    pub(crate) salt: u64,
}

impl Trouble {
    /// Events of `kinds`, one `every` so often for `length`, each for `share` of the devices.
    pub(crate) fn chaos(
        seed: u64,
        kinds: &[FaultKind],
        every: Duration,
        length: Duration,
        share: f64,
    ) -> Self {
        let mut rng = Rng::new(seed, CHAOS_STREAM);
        let every = every.max(Duration::from_millis(100));
        let mut events = Vec::new();
        // The last part of a run is left in peace: what was broken has to be whole at the end.
        let end = length.saturating_sub((length / 5).min(CALM));
        let mut at = every;
        while at < end && events.len() < MAX_EVENTS {
            let index = rng.below(kinds.len() as u64);
            let kind = usize::try_from(index)
                .ok()
                .and_then(|index| kinds.get(index));
            let Some(&kind) = kind else { break };
            let share = match kind {
                FaultKind::Storm => (share * STORM_FACTOR).min(1.0),
                _ => share,
            };
            let salt = rng.next_u64();
            events.push(Event {
                at,
                kind,
                share,
                salt,
            });
            at += every;
        }
        Self::Chaos(events)
    }

    /// What happens to device `index` next, after `after`.
    pub(crate) fn next(&self, index: u32, after: Duration) -> Option<(Duration, Fault)> {
        match self {
            Self::None => None,
            Self::Flapping { seed, share, every } => {
                let mut rng = Rng::new(*seed, FLAP_STREAM + u64::from(index));
                if !rng.chance(*share) {
                    return None;
                }
                let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
                // Not all in the same moment: each has a place of its own within the time between two.
                let phase = rng.below(every_ms);
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                let turns = (after_ms.saturating_sub(phase) / every_ms) + 1;
                let at = phase.saturating_add(turns.saturating_mul(every_ms));
                Some((Duration::from_millis(at), Fault::Flap))
            }
            Self::Chaos(events) => {
                let from = events.partition_point(|event| event.at <= after);
                let mut later = events.iter().skip(from);
                later.find_map(|event| event.fault_of(index).map(|fault| (event.at, fault)))
            }
        }
    }
}

impl Event {
    /// What it does to device `index`, if anything.
    fn fault_of(&self, index: u32) -> Option<Fault> {
        let mut rng = Rng::new(self.salt, CHAOS_STREAM + u64::from(index));
        if !rng.chance(self.share) {
            return None;
        }
        Some(match self.kind {
            FaultKind::Flap => Fault::Flap,
            FaultKind::Storm => Fault::Storm,
            FaultKind::HalfOpen => Fault::HalfOpen,
            FaultKind::SlowReader => Fault::Deaf(Duration::from_millis(1_000 + rng.below(4_000))),
            FaultKind::Malformed => {
                Fault::Malformed(u32::try_from(rng.below(1 << 16)).unwrap_or_default())
            }
        })
    }
}

/// How many more devices a storm takes than any other fault.
const STORM_FACTOR: f64 = 10.0;
/// Nothing goes wrong any more so long before the end, or in the last fifth of a short run.
const CALM: Duration = Duration::from_secs(20);
/// More than any run needs.
const MAX_EVENTS: usize = 100_000;
const FLAP_STREAM: u64 = 1 << 42;
const CHAOS_STREAM: u64 = 1 << 43;

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(trouble: &Trouble, index: u32, until: Duration) -> Vec<(Duration, Fault)> {
        let mut after = Duration::ZERO;
        let mut all = Vec::new();
        while let Some((at, fault)) = trouble.next(index, after) {
            assert!(at > after);
            after = at;
            if at > until {
                break;
            }
            all.push((at, fault));
        }
        all
    }

    #[test]
    fn a_share_of_the_devices_flaps_at_its_own_times() {
        let every = Duration::from_secs(10);
        let trouble = Trouble::Flapping {
            seed: 3,
            share: 0.2,
            every,
        };
        let minute = Duration::from_mins(1);
        let flaps: Vec<_> = (0..1_000)
            .map(|i| all_of(&trouble, i, minute).len())
            .collect();
        let flapping = flaps.iter().filter(|&&count| count > 0).count();
        assert!((150..250).contains(&flapping), "{flapping}");
        assert!(
            flaps.iter().all(|&count| matches!(count, 0 | 5 | 6)),
            "{flaps:?}"
        );
    }

    #[test]
    fn chaos_repeats_and_leaves_the_end_in_peace() {
        let length = Duration::from_secs(100);
        let every = Duration::from_secs(1);
        let make = |seed| Trouble::chaos(seed, &FaultKind::ALL, every, length, 0.1);
        let (one, other) = (make(1), make(2));
        let Trouble::Chaos(events) = &one else {
            panic!("chaos")
        };
        assert!(events.len() > 70 && events.iter().all(|e| e.at < Duration::from_secs(80)));
        for kind in FaultKind::ALL {
            assert!(events.iter().any(|event| event.kind == kind), "{kind:?}");
        }
        assert_eq!(all_of(&one, 5, length), all_of(&make(1), 5, length));
        assert_ne!(all_of(&one, 5, length), all_of(&other, 5, length));
    }
}
