//! Whether the history of deliveries is one that can be: states in order, ends that stay ends.
//!
//! Works on every attempt of every delivery of a task, as the report has them, and on nothing else:
//! so whoever has the report can check it.

use std::collections::HashMap;

use crate::model::{
    id::Id,
    task::{Delivery, DeliveryState},
};

/// Something in a history that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of which delivery.
    pub delivery: Id,
    /// In which attempt.
    pub attempt: u32,
    /// What it is.
    pub what: &'static str,
}

/// What a history comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Deliveries in all.
    pub deliveries: u64,
    /// Attempts in all.
    pub attempts: u64,
    /// Deliveries whose last attempt succeeded.
    pub delivered: u64,
    /// Deliveries whose last attempt failed.
    pub failed: u64,
    /// Deliveries whose last attempt goes on.
    pub open: u64,
    /// What cannot be, in the order of the rows.
    pub faults: Vec<Fault>,
}

/// Checks a history, attempt by attempt; the attempts of one delivery in order, as a report has them.
#[derive(Debug, Default)]
pub struct HistoryCheck {
    last: HashMap<Id, Delivery>,
    attempts: u64,
    faults: Vec<Fault>,
}

impl HistoryCheck {
    /// Takes the next attempt.
    pub fn take(&mut self, attempt: Delivery) {
        self.attempts += 1;
        let former = self.last.get(&attempt.id);
        for (is_wrong, what) in within(&attempt).into_iter().chain(after(former, &attempt)) {
            if is_wrong {
                self.faults.push(Fault {
                    delivery: attempt.id,
                    attempt: attempt.attempt,
                    what,
                });
            }
        }
        self.last.insert(attempt.id, attempt);
    }

    /// What it all comes to.
    pub fn verdict(self) -> Verdict {
        let mut verdict = Verdict {
            attempts: self.attempts,
            faults: self.faults,
            ..Verdict::default()
        };
        for last in self.last.values() {
            verdict.deliveries += 1;
            match last.state {
                DeliveryState::Delivered => verdict.delivered += 1,
                DeliveryState::Failed => verdict.failed += 1,
                _ => verdict.open += 1,
            }
        }
        verdict
    }
}

/// What one attempt must be.
fn within(attempt: &Delivery) -> [(bool, &'static str); 5] {
    let stamps = [
        Some(attempt.created_at),
        attempt.pushed_at,
        attempt.delivering_at,
        attempt.finished_at,
    ];
    let there: Vec<_> = stamps.into_iter().flatten().collect();
    let is_final = attempt.state.is_final();
    [
        (!there.is_sorted(), "its stamps go back in time"),
        (
            is_final != attempt.finished_at.is_some(),
            "an end without its stamp, or a stamp without an end",
        ),
        (
            (attempt.state == DeliveryState::Failed) != attempt.reason.is_some(),
            "a failure without a reason, or a reason without a failure",
        ),
        (
            attempt.state == DeliveryState::Pushed && attempt.pushed_at.is_none(),
            "pushed without its stamp",
        ),
        (
            attempt.state == DeliveryState::Delivering && attempt.delivering_at.is_none(),
            "delivering without its stamp",
        ),
    ]
}

/// What an attempt must be after the one before it.
fn after(former: Option<&Delivery>, attempt: &Delivery) -> [(bool, &'static str); 4] {
    let Some(former) = former else {
        return [
            (attempt.attempt != 1, "its first attempt is missing"),
            (false, ""),
            (false, ""),
            (false, ""),
        ];
    };
    [
        (
            attempt.attempt != former.attempt + 1,
            "an attempt is missing, or there twice",
        ),
        (
            former.state == DeliveryState::Delivered,
            "it was tried again after it had been delivered",
        ),
        (
            !former.state.is_final(),
            "it was tried again before the attempt had ended",
        ),
        (
            former
                .finished_at
                .is_some_and(|end| end > attempt.created_at),
            "an attempt began before the one before it had ended",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Millis;

    fn attempt(number: u32, state: DeliveryState, from: i64) -> Delivery {
        let at = |later: i64| Some(Millis::from_i64(from + later));
        let id = Id::from_i64(1).unwrap();
        Delivery {
            id,
            task_id: id,
            device_id: "p_d".parse().unwrap(),
            node_id: "d".parse().unwrap(),
            attempt: number,
            state,
            reason: (state == DeliveryState::Failed).then(|| "timeout".to_owned()),
            detail: None,
            created_at: Millis::from_i64(from),
            pushed_at: (state >= DeliveryState::Pushed).then_some(at(1)).flatten(),
            delivering_at: (state >= DeliveryState::Delivering)
                .then_some(at(2))
                .flatten(),
            finished_at: state.is_final().then_some(at(3)).flatten(),
        }
    }

    fn check(attempts: &[Delivery]) -> Verdict {
        let mut check = HistoryCheck::default();
        for attempt in attempts {
            check.take(attempt.clone());
        }
        check.verdict()
    }

    #[test]
    fn a_good_history_has_no_fault() {
        let verdict = check(&[
            attempt(1, DeliveryState::Failed, 10),
            attempt(2, DeliveryState::Failed, 13),
            attempt(3, DeliveryState::Delivered, 20),
        ]);
        assert_eq!(verdict.faults, []);
        assert_eq!(
            (verdict.deliveries, verdict.attempts, verdict.delivered),
            (1, 3, 1)
        );
    }

    #[test]
    fn what_cannot_be_is_found() {
        let failed = attempt(1, DeliveryState::Failed, 10);
        let delivered = attempt(1, DeliveryState::Delivered, 10);
        let mut endless = delivered.clone();
        endless.finished_at = None;
        let mut backwards = delivered.clone();
        backwards.pushed_at = Some(Millis::from_i64(9));
        let mut silent = failed.clone();
        silent.reason = None;
        for (history, what) in [
            (
                vec![delivered, attempt(2, DeliveryState::Failed, 20)],
                "after it had been delivered",
            ),
            (
                vec![failed.clone(), attempt(3, DeliveryState::Pending, 20)],
                "missing",
            ),
            (vec![failed.clone(), failed.clone()], "there twice"),
            (
                vec![failed, attempt(2, DeliveryState::Pending, 12)],
                "began before",
            ),
            (
                vec![
                    attempt(1, DeliveryState::Pushed, 1),
                    attempt(2, DeliveryState::Pending, 9),
                ],
                "before the attempt had ended",
            ),
            (vec![attempt(2, DeliveryState::Pending, 1)], "first attempt"),
            (vec![endless], "without its stamp"),
            (vec![backwards], "go back"),
            (vec![silent], "without a reason"),
        ] {
            let faults = check(&history).faults;
            assert!(
                faults.iter().any(|fault| fault.what.contains(what)),
                "{what}: {faults:?}"
            );
        }
    }
}
