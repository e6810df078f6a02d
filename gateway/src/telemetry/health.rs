//! Whether this node is ready, and why it is not.
//!
//! `app.rs` and the services register named checks and set them; the metrics listener answers
//! `/readyz` from here.
//! Invariants: the number of checks and the length of a reason are bounded; a node that drains
//! stays not ready.

use std::sync::Arc;

use parking_lot::Mutex;

/// Most checks; further ones are not kept, and the node is not ready.
const MAX_CHECKS: usize = 32;
/// Most characters of a reason; the rest is cut.
const MAX_REASON_CHARS: usize = 200;

/// The checks of this node; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    started: bool,
    draining: bool,
    checks: Vec<CheckReport>,
}

/// A check's name and, when it fails, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The check.
    pub name: &'static str,
    /// Why it fails; `None` when it passes.
    pub failure: Option<String>,
}

/// Sets one check.
#[derive(Debug, Clone)]
pub struct Check {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// A node that starts: not ready until `started` is called.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a check, which fails as "starting" until it is set; one name is one check.
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check {
            readiness: self.clone(),
            name,
        };
        check.fail("starting");
        check
    }

    /// Says that every listener is open.
    pub fn started(&self) {
        self.0.lock().started = true;
    }

    /// Says that this node drains; nothing makes it ready again.
    pub fn drain(&self) {
        self.0.lock().draining = true;
    }

    /// Whether every check passes, on a node that has started and does not drain.
    pub fn is_ready(&self) -> bool {
        let state = self.0.lock();
        state.started && !state.draining && state.checks.iter().all(|check| check.failure.is_none())
    }

    /// Every check, the node's own state first.
    pub fn report(&self) -> Vec<CheckReport> {
        let state = self.0.lock();
        let failure = match (state.draining, state.started) {
            (true, _) => Some("draining".to_owned()),
            (false, false) => Some("starting".to_owned()),
            (false, true) => None,
        };
        let node = CheckReport {
            name: "node",
            failure,
        };
        std::iter::once(node)
            .chain(state.checks.iter().cloned())
            .collect()
    }

    fn set(&self, name: &'static str, failure: Option<String>) {
        let mut state = self.0.lock();
        if let Some(check) = state.checks.iter_mut().find(|check| check.name == name) {
            check.failure = failure;
        } else if state.checks.len() < MAX_CHECKS {
            state.checks.push(CheckReport { name, failure });
        } else if let Some(last) = state.checks.last_mut() {
            last.failure = Some("too many checks".to_owned());
        }
    }
}

impl Check {
    /// The check passes.
    pub fn pass(&self) {
        self.readiness.set(self.name, None);
    }

    /// The check fails; the reason is shown to whoever asks the metrics listener.
    pub fn fail(&self, reason: &str) {
        let reason = reason.chars().take(MAX_REASON_CHARS).collect();
        self.readiness.set(self.name, Some(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_once_it_started_and_every_check_passes() {
        let readiness = Readiness::new();
        let registry = readiness.check("registry");
        readiness.started();
        assert!(!readiness.is_ready());
        registry.pass();
        assert!(readiness.is_ready());
        registry.fail("database is locked");
        assert!(!readiness.is_ready());
        assert_eq!(
            readiness.report(),
            [
                CheckReport {
                    name: "node",
                    failure: None
                },
                CheckReport {
                    name: "registry",
                    failure: Some("database is locked".to_owned())
                },
            ]
        );
    }

    #[test]
    fn draining_is_never_undone() {
        let readiness = Readiness::new();
        readiness.drain();
        readiness.started();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report()[0].failure.as_deref(), Some("draining"));
    }

    #[test]
    fn checks_and_reasons_are_bounded() {
        let readiness = Readiness::new();
        readiness.started();
        for index in 0..100 {
            let name: &'static str = Box::leak(format!("check {index}").into_boxed_str());
            readiness.check(name).pass();
        }
        assert_eq!(readiness.report().len(), 1 + MAX_CHECKS);
        assert!(!readiness.is_ready());
        readiness.check("check 0").fail(&"x".repeat(1000));
        let reason = readiness.report()[1].failure.clone().expect("it fails");
        assert_eq!(reason.len(), MAX_REASON_CHARS);
    }
}
