//! Bad input by CoAP, one test for each kind: blocks beyond the end, of no size, out of order, of two uploads at once; and
//! who counts as a stranger.

use bytes::Bytes;
use headgate_protocol::coap::{Block, Code, OptionNumber, Request, Szx};
use serde_json::{Value, json};

use super::harness::{Coap, Gateway, content, json_of, sha256};

const BLOCK: usize = 1_024;

async fn stage(change: impl FnOnce(&mut headgate::config::CoapConfig)) -> (Gateway, Coap) {
    let gateway = Gateway::with_coap(change).await;
    gateway.unsecured("n1", &Value::Null).await;
    let coap = Coap::registered(&gateway, "n1").await;
    (gateway, coap)
}

/// Block `number` of an upload.
fn block(coap: &Coap, name: &str, tag: &str, bytes: &[u8], number: usize) -> Request {
    let (at, end) = (number * BLOCK, ((number + 1) * BLOCK).min(bytes.len()));
    let block = Block {
        more: end < bytes.len(),
        ..Block::at(at as u64, Szx::MAX).expect("a block")
    };
    let size = u32::try_from(bytes.len()).expect("small");
    coap.request(Code::PUT, &format!("u/{name}"))
        .with_query("sha256", &sha256(bytes))
        .with_uint(OptionNumber::BLOCK1, block.value())
        .with_uint(OptionNumber::SIZE1, size)
        .with(OptionNumber::REQUEST_TAG, tag)
        .with_payload(Bytes::copy_from_slice(&bytes[at..end]))
}

async fn sent(coap: &mut Coap, name: &str, tag: &str, bytes: &[u8], number: usize) -> Code {
    let request = block(coap, name, tag, bytes, number);
    coap.exchange(request).await.code
}

