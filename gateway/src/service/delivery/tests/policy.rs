//! Attempts, timers, canaries and the threshold at which a task is given up.

use super::*;
use crate::model::Again;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn what_went_wrong_for_a_moment_is_tried_again_at_once() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    stage.connect("p_d1");
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let mut attempts = Vec::new();
    for _ in 0..3 {
        let delivery = stage.offer("p_d1");
        stage.delivery.on_announced(&delivery).await;
        stage.transfer(&delivery, 0, 10_000).await;
        attempts.push(delivery.attempt);
        stage.links.woken.lock().clear();
        assert_ne!(stage.report("p_d1", DownloadState::Done).await, 0);
    }
    assert_eq!(attempts, [1, 2, 3]);
    let ended = stage.delivery.task(task.id).await.expect("known");
    assert_eq!(
        (ended.task.run, ended.counts.failed),
        (RunState::Finished, 1),
        "there is an end to it"
    );
    assert!(matches!(
        stage.delivery.offer(&id("p_d1"), None),
        Offer::Nothing
    ));
}

#[tokio::test]
async fn what_passes_is_tried_again_after_a_wait() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    stage.connect("p_d1");
    stage.task(&["p_d1"]).await.expect("made");
    let first = stage.offer("p_d1");
    stage.delivery.on_announced(&first).await;
    stage.transfer(&first, 0, 50_000).await;
    stage.links.woken.lock().clear();
    stage.fail("p_d1", 4).await;
    assert_eq!(stage.waiting(first.id).await, Some(WaitReason::Backoff));
    assert!(matches!(
        stage.delivery.offer(&id("p_d1"), None),
        Offer::Waiting
    ));
    stage.pass(Duration::from_secs(20)).await;
    assert_eq!(*stage.links.woken.lock(), []);
    stage.pass(MINUTE).await;
    assert_eq!(*stage.links.woken.lock(), [id("p_d1")], "its time has come");
    let again = stage.delivery.inner.book.by_id(first.id).expect("open");
    assert_eq!((again.attempt, again.acknowledged_bytes()), (2, 50_000));
    assert!(!again.backs_off(Millis::now().after(MINUTE)));
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    for code in crate::model::again::RESULT_CODES {
        if code.again != Again::Never {
            continue;
        }
        let stage = Stage::new(DeliveryConfig::default()).await;
        stage.task(&["p_d1"]).await.expect("made");
        let delivery = stage.offer("p_d1");
        stage.delivery.on_announced(&delivery).await;
        stage.fail("p_d1", code.code).await;
        let (state, reason) = stage.state(&delivery).await;
        assert_eq!(state, DeliveryState::Failed, "{code:?}");
        assert_eq!(reason.as_deref(), Some("device"));
    }
}

#[tokio::test]
async fn bytes_that_did_not_verify_are_sent_anew() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, SIZE).await;
    stage.fail("p_d1", -4).await;
    let again = stage.offer("p_d1");
    assert_eq!((again.attempt, again.acknowledged_bytes()), (2, 0));
    assert!(!again.was_sent_whole());
}

#[tokio::test]
async fn an_operators_retry_begins_the_count_of_attempts_anew() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    let task = stage
        .task_with(&["p_d1"], r#"{"attempts":{"max":2}}"#)
        .await
        .expect("made")
        .task;
    for expected in [2, 4] {
        let mut last = 0;
        while let Offer::Ready(offered) = stage.delivery.offer(&id("p_d1"), None) {
            last = offered.delivery.attempt;
            stage.delivery.on_announced(&offered.delivery).await;
            stage.fail("p_d1", 7).await;
        }
        assert_eq!(last, expected);
        assert_eq!(stage.run_of(task.id).await, RunState::Finished);
        stage
            .delivery
            .retry_task(&actor(), task.id, Chosen::All)
            .await
            .expect("it failed");
    }
}

#[tokio::test]
async fn a_silent_device_is_given_time_for_what_is_under_way() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    let after = |secs| std::time::Instant::now() + Duration::from_secs(secs);
    assert_eq!(stage.delivery.overdue(&delivery, after(59)), None);
    assert_eq!(
        stage.delivery.overdue(&delivery, after(61)),
        Some("step_timeout")
    );
    stage
        .delivery
        .begin(&delivery, &window(&delivery, None), limits())
        .await
        .expect("begins");
    delivery.on_sent(Chunk {
        offset: 0,
        len: 51_200,
    });
    assert_eq!(
        stage.delivery.overdue(&delivery, after(199)),
        None,
        "51,200 bytes at 256 a second"
    );
    delivery.set_hold(Hold::BytesRate);
    assert_eq!(
        stage.delivery.overdue(&delivery, after(9_000)),
        None,
        "it waits for us"
    );
    delivery.set_hold(Hold::None);
    assert_eq!(
        stage.delivery.overdue(&delivery, after(201)),
        Some("step_timeout")
    );
    stage.pass(Duration::from_secs(201)).await;
    assert_eq!(
        stage.state(&delivery).await,
        (DeliveryState::Failed, Some("timeout".to_owned()))
    );
}

