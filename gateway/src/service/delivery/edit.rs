//! What an operator changes about a task that there is: its name, and how it runs.
//!
//! A change acts at once on what has not happened yet. What it narrows takes nothing away from deliveries that hold a
//! place; what it widens is given to those that wait in the same moment.

use serde_json::Value;

use super::{
    DeliveryError, DeliveryService, TaskView,
    live::{LiveTask, Terms},
};
use crate::{
    model::{
        Actor, CreationState, Id, Millis, RunState, Task,
        policy::{Locked, Stage},
    },
    store::registry::TaskEdited,
};

/// A change of a task; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskEdit {
    /// Another label.
    pub name: Option<String>,
    /// A JSON merge patch of the policy.
    pub policy: Option<Value>,
    /// The revision of the task that the change was made up for: [`Task::revision`].
    pub revision: Option<String>,
}

impl DeliveryService {
    /// Changes a task.
    ///
    /// # Errors
    /// [`DeliveryError::Stale`] where the task is not of the revision any more, [`DeliveryError::Conflict`] where its
    /// state does not allow the change.
    pub async fn edit_task(
        &self,
        actor: &Actor,
        id: Id,
        edit: TaskEdit,
    ) -> Result<TaskView, DeliveryError> {
        let _alone = self.inner.controls.lock().await;
        let task = self.stored_task(id).await?;
        if edit.revision.is_some_and(|known| known != task.revision()) {
            return Err(DeliveryError::Stale);
        }
        let name = edit.name.unwrap_or_else(|| task.name.clone());
        super::task::check_name(&name)?;
        let policy = match &edit.policy {
            Some(patch) => task.policy.patched(patch)?,
            None => task.policy.clone(),
        };
        if policy != task.policy && task.creation != CreationState::Created {
            return Err(DeliveryError::Conflict("the task is still being made"));
        }
        let live = self.inner.book.task(id);
        let stage = Stage {
            run: task.run,
            begun: match &live {
                Some(live) => self.has_begun(live).await?,
                None => true,
            },
        };
        task.policy
            .check_change(&policy, stage)
            .map_err(|locked| DeliveryError::Conflict(why(locked)))?;
        let audit = actor.did("task.edit", id, describe(edit.policy.as_ref()));
        let registry = &self.inner.registry;
        match registry.edit_task(&task, &name, &policy, &audit).await? {
            TaskEdited::Stored => {}
            TaskEdited::Overtaken => return Err(DeliveryError::Stale),
        }
        if let Some(live) = live.filter(|_| policy != task.policy) {
            live.set_terms(Terms::new(policy, &self.inner.config));
            self.act_on_terms(&live, &task).await;
        }
        self.task(id).await
    }

    /// Whether a delivery of the task has begun, on whatever node.
    async fn has_begun(&self, live: &LiveTask) -> Result<bool, DeliveryError> {
        if self.inner.shared.is_none() {
            return Ok(live.has_begun());
        }
        let (_, begun) = self.inner.registry.standing_of(live.id).await?;
        Ok(begun > 0 || live.in_progress() > 0)
    }

    /// Sets the ends of what is out anew, by the time that it may take now.
    pub(super) fn set_ends_anew(&self, live: &LiveTask) {
        let terms = live.terms();
        for delivery in self.inner.book.of_task(live.id) {
            if let Some(since) = delivery.out_since() {
                let end = since.after(terms.timers.in_progress);
                self.inner.alarms.set(delivery.id, &delivery.alarm, end);
            }
        }
    }

    /// Lets a change of a policy act on what waits, and on what is out.
    async fn act_on_terms(&self, live: &LiveTask, former: &Task) {
        let terms = live.terms();
        let timers_before = Terms::new(former.policy.clone(), &self.inner.config).timers;
        if terms.timers.in_progress != timers_before.in_progress {
            self.set_ends_anew(live);
        }
        let early = live.starts_after(Millis::now());
        let (from, to) = if early {
            (RunState::Running, RunState::Scheduled)
        } else {
            (RunState::Scheduled, RunState::Running)
        };
        if live.run() == from {
            self.change_run(live, &[from], to, None).await;
        }
        live.feed.touch(false);
        self.inner.admission.recall(live.id);
        self.serve_waiting();
        // The threshold may be reached already, or the canary have done well enough.
        self.inner.nudge.notify_one();
    }
}

fn why(locked: Locked) -> &'static str {
    match locked {
        Locked::Ended => "a task that has ended keeps its policy",
        Locked::Begun => "canary and start_at cannot be changed once a delivery has begun",
    }
}

/// What the audit says: the rules that were named.
fn describe(patch: Option<&Value>) -> String {
    let rules = patch.and_then(Value::as_object);
    let names = rules.map(|rules| rules.keys().map(String::as_str).collect::<Vec<_>>());
    names.unwrap_or_default().join(", ")
}
