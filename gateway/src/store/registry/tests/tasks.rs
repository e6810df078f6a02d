//! Tasks, and the steps of deliveries in every order that they can come in.

use std::time::Duration;

use super::*;
use crate::model::{
    CreationState, Delivery, DeliveryChange, DeliveryState, Resource, RunState, StateCounts,
    TargetFilter, Task, TaskPolicy, device::tests::device,
};

use DeliveryState::{Delivered, Delivering, Failed, Pending, Pushed};

pub(super) fn task(fixture: &Fixture, resource: &Resource) -> Task {
    Task {
        id: fixture.next_id(),
        name: "roll-out".to_owned(),
        resource_id: resource.id,
        resource_version: resource.version,
        product_id: resource.product_id.clone(),
        creation: CreationState::Created,
        run: RunState::Running,
        policy: TaskPolicy {
            max_in_progress: Some(5),
            ..TaskPolicy::default()
        },
        filter: None,
        creation_error: None,
        promoted_at: None,
        total: 0,
        created_at: at(100),
        finished_at: None,
        created_by: "admin".to_owned(),
    }
}

pub(super) fn deliveries(fixture: &Fixture, task: &Task, count: usize) -> Vec<Delivery> {
    (0..count)
        .map(|index| {
            let device = device("meter", &format!("n{index}"));
            Delivery {
                id: fixture.next_id(),
                task_id: task.id,
                device_id: device.id,
                node_id: device.node_id,
                attempt: 1,
                state: Pending,
                reason: None,
                detail: None,
                created_at: at(100),
                pushed_at: None,
                delivering_at: None,
                finished_at: None,
            }
        })
        .collect()
}

async fn with_task(count: usize) -> (Fixture, Task, Vec<Delivery>) {
    let fixture = Fixture::with_product("meter").await;
    let new = version(1, 1, 10);
    let resource = Resource {
        id: fixture.next_id(),
        product_id: product("meter").id,
        name: headgate_protocol::identity::ResourceName::new("fw").unwrap(),
        description: String::new(),
        version: 1,
        size: 10,
        sha256: [1; 32],
        md5: [1; 16],
        created_at: at(5),
        updated_at: at(5),
    };
    fixture
        .insert_resource(&resource, &new, NO_LIMIT, &audit("x"))
        .await
        .unwrap();
    fixture
        .add_devices("meter", count.max(1_200))
        .await
        .unwrap();
    let mut task = task(&fixture, &resource);
    task.total = u32::try_from(count).unwrap();
    let deliveries = deliveries(&fixture, &task, count);
    fixture
        .insert_task(&task, &deliveries, &audit("task.create"))
        .await
        .unwrap();
    (fixture, task, deliveries)
}

fn change(delivery: Id, attempt: u32, to: DeliveryState, millis: i64) -> DeliveryChange {
    DeliveryChange {
        delivery,
        attempt,
        to,
        at: at(millis),
        reason: (to == Failed).then(|| "timeout".to_owned()),
        detail: None,
        by_hand: false,
        epoch: 0,
    }
}

pub(super) async fn a_task_of_ten_thousand_is_stored_whole() {
    let (fixture, task, deliveries) = with_task(10_000).await;
    let (stored, counts) = fixture.task(task.id).await.unwrap().unwrap();
    assert_eq!(stored, task);
    assert_eq!(counts.pending, 10_000);
    assert_eq!(counts.total(), 10_000);
    let mut page = Page::new(Some(500), None).unwrap();
    let mut read = Vec::new();
    loop {
        let part = fixture.deliveries(task.id, None, &page).await.unwrap();
        read.extend(part.items);
        let Some(next) = part.next else { break };
        page.cursor = Some(next);
    }
    assert_eq!(read, deliveries);
    assert_eq!(fixture.open_deliveries().await.unwrap().len(), 10_000);
}

