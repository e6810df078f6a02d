//! How steps find their way into the registry together.

use std::time::Instant;

use futures_util::future::join_all;

use super::*;
use crate::{
    model::DeliveryChange,
    service::delivery::{
        finish::ENDS_AT_ONCE,
        journal::{MAX_COMMIT, PACE},
    },
};

#[tokio::test]
async fn steps_that_follow_each_other_closely_share_a_commit() {
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(20).await;
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let task = stage.task(&devices).await.expect("made").task.id;
    let book = &stage.delivery.inner.book;
    let task_of = book.task(task).expect("open");
    let step = |delivery: &Arc<LiveDelivery>| DeliveryChange {
        delivery: delivery.id,
        attempt: 1,
        to: DeliveryState::Pushed,
        at: Millis::now(),
        reason: None,
        detail: None,
        by_hand: false,
        epoch: 0,
    };
    let journal = &stage.delivery.inner.journal;
    let commits = stage
        .delivery
        .inner
        .metrics
        .store_seconds("registry", "deliveries");
    let before = commits.get_sample_count();
    let deliveries = book.of_task(task);
    let (first, others) = deliveries.split_first().expect("some");

    let began = Instant::now();
    journal.commit(&task_of, step(first)).await.expect("stored");
    let others = others.iter().map(|one| journal.commit(&task_of, step(one)));
    for stored in join_all(others).await {
        stored.expect("stored");
    }
    assert_eq!(commits.get_sample_count() - before, 2);
    assert!(began.elapsed() >= PACE, "the second commit waited for more");
    let counts = stage
        .delivery
        .inner
        .registry
        .task(task)
        .await
        .expect("read");
    assert_eq!(counts.expect("known").1.pushed, 20);
}

#[tokio::test]
async fn deliveries_that_end_together_share_their_commits() {
    const COUNT: usize = ENDS_AT_ONCE + 200;
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(COUNT).await;
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let inner = &stage.delivery.inner;
    let commits = inner.metrics.store_seconds("registry", "deliveries");
    for by_name in [false, true] {
        let task = stage.task(&devices).await.expect("made").task.id;
        let ids = inner.book.of_task(task).iter().map(|one| one.id).collect();
        let chosen = if by_name {
            Chosen::These(ids)
        } else {
            Chosen::All
        };
        let before = commits.get_sample_count();
        let canceled = stage.delivery.cancel_task(&actor(), task, chosen).await;
        assert_eq!(canceled.expect("open").counts.failed, COUNT as u64);
        let commits = commits.get_sample_count() - before;
        let (least, most) = (COUNT.div_ceil(MAX_COMMIT) as u64, 10);
        assert!((least..=most).contains(&commits), "{commits} for {COUNT}");
        assert_eq!(inner.book.len(), 0);
    }
}

#[tokio::test]
async fn a_task_that_ends_is_over_for_all_at_once_and_recorded_in_blocks() {
    let stage = Stage::new(once()).await;
    let devices = stage.crowd(ENDS_AT_ONCE + 200).await;
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let task = stage.task(&devices).await.expect("made").task.id;
    let book = &stage.delivery.inner.book;
    let (deliveries, task) = (book.of_task(task), book.task(task).expect("open"));
    // Whatever is on its way into the registry knows its task.
    let before = Arc::strong_count(&task);
    let mut ending = std::pin::pin!(stage.delivery.end_all(&task));
    assert!(futures_util::poll!(&mut ending).is_pending());
    assert!(deliveries.iter().all(|one| one.state().is_final()));
    assert_eq!(Arc::strong_count(&task) - before, ENDS_AT_ONCE);
    ending.await;
    assert_eq!(book.len(), 0);
}

#[tokio::test]
async fn that_a_device_may_have_bytes_is_recorded_before_it_has_one() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1", "p_d2"]).await.expect("made");
    let (pushed, asked) = (stage.offer("p_d1"), stage.offer("p_d2"));
    let request = window(&pushed, None);
    let begun = stage.delivery.begin(&pushed, &request, limits()).await;
    begun.expect("begins");
    let begun = stage.delivery.begin_blocks(&asked, 0).await;
    begun.expect("begins");
    // Whoever is killed here starts with what the registry has.
    for delivery in [pushed, asked] {
        let found = stage.delivery.inner.registry.open_delivery(delivery.id);
        let (open, _) = found.await.expect("read").expect("open");
        assert_eq!(open.delivery.state, DeliveryState::Delivering);
    }
}
