//! Which part of what a task's policy allows one node may use, as long as it and the others have so much to do.
//!
//! No sum of parts is above the whole: a node is given what others have not, and at most its part by what it has to do.
//! Who has more than that gives it back as its deliveries end.

use std::time::Duration;

use crate::{
    model::Millis,
    store::registry::{ShareStanding, TaskShare, Thousandths},
};

/// What a policy bounds over all nodes; `None`: it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bounds {
    /// Deliveries in progress.
    pub(super) in_progress: Option<u32>,
    /// Devices that begin in a minute.
    pub(super) per_minute: Option<f64>,
    /// Devices that may begin in all.
    pub(super) begun: Option<u32>,
    /// Bytes a second.
    pub(super) bytes_per_sec: Option<u64>,
}

/// What this node has to do of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// Deliveries in progress here.
    pub(super) in_progress: u32,
    /// Deliveries that wait here for a place.
    pub(super) waiting: u32,
    /// Those of them that have not begun.
    pub(super) fresh: u32,
    /// Permits that were given and not used.
    pub(super) unused: u32,
    /// Devices that have begun and of which no step is recorded yet.
    pub(super) unrecorded: u32,
}

/// What this node may do of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Deliveries in progress.
    pub(super) places: u32,
    /// Devices that may begin.
    pub(super) permits: u32,
    /// Bytes a second.
    pub(super) bytes_per_sec: u64,
}

/// Devices that a pace lets begin at most at once, in seconds of it: what a node that settles late has missed.
const SAVED_UP: f64 = 2.0;

/// This node's part, its share as others see it, and what is left of the pace.
pub(super) fn divide(
    bounds: &Bounds,
    own: &Own,
    standing: &ShareStanding,
) -> (TaskShare, Thousandths, Part) {
    let places = places(bounds, own, standing);
    let (permits, left) = permits(bounds, own, standing);
    let share = TaskShare {
        places,
        in_progress: own.in_progress,
        waiting: own.waiting,
        permits: permits.saturating_add(own.unrecorded),
    };
    let part = Part {
        places,
        permits,
        bytes_per_sec: bytes(bounds, own, standing),
    };
    (share, left, part)
}

fn places(bounds: &Bounds, own: &Own, standing: &ShareStanding) -> u32 {
    let Some(all) = bounds.in_progress else {
        return u32::MAX;
    };
    let wanted = |in_progress: u32, waiting: u32| u64::from(in_progress) + u64::from(waiting);
    let ours = wanted(own.in_progress, own.waiting);
    let others = &standing.others;
    let theirs: u64 = others
        .iter()
        .map(|one| wanted(one.in_progress, one.waiting))
        .sum();
    let given: u64 = others
        .iter()
        .map(|one| u64::from(one.places.max(one.in_progress)))
        .sum();
    let free = u64::from(all).saturating_sub(given);
    let fair = part_of(u64::from(all), ours, theirs);
    let places = fair.min(ours).min(free).max(u64::from(own.in_progress));
    u32::try_from(places).unwrap_or(u32::MAX)
}

fn permits(bounds: &Bounds, own: &Own, standing: &ShareStanding) -> (u32, Thousandths) {
    if bounds.per_minute.is_none() && bounds.begun.is_none() {
        return (0, standing.pace.0);
    }
    let keeps = own.unused.min(own.fresh);
    let mut more = own.fresh - keeps;
    let mut left = 0;
    if let Some(per_minute) = bounds.per_minute {
        let there = refilled(standing, per_minute) + u64::from(own.unused - keeps) * 1_000;
        let waits: u64 = standing
            .others
            .iter()
            .map(|one| u64::from(one.waiting))
            .sum();
        let fair = part_of(there / 1_000, u64::from(own.fresh), waits);
        more = more.min(u32::try_from(fair.min(there / 1_000)).unwrap_or(u32::MAX));
        left = there;
    }
    if let Some(begun) = bounds.begun {
        let promised: u64 = standing
            .others
            .iter()
            .map(|one| u64::from(one.permits))
            .sum();
        let taken = u64::from(standing.begun) + promised + u64::from(own.unrecorded);
        let room = u64::from(begun).saturating_sub(taken + u64::from(keeps));
        more = more.min(u32::try_from(room).unwrap_or(u32::MAX));
    }
    left = left.saturating_sub(u64::from(more) * 1_000);
    (keeps + more, left)
}

/// What the pace allows by now, in thousandths of a device.
fn refilled(standing: &ShareStanding, per_minute: f64) -> Thousandths {
    let per_sec = per_minute / 60.0;
    let (before, at) = standing.pace;
    let since = |at: Millis| standing.now.since(at);
    // The first device need not wait.
    let Some(since) = at.map(since) else {
        return 1_000;
    };
    let most = (per_sec * SAVED_UP).max(1.0) * 1_000.0;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a pace is bounded and positive"
    )]
    let now = (before as f64 + seconds(since) * per_sec * 1_000.0).min(most) as u64;
    now
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn bytes(bounds: &Bounds, own: &Own, standing: &ShareStanding) -> u64 {
    let Some(all) = bounds.bytes_per_sec else {
        return u64::MAX;
    };
    let busy = |in_progress: u32| u64::from(in_progress);
    let theirs: u64 = standing
        .others
        .iter()
        .map(|one| busy(one.in_progress))
        .sum();
    let ours = busy(own.in_progress).max(1);
    let total = u128::from(ours + theirs);
    let part = u128::from(all) * u128::from(ours) / total;
    u64::try_from(part).unwrap_or(all).max(1)
}