pub(super) async fn deliveries_to_a_device_are_listed_newest_first() {
    let (fixture, mut task, first) = with_task(2).await;
    task.id = fixture.next_id();
    let second = deliveries(&fixture, &task, 2);
    fixture
        .insert_task(&task, &second, &audit("task.create"))
        .await
        .unwrap();
    let device = &first[1].device_id;
    let mut page = Page::new(Some(1), None).unwrap();
    let newest = fixture.deliveries_to(device, &page).await.unwrap();
    assert_eq!(newest.items, second[1..]);
    page.cursor = newest.next;
    let oldest = fixture.deliveries_to(device, &page).await.unwrap();
    assert_eq!(oldest.items, first[1..]);
    assert_eq!(oldest.next, None);
}

pub(super) async fn a_task_without_its_resource_or_with_a_broken_row_stores_nothing() {
    let (fixture, mut task, _) = with_task(1).await;
    task.id = fixture.next_id();
    task.resource_version = 2;
    let gone = fixture.insert_task(&task, &[], &audit("x")).await;
    assert!(matches!(
        gone,
        Err(StoreError::NotFound { what: "resource" })
    ));

    task.resource_version = 1;
    let mut rows = deliveries(&fixture, &task, 600);
    rows[599].id = rows[0].id;
    let broken = fixture.insert_task(&task, &rows, &audit("x")).await;
    assert!(matches!(broken, Err(StoreError::Database(_))));
    assert_eq!(fixture.task(task.id).await.unwrap(), None);
    assert_eq!(fixture.open_deliveries().await.unwrap().len(), 1);
}

pub(super) async fn a_task_for_a_device_that_is_gone_stores_nothing() {
    let (fixture, mut task, _) = with_task(1).await;
    task.id = fixture.next_id();
    let mut rows = deliveries(&fixture, &task, 3);
    rows[1].device_id = "meter_gone".parse().unwrap();
    let gone = fixture.insert_task(&task, &rows, &audit("x")).await;
    assert!(matches!(gone, Err(StoreError::NotFound { what: "device" })));
    assert_eq!(fixture.task(task.id).await.unwrap(), None);
}

pub(super) async fn a_task_is_made_in_blocks_or_leaves_nothing() {
    let (fixture, first, _) = with_task(1).await;
    for (error, creation, run) in [
        (None, CreationState::Created, RunState::Running),
        (
            Some("why"),
            CreationState::CreationFailed,
            RunState::Canceled,
        ),
    ] {
        let mut task = first.clone();
        task.id = fixture.next_id();
        task.creation = CreationState::Creating;
        task.filter = Some(TargetFilter {
            name: Some("n*".parse().unwrap()),
            app: None,
        });
        task.total = 0;
        fixture.insert_task(&task, &[], &audit("x")).await.unwrap();
        let rows = deliveries(&fixture, &task, 1_000);
        for (index, block) in rows.chunks(300).enumerate() {
            let before = index * 300;
            let added = fixture.add_deliveries(task.id, before, block).await;
            assert!(added.unwrap());
        }
        let open = fixture.open_deliveries().await.unwrap();
        assert!(
            open.iter().all(|open| open.delivery.task_id != task.id),
            "not yet"
        );
        let being_made = fixture.tasks_being_made().await.unwrap();
        assert_eq!(
            being_made.iter().map(|task| task.id).collect::<Vec<_>>(),
            [task.id]
        );
        let last = fixture.last_target(task.id).await.unwrap();
        assert_eq!(last, Some("meter_n999".parse().unwrap()));
        assert!(fixture.end_creation(task.id, error, at(7)).await.unwrap());
        assert!(!fixture.end_creation(task.id, error, at(7)).await.unwrap());
        assert!(
            !fixture
                .add_deliveries(task.id, 0, &rows[..1])
                .await
                .unwrap()
        );
        let (stored, counts) = fixture.task(task.id).await.unwrap().unwrap();
        assert_eq!((stored.creation, stored.run), (creation, run));
        assert_eq!(stored.creation_error.as_deref(), error);
        assert_eq!(stored.filter, task.filter);
        let left = if error.is_none() { 1_000 } else { 0 };
        assert_eq!((u64::from(stored.total), counts.total()), (left, left));
    }
}

