//! What happens when an operator and a device, or two ends, come together: each row of the table in
//! `docs/operators.md`.

use super::*;

#[tokio::test]
async fn cancelled_before_done_it_stays_failed_and_done_before_cancelled_it_stays_delivered() {
    for cancel_first in [true, false] {
        let stage = Stage::new(once()).await;
        stage.task(&["p_d1"]).await.expect("made");
        let delivery = stage.offer("p_d1");
        stage.delivery.on_announced(&delivery).await;
        stage.transfer(&delivery, 0, SIZE).await;
        let expected = if cancel_first {
            stage
                .delivery
                .cancel_delivery(&actor(), delivery.id)
                .await
                .expect("open");
            assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
            DeliveryState::Failed
        } else {
            assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
            let late = stage.delivery.cancel_delivery(&actor(), delivery.id).await;
            assert!(matches!(late, Err(DeliveryError::Conflict(_))));
            DeliveryState::Delivered
        };
        assert_eq!(stage.state(&delivery).await.0, expected);
    }
}

#[tokio::test]
async fn acknowledgements_of_the_attempt_before_mean_nothing_to_the_next() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let first = stage.offer("p_d1");
    stage.delivery.on_announced(&first).await;
    stage.transfer(&first, 0, 10_000).await;
    stage.fail("p_d1", 8).await;
    stage
        .delivery
        .retry_delivery(&actor(), first.id)
        .await
        .expect("it failed");
    let late = Chunk {
        offset: 10_000,
        len: 90_000,
    };
    first.on_sent(late);
    stage.delivery.on_acknowledged(&first, late);
    let again = stage.offer("p_d1");
    assert_eq!((again.attempt, again.acknowledged_bytes()), (2, 0));
    assert!(!again.was_sent_whole());
}

#[tokio::test]
async fn what_is_said_about_the_attempt_before_does_not_fail_the_next() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let first = stage.offer("p_d1");
    stage.delivery.on_announced(&first).await;
    stage.fail("p_d1", 8).await;
    stage
        .delivery
        .retry_delivery(&actor(), first.id)
        .await
        .expect("it failed");
    for state in [
        DownloadState::Done,
        DownloadState::Fail,
        DownloadState::Downloading,
    ] {
        assert_eq!(stage.report("p_d1", state).await, 0);
        assert_eq!(
            stage.state(&first).await.0,
            DeliveryState::Pending,
            "{state:?}"
        );
    }
}

#[tokio::test]
async fn a_late_done_of_a_device_that_was_sent_everything_is_believed() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    stage.connect("p_d1");
    stage.task(&["p_d1"]).await.expect("made");
    let first = stage.offer("p_d1");
    stage.delivery.on_announced(&first).await;
    stage.transfer(&first, 0, SIZE).await;
    stage.pass(Duration::from_mins(31)).await;
    let waiting = stage
        .delivery
        .delivery(first.id)
        .await
        .expect("known")
        .delivery;
    assert_eq!(
        (waiting.attempt, waiting.state),
        (2, DeliveryState::Pending)
    );
    assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(stage.state(&first).await, (DeliveryState::Delivered, None));
}

#[tokio::test]
async fn cancelled_while_its_failure_is_recorded_it_is_not_tried_again() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    // The failure is decided, and its record is on its way.
    let failing = stage.delivery.finish(
        &delivery,
        DeliveryState::Failed,
        Some(FailReason::Incomplete),
    );
    let me = actor();
    let canceling = stage.delivery.cancel_delivery(&me, delivery.id);
    tokio::pin!(failing);
    assert!(futures_util::poll!(&mut failing).is_pending());
    assert!(delivery.state().is_final());
    canceling.await.expect("there was something to cancel");
    failing.await.expect("recorded");
    assert_eq!(
        stage.state(&delivery).await,
        (DeliveryState::Failed, Some("canceled".to_owned()))
    );
    // The same with the whole task.
    let delivery = stage.offer("p_d2");
    stage.delivery.on_announced(&delivery).await;
    let failing = stage.delivery.finish(
        &delivery,
        DeliveryState::Failed,
        Some(FailReason::Incomplete),
    );
    tokio::pin!(failing);
    assert!(futures_util::poll!(&mut failing).is_pending());
    let canceling = stage.delivery.cancel_task(&me, task.id, Chosen::All);
    canceling.await.expect("open");
    failing.await.expect("recorded");
    assert_eq!(stage.delivery.inner.book.len(), 0, "nothing was left open");
    assert_eq!(stage.run_of(task.id).await, RunState::Canceled);
}

#[tokio::test]
async fn done_while_held_is_done() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, SIZE).await;
    stage
        .delivery
        .pause_task(&actor(), task.id)
        .await
        .expect("running");
    assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(
        stage.state(&delivery).await,
        (DeliveryState::Delivered, None)
    );
    assert_eq!(stage.run_of(task.id).await, RunState::Finished);
}

