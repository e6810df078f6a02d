//! Tasks made for a filter, what tasks and deliveries cost, and what is kept of them.

use super::*;
use crate::{
    model::{CreationState, Page, TargetFilter},
    store::registry::AuditFilter,
};

impl Stage {
    async fn filtered(&self, name: Option<&str>) -> Result<TaskView, DeliveryError> {
        let filter = TargetFilter {
            name: name.map(|name| name.parse().expect("a pattern")),
            app: None,
        };
        self.task_for(Targets::Filter(filter), "{}").await
    }

    /// The task once it has been made, or could not be.
    async fn made(&self, task: Id) -> TaskView {
        for _ in 0..3_000 {
            let view = self.delivery.task(task).await.expect("known");
            let open = self.delivery.inner.book.of_task(task).len();
            let whole = u64::try_from(open).expect("small") == view.counts.pending;
            if view.task.creation != CreationState::Creating && whole {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is still being made")
    }
}

#[tokio::test]
async fn a_filter_finds_its_devices_in_the_background() {
    let stage = Stage::new(once()).await;
    stage.crowd(1_234).await;
    stage.connect("p_n7");
    let begun = stage.filtered(Some("n*")).await.expect("begun");
    assert_eq!(begun.task.creation, CreationState::Creating);
    let made = stage.made(begun.task.id).await;
    assert_eq!(made.task.creation, CreationState::Created);
    assert_eq!((made.task.total, made.counts.pending), (1_234, 1_234));
    assert_eq!(stage.offer("p_n7").task.id, made.task.id);
    let all = stage.filtered(None).await.expect("begun");
    assert_eq!(stage.made(all.task.id).await.task.total, 1_236);
}

#[tokio::test]
async fn a_filter_that_finds_none_or_too_many_leaves_nothing() {
    let few = DeliveryConfig {
        max_filter_devices: 700,
        ..once()
    };
    let stage = Stage::new(few).await;
    stage.crowd(1_000).await;
    for (name, error) in [
        ("nobody", "no device matches"),
        ("n*", "more than 700 devices match"),
    ] {
        let begun = stage.filtered(Some(name)).await.expect("begun");
        let ended = stage.made(begun.task.id).await;
        assert_eq!(ended.task.creation, CreationState::CreationFailed);
        assert_eq!(ended.task.creation_error.as_deref(), Some(error));
        assert_eq!((ended.task.run, ended.task.total), (RunState::Canceled, 0));
        assert_eq!(ended.counts.total(), 0);
        stage
            .delivery
            .delete_task(&actor(), begun.task.id)
            .await
            .expect("it is over");
    }
}

#[tokio::test]
async fn a_task_that_was_being_made_at_a_kill_is_made_at_the_start() {
    let stage = Stage::new(once()).await;
    stage.crowd(1_000).await;
    let begun = stage.filtered(Some("n*")).await.expect("begun").task;
    stage.made(begun.id).await;
    // As a kill between two blocks leaves it.
    let registry = stage.delivery.inner.registry.clone();
    registry
        .break_making(begun.id, "p_n5")
        .await
        .expect("broken");
    let stage = stage.restart().await;
    let made = stage.made(begun.id).await;
    assert_eq!((made.task.total, made.counts.pending), (1_000, 1_000));
    let mut devices: Vec<DeviceId> = stage
        .delivery
        .inner
        .book
        .of_task(begun.id)
        .iter()
        .map(|delivery| delivery.device_id.clone())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), 1_000, "each device once");
}

#[tokio::test]
async fn one_that_is_cancelled_while_it_is_made_leaves_nothing() {
    let stage = Stage::new(once()).await;
    stage.crowd(2_000).await;
    let begun = stage.filtered(Some("n*")).await.expect("begun").task;
    let canceled = stage
        .delivery
        .cancel_task(&actor(), begun.id, Chosen::All)
        .await;
    canceled.expect("open");
    let ended = stage.made(begun.id).await;
    assert_eq!(ended.task.run, RunState::Canceled);
    assert_eq!(ended.counts.pending, 0);
    assert_eq!(stage.delivery.inner.book.len(), 0);
}

