//! An upload against answers made by hand.

use bytes::Bytes;
use headgate_protocol::mqtt::TopicName;
use serde_json::Value;

use super::*;

const SIZE: u64 = 100;

struct Bench {
    sending: Sending,
    now: Instant,
}

impl Bench {
    fn new(drop_at: Option<u64>) -> Self {
        let plan = SendPlan {
            version: ProtocolVersion::V5,
            product: "p".into(),
            name: "log".into(),
            size: SIZE,
            seed: 7,
            chunk: 30,
        };
        let identity = Identity {
            index: 0,
            node_id: "d".into(),
            device_id: "p_d".into(),
        };
        let fate = Fate {
            drop_at,
            ..Fate::NONE
        };
        let mut bench = Self {
            sending: Sending::new(Arc::new(plan), &identity, fate),
            now: Instant::now(),
        };
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        let ready = self.sending.on_ready(self.now, &mut BytesMut::new());
        ready.unwrap();
    }

    fn told(&mut self, value: &Value) {
        let topic = TopicName::try_from("$resource/down/service/p/d").unwrap();
        let publish = Publish::new(topic, Bytes::from(value.to_string()));
        let out = &mut BytesMut::new();
        self.sending.on_publish(self.now, &publish, out).unwrap();
    }

    /// Where to go on, and how much may be unanswered.
    fn allow(&mut self, offset: u64, window: usize) {
        self.told(&json!({
            "type": "create_upload_task_rsp", "transfer": "u1", "offset": offset,
            "chunk_size": 30, "window": window,
        }));
    }

    /// Answers the chunk that has been unanswered for longest.
    fn answer(&mut self, reason: ReasonCode) {
        let (packet_id, ..) = *self.sending.unanswered.front().expect("a chunk is out");
        let ack = PubAck {
            reason,
            ..PubAck::new(packet_id)
        };
        let out = &mut BytesMut::new();
        self.sending.on_puback(self.now, &ack, out).unwrap();
    }

    fn result(&mut self, code: i64) {
        self.told(&json!({
            "type": "upload_result", "transfer": "u1",
            "report": {"progress": {"result_code": code, "result_msg": "md5sum not matched"}},
        }));
    }

    /// What is out: offset and length of each chunk.
    fn out(&self) -> Vec<(u64, u32)> {
        let chunks = self.sending.unanswered.iter();
        chunks.map(|&(_, offset, len)| (offset, len)).collect()
    }
}

#[test]
fn no_more_is_unanswered_than_the_gateway_allowed() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.out(), [], "nothing goes before the gateway answered");
    bench.allow(0, 2);
    assert_eq!(bench.out(), [(0, 30), (30, 30)]);
    bench.answer(ReasonCode::Success);
    assert_eq!(bench.out(), [(30, 30), (60, 30)]);
    bench.answer(ReasonCode::Success);
    assert_eq!(bench.out(), [(60, 30), (90, 10)], "the last one is short");
    bench.answer(ReasonCode::Success);
    bench.answer(ReasonCode::Success);
    let counts = bench.sending.take_counts();
    assert_eq!((counts.bytes, counts.chunks), (SIZE, 4));
    assert!(!bench.sending.has_event(), "the gateway has the last word");
    bench.result(0);
    assert!(matches!(
        bench.sending.take_event(),
        Some(Event::Ended(Ok(())))
    ));
    assert_eq!(bench.sending.deadline(), None);
}

#[test]
fn a_chunk_that_was_not_taken_is_sent_again_after_a_pause() {
    let mut bench = Bench::new(None);
    bench.allow(0, 2);
    bench.answer(ReasonCode::QuotaExceeded);
    assert_eq!(bench.out(), [(30, 30)], "nothing goes out meanwhile");
    bench.now += BUSY_PAUSE;
    let out = &mut BytesMut::new();
    bench.sending.on_timer(bench.now, out).unwrap();
    assert_eq!(bench.out(), [(30, 30), (0, 30)]);
    assert_eq!(bench.sending.take_counts().stalls, 1);
}

#[test]
fn a_new_connection_goes_on_where_the_gateway_says() {
    let mut bench = Bench::new(Some(30));
    bench.allow(0, 3);
    bench.answer(ReasonCode::Success);
    assert!(matches!(bench.sending.take_event(), Some(Event::Drop)));
    bench.connect();
    assert_eq!(bench.out(), []);
    bench.allow(60, 3);
    assert_eq!(bench.out(), [(60, 30), (90, 10)]);
    assert_eq!(
        bench.sending.take_counts().bytes,
        60,
        "what was stored unanswered counts, and once"
    );
}

#[test]
fn silence_makes_it_announce_again() {
    let mut bench = Bench::new(None);
    bench.allow(0, 1);
    bench.now += STALL_TIMEOUT;
    let out = &mut BytesMut::new();
    bench.sending.on_timer(bench.now, out).unwrap();
    assert!(!out.is_empty());
    assert_eq!(
        (bench.sending.phase, bench.out()),
        (Phase::Announcing, vec![])
    );
}

#[test]
fn a_refusal_ends_it_once() {
    let mut bench = Bench::new(None);
    bench.allow(0, 1);
    bench.result(-4);
    let ended = bench.sending.take_event();
    assert!(
        matches!(&ended, Some(Event::Ended(Err(DeviceError::UploadRefused(text)))) if text.contains("md5sum")),
        "{ended:?}"
    );
    bench.result(0);
    assert!(!bench.sending.has_event());
    let mut bench = Bench::new(None);
    bench.told(&json!({"type": "transfer_error", "code": "no_space", "message": "full", "retry_after": 60}));
    assert!(!bench.sending.has_event(), "it may come to more room");
    bench.told(&json!({"type": "transfer_error", "code": "too_large", "message": "no"}));
    assert!(matches!(
        bench.sending.take_event(),
        Some(Event::Ended(Err(DeviceError::TransferError { .. })))
    ));
}