/// The bytes of what is listed under this name.
async fn stored(gateway: &Gateway, name: &str) -> Option<Vec<u8>> {
    let listed = gateway.get("/uploads?device=N_n1").await;
    let items = listed["items"].as_array().expect("a list");
    let upload = items
        .iter()
        .find(|upload| upload["name"] == name && upload["state"] == "stored")?;
    let path = format!("/uploads/{}/content", upload["id"].as_str()?);
    let content = gateway.api(hyper::Method::GET, &path, None).await;
    Some(content.body.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_numbers_past_the_end_are_refused() {
    let (gateway, mut coap) = stage(|_| {}).await;
    let bytes = content(3_000);
    let resource = gateway.resource("N", "settings", &bytes).await;
    let body = json!({"resource_id": resource, "device_id": "N_n1"});
    gateway.post("/tasks", &body).await;
    let told = json_of(&coap.get("t").await);
    let path = format!("r/{}", told["transfer"].as_str().expect("an id"));
    for (number, exponent) in [
        (3, 6),
        (188, 0),
        (0x7_ffff, 6),
        (0xf_ffff, 6),
        (0xf_ffff, 0),
    ] {
        let request = coap
            .request(Code::GET, &path)
            .with_uint(OptionNumber::BLOCK2, (number << 4) | exponent);
        let answer = coap.exchange(request).await;
        assert_eq!(answer.code, Code::BAD_OPTION, "{number} of {exponent}");
    }
    let last = coap
        .request(Code::GET, &path)
        .with_uint(OptionNumber::BLOCK2, (2 << 4) | 6);
    assert_eq!(coap.exchange(last).await.payload, bytes[2_048..]);
    // The same of what is sent: nothing lies behind the end that was announced.
    let sending = content(2_000);
    assert_eq!(
        sent(&mut coap, "log", "", &sending, 0).await,
        Code::CONTINUE
    );
    let beyond = coap
        .request(Code::PUT, "u/log")
        .with_uint(OptionNumber::BLOCK1, (0xf_ffff << 4) | 6)
        .with_payload(Bytes::from_static(b"x"));
    assert_eq!(
        coap.exchange(beyond).await.code,
        Code::REQUEST_ENTITY_INCOMPLETE
    );
    assert_eq!(sent(&mut coap, "log", "", &sending, 1).await, Code::CREATED);
    assert_eq!(stored(&gateway, "log").await, Some(sending));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reserved_size_of_blocks_is_refused_both_ways() {
    let (gateway, mut coap) = stage(|_| {}).await;
    for option in [OptionNumber::BLOCK1, OptionNumber::BLOCK2] {
        for value in [0x07, 0x0f, 0x17] {
            let (method, path) = match option {
                OptionNumber::BLOCK1 => (Code::PUT, "u/log"),
                _ => (Code::GET, "r/1"),
            };
            let request = coap.request(method, path).with_uint(option, value);
            let answer = coap.exchange(request).await;
            assert_eq!(answer.code, Code::BAD_REQUEST, "{option:?} {value:#x}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_an_upload_out_of_order_wait_for_the_missing_one() {
    let (gateway, mut coap) = stage(|_| {}).await;
    let bytes = content(5_000);
    let incomplete = Code::REQUEST_ENTITY_INCOMPLETE;
    for (number, code) in [
        (1, incomplete),
        (0, Code::CONTINUE),
        (2, incomplete),
        (1, Code::CONTINUE),
        (4, incomplete),
        // What is there already does no harm.
        (0, Code::CONTINUE),
        (1, Code::CONTINUE),
        (2, Code::CONTINUE),
        (3, Code::CONTINUE),
        (4, Code::CREATED),
    ] {
        let answer = sent(&mut coap, "log", "t", &bytes, number).await;
        assert_eq!(answer, code, "block {number}");
    }
    assert_eq!(stored(&gateway, "log").await, Some(bytes));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_uploads_with_one_request_tag_are_not_mixed() {
    let (gateway, mut coap) = stage(|_| {}).await;
    let (one, two) = (content(2_500), vec![7; 2_500]);
    // Under two names they are two, whatever their tags.
    for number in 0..2 {
        for (name, bytes) in [("one", &one), ("two", &two)] {
            let answer = sent(&mut coap, name, "tag", bytes, number).await;
            assert_eq!(answer, Code::CONTINUE);
        }
    }
    for (name, bytes) in [("one", &one), ("two", &two)] {
        assert_eq!(sent(&mut coap, name, "tag", bytes, 2).await, Code::CREATED);
        assert_eq!(stored(&gateway, name).await.as_ref(), Some(bytes));
    }
    // Under one name the later one counts: what the tag does not tell apart, the digest does.
    for (bytes, number) in [(&one, 0), (&two, 0), (&one, 1)] {
        let answer = sent(&mut coap, "both", "tag", bytes, number).await;
        assert_eq!(answer, Code::CONTINUE);
    }
    assert_eq!(
        sent(&mut coap, "both", "tag", &two, 2).await,
        Code::BAD_REQUEST
    );
    assert_eq!(
        stored(&gateway, "both").await,
        None,
        "neither, not a mixture"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_answered_an_echo_is_no_stranger() {
    // A burst of five datagrams.
    let (gateway, mut coap) = stage(|config| config.stranger_rate = 1).await;
    coap.rebind().await;
    let asked = coap.get("t").await;
    assert_eq!(asked.code, Code::UNAUTHORIZED);
    let echo = asked.first(OptionNumber::ECHO).expect("a value").to_vec();
    let again = coap.request(Code::GET, "t").with(OptionNumber::ECHO, echo);
    assert_eq!(coap.exchange(again).await.code, Code::CONTENT);
    for _ in 0..20 {
        assert_eq!(coap.get("t").await.code, Code::CONTENT);
    }
    let limited = r#"headgate_coap_events_total{event="limited"}"#;
    gateway.metric_is(limited, 0.0).await;
    // What it proved ends with its registration.
    let path = format!("rd/{}", coap.rd);
    let left = coap.exchange(Request::new(Code::DELETE, &path)).await;
    assert_eq!(left.code, Code::DELETED);
    for _ in 0..10 {
        coap.send(b"\x40\x00\xab\xcd").await;
    }
    gateway.metric_is_more_than(limited, 3.0).await;
    gateway.stop().await;
}