/// The part of `all` that belongs to who wants `ours` while others want `theirs`, rounded up.
fn part_of(all: u64, ours: u64, theirs: u64) -> u64 {
    let total = u128::from(ours) + u128::from(theirs);
    if ours == 0 || total == 0 {
        return 0;
    }
    let part = (u128::from(all) * u128::from(ours)).div_ceil(total);
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(in_progress: u32, waiting: u32, places: u32, permits: u32) -> TaskShare {
        TaskShare {
            places,
            in_progress,
            waiting,
            permits,
        }
    }

    fn own(in_progress: u32, fresh: u32) -> Own {
        Own {
            in_progress,
            waiting: fresh,
            fresh,
            ..Own::default()
        }
    }

    fn standing(others: Vec<TaskShare>) -> ShareStanding {
        ShareStanding {
            now: Millis::from_i64(60_000),
            pace: (0, Some(Millis::from_i64(59_000))),
            others,
            ..ShareStanding::default()
        }
    }

    #[test]
    fn places_go_by_what_nodes_have_to_do_and_never_beyond_the_whole() {
        let bounds = Bounds {
            in_progress: Some(100),
            ..Bounds::default()
        };
        for (others, own, expected) in [
            (vec![], own(0, 500), 100),
            (vec![], own(0, 7), 7),
            (vec![other(0, 500, 0, 0)], own(0, 500), 50),
            (vec![other(100, 400, 100, 0)], own(0, 500), 0),
            (vec![other(40, 460, 70, 0)], own(20, 480), 30),
            // It has more than its part, and gives it back as its deliveries end.
            (vec![other(10, 490, 10, 0)], own(80, 420), 80),
        ] {
            let (share, _, part) = divide(&bounds, &own, &standing(others));
            assert_eq!((part.places, share.places), (expected, expected));
        }
    }

    #[test]
    fn nodes_that_settle_one_after_the_other_stay_below_every_bound() {
        let bounds = Bounds {
            in_progress: Some(10),
            per_minute: Some(600.0),
            begun: Some(25),
            bytes_per_sec: Some(1_000),
        };
        let mut shares = [TaskShare::default(); 3];
        let mut owns = [own(0, 100); 3];
        let (mut left, mut begun) = (0, 0);
        for second in 1..60 {
            for index in 0..3 {
                let others = (0..3)
                    .filter(|other| *other != index)
                    .map(|other| shares[other]);
                let mut standing = standing(others.collect());
                standing.now =
                    Millis::from_i64(60_000 + second * 1_000 + i64::try_from(index).unwrap());
                standing.pace = (left, Some(Millis::from_i64(standing.now.as_i64() - 333)));
                standing.begun = begun;
                let (share, rest, part) = divide(&bounds, &owns[index], &standing);
                (shares[index], left) = (share, rest);
                // It uses what it has, and its deliveries end at once now and then.
                let own = &mut owns[index];
                let free = part.places - own.in_progress.min(part.places);
                let begins = free.min(part.permits);
                own.in_progress += begins;
                begun += begins;
                own.fresh -= begins;
                own.waiting -= begins;
                own.unused = part.permits - begins;
                shares[index].in_progress = own.in_progress;
                shares[index].permits = own.unused;
                if second % 3 == 0 {
                    own.in_progress = 0;
                }
                let places: u32 = shares.iter().map(|share| share.places).sum();
                assert!(places <= 10, "{shares:?}");
                assert!(begun <= 25);
            }
        }
        assert_eq!(begun, 25, "all that may begin did");
    }

    #[test]
    fn a_pace_is_held_in_thousandths() {
        let bounds = Bounds {
            per_minute: Some(90.0),
            ..Bounds::default()
        };
        let (_, left, part) = divide(&bounds, &own(0, 100), &standing(vec![]));
        assert_eq!((part.permits, left), (1, 500), "one and a half in a second");
        let idle = Own {
            unused: 3,
            ..Own::default()
        };
        let (_, left, part) = divide(&bounds, &idle, &standing(vec![]));
        assert_eq!(part.permits, 0, "what is not used is given back");
        assert_eq!(left, 1_500 + 3_000);
    }

    #[test]
    fn bytes_go_by_what_is_in_progress() {
        let bounds = Bounds {
            bytes_per_sec: Some(900),
            ..Bounds::default()
        };
        let standing = standing(vec![other(20, 0, 0, 0)]);
        let (.., part) = divide(&bounds, &own(10, 0), &standing);
        assert_eq!(part.bytes_per_sec, 300);
    }
}