pub(super) async fn devices_of_a_filter_come_in_blocks_in_their_order() {
    let (fixture, _, _) = with_task(1).await;
    let product = "meter".parse().unwrap();
    let first = fixture.target_devices(&product, None, None).await.unwrap();
    assert_eq!(first.len(), BLOCK);
    let last = &first.last().unwrap().id;
    let next = fixture
        .target_devices(&product, None, Some(last))
        .await
        .unwrap();
    assert!(next[0].id > *last);
    let app = "nobody".parse().unwrap();
    assert_eq!(
        fixture
            .target_devices(&product, Some(&app), None)
            .await
            .unwrap(),
        []
    );
}

pub(super) async fn what_is_old_is_deleted_in_blocks_and_counts_stay() {
    let (fixture, task, rows) = with_task(1_000).await;
    let ends: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let to = if index < 700 { Delivered } else { Failed };
            change(row.id, 1, to, 200)
        })
        .collect();
    fixture.apply_delivery_changes(&ends).await.unwrap();
    assert_eq!(
        fixture.purge_deliveries(task.id, 500).await.unwrap(),
        0,
        "it is open"
    );
    let end = fixture.change_task_run(
        task.id,
        &[RunState::Running],
        RunState::Finished,
        at(300),
        None,
    );
    assert!(end.await.unwrap());
    assert_eq!(fixture.ended_tasks(at(300), true, 9).await.unwrap(), []);
    assert_eq!(
        fixture.ended_tasks(at(301), true, 9).await.unwrap(),
        [task.id]
    );
    let entry = audit("task.delete");
    assert!(
        !fixture.delete_task(task.id, &entry).await.unwrap(),
        "deliveries are left"
    );
    for expected in [500, 500, 0] {
        assert_eq!(
            fixture.purge_deliveries(task.id, 500).await.unwrap(),
            expected
        );
        let (_, counts) = fixture.task(task.id).await.unwrap().unwrap();
        assert_eq!((counts.delivered, counts.failed), (700, 300));
    }
    assert_eq!(fixture.ended_tasks(at(301), true, 9).await.unwrap(), []);
    assert_eq!(
        fixture.ended_tasks(at(301), false, 9).await.unwrap(),
        [task.id]
    );
    assert!(fixture.delete_task(task.id, &entry).await.unwrap());
    assert_eq!(fixture.task(task.id).await.unwrap(), None);
    let now = Millis::now();
    assert_eq!(
        fixture
            .purge_audit(now.before(Duration::from_hours(1)).unwrap(), 1)
            .await
            .unwrap(),
        0
    );
    let later = now.after(Duration::from_hours(1));
    assert_eq!(fixture.purge_audit(later, 1).await.unwrap(), 1);
}

pub(super) async fn an_attempt_that_an_operator_asked_for_begins_a_round() {
    let (fixture, task, rows) = with_task(1).await;
    let id = rows[0].id;
    let by_hand = DeliveryChange {
        by_hand: true,
        ..change(id, 3, Pending, 30)
    };
    let steps = [
        change(id, 1, Failed, 10),
        change(id, 2, Pending, 10),
        change(id, 2, Failed, 20),
    ];
    fixture.apply_delivery_changes(&steps).await.unwrap();
    fixture.apply_delivery_changes(&[by_hand]).await.unwrap();
    let last = [change(id, 3, Failed, 40), change(id, 4, Pending, 40)];
    fixture.apply_delivery_changes(&last).await.unwrap();
    let open = fixture.open_deliveries().await.unwrap();
    assert_eq!((open[0].delivery.attempt, open[0].round), (4, 3));
    let history = fixture.delivery_history(task.id, None, 10).await.unwrap();
    let attempts: Vec<_> = history.iter().map(|row| (row.attempt, row.state)).collect();
    assert_eq!(
        attempts,
        [(1, Failed), (2, Failed), (3, Failed), (4, Pending)]
    );
    let found = fixture
        .deliveries_by_ids(task.id, &[id, fixture.next_id()])
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
}

