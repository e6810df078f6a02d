use headgate_protocol::transfer::ranges::Ranges;

use super::*;
use crate::{
    model::{BlobId, Delivery, DeliveryState, RunState, StateCounts, TaskPolicy},
    service::delivery::{
        Content,
        live::{Rules, Standing, tests::live_task},
    },
};

/// The tests' clock begins here.
const START: i64 = 1_800_000_000_000;

fn id(number: i64) -> Id {
    Id::from_i64(number).expect("positive")
}

fn at(millis: i64) -> Millis {
    Millis::from_i64(START + millis)
}

fn now() -> Millis {
    at(0)
}

fn task(number: i64, most: Option<u32>) -> Arc<LiveTask> {
    with_policy(number, 100, |policy| policy.max_in_progress = most)
}

/// A running task of so many deliveries of which none has begun.
fn with_policy(number: i64, total: u32, change: impl FnOnce(&mut TaskPolicy)) -> Arc<LiveTask> {
    let mut policy = TaskPolicy::default();
    change(&mut policy);
    assert_eq!(policy.validate(), Ok(()));
    let counts = StateCounts {
        pending: u64::from(total),
        ..StateCounts::default()
    };
    let standing = Standing {
        counts,
        fresh: total,
        ..Standing::default()
    };
    Arc::new(live_task(number, policy, &standing))
}

fn delivery(number: i64, task: &Arc<LiveTask>) -> Arc<LiveDelivery> {
    sized(number, task, 1)
}

fn sized(number: i64, task: &Arc<LiveTask>, size: u64) -> Arc<LiveDelivery> {
    Arc::new(attempt(number, task, size, 1))
}

fn attempt(number: i64, task: &Arc<LiveTask>, size: u64, attempt: u32) -> LiveDelivery {
    let stored = Delivery {
        id: id(number),
        task_id: task.id,
        device_id: format!("p_d{number}").parse().expect("legal"),
        node_id: format!("d{number}").parse().expect("legal"),
        attempt,
        state: DeliveryState::Pending,
        reason: None,
        detail: None,
        created_at: now(),
        pushed_at: None,
        delivering_at: None,
        finished_at: None,
    };
    let content = Arc::new(Content {
        resource_id: id(1),
        version: 1,
        name: "fw".parse().expect("legal"),
        size,
        sha256: [0; 32],
        md5: [0; 16],
        part_digests: bytes::Bytes::new(),
        blob: BlobId::from_random([7; 16]),
    });
    let product = "p".parse().expect("legal");
    let have = Some(Ranges::default());
    LiveDelivery::new(
        &stored,
        1,
        product,
        content,
        Arc::clone(task),
        have,
        Rules::default(),
    )
}

impl Admission {
    fn admits(&self, delivery: &Arc<LiveDelivery>) -> bool {
        self.admit(delivery, now()).is_ok()
    }

    fn next_now(&self) -> Option<Id> {
        self.next(now()).map(|next| next.id)
    }
}

#[test]
fn a_place_goes_to_whoever_waits_as_soon_as_it_is_free() {
    let admission = Admission::new(1);
    let task = task(1, None);
    let (first, second) = (delivery(1, &task), delivery(2, &task));
    assert!(admission.admits(&first));
    assert!(
        !admission.admits(&second) && !admission.admits(&second),
        "asked twice, waits once"
    );
    assert!(admission.next(now()).is_none(), "no place is free");
    admission.release(&first);
    assert_eq!(admission.next(now()).map(|next| next.id), Some(second.id));
    assert!(second.is_admitted());
    admission.release(&second);
    assert!(admission.next(now()).is_none());
}

#[test]
fn tasks_take_turns() {
    let admission = Admission::new(1);
    let (large, small) = (task(1, None), task(2, None));
    let running = delivery(1, &large);
    assert!(admission.admits(&running));
    for number in 2..5 {
        assert!(!admission.admits(&delivery(number, &large)));
    }
    let lonely = delivery(10, &small);
    assert!(!admission.admits(&lonely));
    admission.release(&running);
    let first = admission.next(now()).expect("one waits");
    admission.release(&first);
    let second = admission.next(now()).expect("one waits");
    let served = [first.id, second.id];
    assert!(
        served.contains(&lonely.id),
        "the small task waited for one at most: {served:?}"
    );
}

#[test]
fn a_tasks_own_limit_holds_and_does_not_hold_others_up() {
    let admission = Admission::new(10);
    let (narrow, wide) = (task(1, Some(1)), task(2, None));
    let first = delivery(1, &narrow);
    assert!(admission.admits(&first));
    assert!(!admission.admits(&delivery(2, &narrow)));
    assert!(admission.admits(&delivery(3, &wide)));
    assert!(
        admission.next(now()).is_none(),
        "the only one that waits has no room in its task"
    );
    admission.release(&first);
    assert_eq!(admission.next(now()).map(|next| next.id), Some(id(2)));
}

