//! CoAP on plain UDP: registration, delivery, uploads and messages over real sockets.

use std::time::Duration;

use bytes::Bytes;
use headgate_protocol::{
    coap::{
        Block, Code, ContentFormat, Message, MessageId, MessageType, OptionNumber, Request, Szx,
        Token,
    },
    mqtt::QoS,
};
use hyper::Method;
use serde_json::{Value, json};

use super::harness::{Client, Coap, Gateway, Login, content, json_of, sha256, until};

fn sleeper(secs: u32) -> Value {
    json!({"reachable_after_uplink_secs": secs})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_registers_takes_a_resource_and_says_so() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let bytes = content(70_001);
    let resource = gateway.resource("N", "firmware", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;

    let mut coap = Coap::registered(&gateway, "n1").await;
    let told = coap.get("t").await;
    assert_eq!(
        (told.code, told.content_format()),
        (Code::CONTENT, Some(ContentFormat::JSON))
    );
    let told = json_of(&told);
    assert_eq!(told["sha256"], sha256(&bytes));
    assert_eq!(
        (&told["size"], &told["url"]),
        (&json!(70_001), &Value::Null)
    );
    gateway.delivery_in("pushed", &task, &device).await;

    let transfer = told["transfer"].as_str().expect("an id");
    let got = coap.fetch(transfer, (0, u64::MAX), Szx::MAX).await;
    assert!(got == bytes, "other bytes");
    let delivery = gateway.delivery_in("delivering", &task, &device).await;
    assert!(delivery["percent"].as_u64() >= Some(98), "{delivery}");
    let path = format!("t/{transfer}");
    let progress = json!({"state": "downloading", "percent": 100});
    assert_eq!(coap.post(&path, &progress).await.code, Code::CHANGED);
    let done = coap.post(&path, &json!({"state": "done"})).await;
    assert_eq!(done.code, Code::CHANGED);
    gateway.delivery_in("delivered", &task, &device).await;
    assert_eq!(json_of(&coap.get("t").await), json!({}));
    let over = coap.get(&format!("r/{transfer}")).await;
    assert_eq!(over.code, Code::NOT_FOUND);

    let session = gateway.get("/devices/N_n1/session").await;
    assert_eq!(
        (&session["protocol"], &session["client_id"]),
        (&json!("coap"), &json!("n1"))
    );
    for (sample, value) in [
        (r#"headgate_connections{auth="none",protocol="coap"}"#, 1.0),
        (r#"headgate_coap_registrations{protocol="coap"}"#, 1.0),
        (
            r#"headgate_connect_attempts_total{outcome="accepted",protocol="coap"}"#,
            1.0,
        ),
        (
            r#"headgate_delivery_chunks_total{protocol="coap",result="sent"}"#,
            69.0,
        ),
        (
            r#"headgate_delivery_chunks_total{protocol="coap",result="acked"}"#,
            68.0,
        ),
    ] {
        gateway.metric_is(sample, value).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_after_a_restart_and_from_another_address() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &sleeper(600)).await;
    let bytes = content(200_000);
    let resource = gateway.resource("N", "firmware", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let transfer = json_of(&coap.get("t").await)["transfer"]
        .as_str()
        .expect("an id")
        .to_owned();
    let mut got = coap.fetch(&transfer, (0, 61_440), Szx::MAX).await;

    // The network gives it another port: it is still who it was, but has to show that it is there.
    coap.rebind().await;
    let path = format!("r/{transfer}");
    let asked = coap.get(&path).await;
    assert_eq!(asked.code, Code::UNAUTHORIZED);
    let echo = asked.first(OptionNumber::ECHO).expect("a value").to_vec();
    let again = coap
        .request(Code::GET, &path)
        .with(OptionNumber::ECHO, echo);
    assert_eq!(coap.exchange(again).await.code, Code::CONTENT);
    let at = got.len() as u64;
    got.extend(
        coap.fetch(&transfer, (at, 122_880), Szx::new(5).expect("512"))
            .await,
    );

    let dir = gateway.stop().await;
    let gateway = Gateway::start_in(dir, |config| {
        config.coap.listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let mut coap = Coap::new(&gateway).await;
    coap.rd = "0123456789abcdef".to_owned();
    assert_eq!(
        coap.get("t").await.code,
        Code::UNAUTHORIZED,
        "it is to register again"
    );
    coap.register("n1").await;
    let told = json_of(&coap.get("t").await);
    let acked = told["acked"].as_u64().expect("a number");
    assert!(acked > 60_000 && acked <= got.len() as u64, "{told}");
    let at = got.len() as u64;
    got.extend(coap.fetch(&transfer, (at, u64::MAX), Szx::MAX).await);
    assert!(got == bytes, "other bytes");
    let done = coap
        .post(&format!("t/{transfer}"), &json!({"state": "done"}))
        .await;
    assert_eq!(done.code, Code::CHANGED);
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_delivery_is_notified_and_acknowledged_bytes_can_be_enough() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &json!({"confirm": "acked"})).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let watch = coap
        .request(Code::GET, "t")
        .with_uint(OptionNumber::OBSERVE, 0);
    let (tag, _) = coap.ask(watch);
    let first = coap.answer(tag).await.expect("an answer");
    assert!(first.uint(OptionNumber::OBSERVE).is_some());
    assert_eq!(json_of(&first), json!({}));

    let bytes = content(5_000);
    let resource = gateway.resource("N", "settings", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let notified = coap.answer(tag).await.expect("a notification");
    assert_eq!(notified.kind, MessageType::Confirmable);
    assert!(notified.uint(OptionNumber::OBSERVE) > first.uint(OptionNumber::OBSERVE));
    let transfer = json_of(&notified)["transfer"]
        .as_str()
        .expect("an id")
        .to_owned();
    let got = coap
        .fetch(&transfer, (0, u64::MAX), Szx::new(4).expect("256"))
        .await;
    assert!(got == bytes, "other bytes");
    // The acknowledgement of the last block says that all is there.
    coap.listen(Duration::from_millis(1)).await;
    gateway.delivery_in("delivered", &task, &device).await;

    // A cancelled one is taken back.
    let task = gateway.task(&resource, &[&device]).await;
    let told = coap.answer(tag).await.expect("a notification");
    assert_ne!(json_of(&told), json!({}));
    gateway.act(&format!("/tasks/{task}/cancel")).await;
    let told = coap.answer(tag).await.expect("a notification");
    assert_eq!(json_of(&told), json!({}));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_device_is_told_when_it_wakes_up_and_holds_no_place_meanwhile() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &sleeper(1)).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let watch = coap
        .request(Code::GET, "t")
        .with_uint(OptionNumber::OBSERVE, 0);
    let (tag, _) = coap.ask(watch);
    coap.answer(tag).await.expect("an answer");
    gateway
        .metric_is(r#"headgate_connections{auth="none",protocol="coap"}"#, 0.0)
        .await;
    gateway
        .metric_is(r#"headgate_coap_registrations{protocol="coap"}"#, 1.0)
        .await;

    let bytes = content(3_000);
    let resource = gateway.resource("N", "settings", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let waiting = gateway.delivery(&task, &device).await;
    assert_eq!(
        (&waiting["state"], &waiting["waiting"]),
        (&json!("pending"), &json!("offline")),
        "{waiting}"
    );
    let uplink = coap
        .request(Code::POST, "d/alive")
        .with_payload(Bytes::from_static(b"1"));
    assert_eq!(coap.exchange(uplink).await.code, Code::CHANGED);
    let notified = coap.answer(tag).await.expect("a notification");
    let transfer = json_of(&notified)["transfer"]
        .as_str()
        .expect("an id")
        .to_owned();
    // It goes to sleep in the middle of it, and the delivery waits for it as for one that is offline.
    let mut got = coap.fetch(&transfer, (0, 1_024), Szx::MAX).await;
    let asleep = until("asleep", || async {
        let now = gateway.delivery(&task, &device).await;
        (now["waiting"] == "offline").then_some(now)
    })
    .await;
    assert_eq!(asleep["state"], "delivering");
    let at = got.len() as u64;
    got.extend(coap.fetch(&transfer, (at, u64::MAX), Szx::MAX).await);
    assert!(got == bytes, "other bytes");
    let done = coap
        .post(&format!("t/{transfer}"), &json!({"state": "done"}))
        .await;
    assert_eq!(done.code, Code::CHANGED);
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_that_bring_no_byte_end_the_attempt() {
    let gateway = Gateway::with_coap(|coap| coap.max_idle_wakeups = 2).await;
    let device = gateway.unsecured("n1", &sleeper(1)).await;
    let resource = gateway.resource("N", "settings", &content(3_000)).await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    for _ in 0..2 {
        assert_ne!(json_of(&coap.get("t").await), json!({}));
        gateway
            .metric_is(r#"headgate_connections{auth="none",protocol="coap"}"#, 0.0)
            .await;
    }
    let failed = gateway.delivery_in("failed", &task, &device).await;
    assert!(failed["reason"].to_string().contains("timeout"), "{failed}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_acknowledge_is_taken_for_asleep() {
    let gateway = Gateway::with_coap(|coap| {
        coap.ack_timeout = Duration::from_millis(100);
        coap.max_retransmit = 1;
    })
    .await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let watch = coap
        .request(Code::GET, "t")
        .with_uint(OptionNumber::OBSERVE, 0);
    let (tag, _) = coap.ask(watch);
    coap.answer(tag).await.expect("an answer");
    coap.is_deaf = true;
    let resource = gateway.resource("N", "settings", &content(3_000)).await;
    let task = gateway.task(&resource, &[&device]).await;
    gateway
        .metric_is(r#"headgate_coap_events_total{event="timeout"}"#, 1.0)
        .await;
    gateway
        .metric_is(r#"headgate_connections{auth="none",protocol="coap"}"#, 0.0)
        .await;
    assert_eq!(gateway.delivery(&task, &device).await["state"], "pending");
    // What was sent meanwhile is of no use to it; the relation stands.
    coap.listen(Duration::from_millis(1)).await;
    coap.is_deaf = false;
    let uplink = coap
        .request(Code::POST, "d")
        .with_payload(Bytes::from_static(b"1"));
    assert_eq!(coap.exchange(uplink).await.code, Code::CHANGED);
    let notified = coap.answer(tag).await.expect("a notification");
    assert!(json_of(&notified)["transfer"].is_string());
    gateway.delivery_in("pushed", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_both_ways_and_wait_until_they_are_acknowledged() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let app = gateway.app("a1", &[&device]).await;
    let mut client = Client::log_in(&gateway, &Login::application(&app, "app:a1")).await;
    client.subscribe(&["N/+/#"], QoS::AtLeastOnce).await;
    let mut coap = Coap::registered(&gateway, "n1").await;

    let request = coap
        .request(Code::POST, "d/meter/1")
        .with_content(ContentFormat::JSON, Bytes::from_static(b"{\"v\":1}"));
    assert_eq!(coap.exchange(request).await.code, Code::CHANGED);
    let heard = client.message().await;
    assert_eq!(
        (heard.topic.as_str(), &heard.payload[..]),
        ("N/n1/meter/1", &b"{\"v\":1}"[..])
    );

    let path = format!("/devices/{}/messages", device.id);
    let long = "x".repeat(2_500);
    for payload in ["first", &long, "last"] {
        let body = json!({"topic": "N/n1/cmd", "payload": payload, "qos": 1});
        let sent = gateway.api(Method::POST, &path, Some(&body)).await;
        assert!(sent.status < 300, "{}", sent.text());
    }
    let first = json_of(&coap.get("c").await);
    assert_eq!(
        (&first["payload"], &first["topic"]),
        (&json!("first"), &json!("N/n1/cmd"))
    );
    let watch = coap
        .request(Code::GET, "c")
        .with_uint(OptionNumber::OBSERVE, 0);
    let (tag, _) = coap.ask(watch);
    // The long one comes in parts; the rest is asked for by itself.
    let mut body = Vec::new();
    let part = coap.answer(tag).await.expect("an answer");
    body.extend_from_slice(&part.payload);
    let mut block = Block::decode(part.first(OptionNumber::BLOCK2).expect("cut")).expect("legal");
    while block.more {
        let next = Block {
            number: block.number + 1,
            more: false,
            ..block
        };
        let request = coap
            .request(Code::GET, "c")
            .with_uint(OptionNumber::BLOCK2, next.value());
        let part = coap.exchange(request).await;
        body.extend_from_slice(&part.payload);
        block = Block::decode(part.first(OptionNumber::BLOCK2).expect("cut")).expect("legal");
    }
    let second: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(second["payload"], json!(long));
    let last = json_of(&coap.answer(tag).await.expect("a notification"));
    assert_eq!(last["payload"], "last");
    coap.listen(Duration::from_millis(1)).await;
    gateway.metric_is("headgate_mailbox_messages", 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_by_blocks_is_cut_and_goes_on_where_it_stands() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let bytes = content(40_500);
    let mut coap = Coap::registered(&gateway, "n1").await;
    let put = |coap: &Coap, at: usize, size: Szx| {
        let end = (at + size.bytes_usize()).min(bytes.len());
        let block = Block {
            more: end < bytes.len(),
            ..Block::at(at as u64, size).expect("a block")
        };
        let request = coap
            .request(Code::PUT, "u/log")
            .with_query("sha256", &sha256(&bytes))
            .with_uint(OptionNumber::BLOCK1, block.value())
            .with_uint(OptionNumber::SIZE1, 40_500);
        (
            request.with_payload(Bytes::copy_from_slice(&bytes[at..end])),
            end,
        )
    };
    let mut at = 0;
    while at < 20_480 {
        let (request, end) = put(&coap, at, Szx::MAX);
        assert_eq!(coap.exchange(request).await.code, Code::CONTINUE);
        at = end;
    }
    // Out of order, and beyond what is there.
    let (gap, _) = put(&coap, at + 1_024, Szx::MAX);
    assert_eq!(
        coap.exchange(gap).await.code,
        Code::REQUEST_ENTITY_INCOMPLETE
    );
    let (other, _) = put(&coap, at, Szx::MAX);
    let other = other.with(OptionNumber::REQUEST_TAG, "x");
    assert_eq!(
        coap.exchange(other).await.code,
        Code::REQUEST_ENTITY_INCOMPLETE,
        "another operation"
    );

    let dir = gateway.stop().await;
    let gateway = Gateway::start_in(dir, |config| {
        config.coap.listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let standing = json_of(&coap.get("u/log").await);
    assert_eq!(standing, json!({"offset": 20_480, "size": 40_500}));
    // With smaller blocks from here on.
    let mut answer = Code::CONTINUE;
    while at < bytes.len() {
        assert_eq!(answer, Code::CONTINUE);
        let (request, end) = put(&coap, at, Szx::new(5).expect("512"));
        answer = coap.exchange(request).await.code;
        at = end;
    }
    assert_eq!(answer, Code::CREATED);
    let path = format!("/uploads?device={}", device.id);
    let listed = gateway.get(&path).await;
    let upload = &listed["items"][0];
    assert_eq!(
        (&upload["name"], &upload["size"]),
        (&json!("log"), &json!(40_500)),
        "{listed}"
    );
    let id = upload["id"].as_str().expect("an id");
    let stored = gateway
        .api(Method::GET, &format!("/uploads/{id}/content"), None)
        .await;
    assert!(stored.body == bytes, "other bytes");
    assert_eq!(
        coap.get("u/log").await.code,
        Code::NOT_FOUND,
        "nothing is unfinished"
    );
    // One whose bytes are not what was announced leaves nothing.
    let wrong = coap
        .request(Code::PUT, "u/bad")
        .with_query("sha256", &sha256(b"else"))
        .with_payload(Bytes::from_static(b"something"));
    assert_eq!(coap.exchange(wrong).await.code, Code::BAD_REQUEST);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_devices_without_a_secret_are_let_in_here() {
    let gateway = Gateway::with_coap(|coap| coap.max_registrations = 1).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let secured = json!({"transports": {"mqtt": true, "coap": true}});
    gateway.product("S", &secured).await;
    gateway.device("S", "s1").await;
    gateway.product("M", &Value::Null).await;
    gateway.device("M", "m1").await;
    gateway.unsecured_of("N", "n2").await;
    let mut coap = Coap::new(&gateway).await;
    let register = |ep: &str, more: Option<(&str, &str)>| {
        let request = Request::new(Code::POST, "rd").with_query("ep", ep);
        match more {
            Some((key, value)) => request.with_query(key, value),
            None => request,
        }
    };
    for (request, code) in [
        (register("s1", None), Code::FORBIDDEN),
        (register("m1", None), Code::NOT_FOUND),
        (register("nobody", None), Code::NOT_FOUND),
        (register("n1", Some(("pid", "S"))), Code::NOT_FOUND),
        (register("n1", Some(("lt", "0"))), Code::BAD_REQUEST),
        (register("n1", Some(("lt", "-5"))), Code::BAD_REQUEST),
        (Request::new(Code::POST, "rd"), Code::BAD_REQUEST),
        (Request::new(Code::GET, "rd"), Code::METHOD_NOT_ALLOWED),
        (
            Request::new(Code::POST, "rd/0123456789abcdef"),
            Code::NOT_FOUND,
        ),
        (Request::new(Code::GET, "t"), Code::UNAUTHORIZED),
        (
            Request::new(Code::GET, "t").with_query("rd", "0123456789abcdef"),
            Code::UNAUTHORIZED,
        ),
        (Request::new(Code::GET, "elsewhere"), Code::NOT_FOUND),
        (register("n1", Some(("pid", "N"))), Code::CREATED),
        (register("n2", None), Code::SERVICE_UNAVAILABLE),
    ] {
        assert_eq!(
            coap.exchange(request.clone()).await.code,
            code,
            "{request:?}"
        );
    }
    let links = coap
        .exchange(Request::new(Code::GET, ".well-known/core"))
        .await;
    assert_eq!(links.content_format(), Some(ContentFormat::LINKS));
    assert!(links.payload.starts_with(b"</rd>,"));

    // Frozen, it is out at once; registered again it is not let in.
    coap.register("n1").await;
    let path = format!("/devices/{}/freeze", device.id);
    let frozen = gateway.api(Method::POST, &path, None).await;
    assert!(frozen.status < 300, "{}", frozen.text());
    let out = async |coap: &mut Coap| coap.get("t").await.code;
    let mut code = out(&mut coap).await;
    while code == Code::CONTENT {
        code = out(&mut coap).await;
    }
    assert_eq!(code, Code::UNAUTHORIZED);
    let refused = coap.exchange(register("n1", None)).await;
    assert_eq!(refused.code, Code::FORBIDDEN);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_are_renewed_left_and_replaced() {
    let gateway = Gateway::with_coap(|_| {}).await;
    gateway.unsecured("n1", &Value::Null).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let former = coap.rd.clone();
    coap.register("n1").await;
    assert_ne!(coap.rd, former);
    let old = Request::new(Code::GET, "t").with_query("rd", &former);
    assert_eq!(coap.exchange(old).await.code, Code::UNAUTHORIZED);

    let watch = coap
        .request(Code::GET, "t")
        .with_uint(OptionNumber::OBSERVE, 0);
    let (tag, _) = coap.ask(watch);
    coap.answer(tag).await.expect("an answer");
    coap.rebind().await;
    let renew = Request::new(Code::POST, &format!("rd/{}", coap.rd)).with_query("lt", "60");
    assert_eq!(coap.exchange(renew).await.code, Code::CHANGED);
    let resource = gateway.resource("N", "settings", &content(10)).await;
    let device = super::harness::Device {
        id: "N_n1".to_owned(),
        node: "n1".to_owned(),
        product: "N".to_owned(),
        secret: String::new(),
    };
    gateway.task(&resource, &[&device]).await;
    let told = coap.answer(tag).await.expect("at the new address");
    assert!(json_of(&told)["transfer"].is_string());

    let leave = Request::new(Code::DELETE, &format!("rd/{}", coap.rd));
    assert_eq!(coap.exchange(leave).await.code, Code::DELETED);
    assert_eq!(coap.get("t").await.code, Code::UNAUTHORIZED);
    gateway
        .metric_is(r#"headgate_coap_registrations{protocol="coap"}"#, 0.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_answered_as_before_and_carried_out_once() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let app = gateway.app("a1", &[&device]).await;
    let mut client = Client::log_in(&gateway, &Login::application(&app, "app:a1")).await;
    client.subscribe(&["N/+/#"], QoS::AtLeastOnce).await;
    let coap = Coap::registered(&gateway, "n1").await;
    let token = Token::new(b"t").expect("legal");
    let mut post = Message::new(MessageType::Confirmable, Code::POST, MessageId(9), token);
    post.add(OptionNumber::URI_PATH, "d");
    post.add(OptionNumber::URI_QUERY, format!("rd={}", coap.rd));
    post.payload = Bytes::from_static(b"once");
    let datagram = post.encode(1_152).expect("small");
    coap.send(&datagram).await;
    let first = coap.receive().await;
    for _ in 0..3 {
        coap.send(&datagram).await;
        assert_eq!(coap.receive().await, first);
    }
    assert_eq!(client.message().await.payload, "once");
    post.id = MessageId(10);
    post.payload = Bytes::from_static(b"twice");
    coap.send(&post.encode(1_152).expect("small")).await;
    assert_eq!(client.message().await.payload, "twice");
    gateway
        .metric_is(r#"headgate_coap_events_total{event="duplicate"}"#, 3.0)
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_says_when_to_come_again() {
    let gateway = Gateway::with_coap(|_| {}).await;
    gateway.unsecured("n1", &Value::Null).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let asks = async {
        loop {
            let answer = coap.get("t").await;
            if answer.code != Code::CONTENT {
                break answer;
            }
        }
    };
    let (_dir, answer) = tokio::join!(gateway.stop(), asks);
    assert_eq!(answer.code, Code::SERVICE_UNAVAILABLE);
    assert_eq!(answer.uint(OptionNumber::MAX_AGE), Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_little_and_bad_datagrams_nothing() {
    let gateway = Gateway::with_coap(|coap| coap.stranger_rate = 10).await;
    gateway.unsecured("n1", &Value::Null).await;
    let mut victim = Coap::registered(&gateway, "n1").await;
    let stranger = Coap::new(&gateway).await;
    // Format errors of what is not confirmable are ignored; a ping is answered, and shows that nothing came before.
    for bytes in [
        &b"\x50\x01\x12\x34\xff"[..],
        b"\x60\x01\x00\x01",
        b"\x00",
        b"\xc0\x01\x00\x02",
    ] {
        stranger.send(bytes).await;
    }
    stranger.send(b"\x40\x00\xab\xcd").await;
    assert_eq!(stranger.receive().await, b"\x70\x00\xab\xcd");
    // Whatever a stranger asks is answered by at most three times as much.
    let ask = |path: &[&str], query: Option<&str>, id: u16| {
        let mut message = Message::new(
            MessageType::Confirmable,
            Code::GET,
            MessageId(id),
            Token::default(),
        );
        for segment in path {
            message.add(OptionNumber::URI_PATH, *segment);
        }
        if let Some(query) = query {
            message.add(OptionNumber::URI_QUERY, query);
        }
        message.encode(1_152).expect("small")
    };
    let rd = format!("rd={}", victim.rd);
    for (id, path, query) in [
        (1, &[".well-known", "core"][..], None),
        (2, &["t"], None),
        (3, &["t"], Some(&*rd)),
        (4, &["c"], Some(&*rd)),
        (5, &["r", "1"], Some(&*rd)),
        (6, &["u", "x"], Some(&*rd)),
        (7, &["x"], None),
    ] {
        let datagram = ask(path, query, id);
        stranger.send(&datagram).await;
        let answer = stranger.receive().await;
        assert!(
            answer.len() <= 3 * datagram.len(),
            "{path:?}: {} for {}",
            answer.len(),
            datagram.len()
        );
    }
    // A flood is dropped, and a registered device is served all the same.
    for id in 0..200 {
        stranger.send(&ask(&["x"], None, 1_000 + id)).await;
    }
    gateway
        .metric_is_more_than(r#"headgate_coap_events_total{event="limited"}"#, 50.0)
        .await;
    assert_eq!(victim.get("t").await.code, Code::CONTENT);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_cannot_be_met_say_why() {
    let gateway = Gateway::with_coap(|_| {}).await;
    let device = gateway.unsecured("n1", &Value::Null).await;
    let bytes = content(3_000);
    let resource = gateway.resource("N", "settings", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut coap = Coap::registered(&gateway, "n1").await;
    let cbor = coap
        .request(Code::GET, "t")
        .with_uint(OptionNumber::ACCEPT, 60);
    let told = coap.exchange(cbor).await;
    assert_eq!(told.content_format(), Some(ContentFormat::CBOR));
    let told: Value = ciborium::from_reader(&*told.payload).expect("CBOR");
    let transfer = told["transfer"].as_str().expect("an id");
    let path = format!("r/{transfer}");
    let get = |coap: &Coap| coap.request(Code::GET, &path);
    let digest = sha256(&bytes);
    let etag = digest
        .get(..16)
        .map(hex::decode)
        .expect("64 digits")
        .expect("hex");
    for (request, code) in [
        (
            get(&coap).with_uint(OptionNumber::BLOCK2, 7),
            Code::BAD_REQUEST,
        ),
        (
            get(&coap).with_uint(OptionNumber::BLOCK2, (3 << 4) | 6),
            Code::BAD_OPTION,
        ),
        (
            get(&coap).with_uint(OptionNumber::BLOCK2, (0xf_ffff << 4) | 6),
            Code::BAD_OPTION,
        ),
        (
            get(&coap).with_uint(OptionNumber::ACCEPT, 50),
            Code::NOT_ACCEPTABLE,
        ),
        (
            get(&coap).with(OptionNumber::IF_MATCH, b"else"),
            Code::PRECONDITION_FAILED,
        ),
        (get(&coap).with(OptionNumber::IF_MATCH, etag), Code::CONTENT),
        (
            coap.request(Code::GET, "t")
                .with_uint(OptionNumber::ACCEPT, 0),
            Code::NOT_ACCEPTABLE,
        ),
        (coap.request(Code::PUT, "t"), Code::METHOD_NOT_ALLOWED),
        (coap.request(Code::GET, "r/999"), Code::NOT_FOUND),
        (coap.request(Code::GET, "r"), Code::NOT_FOUND),
        (coap.request(Code::POST, "d/a+b"), Code::BAD_REQUEST),
        (
            coap.request(Code::POST, "d")
                .with_uint(OptionNumber::BLOCK1, 0x0e),
            Code::REQUEST_ENTITY_TOO_LARGE,
        ),
        (
            coap.request(Code::PUT, "u/x").with_payload("x".into()),
            Code::BAD_REQUEST,
        ),
        (
            coap.request(Code::PUT, "u/x")
                .with_uint(OptionNumber::BLOCK1, 0x1e),
            Code::BAD_REQUEST,
        ),
    ] {
        assert_eq!(
            coap.exchange(request.clone()).await.code,
            code,
            "{request:?}"
        );
    }
    for (body, code) in [
        (json!({"state": "eaten"}), Code::BAD_REQUEST),
        (
            json!({"state": "downloading", "percent": 101}),
            Code::BAD_REQUEST,
        ),
        (json!([]), Code::BAD_REQUEST),
        // Not every byte was sent.
        (json!({"state": "done"}), Code::CONFLICT),
    ] {
        let answer = coap.post(&format!("t/{transfer}"), &body).await;
        assert_eq!(answer.code, code, "{body} {:?}", answer.payload);
    }
    gateway.delivery_in("failed", &task, &device).await;
    gateway.stop().await;
}