pub(super) async fn tasks_are_listed_newest_first_with_their_counts() {
    let (fixture, first, _) = with_task(3).await;
    let mut second = first.clone();
    second.id = fixture.next_id();
    second.run = RunState::Paused;
    let rows = deliveries(&fixture, &second, 1);
    fixture
        .insert_task(&second, &rows, &audit("x"))
        .await
        .unwrap();
    let list = async |filter: TaskFilter| {
        let found = fixture.tasks(&filter, &Page::default()).await.unwrap();
        let tasks = found.items.into_iter();
        tasks
            .map(|(task, counts)| (task.id, counts.pending))
            .collect::<Vec<_>>()
    };
    let all = [(second.id, 1), (first.id, 3)];
    assert_eq!(list(TaskFilter::default()).await, all);
    let paused = TaskFilter {
        run: Some(RunState::Paused),
        product: Some(first.product_id.clone()),
        resource: Some(first.resource_id),
    };
    assert_eq!(list(paused).await, all[..1]);
    let other = TaskFilter {
        resource: Some(second.id),
        ..TaskFilter::default()
    };
    assert_eq!(list(other).await, []);
}

pub(super) async fn a_final_run_state_is_stamped() {
    let (fixture, task, _) = with_task(1).await;
    let mut from = RunState::Running;
    for (run, finished_at) in [
        (RunState::Paused, None),
        (RunState::Canceled, Some(at(50))),
        (RunState::Running, None),
    ] {
        let wrong = [RunState::Aborted, RunState::Finished];
        let entry = audit("task.x");
        let moved = fixture.change_task_run(task.id, &wrong, run, at(50), Some(&entry));
        assert!(!moved.await.unwrap(), "it is in none of these states");
        let right = [from, run];
        let moved = fixture.change_task_run(task.id, &right, run, at(50), Some(&entry));
        assert!(moved.await.unwrap());
        from = run;
        let (stored, _) = fixture.task(task.id).await.unwrap().unwrap();
        assert_eq!((stored.run, stored.finished_at), (run, finished_at));
    }
    let unknown = fixture.next_id();
    let gone = fixture.change_task_run(unknown, &[RunState::Running], from, at(1), None);
    assert!(!gone.await.unwrap());
}

pub(super) async fn steps_never_lead_back() {
    // (steps as batches, the state and stamps that come of them)
    type Batches = &'static [&'static [(DeliveryState, i64)]];
    type Stamps = (Option<i64>, Option<i64>, Option<i64>);
    let cases: [(Batches, DeliveryState, Stamps); 9] = [
        (&[&[(Pushed, 1)]], Pushed, (Some(1), None, None)),
        (
            &[&[(Pushed, 1)], &[(Delivering, 2)], &[(Delivered, 3)]],
            Delivered,
            (Some(1), Some(2), Some(3)),
        ),
        (
            &[&[(Pushed, 1), (Delivering, 2), (Delivered, 3)]],
            Delivered,
            (Some(1), Some(2), Some(3)),
        ),
        (
            &[&[(Delivering, 2)], &[(Pushed, 3)]],
            Delivering,
            (None, Some(2), None),
        ),
        (
            &[&[(Delivering, 2), (Pushed, 3)]],
            Delivering,
            (None, Some(2), None),
        ),
        (
            &[&[(Delivered, 2)], &[(Failed, 3)]],
            Delivered,
            (None, None, Some(2)),
        ),
        (
            &[&[(Failed, 2)], &[(Delivered, 3)]],
            Failed,
            (None, None, Some(2)),
        ),
        (
            &[&[(Failed, 2), (Delivered, 3)]],
            Failed,
            (None, None, Some(2)),
        ),
        (
            &[&[(Pushed, 1)], &[(Pushed, 9), (Delivering, 2)]],
            Delivering,
            (Some(1), Some(2), None),
        ),
    ];
    let (fixture, _, deliveries) = with_task(cases.len()).await;
    for (delivery, (batches, state, stamps)) in deliveries.iter().zip(cases) {
        for batch in batches {
            let changes: Vec<_> = batch
                .iter()
                .map(|&(to, at)| change(delivery.id, 1, to, at))
                .collect();
            fixture.apply_delivery_changes(&changes).await.unwrap();
        }
        let stored = fixture.delivery(delivery.id).await.unwrap().unwrap();
        assert_eq!(stored.state, state, "{batches:?}");
        let stored = (stored.pushed_at, stored.delivering_at, stored.finished_at);
        let expected = (stamps.0.map(at), stamps.1.map(at), stamps.2.map(at));
        assert_eq!(stored, expected, "{batches:?}");
    }
}

