//! CoAP's options, tokens and kinds of messages, one by one: what the test descriptions of docs/coap-conformance.md ask
//! for beyond whole sessions.

use bytes::Bytes;
use headgate_protocol::coap::{
    Code, ContentFormat, Message, MessageId, MessageType, OptionNumber, Request, Szx, Token,
};
use serde_json::{Value, json};

use super::harness::{Coap, Gateway, content, json_of, sha256};

async fn stage() -> (Gateway, Coap) {
    let gateway = Gateway::with_coap(|_| {}).await;
    gateway.unsecured("n1", &Value::Null).await;
    let coap = Coap::registered(&gateway, "n1").await;
    (gateway, coap)
}

fn raw(kind: MessageType, code: Code, id: u16, token: &[u8]) -> Message {
    Message::new(kind, code, MessageId(id), Token::new(token).expect("legal"))
}

fn bytes_of(message: &Message) -> Vec<u8> {
    message.encode(1_280).expect("small").to_vec()
}

/// Sends a datagram; gives the next one.
async fn answer_to(coap: &Coap, datagram: &[u8]) -> Message {
    coap.send(datagram).await;
    Message::decode(&coap.receive().await).expect("legal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_is_served_without_confirmation_too() {
    let (gateway, mut coap) = stage().await;
    let digest = sha256(b"abc");
    let leave = || Request::new(Code::DELETE, &format!("rd/{}", coap.rd));
    for (request, code) in [
        (coap.request(Code::GET, "t"), Code::CONTENT),
        (coap.request(Code::POST, "d"), Code::CHANGED),
        (
            coap.request(Code::PUT, "u/x")
                .with_query("sha256", &digest)
                .with_payload(Bytes::from_static(b"abc")),
            Code::CREATED,
        ),
        (leave(), Code::DELETED),
        (leave(), Code::NOT_FOUND),
    ] {
        let answer = coap.exchange(request.clone().non_confirmable()).await;
        assert_eq!(
            (answer.kind, answer.code),
            (MessageType::NonConfirmable, code),
            "{request:?}"
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_every_length_come_back() {
    let (gateway, coap) = stage().await;
    for len in 0..=8_u16 {
        let token = &[0xa5; 8][..usize::from(len)];
        let mut get = raw(MessageType::Confirmable, Code::GET, 100 + len, token);
        get.add(OptionNumber::URI_PATH, ".well-known");
        get.add(OptionNumber::URI_PATH, "core");
        let answer = answer_to(&coap, &bytes_of(&get)).await;
        assert_eq!((answer.token, answer.id), (get.token, get.id));
        assert_eq!(answer.code, Code::CONTENT);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_host_and_port_and_strange_arguments_change_nothing() {
    let (gateway, mut coap) = stage().await;
    let get = coap.request(Code::GET, "t");
    for (request, code) in [
        (
            get.clone()
                .with(OptionNumber::URI_HOST, "gateway.example")
                .with_uint(OptionNumber::URI_PORT, 5_683),
            Code::CONTENT,
        ),
        (
            get.clone()
                .with_query("first", "1")
                .with_query("second", "2"),
            Code::CONTENT,
        ),
        // [RFC 7252 s5.4.3]: out of its range it is as one that is not known.
        (
            get.clone().with(OptionNumber::URI_HOST, vec![b'a'; 256]),
            Code::BAD_OPTION,
        ),
        (
            get.clone()
                .with(OptionNumber::URI_HOST, "a")
                .with(OptionNumber::URI_HOST, "b"),
            Code::BAD_OPTION,
        ),
    ] {
        let answer = coap.exchange(request.clone()).await;
        assert_eq!(answer.code, code, "{request:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_that_no_resource_has_are_refused() {
    let (gateway, mut coap) = stage().await;
    let put = coap
        .request(Code::PUT, "u/x")
        .with_query("sha256", &sha256(b"abc"))
        .with(OptionNumber::IF_NONE_MATCH, "")
        .with_payload(Bytes::from_static(b"abc"));
    assert_eq!(coap.exchange(put).await.code, Code::BAD_OPTION);
    let elsewhere = "coap://elsewhere.example/x";
    for path in ["t", "u/x"] {
        let proxied = coap
            .request(Code::GET, path)
            .with(OptionNumber::PROXY_URI, elsewhere);
        let answer = coap.exchange(proxied).await;
        assert_eq!(answer.code, Code::PROXYING_NOT_SUPPORTED);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_tag_in_a_request_is_elective() {
    let (gateway, mut coap) = stage().await;
    let bytes = content(100);
    let resource = gateway.resource("N", "settings", &bytes).await;
    let device = super::harness::Device {
        id: "N_n1".to_owned(),
        node: "n1".to_owned(),
        product: "N".to_owned(),
        secret: String::new(),
    };
    gateway.task(&resource, &[&device]).await;
    let told = json_of(&coap.get("t").await);
    let transfer = told["transfer"].as_str().expect("an id");
    let digest = hex::decode(sha256(&bytes)).expect("hex");
    let get = coap
        .request(Code::GET, &format!("r/{transfer}"))
        .with(OptionNumber::ETAG, &digest[..8]);
    let answer = coap.exchange(get).await;
    assert_eq!(answer.code, Code::CONTENT);
    assert_eq!(answer.first(OptionNumber::ETAG), Some(&digest[..8]));
    assert!(answer.payload == bytes, "other bytes");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_every_size_give_the_same_bytes() {
    let (gateway, mut coap) = stage().await;
    let bytes = content(3_001);
    let resource = gateway.resource("N", "settings", &bytes).await;
    let device = super::harness::Device {
        id: "N_n1".to_owned(),
        node: "n1".to_owned(),
        product: "N".to_owned(),
        secret: String::new(),
    };
    let task = gateway.task(&resource, &[&device]).await;
    let told = json_of(&coap.get("t").await);
    let transfer = told["transfer"].as_str().expect("an id").to_owned();
    for exponent in 0..=6 {
        let size = Szx::new(exponent).expect("0 to 6");
        let got = coap.fetch(&transfer, (0, u64::MAX), size).await;
        assert!(got == bytes, "{} bytes a block", size.bytes());
    }
    let first = coap.get(&format!("r/{transfer}")).await;
    assert_eq!(first.uint(OptionNumber::SIZE2), Some(3_001));
    let (path, report) = (format!("t/{transfer}"), json!({"state": "done"}));
    assert_eq!(coap.post(&path, &report).await.code, Code::CHANGED);
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_another_format_are_refused() {
    let (gateway, mut coap) = stage().await;
    let report = Bytes::from_static(b"{\"state\":\"done\"}");
    for (format, code) in [
        (ContentFormat::TEXT, Code::UNSUPPORTED_CONTENT_FORMAT),
        (ContentFormat(1_000), Code::UNSUPPORTED_CONTENT_FORMAT),
        (ContentFormat::CBOR, Code::BAD_REQUEST),
        // A delivery that is over, or was never, may be reported on: it changes nothing.
        (ContentFormat::JSON, Code::CHANGED),
    ] {
        let request = coap
            .request(Code::POST, "t/1")
            .with_content(format, report.clone());
        assert_eq!(coap.exchange(request).await.code, code, "{format:?}");
    }
    // Without a format it is JSON.
    let plain = coap.request(Code::POST, "t/1").with_payload(report);
    assert_eq!(coap.exchange(plain).await.code, Code::CHANGED);
    // More than a file may have.
    let huge = coap
        .request(Code::PUT, "u/x")
        .with_query("sha256", &sha256(b""))
        .with_uint(OptionNumber::BLOCK1, 0x0e)
        .with_uint(OptionNumber::SIZE1, u32::MAX)
        .with_payload(Bytes::from(vec![0; 1_024]));
    let code = coap.exchange(huge).await.code;
    assert_eq!(code, Code::REQUEST_ENTITY_TOO_LARGE);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_that_nobody_asked_for_are_rejected() {
    let (gateway, coap) = stage().await;
    for kind in [MessageType::Confirmable, MessageType::NonConfirmable] {
        let id = 200 + u16::from(kind == MessageType::Confirmable);
        let answer = answer_to(&coap, &bytes_of(&raw(kind, Code::CONTENT, id, b"x"))).await;
        assert_eq!(
            (answer.kind, answer.id),
            (MessageType::Reset, MessageId(id))
        );
    }
    // Reserved classes, and an acknowledgement of nothing, are ignored: what is answered is the ping behind them.
    for (id, first) in [(1_u16, 0x50_u8), (2, 0x60), (3, 0x60)] {
        let code = if id == 3 { 0x45 } else { 0x21 };
        let [high, low] = id.to_be_bytes();
        coap.send(&[first, code, high, low]).await;
        let ping = raw(MessageType::Confirmable, Code::EMPTY, 300 + id, b"");
        let pong = answer_to(&coap, &bytes_of(&ping)).await;
        assert_eq!((pong.kind, pong.id), (MessageType::Reset, ping.id));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_and_a_second_request_end_an_observation() {
    let (gateway, mut coap) = stage().await;
    let device = super::harness::Device {
        id: "N_n1".to_owned(),
        node: "n1".to_owned(),
        product: "N".to_owned(),
        secret: String::new(),
    };
    let resource = gateway.resource("N", "settings", &content(10)).await;
    let watch = |coap: &Coap, observe: u32| {
        coap.request(Code::GET, "t")
            .with_uint(OptionNumber::OBSERVE, observe)
    };
    let (tag, _) = coap.ask(watch(&coap, 0));
    coap.answer(tag).await.expect("an answer");
    // Without the option nothing changes.
    assert_eq!(coap.get("t").await.uint(OptionNumber::OBSERVE), None);
    let task = gateway.task(&resource, &[&device]).await;
    let told = coap.answer(tag).await.expect("a notification");
    assert!(json_of(&told)["transfer"].is_string());
    gateway.delivery_in("pushed", &task, &device).await;
    // With 1 it ends.
    let ended = coap.exchange(watch(&coap, 1)).await;
    assert_eq!(
        (ended.code, ended.uint(OptionNumber::OBSERVE)),
        (Code::CONTENT, None)
    );
    gateway.act(&format!("/tasks/{task}/cancel")).await;
    assert_eq!(json_of(&coap.get("t").await), json!({}));
    assert_eq!(coap.heard(), 0, "nobody watches");

    // A Reset ends it too: the notification of the next delivery is the last.
    let (tag, token) = coap.ask(watch(&coap, 0));
    coap.answer(tag).await.expect("an answer");
    coap.forget(token);
    let task = gateway.task(&resource, &[&device]).await;
    coap.until_reset().await;
    assert_eq!(gateway.delivery(&task, &device).await["state"], "pending");
    gateway.act(&format!("/tasks/{task}/cancel")).await;
    assert_eq!(json_of(&coap.get("t").await), json!({}));
    assert_eq!(coap.resets(), 1, "nothing more was sent");
    gateway.stop().await;
}