#[tokio::test]
async fn a_task_of_ten_thousand_costs_few_statements_and_a_delivery_few_writes() {
    const ROWS: usize = 10_000;
    let stage = Stage::new(once()).await;
    let registry = stage.delivery.inner.registry.clone();
    let devices = stage.crowd(ROWS).await;
    let (statements, rows) = registry.cost().await.expect("counted");
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    let task = stage.task(&names).await.expect("made").task;
    let (after, written) = registry.cost().await.expect("counted");
    assert!(
        after - statements <= 100,
        "{} statements",
        after - statements
    );
    assert_eq!(
        written - rows,
        u64::try_from(ROWS).expect("small") + 3,
        "each delivery once, the task, its counts and its audit entry"
    );
    // The first hundred devices take theirs at the same time, each step apart from the next.
    let (statements, rows) = registry.cost().await.expect("counted");
    let mut under_way = Vec::new();
    for name in &names[..100] {
        let delivery = stage.offer(name);
        stage.delivery.on_announced(&delivery).await;
        under_way.push(delivery);
    }
    let taken = under_way
        .iter()
        .map(|delivery| stage.transfer(delivery, 0, SIZE));
    futures_util::future::join_all(taken).await;
    let done = names[..100]
        .iter()
        .map(|name| stage.report(name, DownloadState::Done));
    futures_util::future::join_all(done).await;
    let (after, written) = registry.cost().await.expect("counted");
    assert!(
        written - rows <= 3 * 100,
        "{} rows for 100 deliveries",
        written - rows
    );
    assert!(
        after - statements <= 3 * 100,
        "{} statements for 100",
        after - statements
    );
    let counts = stage.delivery.task(task.id).await.expect("known").counts;
    assert_eq!(counts.delivered, 100);
    stage.delivery.flush().await;
    let cursors = stage.delivery.inner.sessions.load_cursors().await;
    assert_eq!(cursors.expect("read"), [], "small ones leave no cursor");
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten() {
    let stage = Stage::new(once()).await;
    let ended = stage.task(&["p_d1"]).await.expect("made").task;
    stage.deliver("p_d1").await;
    let open = stage.task(&["p_d2"]).await.expect("made").task;
    let days = |days: u64| Millis::now().after(Duration::from_hours(24 * days));
    stage.delivery.forget_old(days(179)).await.expect("looked");
    assert_eq!(stage.run_of(ended.id).await, RunState::Finished);
    stage
        .delivery
        .forget_old(days(181))
        .await
        .expect("forgotten");
    let gone = stage.delivery.task(ended.id).await;
    assert!(matches!(gone, Err(DeliveryError::NotFound(_))));
    assert_eq!(
        stage.run_of(open.id).await,
        RunState::Running,
        "what is open stays"
    );
    let registry = &stage.delivery.inner.registry;
    let kept: Vec<String> = registry
        .audit(&AuditFilter::default(), &Page::default())
        .await
        .expect("read")
        .items
        .into_iter()
        .map(|entry| entry.action)
        .collect();
    assert_eq!(kept, Vec::<String>::new());
}

#[tokio::test]
async fn a_report_has_every_delivery_or_every_attempt() {
    let stage = Stage::new(DeliveryConfig::default()).await;
    let task = stage.task(&["p_d1", "p_d2"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.fail("p_d1", 7).await;
    for (attempts, expected) in [(false, vec![2, 1]), (true, vec![1, 2, 1])] {
        let rows = stage
            .delivery
            .report_block(task.id, None, attempts)
            .await
            .expect("known");
        let found: Vec<u32> = rows.iter().map(|row| row.delivery.attempt).collect();
        assert_eq!(found, expected);
        let last = rows.last().map(|row| row.delivery.id);
        assert_eq!(
            stage
                .delivery
                .report_block(task.id, last, attempts)
                .await
                .expect("known"),
            []
        );
    }
    let unknown = stage.delivery.report_block(delivery.id, None, true).await;
    assert!(matches!(unknown, Err(DeliveryError::NotFound("task"))));
}