#[tokio::test]
async fn a_task_has_timers_of_its_own_and_a_held_one_has_none() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    let policy = r#"{"timers":{"step_timeout_secs":5,"confirm_timeout_secs":10}}"#;
    let task = stage.task_with(&["p_d1"], policy).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    let after = |secs| std::time::Instant::now() + Duration::from_secs(secs);
    assert_eq!(
        stage.delivery.overdue(&delivery, after(6)),
        Some("step_timeout")
    );
    stage.transfer(&delivery, 0, SIZE).await;
    assert_eq!(stage.delivery.overdue(&delivery, after(9)), None);
    assert_eq!(
        stage.delivery.overdue(&delivery, after(11)),
        Some("confirm_timeout")
    );
    stage
        .delivery
        .pause_task(&actor(), task.id)
        .await
        .expect("running");
    assert_eq!(stage.delivery.overdue(&delivery, after(11)), None);
}

#[tokio::test]
async fn a_device_that_stays_away_is_waited_for_up_to_a_time() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.links.online.lock().clear();
    stage.delivery.on_disconnected(&id("p_d1"));
    stage.pass(HOUR * 23).await;
    assert_eq!(stage.waiting(delivery.id).await, Some(WaitReason::Offline));
    stage.pass(HOUR * 25).await;
    let ended = stage.delivery.delivery(delivery.id).await.expect("known");
    assert_eq!(
        ended.delivery.detail.as_deref(),
        Some("in_progress_timeout")
    );
    let counts = stage.delivery.task(task.id).await.expect("known").counts;
    assert_eq!(
        (counts.failed, counts.pending),
        (1, 1),
        "one that was never told waits on"
    );
}

#[tokio::test]
async fn a_device_that_was_away_at_a_restart_is_waited_for_no_longer_than_before() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, 10_000).await;
    let stage = stage.restart().await;
    stage.pass(HOUR * 25).await;
    let ended = stage.delivery.delivery(delivery.id).await.expect("known");
    assert_eq!(
        ended.delivery.detail.as_deref(),
        Some("in_progress_timeout")
    );
}

#[tokio::test]
async fn a_task_of_which_too_much_fails_is_given_up_with_what_is_in_progress() {
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(5).await;
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    let policy = r#"{"abort":{"failed_percent":50,"min_finished":3}}"#;
    let task = stage.task_with(&names, policy).await.expect("made").task;
    let running = {
        stage.connect("p_n4");
        let running = stage.offer("p_n4");
        stage.delivery.on_announced(&running).await;
        running
    };
    stage.deliver("p_n0").await;
    for (device, canceled) in [("p_n1", true), ("p_n2", false)] {
        let failing = stage.offer(device);
        stage.delivery.on_announced(&failing).await;
        if canceled {
            stage
                .delivery
                .cancel_delivery(&actor(), failing.id)
                .await
                .expect("open");
        } else {
            stage.fail(device, 8).await;
        }
    }
    stage.delivery.settle_tasks().await;
    assert_eq!(
        stage.run_of(task.id).await,
        RunState::Running,
        "two have ended, and what was cancelled counts for nothing"
    );
    let failing = stage.offer("p_n3");
    stage.delivery.on_announced(&failing).await;
    stage.fail("p_n3", 8).await;
    stage.delivery.settle_tasks().await;
    assert_eq!(stage.run_of(task.id).await, RunState::Aborted);
    assert_eq!(
        stage.state(&running).await,
        (DeliveryState::Failed, Some("aborted".to_owned()))
    );
    let told = stage.links.canceled.lock().clone();
    assert!(
        told.contains(&(id("p_n4"), running.transfer.to_string())),
        "{told:?}"
    );
    assert_eq!(stage.report("p_n4", DownloadState::Done).await, 0);
    let late = stage.state(&running).await;
    assert_eq!(late.0, DeliveryState::Failed, "a late done changes nothing");
    let refusal = stage.delivery.find(&id("p_n4"), &running.transfer).await;
    assert_eq!(refusal.expect_err("over").code, TransferErrorCode::Canceled);
    let these = Chosen::These(vec![running.id]);
    stage
        .delivery
        .retry_task(&actor(), task.id, these)
        .await
        .expect("it failed");
    stage.delivery.settle_tasks().await;
    assert_eq!(
        stage.run_of(task.id).await,
        RunState::Running,
        "an operator tries again: the count begins anew"
    );
    stage.deliver("p_n4").await;
}

