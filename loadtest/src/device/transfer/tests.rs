use bytes::Bytes;
use headgate_protocol::mqtt::{Decoder, Limits, Packet, Role, TopicName};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::say::REPORT_INTERVAL;
use super::*;

const BYTES: &[u8] = b"0123456789abcdef0123456789ABCDEF";

/// Reads what the transfer writes, in the client's role: PUBLISH and PUBACK go both ways.
fn decoder() -> Decoder {
    let limits = Limits {
        max_packet_bytes: 1 << 16,
        max_connect_bytes: 1 << 16,
        max_topic_bytes: 256,
        max_topic_levels: 10,
        max_client_id_bytes: 256,
        max_filters_per_packet: 8,
    };
    let mut decoder = Decoder::new(Role::Client, limits);
    decoder.set_version(ProtocolVersion::V311);
    let mut accepted = BytesMut::from(&[0x20, 2, 0, 0][..]);
    assert!(matches!(
        decoder.decode(&mut accepted),
        Ok(Some(Packet::ConnAck(_)))
    ));
    decoder
}

/// A transfer with what it wrote.
struct Bench {
    transfer: Transfer,
    out: BytesMut,
    decoder: Decoder,
    now: Instant,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Plan), drop_at: Option<u64>) -> Self {
        let expected = Expected {
            size: BYTES.len() as u64,
            sha256: Sha256::digest(BYTES).into(),
            crc32: crc32fast::hash(BYTES),
        };
        let mut plan = Plan {
            version: ProtocolVersion::V311,
            product: "p".into(),
            resource_name: Some("res".into()),
            expected: Arc::new(expected),
            verify: Verify::Sha256,
            mode: Mode::Window,
            window: 2,
            chunk: 8,
            rtt: Duration::ZERO,
        };
        change(&mut plan);
        let identity = Identity {
            index: 0,
            node_id: "d".into(),
            device_id: "p_d".into(),
        };
        let fate = Fate {
            drop_at,
            ..Fate::NONE
        };
        let transfer = Transfer::new(Arc::new(plan), &identity, fate);
        Self {
            transfer,
            out: BytesMut::new(),
            decoder: decoder(),
            now: Instant::now(),
        }
    }

    fn on_publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), DeviceError> {
        let mut publish = Publish::new(
            TopicName::try_from(topic).unwrap(),
            Bytes::copy_from_slice(payload),
        );
        publish.qos = QoS::AtLeastOnce;
        publish.packet_id = PacketId::new(77);
        self.transfer.on_publish(self.now, &publish, &mut self.out)
    }

    fn on_json(&mut self, value: &Value) -> Result<(), DeviceError> {
        self.on_publish("$resource/down/service/p/d", value.to_string().as_bytes())
    }

    fn announce(&mut self, kind: &str, transfer: &str) -> Result<(), DeviceError> {
        self.on_json(&json!({
            "type": kind, "size": BYTES.len(), "name": "res", "md5sum": "", "url": "https://h/f",
            "transfer": transfer, "sha256": hex::encode(Sha256::digest(BYTES)), "acked": 0,
        }))
    }

    fn chunk(&mut self, offset: usize, len: usize) -> Result<(), DeviceError> {
        self.on_publish(
            &format!("$resource/down/chunk/p/d/t1/{offset}"),
            &BYTES[offset..offset + len],
        )
    }

    fn answer_report(&mut self) {
        let answer =
            json!({"type": "report_download_progress_rsp", "result_code": 0, "result_msg": "ok"});
        self.on_json(&answer).unwrap();
    }

    /// JSON messages and the number of acknowledgements written since the last call.
    fn written(&mut self) -> (Vec<Value>, usize) {
        let (mut messages, mut acks) = (Vec::new(), 0);
        while let Some(packet) = self.decoder.decode(&mut self.out).unwrap() {
            match packet {
                Packet::Publish(publish) => {
                    assert_eq!(&*publish.topic, "$resource/up/service/p/d");
                    messages.push(serde_json::from_slice(&publish.payload).unwrap());
                }
                Packet::PubAck(_) => acks += 1,
                other => panic!("{other:?}"),
            }
        }
        (messages, acks)
    }

    fn ended(&mut self) -> Option<Result<(), DeviceError>> {
        match self.transfer.take_event() {
            Some(Event::Ended(result)) => Some(result),
            None => None,
            other => panic!("{other:?}"),
        }
    }
}

fn of_kind<'a>(messages: &'a [Value], kind: &str) -> Vec<&'a Value> {
    messages
        .iter()
        .filter(|message| message["type"] == kind)
        .collect()
}