pub(super) async fn a_failure_keeps_its_reason_and_a_new_attempt_begins_without() {
    let (fixture, task, deliveries) = with_task(1).await;
    let id = deliveries[0].id;
    let mut failed = change(id, 1, Failed, 20);
    failed.detail = Some("confirm".to_owned());
    let steps = [change(id, 1, Pushed, 10), failed];
    assert_eq!(fixture.apply_delivery_changes(&steps).await.unwrap(), 1);
    let stored = fixture.delivery(id).await.unwrap().unwrap();
    assert_eq!(stored.reason.as_deref(), Some("timeout"));
    assert_eq!(stored.detail.as_deref(), Some("confirm"));
    assert_eq!(fixture.open_deliveries().await.unwrap(), []);

    let retry = [change(id, 2, Pending, 30)];
    assert_eq!(fixture.apply_delivery_changes(&retry).await.unwrap(), 1);
    assert_eq!(fixture.apply_delivery_changes(&retry).await.unwrap(), 0);
    let stored = fixture.delivery(id).await.unwrap().unwrap();
    assert_eq!(
        stored,
        Delivery {
            attempt: 2,
            created_at: at(30),
            ..deliveries[0].clone()
        }
    );
    // What arrives late for the first attempt changes nothing.
    let late = [change(id, 1, Delivered, 40)];
    assert_eq!(fixture.apply_delivery_changes(&late).await.unwrap(), 0);

    let attempts = fixture.delivery_attempts(id).await.unwrap();
    let stamps: Vec<_> = attempts
        .iter()
        .map(|a| (a.attempt, a.state, a.pushed_at, a.finished_at))
        .collect();
    assert_eq!(
        stamps,
        [
            (1, Failed, Some(at(10)), Some(at(20))),
            (2, Pending, None, None)
        ]
    );
    let open = fixture.open_deliveries().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].delivery, stored);
    assert_eq!(
        (open[0].resource_id, open[0].task_run),
        (task.resource_id, RunState::Running)
    );
    assert_eq!(fixture.delivery_attempts(task.id).await.unwrap(), []);
}

pub(super) async fn one_batch_may_hold_several_attempts() {
    let (fixture, _, deliveries) = with_task(2).await;
    let (one, two) = (deliveries[0].id, deliveries[1].id);
    let steps = [
        change(one, 1, Failed, 1),
        change(two, 1, Pushed, 1),
        change(one, 2, Pending, 2),
        change(one, 2, Failed, 3),
        change(one, 3, Pending, 4),
        change(one, 3, Pushed, 5),
    ];
    assert_eq!(fixture.apply_delivery_changes(&steps).await.unwrap(), 4);
    let attempts = fixture.delivery_attempts(one).await.unwrap();
    let states: Vec<_> = attempts.iter().map(|a| (a.attempt, a.state)).collect();
    assert_eq!(states, [(1, Failed), (2, Failed), (3, Pushed)]);
    assert_eq!(attempts[2].created_at, at(4));
    let stored = fixture.delivery(two).await.unwrap().unwrap();
    assert_eq!(stored.state, Pushed);
}

pub(super) async fn a_delivered_delivery_begins_no_attempt() {
    let (fixture, _, deliveries) = with_task(1).await;
    let id = deliveries[0].id;
    let delivered = [change(id, 1, Delivered, 1)];
    fixture.apply_delivery_changes(&delivered).await.unwrap();
    let again = [change(id, 2, Pending, 2)];
    assert_eq!(fixture.apply_delivery_changes(&again).await.unwrap(), 0);
    assert_eq!(fixture.delivery_attempts(id).await.unwrap().len(), 1);
}