#[tokio::test]
async fn a_canary_that_does_well_lets_the_others_go() {
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(4).await;
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    let policy = r#"{"canary":{"percent":50,"success_percent":100}}"#;
    let task = stage.task_with(&names, policy).await.expect("made").task;
    stage.deliver("p_n0").await;
    stage.connect("p_n1");
    let second = stage.offer("p_n1");
    stage.connect("p_n2");
    assert!(matches!(
        stage.delivery.offer(&id("p_n2"), None),
        Offer::Waiting
    ));
    let third = stage.delivery.open_of_device(&id("p_n2"))[0];
    assert_eq!(stage.waiting(third).await, Some(WaitReason::Canary));
    // A restart changes nothing about who goes first.
    stage.delivery.on_announced(&second).await;
    let stage = stage.restart().await;
    assert!(matches!(
        stage.delivery.offer(&id("p_n2"), None),
        Offer::Waiting
    ));
    stage.deliver("p_n1").await;
    stage.links.woken.lock().clear();
    stage.delivery.settle_tasks().await;
    assert!(stage.links.woken.lock().contains(&id("p_n2")));
    let promoted = stage.delivery.task(task.id).await.expect("known").task;
    assert!(promoted.promoted_at.is_some());
    stage.deliver("p_n2").await;
    stage.deliver("p_n3").await;
    assert_eq!(stage.run_of(task.id).await, RunState::Finished);
}

#[tokio::test]
async fn a_canary_that_fails_holds_the_others_until_an_operator_promotes() {
    let stage = Stage::new(once()).await;
    let policy = r#"{"canary":{"devices":1,"success_percent":100}}"#;
    let task = stage
        .task_with(&["p_d1", "p_d2"], policy)
        .await
        .expect("made")
        .task;
    let canary = stage.offer("p_d1");
    stage.delivery.on_announced(&canary).await;
    stage.fail("p_d1", 8).await;
    stage.delivery.settle_tasks().await;
    assert!(matches!(
        stage.delivery.offer(&id("p_d2"), None),
        Offer::Waiting
    ));
    stage
        .delivery
        .promote_task(&actor(), task.id)
        .await
        .expect("open");
    stage.offer("p_d2");
    let twice = stage.delivery.promote_task(&actor(), task.id).await;
    assert!(matches!(twice, Err(DeliveryError::Conflict(_))));
    let plain = stage.task(&["p_d1"]).await.expect("made").task;
    let none = stage.delivery.promote_task(&actor(), plain.id).await;
    assert!(
        matches!(none, Err(DeliveryError::Conflict(_))),
        "it has no canary"
    );
}

#[tokio::test]
async fn a_task_runs_from_its_time_on() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    let start = Millis::now().after(HOUR);
    let policy = format!(r#"{{"start_at":"{start}"}}"#);
    let task = stage
        .task_with(&["p_d1"], &policy)
        .await
        .expect("made")
        .task;
    assert_eq!(task.run, RunState::Scheduled);
    assert!(matches!(
        stage.delivery.offer(&id("p_d1"), None),
        Offer::Waiting
    ));
    let waiting = stage.delivery.open_of_device(&id("p_d1"))[0];
    assert_eq!(stage.waiting(waiting).await, Some(WaitReason::Scheduled));
    stage
        .delivery
        .pause_task(&actor(), task.id)
        .await
        .expect("scheduled");
    let resumed = stage
        .delivery
        .resume_task(&actor(), task.id)
        .await
        .expect("paused");
    assert_eq!(resumed.task.run, RunState::Scheduled);
    assert!(matches!(
        stage.delivery.offer(&id("p_d1"), None),
        Offer::Waiting
    ));
    stage.links.woken.lock().clear();
    stage.pass(HOUR + MINUTE).await;
    assert_eq!(stage.run_of(task.id).await, RunState::Running);
    assert_eq!(*stage.links.woken.lock(), [id("p_d1")]);
}

#[tokio::test]
async fn bytes_wait_for_their_turn_by_the_limits_of_task_and_node() {
    let limited = DeliveryConfig {
        max_bytes_per_sec: 1_000_000,
        ..once()
    };
    let stage = Stage::new(limited).await;
    stage
        .task_with(&["p_d1"], r#"{"bytes_per_sec":1000}"#)
        .await
        .expect("made");
    let delivery = stage.offer("p_d1");
    assert!(stage.delivery.limits_rate(&delivery));
    let now = std::time::Instant::now();
    let first = stage.delivery.reserve(&delivery, 10_000, now);
    let wait = || {
        let next = stage.delivery.reserve(&delivery, 1, now);
        stage.delivery.wait_of(&delivery, &next, now)
    };
    let by_task = wait();
    assert!(by_task > Duration::from_secs(9), "the task's: {by_task:?}");
    drop(first);
    let given_back = wait();
    assert!(given_back < Duration::from_secs(1), "{given_back:?}");
}