#[test]
fn a_delivery_by_window_ends_with_the_answer_to_done() {
    let mut bench = Bench::new(|_| {}, None);
    bench.transfer.on_ready(&mut bench.out).unwrap();
    assert_eq!(
        bench.written(),
        (vec![], 0),
        "a fresh device waits to be told"
    );
    bench.announce("download", "t1").unwrap();
    let (messages, acks) = bench.written();
    assert_eq!(acks, 1);
    assert_eq!(
        messages,
        [
            json!({"type": "get_chunks", "transfer": "t1", "offset": 0, "window": 2, "chunk_size": 8})
        ]
    );
    for offset in [0, 8, 16, 24] {
        bench.chunk(offset, 8).unwrap();
        bench.now += REPORT_INTERVAL;
    }
    let (messages, acks) = bench.written();
    assert_eq!(acks, 4);
    let states: Vec<_> = messages
        .iter()
        .map(|m| m["progress"]["state"].clone())
        .collect();
    assert_eq!(
        states,
        ["downloading", "downloading", "done"],
        "the first second says nothing"
    );
    for _ in 0..2 {
        bench.answer_report();
        assert!(
            bench.ended().is_none(),
            "an answer to progress is none to `done`"
        );
    }
    bench.answer_report();
    assert!(matches!(bench.ended(), Some(Ok(()))));
    let counts = bench.transfer.take_counts();
    assert_eq!(
        (counts.bytes, counts.duplicate_bytes, counts.chunks),
        (32, 0, 4)
    );
}

#[test]
fn progress_is_reported_at_most_once_a_second() {
    let mut bench = Bench::new(|_| {}, None);
    bench.announce("download", "t1").unwrap();
    bench.written();
    bench.chunk(0, 8).unwrap();
    bench.now += REPORT_INTERVAL;
    bench.chunk(8, 8).unwrap();
    bench.chunk(16, 8).unwrap();
    let reports: Vec<_> = of_kind(&bench.written().0, "report_download_progress")
        .iter()
        .map(|m| m["progress"]["percent"].clone())
        .collect();
    assert_eq!(reports, [50]);
}

#[test]
fn count_mode_asks_again_when_a_batch_is_there() {
    let mut bench = Bench::new(|plan| plan.mode = Mode::Count, None);
    bench.announce("download", "t1").unwrap();
    assert_eq!(bench.written().0[0]["count"], 2);
    bench.chunk(0, 8).unwrap();
    assert!(of_kind(&bench.written().0, "get_chunks").is_empty());
    bench.chunk(8, 8).unwrap();
    assert_eq!(of_kind(&bench.written().0, "get_chunks")[0]["offset"], 16);
}

#[test]
fn one_wrong_byte_is_reported_and_fails_the_device() {
    let mut bench = Bench::new(|_| {}, None);
    bench.announce("download", "t1").unwrap();
    bench
        .on_publish("$resource/down/chunk/p/d/t1/0", &[0; 24])
        .unwrap();
    let error = bench.chunk(24, 8).unwrap_err();
    assert!(error.is_wrong() && error.kind() == "wrong_bytes", "{error}");
    let (messages, _) = bench.written();
    assert_eq!(messages.last().unwrap()["progress"]["state"], "fail");
}

#[test]
fn a_missing_chunk_fails_the_device() {
    let mut bench = Bench::new(|_| {}, None);
    bench.announce("download", "t1").unwrap();
    bench.chunk(0, 8).unwrap();
    assert!(bench.chunk(16, 8).unwrap_err().is_wrong());
}

#[test]
fn an_announcement_of_other_bytes_fails_the_device() {
    let mut bench = Bench::new(|_| {}, None);
    let other =
        json!({"type": "download", "size": 32, "name": "res", "transfer": "t1", "sha256": "00"});
    assert!(bench.on_json(&other).unwrap_err().is_wrong());
}

#[test]
fn what_an_earlier_run_left_behind_is_declined() {
    let mut bench = Bench::new(|_| {}, None);
    let other =
        json!({"type": "download", "size": 1, "name": "old", "transfer": "t0", "sha256": "00"});
    bench.on_json(&other).unwrap();
    assert_eq!(bench.written().0[0]["progress"]["state"], "fail");
    bench.answer_report();
    bench.announce("download", "t1").unwrap();
    assert_eq!(of_kind(&bench.written().0, "get_chunks").len(), 1);
}

#[test]
fn a_dropped_link_resumes_at_the_devices_own_offset() {
    let mut bench = Bench::new(|_| {}, Some(10));
    bench.announce("download", "t1").unwrap();
    bench.chunk(0, 8).unwrap();
    assert!(!bench.transfer.has_event());
    bench.chunk(8, 8).unwrap();
    assert!(matches!(bench.transfer.take_event(), Some(Event::Drop)));
    bench.written();

    bench.transfer.on_ready(&mut bench.out).unwrap();
    assert_eq!(bench.written().0, [json!({"type": "get_download_task"})]);
    bench.announce("get_download_task_rsp", "t1").unwrap();
    assert_eq!(of_kind(&bench.written().0, "get_chunks")[0]["offset"], 16);
    bench.chunk(8, 8).unwrap();
    bench.chunk(16, 8).unwrap();
    bench.chunk(24, 8).unwrap();
    assert!(!bench.transfer.has_event(), "a link drops once");
    let counts = bench.transfer.take_counts();
    assert_eq!((counts.bytes, counts.duplicate_bytes), (32, 8));
    let (messages, _) = bench.written();
    assert_eq!(messages.last().unwrap()["progress"]["state"], "done");
}