pub(super) async fn many_steps_are_one_transaction() {
    let (fixture, task, deliveries) = with_task(1_700).await;
    let ids = deliveries.iter().map(|delivery| delivery.id);
    let steps: Vec<_> = ids
        .clone()
        .flat_map(|id| [change(id, 1, Pushed, 1), change(id, 1, Failed, 2)])
        .collect();
    assert_eq!(fixture.apply_delivery_changes(&steps).await.unwrap(), 1_700);
    let steps: Vec<_> = ids.map(|id| change(id, 2, Delivering, 3)).collect();
    assert_eq!(fixture.apply_delivery_changes(&steps).await.unwrap(), 1_700);
    let (_, counts) = fixture.task(task.id).await.unwrap().unwrap();
    let expected = StateCounts {
        delivering: 1_700,
        ..StateCounts::default()
    };
    assert_eq!(counts, expected);
    let page = Page::new(Some(500), None).unwrap();
    let delivering = fixture
        .deliveries(task.id, Some(Delivering), &page)
        .await
        .unwrap();
    assert_eq!(delivering.items.len(), 500);
    let failed = fixture
        .deliveries(task.id, Some(Failed), &page)
        .await
        .unwrap();
    assert_eq!((failed.items.len(), failed.next), (0, None));
    assert_eq!(fixture.apply_delivery_changes(&[]).await.unwrap(), 0);
}

pub(super) async fn a_device_with_an_open_delivery_is_not_deleted() {
    let (fixture, task, deliveries) = with_task(1).await;
    let device = device("meter", "n0");
    let in_use = fixture.delete_device(&device.id, &audit("x")).await;
    assert!(
        matches!(&in_use, Err(StoreError::InUse { by, .. }) if *by == format!("task {}", task.id)),
        "{in_use:?}"
    );
    let ended = [change(deliveries[0].id, 1, Failed, 1)];
    fixture.apply_delivery_changes(&ended).await.unwrap();
    fixture
        .delete_device(&device.id, &audit("x"))
        .await
        .unwrap();
}

pub(super) async fn a_change_that_is_dropped_half_way_is_whole_or_nothing_and_blocks_nobody() {
    let (fixture, task, _) = with_task(1).await;
    let mut other = task.clone();
    let mut dropped = 0;
    for turns in 0..200 {
        other.id = fixture.next_id();
        let rows = deliveries(&fixture, &other, 1_200);
        let entry = audit("x");
        let mut insert = Box::pin(fixture.insert_task(&other, &rows, &entry));
        let mut is_done = false;
        for _ in 0..turns {
            is_done = futures_util::poll!(&mut insert).is_ready();
            if is_done {
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        drop(insert);
        fixture.record(&audit("still.writes")).await.unwrap();
        let stored = fixture.task(other.id).await.unwrap();
        if let Some((_, counts)) = stored {
            assert_eq!(counts.total(), 1_200, "after {turns} turns");
        }
        if is_done {
            break;
        }
        dropped += 1;
    }
    assert!(dropped > 3, "the change was never dropped half-way");
}

#[tokio::test]
async fn look_ups_and_steps_use_indexes() {
    let (fixture, _, _) = with_task(2_000).await;
    for (statement, indexes) in [
        (
            "WITH change (id, attempt, state) AS (VALUES (1, 1, 1), (2, 1, 1)) \
             UPDATE delivery SET state = change.state FROM change WHERE delivery.id = change.id \
             AND delivery.attempt = change.attempt AND delivery.state < change.state",
            &["sqlite_autoindex_delivery_1"][..],
        ),
        (
            "WITH seen (id, at) AS (VALUES ('a', 1)) UPDATE device SET last_seen_at = seen.at FROM seen \
             WHERE device.id = seen.id",
            &["sqlite_autoindex_device_1"],
        ),
        (
            "SELECT task_id FROM delivery WHERE device_id = 'x' AND state < 3 LIMIT 1",
            &["delivery_open"],
        ),
        (
            "SELECT a.alias, c.sealed FROM device_alias a JOIN device d ON d.id = a.device_id \
             LEFT JOIN device_credential c ON c.device_id = d.id WHERE a.alias IN ('x', 'y')",
            &[
                "sqlite_autoindex_device_alias_1",
                "sqlite_autoindex_device_1",
                "sqlite_autoindex_device_credential_1",
            ],
        ),
    ] {
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "EXPLAIN QUERY PLAN {statement}"
        )))
        .fetch_all(&fixture.write)
        .await
        .unwrap();
        let plan: Vec<String> = rows
            .iter()
            .map(|row| sqlx::Row::get(row, "detail"))
            .collect();
        let plan = plan.join("\n");
        for index in indexes {
            assert!(plan.contains(index), "{statement}\n{plan}");
        }
    }
}
