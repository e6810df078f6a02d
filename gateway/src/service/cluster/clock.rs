//! What time it is: the one of three clocks that lies between the other two.
//!
//! A node knows three: its own, which goes on evenly; its machine's, which may be set at any moment; and that of the
//! server with the sessions. With each beat it keeps to the one in the middle, so that none of them alone, however far
//! it jumps, moves anything: not the age of a message, nor since when a change may have been missed.

use std::time::Duration;

use crate::{model::Millis, telemetry::metrics::ClusterMetrics};

/// Clocks that are no further apart agree, in ms.
const AGREEING: u64 = 1_000;
/// An answer that took longer says nothing of the time.
const MAX_TRAVEL: Duration = Duration::from_secs(1);
/// Machines whose clocks are further apart are warned of, in ms.
const APART: u64 = 10_000;

/// At the start: of the machine's clock and those of two servers.
pub(super) fn begin(sessions: Millis, registry: Millis) {
    let middle = middle([Millis::of_system(), sessions, registry]);
    warn_of(Millis::of_system(), sessions);
    middle.settle();
}

/// With a beat: `sessions` is what the server said, in an answer that took `travel`.
pub(super) fn keep(sessions: Millis, travel: Duration, metrics: &ClusterMetrics) {
    if travel > MAX_TRAVEL {
        return;
    }
    let sessions = sessions.after(travel / 2);
    let (own, system) = (Millis::now(), Millis::of_system());
    let ahead = system.as_i64().saturating_sub(sessions.as_i64()) / 1_000;
    let before = metrics.clock_offset.get();
    metrics.clock_offset.set(ahead);
    if before != ahead {
        warn_of(system, sessions);
    }
    let middle = middle([own, system, sessions]);
    if distance(middle, own) > AGREEING {
        tracing::warn!(was = %own, is = %middle, "this node's time was wrong and is set");
        middle.settle();
    }
}

fn warn_of(system: Millis, sessions: Millis) {
    if distance(system, sessions) > APART {
        tracing::warn!(
            machine = %system,
            sessions = %sessions,
            "the clocks of this machine and of the sessions' server are far apart"
        );
    }
}

fn middle(mut times: [Millis; 3]) -> Millis {
    times.sort_unstable();
    times[1]
}

fn distance(one: Millis, other: Millis) -> u64 {
    one.as_i64().abs_diff(other.as_i64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_clock_alone_moves_the_time() {
        let at = |secs: i64| Millis::from_i64(secs * 1_000);
        for (clocks, expected) in [
            ([at(100), at(100), at(100)], at(100)),
            ([at(100), at(90_000), at(101)], at(101)),
            ([at(100), at(-90_000), at(100)], at(100)),
            ([at(100), at(100), at(5)], at(100)),
            // Two that agree are right against the node's own, which began with a wrong one.
            ([at(7), at(100), at(100)], at(100)),
        ] {
            assert_eq!(middle(clocks), expected, "{clocks:?}");
        }
    }
}