#[test]
fn nothing_waiting_after_done_means_that_it_was_taken() {
    let mut bench = Bench::new(|_| {}, None);
    bench.announce("download", "t1").unwrap();
    bench.chunk(0, 32).unwrap();
    bench.transfer.on_ready(&mut bench.out).unwrap();
    bench
        .on_json(&json!({"type": "get_download_task_rsp"}))
        .unwrap();
    assert!(matches!(bench.ended(), Some(Ok(()))));

    // And where it was not taken after all, it is said again.
    bench.written();
    bench.announce("download", "t1").unwrap();
    let (messages, _) = bench.written();
    let said = of_kind(&messages, "report_download_progress");
    assert_eq!(said[0]["progress"]["state"], "done");
    bench.answer_report();
    assert!(bench.ended().is_none());
}

#[test]
fn acknowledgements_leave_a_round_trip_later() {
    let rtt = Duration::from_millis(200);
    let mut bench = Bench::new(|plan| plan.rtt = rtt, None);
    bench.announce("download", "t1").unwrap();
    bench.chunk(0, 8).unwrap();
    assert_eq!(bench.written().1, 0);
    assert_eq!(bench.transfer.deadline(), Some(bench.now + rtt));
    bench
        .transfer
        .on_timer(bench.now + rtt / 2, &mut bench.out)
        .unwrap();
    assert_eq!(bench.written().1, 0);
    bench
        .transfer
        .on_timer(bench.now + rtt, &mut bench.out)
        .unwrap();
    assert_eq!(bench.written().1, 2);
}

#[test]
fn a_silent_gateway_is_asked_again() {
    let mut bench = Bench::new(|_| {}, None);
    bench.announce("download", "t1").unwrap();
    bench.chunk(0, 8).unwrap();
    bench.written();
    let due = bench.transfer.deadline().unwrap();
    assert_eq!(due, bench.now + STALL_TIMEOUT);
    bench.transfer.on_timer(due, &mut bench.out).unwrap();
    assert_eq!(of_kind(&bench.written().0, "get_chunks")[0]["offset"], 8);
    assert_eq!(bench.transfer.take_counts().stalls, 1);
}

#[test]
fn errors_of_the_gateway_are_told_apart() {
    let error = |code: &str| json!({"type": "transfer_error", "transfer": "t1", "code": code, "message": "m", "retry_after": 2});
    let started = || {
        let mut bench = Bench::new(|_| {}, None);
        bench.announce("download", "t1").unwrap();
        bench.written();
        bench
    };
    let mut bench = started();
    bench.on_json(&error("busy")).unwrap();
    assert_eq!(
        bench.transfer.deadline(),
        Some(bench.now + Duration::from_secs(2))
    );

    let mut bench = started();
    bench.on_json(&error("stale_version")).unwrap();
    assert_eq!(of_kind(&bench.written().0, "get_download_task").len(), 1);

    let mut bench = started();
    bench.on_json(&error("canceled")).unwrap();
    assert!(matches!(bench.ended(), Some(Err(DeviceError::Canceled))));

    let mut bench = started();
    assert_eq!(
        bench.on_json(&error("bad_request")).unwrap_err().kind(),
        "transfer_error"
    );

    let mut bench = started();
    bench
        .on_json(&json!({"type": "cancel_download", "transfer": "other", "name": "x"}))
        .unwrap();
    assert!(bench.ended().is_none());
    bench
        .on_json(&json!({"type": "cancel_download", "transfer": "t1", "name": "x"}))
        .unwrap();
    assert!(matches!(bench.ended(), Some(Err(DeviceError::Canceled))));
}

#[test]
fn messages_out_of_place_are_refused() {
    let mut bench = Bench::new(|_| {}, None);
    bench.announce("download", "t1").unwrap();
    for topic in [
        "p/d/x",
        "$resource/down/chunk/p/other/t1/0",
        "$resource/down/chunk/p/d/t1/x",
    ] {
        let error = bench.on_publish(topic, b"x").unwrap_err();
        assert_eq!(error.kind(), "unexpected_message", "{topic}");
    }
    bench
        .on_publish("$resource/down/chunk/p/d/old/0", b"late")
        .unwrap();
    assert_eq!(bench.transfer.take_counts().duplicate_bytes, 4);
}

#[test]
fn https_mode_hands_the_url_to_the_driver() {
    let mut bench = Bench::new(|plan| plan.mode = Mode::Https, None);
    bench.announce("download", "t1").unwrap();
    let Some(Event::Fetch(url)) = bench.transfer.take_event() else {
        panic!("a fetch")
    };
    assert_eq!(url, "https://h/f");
    let mut verifier = bench.transfer.take_verifier().unwrap();
    verifier.accept(0, BYTES).unwrap();
    bench
        .transfer
        .on_fetched(bench.now, verifier, Ok(()), &mut bench.out)
        .unwrap();
    assert_eq!(
        bench.written().0.last().unwrap()["progress"]["state"],
        "done"
    );
    bench.answer_report();
    assert!(matches!(bench.ended(), Some(Ok(()))));
}
