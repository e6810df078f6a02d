use headgate_protocol::transfer::ranges::Ranges;

use super::*;
use crate::{
    model::{BlobId, Delivery, DeliveryState, Millis, RunState},
    service::delivery::{
        Content,
        live::{LiveTask, Rules},
    },
};

fn id(number: i64) -> Id {
    Id::from_i64(number).expect("positive")
}

fn task(number: i64, most: Option<u32>) -> Arc<LiveTask> {
    Arc::new(LiveTask::new(id(number), RunState::Running, most))
}

fn delivery(number: i64, task: &Arc<LiveTask>) -> Arc<LiveDelivery> {
    let stored = Delivery {
        id: id(number),
        task_id: task.id,
        device_id: format!("p_d{number}").parse().expect("legal"),
        node_id: format!("d{number}").parse().expect("legal"),
        attempt: 1,
        state: DeliveryState::Pending,
        reason: None,
        detail: None,
        created_at: Millis::now(),
        pushed_at: None,
        delivering_at: None,
        finished_at: None,
    };
    let content = Arc::new(Content {
        resource_id: id(1),
        version: 1,
        name: "fw".parse().expect("legal"),
        size: 1,
        sha256: [0; 32],
        md5: [0; 16],
        part_digests: bytes::Bytes::new(),
        blob: BlobId::from_random([7; 16]),
    });
    let product = "p".parse().expect("legal");
    let have = Some(Ranges::default());
    Arc::new(LiveDelivery::new(
        &stored,
        product,
        content,
        Arc::clone(task),
        have,
        Rules::default(),
    ))
}

#[test]
fn a_place_goes_to_whoever_waits_as_soon_as_it_is_free() {
    let admission = Admission::new(1);
    let task = task(1, None);
    let (first, second) = (delivery(1, &task), delivery(2, &task));
    assert!(admission.admit(&first));
    assert!(
        !admission.admit(&second) && !admission.admit(&second),
        "asked twice, waits once"
    );
    assert!(admission.next().is_none(), "no place is free");
    admission.release(&first);
    assert_eq!(admission.next().map(|next| next.id), Some(second.id));
    assert!(second.is_admitted());
    admission.release(&second);
    assert!(admission.next().is_none());
}

#[test]
fn tasks_take_turns() {
    let admission = Admission::new(1);
    let (large, small) = (task(1, None), task(2, None));
    let running = delivery(1, &large);
    assert!(admission.admit(&running));
    for number in 2..5 {
        assert!(!admission.admit(&delivery(number, &large)));
    }
    let lonely = delivery(10, &small);
    assert!(!admission.admit(&lonely));
    admission.release(&running);
    let first = admission.next().expect("one waits");
    admission.release(&first);
    let second = admission.next().expect("one waits");
    assert_eq!(
        (first.id, second.id),
        (id(2), lonely.id),
        "the small task waited for one, not for three"
    );
}

#[test]
fn a_tasks_own_limit_holds_and_does_not_hold_others_up() {
    let admission = Admission::new(10);
    let (narrow, wide) = (task(1, Some(1)), task(2, None));
    let first = delivery(1, &narrow);
    assert!(admission.admit(&first));
    assert!(!admission.admit(&delivery(2, &narrow)));
    assert!(admission.admit(&delivery(3, &wide)));
    assert!(
        admission.next().is_none(),
        "the only one that waits has no room in its task"
    );
    admission.release(&first);
    assert_eq!(admission.next().map(|next| next.id), Some(id(2)));
}

#[test]
fn one_that_left_the_queue_is_not_served() {
    let admission = Admission::new(1);
    let task = task(1, None);
    let (first, gone, third) = (delivery(1, &task), delivery(2, &task), delivery(3, &task));
    assert!(admission.admit(&first));
    assert!(!admission.admit(&gone) && !admission.admit(&third));
    admission.release(&gone);
    admission.release(&first);
    assert_eq!(admission.next().map(|next| next.id), Some(third.id));
    assert_eq!(admission.in_progress().len(), 1);
}

#[test]
fn a_paused_task_gets_no_place() {
    let admission = Admission::new(1);
    let held = task(1, None);
    held.set_paused(true);
    let delivery = delivery(1, &held);
    assert!(!admission.admit(&delivery));
    assert!(admission.next().is_none());
    held.set_paused(false);
    assert_eq!(admission.next().map(|next| next.id), Some(delivery.id));
}
