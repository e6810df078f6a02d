//! What a task will do, and why it or a delivery does not get on, in plain words.

use std::fmt::Display;

use crate::{
    edge::console::{
        show,
        text::{TEXTS, fill},
    },
    model::{TargetFilter, Task, TaskPolicy, policy::Pace},
    service::delivery::WaitReason,
};

/// Why a delivery waits.
pub(super) fn why_waits(reason: WaitReason) -> &'static str {
    let t = &TEXTS.waiting;
    match reason {
        WaitReason::Paused => t.paused,
        WaitReason::Scheduled => t.scheduled,
        WaitReason::Backoff => t.backoff,
        WaitReason::Offline => t.offline,
        WaitReason::DeviceBusy => t.device_busy,
        WaitReason::NotInWindow => t.not_in_window,
        WaitReason::Canary => t.canary,
        WaitReason::InProgressLimit => t.in_progress_limit,
        WaitReason::Paced => t.paced,
        WaitReason::DeviceHasNotAsked => t.device_has_not_asked,
        WaitReason::BytesRate => t.bytes_rate,
        WaitReason::NodeBudget => t.node_budget,
        WaitReason::WindowFull => t.window_full,
        WaitReason::Confirming => t.confirming,
    }
}

/// Why a delivery failed, from the stored reason and detail.
pub(super) fn why_failed(reason: Option<&str>, detail: Option<&str>) -> String {
    let t = &TEXTS.failure;
    let detail = detail.unwrap_or_default();
    let text = match reason {
        Some("canceled") => t.canceled,
        Some("aborted") => t.aborted,
        Some("incomplete") => t.incomplete,
        Some("device") => t.device,
        Some("timeout") => match detail {
            "confirm_timeout" => t.confirm_timeout,
            "step_timeout" => t.step_timeout,
            "in_progress_timeout" => t.in_progress_timeout,
            _ => t.timeout,
        },
        Some("rejected") => t.rejected,
        Some("resource_gone") => t.resource_gone,
        Some("device_gone") => t.device_gone,
        _ => t.unknown,
    };
    fill(text, &[("detail", &detail)])
}

/// What is to be said of a task's state.
pub(super) fn why_task(task: &Task) -> Option<String> {
    let t = &TEXTS.tasks;
    if let Some(error) = &task.creation_error {
        return Some(fill(t.not_made, &[("reason", error)]));
    }
    match (task.run, task.policy.start_at) {
        (crate::model::RunState::Scheduled, Some(start)) => {
            Some(fill(t.starts_at, &[("time", &show::time(start))]))
        }
        (crate::model::RunState::Aborted, _) => Some(t.was_aborted.to_owned()),
        _ => None,
    }
}

/// What a policy means, one sentence for each rule.
pub(in crate::edge::console) fn in_plain_words(
    policy: &TaskPolicy,
    filter: Option<&TargetFilter>,
) -> Vec<String> {
    let t = &TEXTS.plan;
    let mut all = Vec::new();
    let mut say = |text: &str, values: &[(&str, &dyn Display)]| all.push(fill(text, values));
    if let Some(filter) = filter {
        match (&filter.name, &filter.app) {
            (Some(name), Some(app)) => {
                say(t.filter_both, &[("name", &name.as_str()), ("app", app)]);
            }
            (Some(name), None) => say(t.filter_name, &[("name", &name.as_str())]),
            (None, Some(app)) => say(t.filter_app, &[("app", app)]),
            (None, None) => say(t.filter_all, &[]),
        }
    }
    match policy.start_at {
        Some(start) => say(t.start_at, &[("time", &show::time(start))]),
        None => say(t.start_now, &[]),
    }
    if let Some(window) = &policy.window {
        let (from, to, offset) = (window.from, window.to, window.utc_offset);
        say(
            t.window,
            &[("from", &from), ("to", &to), ("offset", &offset)],
        );
    }
    if let Some(canary) = &policy.canary {
        match (canary.devices, canary.percent) {
            (Some(devices), _) => say(t.canary_devices, &[("count", &devices)]),
            (None, share) => say(t.canary_percent, &[("percent", &share.unwrap_or(0))]),
        }
        match canary.success_percent {
            Some(percent) => say(t.canary_by_itself, &[("percent", &percent)]),
            None => say(t.canary_by_hand, &[]),
        }
    }
    match &policy.pace {
        Some(Pace {
            per_minute,
            ramp: None,
        }) => say(t.pace, &[("count", per_minute)]),
        Some(Pace {
            per_minute,
            ramp: Some(ramp),
        }) => {
            let factor = ramp.factor.value();
            let values: [(&str, &dyn Display); 4] = [
                ("count", per_minute),
                ("factor", &factor),
                ("every", &ramp.every_succeeded),
                ("most", &ramp.max_per_minute),
            ];
            say(t.ramp, &values);
        }
        None => say(t.no_pace, &[]),
    }
    if let Some(most) = policy.max_in_progress {
        say(t.max_in_progress, &[("count", &most)]);
    }
    if let Some(rate) = policy.bytes_per_sec {
        say(t.bytes_per_sec, &[("rate", &show::bytes(rate))]);
    }
    if let Some(abort) = &policy.abort {
        let values: [(&str, &dyn Display); 2] = [
            ("percent", &abort.failed_percent),
            ("count", &abort.min_finished),
        ];
        say(t.abort, &values);
    }
    if let Some(max) = policy.attempts.max {
        say(t.attempts, &[("count", &max)]);
    }
    let timers = &policy.timers;
    for (text, secs) in [
        (t.step_timeout, timers.step_timeout_secs),
        (t.in_progress_timeout, timers.in_progress_timeout_secs),
        (t.confirm_timeout, timers.confirm_timeout_secs),
    ] {
        if let Some(secs) = secs {
            say(text, &[("time", &show::duration(u64::from(secs)))]);
        }
    }
    all
}
