//! A task that is changed while it runs.

use serde_json::{Value, json};

use super::*;

async fn edit(stage: &Stage, task: Id, policy: Value) -> Result<TaskView, DeliveryError> {
    let edit = TaskEdit {
        policy: Some(policy),
        ..TaskEdit::default()
    };
    stage.delivery.edit_task(&actor(), task, edit).await
}

fn is_waiting(stage: &Stage, device: &str) -> bool {
    matches!(stage.delivery.offer(&id(device), None), Offer::Waiting)
}

#[tokio::test]
async fn what_is_widened_goes_to_who_waits_and_what_is_narrowed_is_taken_from_nobody() {
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(4).await;
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    for name in &names {
        stage.connect(name);
    }
    let policy = r#"{"max_in_progress":1}"#;
    let task = stage.task_with(&names, policy).await.expect("made").task.id;
    let first = stage.offer("p_n0");
    assert!(is_waiting(&stage, "p_n1") && is_waiting(&stage, "p_n2"));
    stage.links.woken.lock().clear();
    let widened = json!({"max_in_progress": 2});
    let shown = edit(&stage, task, widened).await.expect("open");
    assert_eq!(shown.task.policy.max_in_progress, Some(2));
    assert_eq!(
        *stage.links.woken.lock(),
        [id("p_n1")],
        "in the same moment"
    );
    let second = stage.offer("p_n1");
    edit(&stage, task, json!({"max_in_progress": 1}))
        .await
        .expect("open");
    assert!(first.is_admitted() && second.is_admitted());
    stage.transfer(&first, 0, SIZE).await;
    assert_eq!(stage.report("p_n0", DownloadState::Done).await, 0);
    assert!(
        is_waiting(&stage, "p_n2"),
        "one is still out, and one may be"
    );
    let stage = stage.restart().await;
    stage.offer("p_n1");
    assert!(is_waiting(&stage, "p_n2"), "the change was stored");
}

#[tokio::test]
async fn hours_pace_and_bytes_a_second_are_changed_at_once() {
    let stage = Stage::new(once()).await;
    let names = ["p_d1", "p_d2"];
    for name in &names {
        stage.connect(name);
    }
    let policy = r#"{"pace":{"per_minute":1},"bytes_per_sec":1000}"#;
    let task = stage.task_with(&names, policy).await.expect("made").task.id;
    let delivery = stage.offer("p_d1");
    assert!(is_waiting(&stage, "p_d2"));
    let now = std::time::Instant::now();
    let before = stage.delivery.reserve(&delivery, 100_000, now);
    let waiting = stage.delivery.reserve(&delivery, 1, now);
    let wait = || stage.delivery.wait_of(&delivery, &waiting, now);
    assert!(wait() > Duration::from_secs(90));
    edit(&stage, task, json!({"bytes_per_sec": 10_000_000}))
        .await
        .expect("open");
    assert!(wait() < Duration::from_secs(1), "it waits no longer");
    stage.links.woken.lock().clear();
    edit(&stage, task, json!({"pace": null, "bytes_per_sec": null}))
        .await
        .expect("open");
    assert_eq!(*stage.links.woken.lock(), [id("p_d2")]);
    assert!(!stage.delivery.limits_rate(&delivery));
    assert_eq!(wait(), Duration::ZERO);
    before.settle_whole();
}

#[tokio::test]
async fn a_threshold_that_is_reached_already_ends_the_task() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task.id;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.fail("p_d1", 8).await;
    let abort = json!({"abort": {"failed_percent": 50, "min_finished": 1}});
    edit(&stage, task, abort).await.expect("open");
    // Nobody has to wait for a tick.
    while stage.run_of(task).await != RunState::Aborted {}
    let late = edit(&stage, task, json!({"abort": null})).await;
    assert!(matches!(late, Err(DeliveryError::Conflict(_))), "{late:?}");
    let named = TaskEdit {
        name: Some("the one that went wrong".to_owned()),
        ..TaskEdit::default()
    };
    let named = stage.delivery.edit_task(&actor(), task, named).await;
    assert_eq!(named.expect("a name").task.name, "the one that went wrong");
}

#[tokio::test]
async fn a_timer_that_is_shortened_runs_out_for_what_is_out() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    let task = stage.task(&["p_d1"]).await.expect("made").task.id;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    let timers = json!({"timers": {"in_progress_timeout_secs": 30}});
    edit(&stage, task, timers).await.expect("open");
    stage.delivery.on_disconnected(&id("p_d1"));
    stage.pass(Duration::from_secs(31)).await;
    let (state, reason) = stage.state(&delivery).await;
    assert_eq!(
        (state, reason.as_deref()),
        (DeliveryState::Failed, Some("timeout"))
    );
}

#[tokio::test]
async fn who_goes_first_is_settled_once_somebody_has_gone() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task.id;
    let canary = json!({"canary": {"devices": 1}});
    edit(&stage, task, canary.clone()).await.expect("not begun");
    let later = json!({"start_at": Millis::now().after(Duration::from_mins(5))});
    let scheduled = edit(&stage, task, later).await.expect("not begun").task;
    assert_eq!(scheduled.run, RunState::Scheduled);
    assert!(is_waiting(&stage, "p_d1"));
    let now = edit(&stage, task, json!({"start_at": null})).await;
    assert_eq!(now.expect("not begun").task.run, RunState::Running);
    stage.offer("p_d1");
    assert!(is_waiting(&stage, "p_d2"), "the canary goes first");
    for change in [json!({"canary": null}), json!({"start_at": Millis::now()})] {
        let refused = edit(&stage, task, change).await;
        assert!(matches!(refused, Err(DeliveryError::Conflict(_))));
    }
}

#[tokio::test]
async fn a_change_made_up_for_another_revision_is_refused() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let change = |max: u32| TaskEdit {
        policy: Some(json!({"max_in_progress": max})),
        revision: Some(task.revision()),
        ..TaskEdit::default()
    };
    let first = stage.delivery.edit_task(&actor(), task.id, change(5)).await;
    assert_ne!(first.expect("as read").task.revision(), task.revision());
    let second = stage.delivery.edit_task(&actor(), task.id, change(6)).await;
    assert!(matches!(second, Err(DeliveryError::Stale)), "{second:?}");
}

#[tokio::test]
async fn what_was_tried_again_counts_no_more_against_the_threshold_after_a_restart() {
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(4).await;
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    let policy = r#"{"abort":{"failed_percent":100,"min_finished":2}}"#;
    let task = stage.task_with(&names, policy).await.expect("made").task.id;
    let mut failed = Vec::new();
    for name in &names[..2] {
        let delivery = stage.offer(name);
        stage.delivery.on_announced(&delivery).await;
        stage.fail(name, 8).await;
        failed.push(delivery.id);
    }
    stage.delivery.settle_tasks().await;
    assert_eq!(stage.run_of(task).await, RunState::Aborted);
    // One of the two, and those that the end of the task took along stay as they are.
    let these = Chosen::These(vec![failed[0]]);
    let retried = stage.delivery.retry_task(&actor(), task, these).await;
    retried.expect("it failed");
    let stage = stage.restart().await;
    stage.delivery.settle_tasks().await;
    assert_eq!(
        stage.run_of(task).await,
        RunState::Running,
        "what had failed before an operator tried again is settled"
    );
}
