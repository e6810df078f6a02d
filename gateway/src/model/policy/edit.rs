//! Changing the policy of a task that there is: what may be changed when, and how a change is said.
//!
//! A change is a JSON merge patch: what it names is replaced, `null` takes a rule away, what it leaves out stays.
//! Spec: RFC 7396.

use serde_json::Value;

use super::TaskPolicy;
use crate::model::{RunState, text::InvalidField};

/// How far a task is, as far as changes of it ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its run state.
    pub run: RunState,
    /// Whether a delivery of it has begun.
    pub begun: bool,
}

/// Why a rule cannot be changed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// The task has ended.
    Ended,
    /// Deliveries of it have begun.
    Begun,
}

impl TaskPolicy {
    /// The policy with a change applied, checked.
    ///
    /// # Errors
    /// [`InvalidField`] where the change names no rule, or one of the outcome is broken.
    pub fn patched(&self, patch: &Value) -> Result<Self, InvalidField> {
        let unreadable = |error: serde_json::Error| InvalidField::new("policy", error.to_string());
        if !patch.is_object() {
            return Err(InvalidField::new("policy", "must be an object"));
        }
        let mut merged = serde_json::to_value(self).map_err(unreadable)?;
        merge(&mut merged, patch, MAX_DEPTH);
        let policy: Self = serde_json::from_value(merged).map_err(unreadable)?;
        policy.validate()?;
        Ok(policy)
    }

    /// Whether the policy may be replaced by `other` at this stage.
    ///
    /// | rule | nothing has begun | something has begun | the task has ended |
    /// |---|---|---|---|
    /// | `canary`, `start_at` | yes | no | no |
    /// | every other | yes | yes | no |
    ///
    /// # Errors
    /// [`Locked`] with why not.
    pub fn check_change(&self, other: &Self, stage: Stage) -> Result<(), Locked> {
        if self == other {
            return Ok(());
        }
        if stage.run.is_final() {
            return Err(Locked::Ended);
        }
        let of_beginning = |policy: &Self| (policy.canary, policy.start_at);
        if stage.begun && of_beginning(self) != of_beginning(other) {
            return Err(Locked::Begun);
        }
        Ok(())
    }
}

/// Applies a merge patch. Deeper than any policy is it goes no further: what is there replaces.
fn merge(target: &mut Value, patch: &Value, depth: u32) {
    let (Value::Object(patch), 1..) = (patch, depth) else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value, depth - 1);
        }
    }
}

/// Levels of a policy.
const MAX_DEPTH: u32 = 4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(value: Value) -> TaskPolicy {
        serde_json::from_value(value).expect("a policy")
    }

    #[test]
    fn a_patch_replaces_what_it_names_and_null_takes_away() {
        let before = policy(json!({
            "max_in_progress": 5,
            "bytes_per_sec": 1_000,
            "pace": {"per_minute": 10, "ramp": {"factor": 2.0, "every_succeeded": 5, "max_per_minute": 80}},
            "timers": {"step_timeout_secs": 60, "confirm_timeout_secs": 90},
        }));
        let patch = json!({
            "bytes_per_sec": null,
            "pace": {"per_minute": 20, "ramp": null},
            "timers": {"step_timeout_secs": null},
            "abort": {"failed_percent": 20, "min_finished": 10},
        });
        let expected = policy(json!({
            "max_in_progress": 5,
            "pace": {"per_minute": 20},
            "timers": {"confirm_timeout_secs": 90},
            "abort": {"failed_percent": 20, "min_finished": 10},
        }));
        assert_eq!(before.patched(&patch), Ok(expected));
        assert_eq!(before.patched(&json!({})).as_ref(), Ok(&before));
    }

    #[test]
    fn a_patch_that_makes_no_policy_is_refused() {
        let before = TaskPolicy::default();
        for patch in [
            json!(5),
            json!({"speed": 1}),
            json!({"bytes_per_sec": 1}),
            json!({"pace": {"ramp": null}}),
            json!({"timers": {"step_timeout_secs": {"a": {"b": {"c": {"d": 1}}}}}}),
        ] {
            assert!(before.patched(&patch).is_err(), "{patch}");
        }
    }

    #[test]
    fn what_may_be_changed_depends_on_what_has_begun() {
        let before = policy(json!({"max_in_progress": 5}));
        let limits = policy(json!({"max_in_progress": 1, "bytes_per_sec": 512}));
        let canary = policy(json!({"max_in_progress": 5, "canary": {"devices": 1}}));
        let check =
            |other: &TaskPolicy, run, begun| before.check_change(other, Stage { run, begun });
        for run in [RunState::Scheduled, RunState::Running, RunState::Paused] {
            assert_eq!(check(&limits, run, true), Ok(()));
            assert_eq!(check(&canary, run, false), Ok(()));
            assert_eq!(check(&canary, run, true), Err(Locked::Begun));
        }
        for run in [RunState::Aborted, RunState::Canceled, RunState::Finished] {
            assert_eq!(check(&limits, run, false), Err(Locked::Ended));
            assert_eq!(check(&before, run, true), Ok(()), "nothing is changed");
        }
    }
}