#[test]
fn one_that_left_the_queue_is_not_served() {
    let admission = Admission::new(1);
    let task = task(1, None);
    let (first, gone, third) = (delivery(1, &task), delivery(2, &task), delivery(3, &task));
    assert!(admission.admits(&first));
    assert!(!admission.admits(&gone) && !admission.admits(&third));
    admission.release(&gone);
    admission.release(&first);
    assert_eq!(admission.next(now()).map(|next| next.id), Some(third.id));
    assert_eq!(admission.in_progress().len(), 1);
}

#[test]
fn a_paused_task_gets_no_place() {
    let admission = Admission::new(1);
    let held = task(1, None);
    held.set_run(RunState::Paused);
    let delivery = delivery(1, &held);
    assert!(!admission.admits(&delivery));
    assert!(admission.next(now()).is_none());
    held.set_run(RunState::Running);
    admission.recall(held.id);
    assert_eq!(admission.next(now()).map(|next| next.id), Some(delivery.id));
}

#[test]
fn places_go_to_the_task_that_has_had_the_fewest_bytes() {
    const MIB: u64 = 1024 * 1024;
    let admission = Admission::new(1);
    let (large, small) = (task(1, None), task(2, None));
    let running = sized(1, &large, 100 * MIB);
    assert!(admission.admits(&running));
    for number in 2..6 {
        assert!(!admission.admits(&sized(number, &large, 100 * MIB)));
        assert!(!admission.admits(&sized(number + 100, &small, MIB)));
    }
    admission.release(&running);
    let mut order = Vec::new();
    while let Some(next) = admission.next(now()) {
        order.push(next.task.id.as_i64());
        admission.release(&next);
    }
    assert_eq!(
        order,
        [2, 2, 2, 2, 1, 1, 1, 1],
        "four small files are fewer bytes than one large one"
    );
}

#[test]
fn a_task_that_comes_late_claims_nothing_for_the_time_before() {
    const MIB: u64 = 1024 * 1024;
    let admission = Admission::new(1);
    let (early, late) = (task(1, None), task(2, None));
    let mut running = sized(1, &early, MIB);
    assert!(admission.admits(&running));
    for number in 2..20 {
        assert!(!admission.admits(&sized(number, &early, MIB)));
    }
    for _ in 0..10 {
        admission.release(&running);
        running = admission.next(now()).expect("one waits");
    }
    for number in 100..110 {
        assert!(!admission.admits(&sized(number, &late, MIB)));
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        admission.release(&running);
        running = admission.next(now()).expect("one waits");
        order.push(running.task.id.as_i64());
    }
    order.sort_unstable();
    assert_eq!(order, [1, 1, 1, 2, 2, 2], "they take turns from now on");
}

#[test]
fn a_device_takes_one_delivery_at_a_time() {
    let admission = Admission::new(10);
    let (first, second) = (task(1, None), task(2, None));
    let one = delivery(1, &first);
    let other = {
        let mut other = attempt(2, &second, 1, 1);
        other.device_id = one.device_id.clone();
        Arc::new(other)
    };
    assert!(admission.admits(&one));
    assert_eq!(admission.admit(&other, now()), Err(WaitReason::DeviceBusy));
    assert_eq!(admission.next_now(), None, "it waits in no queue");
    admission.release(&one);
    assert!(admission.admits(&other));
}

