//! Uploads over real sockets: chunks, windows, resume, refusals, `PUT`, full disks.

use std::{fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use headgate::config::Config;
use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::harness::{
    Client, Device, Gateway, Login, PATIENCE, Sending, announcement, content, md5, publish, sha256,
    until,
};

const CHUNK: usize = 15_360;

async fn gateway(change: impl FnOnce(&mut Config)) -> (Gateway, Device) {
    let gateway = Gateway::with(change).await;
    gateway.product("P", &json!({})).await;
    let device = gateway.device("P", "d1").await;
    (gateway, device)
}

fn files_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// Waits until no file is left in the spool, and gives the blobs.
async fn blobs_once_spool_is_empty(gateway: &Gateway) -> Vec<String> {
    until("an empty spool", || async {
        files_in(&gateway.data_dir.join("spool"))
            .is_empty()
            .then_some(())
    })
    .await;
    files_in(&gateway.data_dir.join("blobs"))
}

fn assert_result(message: &Value, code: i32) {
    assert_eq!(message["type"], "upload_result", "{message}");
    let progress = &message["report"]["progress"];
    assert_eq!(progress["result_code"], code, "{message}");
}

fn assert_error(message: &Value, code: &str) {
    assert_eq!(message["type"], "transfer_error", "{message}");
    assert_eq!(message["code"], code, "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_sends_is_stored_listed_and_read_back() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(1_000_000);
    let mut client = Client::listening(&gateway, &device).await;
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    let told = &sending.message;
    assert_eq!(
        (&told["size"], &told["name"]),
        (&json!(1_000_000), &json!("log"))
    );
    assert_eq!(told["md5sum"], md5(&bytes));
    assert_eq!(
        (sending.offset, sending.chunk, sending.window),
        (0, CHUNK, 8)
    );
    assert!(told["url"].as_str().expect("a url").len() < 1_000);
    let listed = &gateway.uploads("?state=receiving").await[0];
    assert_eq!(
        (&listed["state"], &listed["received"]),
        (&json!("receiving"), &json!(0))
    );
    let early = format!("/uploads/{}/content", sending.transfer);
    assert_eq!(gateway.api(Method::GET, &early, None).await.status, 409);
    client
        .send_until(&device, &sending, &bytes, bytes.len())
        .await;
    let result = client.told().await;
    assert_result(&result, 0);
    assert_eq!(result["transfer"], json!(sending.transfer));

    let listed = gateway.uploads("?device=P_d1&state=stored").await;
    let [upload] = &listed[..] else {
        panic!("{listed:?}")
    };
    assert_eq!(upload["sha256"], sha256(&bytes));
    assert_eq!(
        (&upload["version"], &upload["name"]),
        (&json!(1), &json!("log"))
    );
    gateway.has_uploaded(&sending.transfer, &bytes).await;
    for other in [
        "?device=P_d2",
        "?product=Q",
        "?name=other",
        "?until=2020-01-01T00:00:00.000Z",
    ] {
        assert!(gateway.uploads(other).await.is_empty(), "{other}");
    }
    assert_eq!(blobs_once_spool_is_empty(&gateway).await.len(), 1);
    gateway
        .metric_is("headgate_uploads_total{result=\"stored\"}", 1.0)
        .await;
    gateway.metric_is("headgate_upload_spool_bytes", 0.0).await;

    // The very same again costs nothing.
    let again = client.announce(&device, &announcement("log", &bytes)).await;
    assert_eq!(
        (again.transfer, again.offset),
        (sending.transfer, bytes.len())
    );
    assert_result(&client.told().await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_in_any_order_within_the_window_and_gaps_are_told() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(20 * CHUNK + 100);
    let mut client = Client::listening(&gateway, &device).await;
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    let chunk = |n: usize| {
        (
            n * CHUNK,
            &bytes[n * CHUNK..bytes.len().min((n + 1) * CHUNK)],
        )
    };
    let transfer = &sending.transfer;
    let chunks = [chunk(2), chunk(0), chunk(5), chunk(2)];
    let answers = client.send_chunks(&device, transfer, &chunks).await;
    let in_order = answers.windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(
        in_order,
        "acknowledged in the order of sending: {answers:?}"
    );
    let state = client.upload_state(&device, transfer).await;
    // Chunks 1 to 5: 1, 3 and 4 are missing, and the bits behind the last stored one.
    assert_eq!(state["offset"], CHUNK, "{state}");
    assert_eq!(state["missing"], "ed", "{state}");
    for n in [1, 3, 4] {
        let (offset, piece) = chunk(n);
        let reason = client.send_chunk(&device, transfer, offset, piece).await;
        assert_eq!(reason, ReasonCode::Success);
    }
    let rest = Sending {
        offset: 6 * CHUNK,
        ..sending.clone()
    };
    client.send_until(&device, &rest, &bytes, bytes.len()).await;
    assert_result(&client.told().await, 0);
    gateway.has_uploaded(transfer, &bytes).await;
    // Once it is stored it can be asked about again.
    let state = client.upload_state(&device, transfer).await;
    assert_eq!(state["offset"], bytes.len());
    assert_result(&client.told().await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_death_of_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &[]).await;
    gateway.product("P", &json!({})).await;
    let device = gateway.device("P", "d1").await;
    let bytes = content(3_000_000);
    let mut client = Client::listening(&gateway, &device).await;
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    let half = 100 * CHUNK;
    client.send_until(&device, &sending, &bytes, half).await;
    let dir = gateway.kill().await;

    let gateway = Gateway::process(dir, &[]).await;
    let mut client = Client::listening(&gateway, &device).await;
    // A device that remembers asks where to go on; one that forgot announces again.
    let state = client.upload_state(&device, &sending.transfer).await;
    assert_eq!(state["offset"], half, "{state}");
    let again = client.announce(&device, &announcement("log", &bytes)).await;
    assert_eq!((&again.transfer, again.offset), (&sending.transfer, half));
    // The last piece, and the process dies while it is being checked.
    client
        .send_until(&device, &again, &bytes, bytes.len())
        .await;
    let dir = gateway.kill().await;

    let gateway = Gateway::process(dir, &[]).await;
    until("it is stored", || async {
        (gateway.uploads("?state=stored").await.len() == 1).then_some(())
    })
    .await;
    gateway.has_uploaded(&sending.transfer, &bytes).await;
    let mut client = Client::listening(&gateway, &device).await;
    let again = client.announce(&device, &announcement("log", &bytes)).await;
    assert_eq!(again.offset, bytes.len());
    assert_result(&client.told().await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_belongs_nowhere_is_refused_and_changes_nothing() {
    let (gateway, device) = gateway(|_| {}).await;
    let other = gateway.device("P", "d2").await;
    let bytes = content(4 * CHUNK);
    let mut client = Client::log_in(&gateway, &Login::of(&device).over(ProtocolVersion::V5)).await;
    client.subscribe(&[&device.down()], QoS::AtLeastOnce).await;
    let mut thief = Client::log_in(&gateway, &Login::of(&other).over(ProtocolVersion::V5)).await;
    thief.subscribe(&[&other.down()], QoS::AtLeastOnce).await;
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    let transfer = sending.transfer.as_str();
    let piece = &bytes[..CHUNK];
    let more = vec![0; CHUNK + 1];
    let (invalid, unknown) = (
        ReasonCode::PayloadFormatInvalid,
        ReasonCode::ImplementationSpecificError,
    );
    for (transfer, offset, payload, reason, code) in [
        (transfer, "61440", &[7_u8][..], invalid, "out_of_range"),
        (transfer, "46080", &more[..], invalid, "out_of_range"),
        (
            transfer,
            "18446744073709551615",
            piece,
            invalid,
            "out_of_range",
        ),
        (
            transfer,
            "18446744073709551616",
            piece,
            invalid,
            "bad_request",
        ),
        (transfer, "-1", piece, invalid, "bad_request"),
        (transfer, "x", piece, invalid, "bad_request"),
        (transfer, "0", &[], invalid, "bad_request"),
        ("0000000000001", "0", piece, unknown, "unknown_transfer"),
        ("../../etc", "0", piece, ReasonCode::NotAuthorized, ""),
        ("nonsense", "0", piece, unknown, "unknown_transfer"),
    ] {
        let topic = format!("$resource/up/chunk/P/d1/{transfer}/{offset}");
        assert_eq!(client.publish(&topic, payload).await, reason, "{topic}");
        if !code.is_empty() {
            assert_error(&client.told().await, code);
        }
    }
    // Another device's transfer, on its own topics and on the other's.
    let reason = thief.send_chunk(&other, transfer, 0, piece).await;
    assert_eq!(reason, unknown);
    assert_error(&thief.told().await, "unknown_transfer");
    assert_error(
        &thief.upload_state(&other, transfer).await,
        "unknown_transfer",
    );
    let reason = thief.send_chunk(&device, transfer, 0, piece).await;
    assert_eq!(reason, ReasonCode::NotAuthorized);
    let state = client.upload_state(&device, transfer).await;
    assert_eq!(
        (&state["offset"], &state["missing"]),
        (&json!(0), &json!(""))
    );

    // Beyond the window of a large upload.
    let large = content(40 * CHUNK);
    let sending = client
        .announce(&device, &announcement("large", &large))
        .await;
    let reason = client
        .send_chunk(&device, &sending.transfer, 9 * CHUNK, piece)
        .await;
    assert_eq!(reason, invalid);
    assert_error(&client.told().await, "out_of_range");
    gateway.metric_is("headgate_upload_spool_bytes", 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_not_what_was_announced_leave_nothing() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(50_000);
    let mut client = Client::listening(&gateway, &device).await;
    let mut wrong_md5 = announcement("log", &bytes);
    wrong_md5["md5sum"] = "0".repeat(32).into();
    let mut wrong_sha256 = announcement("log", &bytes);
    wrong_sha256["sha256"] = "0".repeat(64).into();
    for wrong in [&wrong_md5, &wrong_sha256] {
        let sending = client.announce(&device, wrong).await;
        client
            .send_until(&device, &sending, &bytes, bytes.len())
            .await;
        assert_result(&client.told().await, -4);
        assert!(gateway.uploads("").await.is_empty());
        assert!(blobs_once_spool_is_empty(&gateway).await.is_empty());
        // It can be asked about, and is not gone on with.
        let again = client.upload_state(&device, &sending.transfer).await;
        assert_result(&again, -4);
    }
    gateway
        .metric_is("headgate_uploads_total{result=\"mismatched\"}", 2.0)
        .await;
    assert_result(&client.upload(&device, "log", &bytes).await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_replaced_at_once_while_unfinished_and_when_whole_once_stored() {
    let (gateway, device) = gateway(|_| {}).await;
    let (old, new) = (content(60_000), content(70_000));
    let mut client = Client::listening(&gateway, &device).await;
    let first = client.announce(&device, &announcement("log", &old)).await;
    client.send_until(&device, &first, &old, 2 * CHUNK).await;
    // Other bytes under the name: the unfinished one is no more.
    let second = client.announce(&device, &announcement("log", &new)).await;
    assert_ne!(first.transfer, second.transfer);
    assert_eq!(second.offset, 0);
    client
        .tell(
            &device,
            &json!({"type": "get_upload_state", "transfer": first.transfer}),
        )
        .await;
    assert_error(&client.told().await, "unknown_transfer");
    client.send_until(&device, &second, &new, new.len()).await;
    assert_result(&client.told().await, 0);
    // Stored: it stays until the next one is whole.
    let third = client.announce(&device, &announcement("log", &old)).await;
    client.send_until(&device, &third, &old, CHUNK).await;
    gateway.has_uploaded(&second.transfer, &new).await;
    let rest = Sending {
        offset: CHUNK,
        ..third.clone()
    };
    client.send_until(&device, &rest, &old, old.len()).await;
    assert_result(&client.told().await, 0);
    let uploads = gateway.uploads("").await;
    let [upload] = &uploads[..] else {
        panic!("{uploads:?}")
    };
    assert_eq!(
        (&upload["id"], &upload["version"]),
        (&json!(third.transfer), &json!(2))
    );
    gateway.has_uploaded(&third.transfer, &old).await;
    assert_eq!(blobs_once_spool_is_empty(&gateway).await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_budget_mqtt_5_sends_again_and_3_1_1_is_waited_for() {
    const SMALL: usize = 256;
    let (gateway, device) = gateway(|config| config.uploads.max_waiting_bytes = 3 * SMALL).await;
    let bytes = content(10 * SMALL);
    let chunks: Vec<(usize, &[u8])> = bytes
        .chunks(SMALL)
        .enumerate()
        .map(|(n, piece)| (n * SMALL, piece))
        .collect();
    for (version, name) in [
        (ProtocolVersion::V5, "five"),
        (ProtocolVersion::V311, "three"),
    ] {
        let mut client = Client::log_in(&gateway, &Login::of(&device).over(version)).await;
        client.subscribe(&[&device.down()], QoS::AtLeastOnce).await;
        let mut announced = announcement(name, &bytes);
        announced["chunk_size"] = SMALL.into();
        announced["name"] = name.into();
        let sending = client.announce(&device, &announced).await;
        assert_eq!((sending.chunk, sending.window), (SMALL, 32));
        // All in one record: the budget is full after three, wherever the disk is.
        let answers = client
            .send_chunks(&device, &sending.transfer, &chunks)
            .await;
        let reasons: Vec<ReasonCode> = answers.iter().map(|(_, reason)| *reason).collect();
        if version == ProtocolVersion::V5 {
            let (stored, later) = reasons.split_at(3);
            assert_eq!(stored, [ReasonCode::Success; 3]);
            assert_eq!(later, [ReasonCode::QuotaExceeded; 7]);
            let state = client.upload_state(&device, &sending.transfer).await;
            assert_eq!(state["offset"], 3 * SMALL, "not stored: {state}");
            for (offset, piece) in &chunks[3..] {
                let sent = client
                    .send_chunk(&device, &sending.transfer, *offset, piece)
                    .await;
                assert_eq!(sent, ReasonCode::Success);
            }
        } else {
            assert_eq!(reasons, [ReasonCode::Success; 10]);
        }
        assert_result(&client.told().await, 0);
        gateway.has_uploaded(&sending.transfer, &bytes).await;
    }
    gateway
        .metric_is("headgate_upload_waiting_bytes", 0.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_chunk_is_acknowledged_behind_it() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(CHUNK);
    let mut client = Client::listening(&gateway, &device).await;
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    client.ping().await;
    let (first, second) = (client.packet_id(), client.packet_id());
    let chunk = device.up_chunk(&sending.transfer, 0);
    client
        .send_together(&[
            publish(&chunk, &bytes[..100], Some(first)),
            publish("P/d1/data", b"x", Some(second)),
        ])
        .await;
    for expected in [first, second] {
        let Some(headgate_protocol::mqtt::Packet::PubAck(ack)) = client.answer().await else {
            panic!("no acknowledgement")
        };
        assert_eq!(ack.packet_id, expected);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_are_said_before_a_byte_is_sent() {
    let (gateway, device) = gateway(|config| {
        config.uploads.max_size_bytes = 1_000;
        config.uploads.max_bytes_per_device = 2_500;
        config.uploads.max_count_per_device = 4;
        config.uploads.max_open_per_device = 3;
    })
    .await;
    let mut client = Client::listening(&gateway, &device).await;
    let large = announcement("large", &content(1_001));
    assert_error(&client.exchange(&device, &large).await, "too_large");
    for name in ["a", "b"] {
        client
            .announce(&device, &announcement(name, &content(1_000)))
            .await;
    }
    let full = announcement("c", &content(501));
    assert_error(&client.exchange(&device, &full).await, "quota_exceeded");
    client
        .announce(&device, &announcement("c", &content(500)))
        .await;
    let busy = client
        .exchange(&device, &announcement("d", &content(1)))
        .await;
    assert_error(&busy, "busy");
    assert!(busy["retry_after"].as_u64().expect("seconds") > 0);
    // What takes another's place counts only for the difference.
    client
        .announce(&device, &announcement("a", &content(999)))
        .await;
    gateway
        .metric_is("headgate_uploads_total{result=\"refused\"}", 3.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_uploads_expire_and_old_ones_are_deleted() {
    let (gateway, device) = gateway(|config| {
        config.uploads.unfinished_lifetime = Duration::from_millis(300);
        config.uploads.retention = Some(Duration::from_millis(300));
    })
    .await;
    let bytes = content(20_000);
    let mut client = Client::listening(&gateway, &device).await;
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    client
        .send_chunk(&device, &sending.transfer, 0, &bytes[..100])
        .await;
    assert_result(&client.told().await, -1);
    assert_result(&client.upload(&device, "log", &bytes).await, 0);
    until("nothing is left", || async {
        gateway.uploads("").await.is_empty().then_some(())
    })
    .await;
    until("nor its bytes", || async {
        files_in(&gateway.data_dir.join("blobs"))
            .is_empty()
            .then_some(())
    })
    .await;
    assert!(blobs_once_spool_is_empty(&gateway).await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_deletes_what_is_stored_and_what_is_coming() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(100_000);
    let mut client = Client::listening(&gateway, &device).await;
    let result = client.upload(&device, "done", &bytes).await;
    let stored = format!("/uploads/{}", result["transfer"].as_str().expect("an id"));
    let coming = client
        .announce(&device, &announcement("coming", &bytes))
        .await;
    client.send_until(&device, &coming, &bytes, CHUNK).await;
    for path in [stored, format!("/uploads/{}", coming.transfer)] {
        gateway.api(Method::DELETE, &path, None).await.ok(204);
        assert_eq!(gateway.api(Method::GET, &path, None).await.status, 404);
        assert_eq!(gateway.api(Method::DELETE, &path, None).await.status, 404);
    }
    assert_result(&client.told().await, -2);
    let reason = client
        .send_chunk(&device, &coming.transfer, CHUNK, &bytes[..9])
        .await;
    assert_eq!(reason, ReasonCode::Success, "3.1.1 has no way to say no");
    assert_error(&client.told().await, "unknown_transfer");
    assert!(blobs_once_spool_is_empty(&gateway).await.is_empty());
    gateway.stop().await;
}

/// A `PUT` as one of Tencent's SDKs writes it.
fn put(url: &str, headers: &str, bytes: &[u8]) -> Vec<u8> {
    let path = url.splitn(4, '/').nth(3).expect("a path");
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        bytes.len()
    );
    [head.as_bytes(), bytes].concat()
}

fn status_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| *byte == b'\r').next().expect("a line");
    String::from_utf8_lossy(line).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tencents_upload_goes_by_put_as_recorded() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(600_000);
    let mut client = Client::listening(&gateway, &device).await;
    // The vendor's own message, blanks and all, and nothing of ours in it.
    let announced = format!(
        r#"{{"type": "create_upload_task", "size": {}, "name": "resource", "md5sum": "{}"}}"#,
        bytes.len(),
        md5(&bytes)
    );
    let digest = STANDARD.encode(Md5::digest(&bytes));
    for headers in [
        // The C SDK.
        format!("Content-MD5:{digest}\r\nContent-Type: text/plain;charset=utf-8\r\n"),
        // The Python SDK.
        format!("Content-MD5: {digest}\r\nContent-Type: application/x-www-form-urlencoded\r\n"),
        // Huawei's.
        "Content-Type: text/plain\r\n".to_owned(),
    ] {
        client.publish(&device.up(), announced.as_bytes()).await;
        let rsp = client.told().await;
        assert_eq!(rsp["type"], "create_upload_task_rsp", "{rsp}");
        assert!(rsp.to_string().len() < 2_048);
        let url = rsp["url"].as_str().expect("a url");
        let report = r#"{"type":"report_upload_progress","name":"resource","progress":{"state":"uploading","percent":100,"result_code":0,"result_msg":""}}"#;
        client.publish(&device.up(), report.as_bytes()).await;
        let receipt = client.told().await;
        assert_eq!(
            receipt,
            json!({"type": "report_upload_progress_rsp", "result_code": 0, "result_msg": "ok"})
        );
        let answer = gateway.files_exchange(&put(url, &headers, &bytes)).await;
        assert_eq!(status_line(&answer), "HTTP/1.1 200 ok");
        assert_result(&client.told().await, 0);
        let done = r#"{"type":"report_upload_progress","name":"resource","progress":{"state":"done","result_code":0,"result_msg":""}}"#;
        client.publish(&device.up(), done.as_bytes()).await;
        assert_eq!(client.told().await["result_code"], 0);
        let transfer = rsp["transfer"].as_str().expect("an id");
        gateway.has_uploaded(transfer, &bytes).await;
        // The answer was lost: the same once more.
        let answer = gateway.files_exchange(&put(url, &headers, &bytes)).await;
        assert_eq!(status_line(&answer), "HTTP/1.1 200 ok");
    }
    gateway
        .metric_is("headgate_uploads_total{result=\"stored\"}", 3.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_breaks_off_or_lies_can_be_gone_on_with_or_leaves_nothing() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(1_000_000);
    let mut client = Client::listening(&gateway, &device).await;
    let mut announced = announcement("log", &bytes);
    announced["sha256"] = sha256(&bytes).into();
    let sending = client.announce(&device, &announced).await;
    let url = sending.message["url"].as_str().expect("a url");
    let mut short = put(url, "", &bytes);
    short.truncate(short.len() / 2);
    assert!(gateway.files_exchange_and_leave(&short).await.is_empty());
    // `done` before everything is there is not believed.
    let done =
        json!({"type": "report_upload_progress", "name": "log", "progress": {"state": "done"}});
    let receipt = client.exchange(&device, &done).await;
    assert_eq!(receipt["result_code"], -1, "{receipt}");
    // The same transfer goes on by chunks from what came, once the gateway has seen the end of the request.
    let going_on = async {
        loop {
            let again = client.announce(&device, &announced).await;
            let piece = &bytes[again.offset..=again.offset];
            let (topic, id) = (
                device.up_chunk(&again.transfer, again.offset as u64),
                client.packet_id(),
            );
            client.send(&publish(&topic, piece, Some(id))).await;
            let busy =
                client.upload_state(&device, &again.transfer).await["type"] == "transfer_error";
            if busy {
                client.told().await;
            } else if again.offset > 0 {
                return again;
            }
        }
    };
    let again = tokio::time::timeout(PATIENCE, going_on)
        .await
        .expect("in time");
    assert_eq!(again.transfer, sending.transfer);
    client
        .send_until(&device, &again, &bytes, bytes.len())
        .await;
    assert_result(&client.told().await, 0);
    gateway.has_uploaded(&sending.transfer, &bytes).await;

    // Other bytes than announced, of the announced length.
    let other = content(999);
    let sending = client
        .announce(&device, &announcement("other", &other))
        .await;
    let url = sending.message["url"].as_str().expect("a url");
    for (body, headers) in [(&other[..998], ""), (&bytes[..1_000], "")] {
        let answer = gateway.files_exchange(&put(url, headers, body)).await;
        assert_eq!(status_line(&answer), "HTTP/1.1 400 Bad Request");
    }
    let wrong = vec![1; 999];
    let answer = gateway.files_exchange(&put(url, "", &wrong)).await;
    assert_eq!(status_line(&answer), "HTTP/1.1 400 Bad Request");
    assert_result(&client.told().await, -4);
    assert!(gateway.uploads("?name=other").await.is_empty());
    assert_eq!(blobs_once_spool_is_empty(&gateway).await.len(), 1);
    let answer = gateway.files_exchange(&put(url, "", &other)).await;
    assert_eq!(status_line(&answer), "HTTP/1.1 410 Gone");
    gateway.stop().await;
}

/// A file system of its own size, unmounted when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    /// Mounts one; `None` where this user may not.
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let options = format!("size={size}");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .status();
        mount
            .is_ok_and(|status| status.success())
            .then(|| Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _status = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_nothing_is_lost_by_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = dir.path().join("data/spool");
    let Some(_disk) = Disk::mount(&spool, "3m") else {
        eprintln!("SKIPPED: a full disk needs the right to mount one");
        return;
    };
    let gateway = Gateway::start_in(dir, |config| config.uploads.min_free_bytes = 0).await;
    gateway.product("P", &json!({})).await;
    let device = gateway.device("P", "d1").await;
    let mut client = Client::log_in(&gateway, &Login::of(&device).over(ProtocolVersion::V5)).await;
    client.subscribe(&[&device.down()], QoS::AtLeastOnce).await;
    let too_much = announcement("large", &content(2_000_000));
    assert_error(&client.exchange(&device, &too_much).await, "no_space");
    let bytes = content(1_000_000);
    let sending = client.announce(&device, &announcement("log", &bytes)).await;
    client
        .send_until(&device, &sending, &bytes, 10 * CHUNK)
        .await;
    // Something else fills the disk.
    let mut filler = vec![0_u8; 4 << 20];
    let hog = spool.join("hog");
    while fs::write(&hog, &filler).is_err() {
        filler.truncate(filler.len() - 4096);
    }
    let chunk = |n: usize| &bytes[n * CHUNK..(n + 1) * CHUNK];
    let refused = client
        .send_chunk(&device, &sending.transfer, 10 * CHUNK, chunk(10))
        .await;
    assert_eq!(refused, ReasonCode::QuotaExceeded);
    let error = client.told().await;
    assert_error(&error, "no_space");
    assert!(error["retry_after"].as_u64().is_some(), "{error}");
    let state = client.upload_state(&device, &sending.transfer).await;
    assert_eq!(state["offset"], 10 * CHUNK, "nothing of it counts: {state}");
    // The gateway goes on, and so does the upload once there is room.
    let answered = client.publish("P/d1/data", b"x").await;
    assert_eq!(answered, ReasonCode::NoMatchingSubscribers);
    fs::remove_file(&hog).expect("there");
    let rest = Sending {
        offset: 10 * CHUNK,
        ..sending.clone()
    };
    let room = async {
        let (offset, piece) = (10 * CHUNK, chunk(10));
        while client
            .send_chunk(&device, &sending.transfer, offset, piece)
            .await
            != ReasonCode::Success
        {}
    };
    tokio::time::timeout(PATIENCE, room)
        .await
        .expect("room in time");
    client.send_until(&device, &rest, &bytes, bytes.len()).await;
    let mut told = client.told().await;
    while told["type"] == "transfer_error" {
        told = client.told().await;
    }
    assert_result(&told, 0);
    gateway.has_uploaded(&sending.transfer, &bytes).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_digests_of_an_upload_are_served() {
    let (gateway, device) = gateway(|_| {}).await;
    let bytes = content(100_000);
    let mut client = Client::listening(&gateway, &device).await;
    let result = client.upload(&device, "日志 2026.log", &bytes).await;
    let transfer = result["transfer"].as_str().expect("an id");
    let address = gateway.ports.http.expect("an API");
    let url = format!("http://{address}/api/v1/uploads/{transfer}/content");
    let auth = format!("Authorization: Bearer {}", gateway.token);
    let args = ["-sS", "-i", "-H", &auth, "-r", "99990-200000", &url];
    let out = super::harness::run("curl", &args).await.ok();
    let end = out
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(out[..end].to_vec())
        .expect("UTF-8")
        .to_lowercase();
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(
        head.contains("content-range: bytes 99990-99999/100000"),
        "{head}"
    );
    assert!(head.contains("repr-digest: sha-256=:"), "{head}");
    assert!(
        head.contains(&format!("etag: \"{}\"", sha256(&bytes))),
        "{head}"
    );
    assert_eq!(out[end + 4..], bytes[99_990..]);
    gateway.stop().await;
}
