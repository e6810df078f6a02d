use super::*;
use crate::{
    config::DeliveryConfig,
    model::{BlobId, CreationState, RunState, Task, TaskPolicy},
};

const SECOND: Duration = Duration::from_secs(1);

fn live(size: u64, state: DeliveryState, have: Option<Ranges>, rules: Rules) -> LiveDelivery {
    let id = Id::from_i64(7).expect("positive");
    let stored = Delivery {
        id,
        task_id: id,
        device_id: "p_d".parse().expect("legal"),
        node_id: "d".parse().expect("legal"),
        attempt: 1,
        state,
        reason: None,
        detail: None,
        created_at: Millis::now(),
        pushed_at: None,
        delivering_at: None,
        finished_at: None,
    };
    let content = Content {
        resource_id: id,
        version: 1,
        name: "fw".parse().expect("legal"),
        size,
        sha256: [0; 32],
        md5: [0; 16],
        part_digests: bytes::Bytes::new(),
        blob: BlobId::from_random([7; 16]),
    };
    let task = Arc::new(live_task(1, TaskPolicy::default(), &Standing::default()));
    LiveDelivery::new(
        &stored,
        1,
        "p".parse().expect("legal"),
        Arc::new(content),
        task,
        have,
        rules,
    )
}

/// A running task with a policy.
pub(in crate::service::delivery) fn live_task(
    number: i64,
    policy: TaskPolicy,
    standing: &Standing,
) -> LiveTask {
    let id = Id::from_i64(number).expect("positive");
    let stored = Task {
        id,
        name: "roll-out".to_owned(),
        resource_id: id,
        resource_version: 1,
        product_id: "p".parse().expect("legal"),
        creation: CreationState::Created,
        run: RunState::Running,
        policy,
        filter: None,
        creation_error: None,
        promoted_at: None,
        total: u32::try_from(standing.counts.total()).expect("small"),
        created_at: Millis::now(),
        finished_at: None,
        created_by: "admin".to_owned(),
    };
    LiveTask::new(&stored, standing, &DeliveryConfig::default(), false)
}

fn fresh(size: u64) -> LiveDelivery {
    live(size, DeliveryState::Pending, None, Rules::default())
}

fn chunk(offset: u64, len: u32) -> Chunk {
    Chunk { offset, len }
}

#[test]
fn states_only_go_forward_and_an_end_is_final() {
    let delivery = fresh(10);
    let now = Millis::now();
    assert_eq!(
        delivery.advance(DeliveryState::Delivering, now),
        Step::Taken {
            from: DeliveryState::Pending
        }
    );
    assert_eq!(delivery.advance(DeliveryState::Pushed, now), Step::Already);
    let from = DeliveryState::Delivering;
    assert_eq!(delivery.fail(false), Step::Taken { from });
    for late in [
        DeliveryState::Delivered,
        DeliveryState::Failed,
        DeliveryState::Delivering,
    ] {
        assert_eq!(delivery.advance(late, now), Step::Over, "{late:?}");
    }
}

#[test]
fn of_a_cancel_and_a_done_that_race_exactly_one_wins() {
    for _ in 0..100 {
        let delivery = &fresh(10);
        let taken = Step::Taken {
            from: DeliveryState::Pending,
        };
        let steps = std::thread::scope(|scope| {
            let done = scope.spawn(|| delivery.advance(DeliveryState::Delivered, Millis::now()));
            let cancel = scope.spawn(|| delivery.fail(false));
            [done, cancel].map(|thread| thread.join().expect("no panic"))
        });
        assert!(
            steps == [taken, Step::Over] || steps == [Step::Over, taken],
            "{steps:?}"
        );
    }
}

#[test]
fn done_is_believed_only_when_every_byte_was_sent() {
    let delivery = fresh(100);
    delivery.on_sent(chunk(0, 50));
    assert!(!delivery.was_sent_whole());
    delivery.on_sent(chunk(60, 40));
    assert!(!delivery.was_sent_whole(), "a gap");
    delivery.on_sent(chunk(50, 10));
    assert!(delivery.was_sent_whole());
    let trusting = live(
        100,
        DeliveryState::Pending,
        None,
        Rules {
            trust_done: true,
            ..Rules::default()
        },
    );
    assert!(trusting.was_sent_whole());
}

#[test]
fn a_claimed_offset_is_no_proof_that_bytes_were_sent() {
    let delivery = fresh(100);
    assert_eq!(delivery.resume_at(Some(90)), 90);
    delivery.on_sent(chunk(90, 10));
    assert!(!delivery.was_sent_whole());
}

#[test]
fn after_a_restart_what_the_device_has_beyond_the_checkpoint_counts_as_sent() {
    let delivery = live(
        100,
        DeliveryState::Delivering,
        Some(Ranges::below(40)),
        Rules::default(),
    );
    assert_eq!(delivery.acknowledged_bytes(), 40);
    assert_eq!(
        delivery.resume_at(None),
        40,
        "without its word the cursor is used"
    );
    assert_eq!(delivery.resume_at(Some(70)), 70);
    delivery.on_sent(chunk(70, 30));
    assert!(delivery.was_sent_whole());
}

#[test]
fn after_a_restart_a_device_that_has_everything_only_has_to_say_so() {
    let fresh_start = |state| live(100, state, None, Rules::default());
    assert!(fresh_start(DeliveryState::Delivering).was_sent_whole());
    assert!(
        !fresh_start(DeliveryState::Pushed).was_sent_whole(),
        "no byte had been sent"
    );
    let asked = fresh_start(DeliveryState::Delivering);
    asked.resume_at(Some(40));
    assert!(!asked.was_sent_whole(), "by its own word it has 40 bytes");
}

#[test]
fn a_device_that_lost_what_it_had_begins_where_it_says() {
    let delivery = fresh(100);
    delivery.on_acknowledged(chunk(0, 60), SECOND, u64::MAX);
    assert_eq!((delivery.percent(), delivery.resume_at(None)), (60, 60));
    assert_eq!(delivery.resume_at(Some(10)), 10);
    assert_eq!((delivery.percent(), delivery.resume_at(None)), (10, 10));
}

#[test]
fn percent_is_the_larger_of_both_figures() {
    let delivery = fresh(200);
    delivery.on_acknowledged(chunk(0, 100), SECOND, u64::MAX);
    assert_eq!(delivery.percent(), 50);
    delivery.on_reported(Some(70));
    assert_eq!(delivery.percent(), 70);
    delivery.on_reported(None);
    assert_eq!(delivery.percent(), 70);
}

#[test]
fn a_checkpoint_is_due_after_both_the_time_and_the_bytes() {
    let delivery = fresh(1_000);
    assert!(
        !delivery.on_acknowledged(chunk(0, 100), SECOND * 3_600, 50),
        "too early"
    );
    assert!(
        !delivery.on_acknowledged(chunk(100, 10), Duration::ZERO, 200),
        "too little"
    );
    assert!(delivery.on_acknowledged(chunk(110, 10), Duration::ZERO, 100));
    assert!(
        !delivery.on_acknowledged(chunk(120, 10), Duration::ZERO, 100),
        "counted anew"
    );
    assert!(delivery.take_unsaved());
    assert!(!delivery.take_unsaved(), "nothing new");
}