#[tokio::test]
async fn some_of_a_task_are_cancelled_and_tried_again() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task;
    let chosen = stage.delivery.open_of_device(&id("p_d1"))[0];
    let these = || Chosen::These(vec![chosen]);
    let view = stage
        .delivery
        .cancel_task(&actor(), task.id, these())
        .await
        .expect("open");
    assert_eq!((view.counts.failed, view.counts.pending), (1, 1));
    assert_eq!(view.task.run, RunState::Running);
    let view = stage
        .delivery
        .retry_task(&actor(), task.id, these())
        .await
        .expect("failed");
    assert_eq!((view.counts.failed, view.counts.pending), (0, 2));
    let none = stage.delivery.retry_task(&actor(), task.id, these()).await;
    assert!(matches!(none, Err(DeliveryError::Conflict(_))));
    let stranger = Chosen::These(vec![task.id]);
    let unknown = stage
        .delivery
        .cancel_task(&actor(), task.id, stranger)
        .await;
    assert!(matches!(unknown, Err(DeliveryError::NotFound(_))));
}

#[tokio::test]
async fn two_who_try_again_at_once_make_one_attempt() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage
        .delivery
        .cancel_delivery(&actor(), delivery.id)
        .await
        .expect("open");
    let me = actor();
    let (one, other) = tokio::join!(
        stage.delivery.retry_delivery(&me, delivery.id),
        stage.delivery.retry_task(&me, task.id, Chosen::All),
    );
    assert!(one.is_ok() && matches!(other, Err(DeliveryError::Conflict(_))));
    assert_eq!(stage.delivery.inner.book.len(), 1);
    assert_eq!(stage.offer("p_d1").attempt, 2);
}

#[tokio::test]
async fn only_what_has_ended_is_deleted() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task;
    let open = stage.delivery.delete_task(&actor(), task.id).await;
    assert!(matches!(open, Err(DeliveryError::Conflict(_))));
    stage
        .delivery
        .pause_task(&actor(), task.id)
        .await
        .expect("running");
    let held = stage.delivery.delete_task(&actor(), task.id).await;
    assert!(matches!(held, Err(DeliveryError::Conflict(_))));
    let delivery = stage.delivery.open_of_device(&id("p_d1"))[0];
    stage
        .delivery
        .cancel_task(&actor(), task.id, Chosen::All)
        .await
        .expect("open");
    stage
        .delivery
        .delete_task(&actor(), task.id)
        .await
        .expect("ended");
    for gone in [
        stage.delivery.task(task.id).await.map(drop),
        stage.delivery.delete_task(&actor(), task.id).await,
        stage.delivery.retry_delivery(&actor(), delivery).await,
    ] {
        assert!(matches!(gone, Err(DeliveryError::NotFound(_))));
    }
}

#[tokio::test]
async fn what_is_gone_cannot_be_tried_again() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let delivery = stage.delivery.open_of_device(&id("p_d1"))[0];
    stage
        .delivery
        .cancel_task(&actor(), task.id, Chosen::All)
        .await
        .expect("open");
    let registry = &stage.delivery.inner.registry;
    let audit = actor().did("device.delete", "p_d1", "");
    registry
        .delete_device(&id("p_d1"), &audit)
        .await
        .expect("not in use");
    let gone = stage.delivery.retry_delivery(&actor(), delivery).await;
    assert!(matches!(
        gone,
        Err(DeliveryError::Conflict("the device was deleted"))
    ));
    stage
        .resources
        .delete(&actor(), stage.resource.id)
        .await
        .expect("not in use");
    let gone = stage.delivery.retry_delivery(&actor(), delivery).await;
    assert!(matches!(gone, Err(DeliveryError::Conflict(_))), "{gone:?}");
    assert_eq!(stage.run_of(task.id).await, RunState::Canceled);
}

#[tokio::test]
async fn what_was_being_cancelled_at_a_kill_is_cancelled_at_the_start() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task;
    let registry = stage.delivery.inner.registry.clone();
    let moved = registry.change_task_run(
        task.id,
        &[RunState::Running],
        RunState::Canceled,
        Millis::now(),
        None,
    );
    assert!(moved.await.expect("recorded"));
    let stage = stage.restart().await;
    stage.delivery.end_left_over().await;
    let counts = stage.delivery.task(task.id).await.expect("known").counts;
    assert_eq!((counts.failed, counts.pending), (2, 0));
    assert_eq!(stage.run_of(task.id).await, RunState::Canceled);
}

#[tokio::test]
async fn a_download_without_bytes_is_no_delivering() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.report("p_d1", DownloadState::Downloading).await;
    assert_eq!(
        delivery.state(),
        DeliveryState::Pushed,
        "the device knows of it"
    );
    let report = DownloadReport {
        transfer: None,
        name: None,
        state: DownloadState::Downloading,
        percent: Some(3),
        result_code: 0,
        result_msg: String::new(),
    };
    stage.delivery.report(&id("p_d1"), &report).await;
    assert_eq!(
        delivery.state(),
        DeliveryState::Delivering,
        "by its own word"
    );
}

#[tokio::test]
async fn of_two_tasks_the_one_that_may_begin_goes() {
    let stage = Stage::new(once()).await;
    let later = Millis::now().after(Duration::from_hours(1));
    let policy = format!(r#"{{"start_at":"{later}"}}"#);
    stage.task_with(&["p_d1"], &policy).await.expect("made");
    let now = stage.task(&["p_d1"]).await.expect("made").task;
    assert_eq!(stage.offer("p_d1").task.id, now.id);
}