#[test]
fn devices_begin_at_the_pace_of_their_task() {
    let admission = Admission::new(1_000);
    let paced = with_policy(1, 1_000, |policy| {
        policy.pace = serde_json::from_str(r#"{"per_minute":60}"#).expect("legal");
    });
    assert!(
        admission.admits(&delivery(1, &paced)),
        "the first need not wait"
    );
    for number in 2..500 {
        let waiting = delivery(number, &paced);
        assert_eq!(admission.admit(&waiting, now()), Err(WaitReason::Paced));
    }
    let mut begun = 0;
    for tick in 1..=60 {
        admission.recall_all();
        while admission.next(at(tick * 1_000)).is_some() {
            begun += 1;
        }
    }
    assert_eq!(begun, 60);
    // A gap is not made up for, but for two seconds.
    admission.recall_all();
    let mut late = 0;
    while admission.next(at(600_000)).is_some() {
        late += 1;
    }
    assert_eq!(late, 2);
}

#[test]
fn the_pace_grows_as_deliveries_succeed() {
    let admission = Admission::new(1_000);
    let ramped = with_policy(1, 1_000, |policy| {
        let ramp =
            r#"{"per_minute":60,"ramp":{"factor":2,"every_succeeded":10,"max_per_minute":6000}}"#;
        policy.pace = serde_json::from_str(ramp).expect("legal");
    });
    assert!(admission.admits(&delivery(1, &ramped)));
    for number in 2..500 {
        assert!(!admission.admits(&delivery(number, &ramped)));
    }
    let begun_in = |seconds: std::ops::Range<i64>| {
        let mut begun = 0;
        for second in seconds {
            admission.recall_all();
            while admission.next(at(second * 1_000)).is_some() {
                begun += 1;
            }
        }
        begun
    };
    assert_eq!(begun_in(1..11), 10);
    for _ in 0..10 {
        ramped.count_step(DeliveryState::Pending, DeliveryState::Delivered);
    }
    assert_eq!(begun_in(11..21), 20);
}

#[test]
fn one_that_had_begun_goes_before_those_that_wait_for_the_pace() {
    let admission = Admission::new(1_000);
    let paced = with_policy(1, 100, |policy| {
        policy.pace = serde_json::from_str(r#"{"per_minute":1}"#).expect("legal");
    });
    let first = delivery(1, &paced);
    assert!(admission.admits(&first));
    let waiting = delivery(2, &paced);
    assert!(!admission.admits(&waiting));
    admission.release(&first);
    assert!(admission.admits(&first), "its device was away for a moment");
    assert_eq!(admission.obstacle(&waiting, now()), Some(WaitReason::Paced));
}

#[test]
fn a_canary_goes_first_and_the_others_wait_for_the_promotion() {
    let admission = Admission::new(1_000);
    let careful = with_policy(1, 100, |policy| {
        let canary = r#"{"devices":2,"success_percent":100}"#;
        policy.canary = serde_json::from_str(canary).expect("legal");
    });
    let canaries = [delivery(1, &careful), delivery(2, &careful)];
    assert!(canaries.iter().all(|canary| admission.admits(canary)));
    let other = delivery(3, &careful);
    assert_eq!(admission.admit(&other, now()), Err(WaitReason::Canary));
    admission.release(&canaries[0]);
    assert!(
        admission.admits(&canaries[0]),
        "it is one of the first still"
    );
    careful.count_step(DeliveryState::Pending, DeliveryState::Delivered);
    assert!(!careful.deserves_promotion());
    careful.count_step(DeliveryState::Pending, DeliveryState::Delivered);
    assert!(careful.deserves_promotion());
    careful.set_promoted();
    assert!(!careful.deserves_promotion(), "once");
    admission.recall(careful.id);
    assert_eq!(admission.next_now(), Some(other.id));
}

#[test]
fn nothing_begins_before_the_start_or_outside_of_the_hours() {
    let admission = Admission::new(10);
    let later = with_policy(1, 10, |policy| policy.start_at = Some(at(5_000)));
    let waiting = delivery(1, &later);
    assert_eq!(admission.admit(&waiting, now()), Err(WaitReason::Scheduled));
    admission.recall_all();
    assert_eq!(admission.next(at(4_999)).map(|next| next.id), None);
    admission.recall_all();
    assert_eq!(
        admission.next(at(5_000)).map(|next| next.id),
        Some(waiting.id)
    );

    // The clock begins at 08:00 UTC.
    let nightly = with_policy(2, 10, |policy| {
        let window = r#"{"from":"09:00","to":"10:00","utc_offset":"+00:00"}"#;
        policy.window = serde_json::from_str(window).expect("legal");
    });
    let waiting = delivery(2, &nightly);
    assert_eq!(
        admission.admit(&waiting, now()),
        Err(WaitReason::NotInWindow)
    );
    admission.recall_all();
    let opens = at(3_600_000);
    assert_eq!(admission.next(opens).map(|next| next.id), Some(waiting.id));
    admission.release(&waiting);
    let closed = at(3 * 3_600_000);
    assert_eq!(
        admission.admit(&waiting, closed),
        Ok(()),
        "what has begun goes on"
    );
    let fresh = delivery(3, &nightly);
    assert_eq!(
        admission.admit(&fresh, closed),
        Err(WaitReason::NotInWindow)
    );
}

#[test]
fn an_attempt_after_a_failure_waits_for_its_time() {
    let admission = Admission::new(10);
    let task = task(1, None);
    let second = Arc::new(attempt(1, &task, 1, 2));
    assert_eq!(admission.admit(&second, now()), Err(WaitReason::Backoff));
    let until = second.backoff_until().expect("a back-off");
    let wait = until.since(now()).as_secs();
    assert!(
        (22..=38).contains(&wait),
        "30 s and a quarter either way: {wait}"
    );
    assert_eq!(admission.admit(&second, until), Ok(()));
}

#[test]
fn a_queue_that_devices_keep_leaving_stays_small() {
    let admission = Admission::new(1);
    let task = task(1, None);
    assert!(admission.admits(&delivery(1, &task)));
    let restless = delivery(2, &task);
    let steady = delivery(3, &task);
    assert!(!admission.admits(&steady));
    for _ in 0..10_000 {
        assert!(!admission.admits(&restless));
        admission.release(&restless);
    }
    let state = admission.state.lock();
    let queue = &state.queues[&task.id];
    assert!(
        queue.fresh.len() <= 2 * COMPACT_FROM,
        "{}",
        queue.fresh.len()
    );
    assert_eq!(queue.waiting, 1);
}
