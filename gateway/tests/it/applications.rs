//! Applications over real sockets: what they see, what they may, what waits for devices.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use headgate_protocol::mqtt::QoS;
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use serde_json::{Value, json};

use super::harness::{Answer, Client, Device, Event, Events, Gateway, Login, Site, fetch, until};

/// An application as a test knows it.
struct App {
    id: String,
    secret: String,
}

impl App {
    async fn new(site: &Site, id: &str) -> Self {
        let made = site.post("/apps", &json!({"id": id})).await;
        Self {
            id: id.to_owned(),
            secret: made["secret"].as_str().expect("a secret").to_owned(),
        }
    }

    fn basic(&self) -> String {
        let pair = format!("{}:{}", self.id, self.secret);
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.secret)
    }

    async fn bind(&self, site: &Site, devices: &[&Device]) {
        let ids: Vec<_> = devices.iter().map(|device| &device.id).collect();
        let path = format!("/apps/{}/devices", self.id);
        let body = json!({"device_ids": ids});
        site.api(Method::POST, &path, Some(&body)).await.ok(200);
    }

    async fn unbind(&self, site: &Site, device: &Device) {
        let path = format!("/apps/{}/devices/{}", self.id, device.id);
        site.api(Method::DELETE, &path, None).await.ok(204);
    }

    async fn open(&self, site: &Site, query: &str) -> Events {
        let path = format!("/apps/{}/messages{query}", self.id);
        let opened = Events::open(site, &path, &self.basic(), "").await;
        opened.expect("a stream")
    }
}

/// Asks as somebody else than the administrator.
async fn ask_as(site: &Site, who: &str, method: Method, path: &str, body: &Value) -> Answer {
    let address = site.ports.http.expect("an HTTP listener");
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"))
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, who)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    fetch(address, request).await
}

/// Sends a message to a device as the operator.
async fn send(site: &Site, device: &Device, body: &Value) -> Value {
    let path = format!("/devices/{}/messages", device.id);
    site.api(Method::POST, &path, Some(body)).await.ok(202)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_shows_what_its_application_may_see_and_nothing_else() {
    let gateway = Gateway::start().await;
    let [d1, d2, d3] = gateway.devices(["d1", "d2", "d3"]).await;
    let (one, other) = (
        App::new(&gateway, "one").await,
        App::new(&gateway, "other").await,
    );
    one.bind(&gateway, &[&d1, &d3]).await;
    other.bind(&gateway, &[&d2, &d3]).await;
    let mut all = one.open(&gateway, "").await;
    let mut data = one.open(&gateway, "?filter=%2B/%2B/data").await;
    let mut others = other.open(&gateway, "?filter=%23").await;
    let binary = STANDARD.encode([0xff, 0x00]);
    let properties = json!({"topic": "P/d3/data", "payload_base64": binary, "content_type": "x/y",
        "correlation_data": STANDARD.encode("c"), "response_topic": "P/d3/answer"});
    for (device, body) in [
        (&d1, json!({"payload": "1"})),
        (&d2, json!({"payload": "2", "topic": "P/d2/data"})),
        (&d3, properties),
        (
            &d1,
            json!({"payload": "4", "topic": "$oc/devices/P_d1/sys/messages/down"}),
        ),
        (&d2, json!({"payload": "5"})),
    ] {
        send(&gateway, device, &body).await;
    }
    let first = all.message().await;
    assert_eq!(
        (
            &first["topic"],
            &first["payload"],
            &first["qos"],
            &first["device_id"]
        ),
        (&json!("P/d1/down"), &json!("1"), &json!(1), &json!("P_d1"))
    );
    let with_properties = all.message().await;
    assert_eq!(with_properties["payload_base64"], json!(binary));
    assert_eq!(
        with_properties["properties"],
        json!({"content_type": "x/y", "response_topic": "P/d3/answer", "correlation_data": "Yw=="})
    );
    assert_eq!(
        all.message().await["topic"],
        "$oc/devices/P_d1/sys/messages/down"
    );
    assert_eq!(data.message().await, with_properties);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(others.message().await["topic"].clone());
    }
    assert_eq!(seen, ["P/d2/data", "P/d3/data", "P/d2/down"]);
    gateway.metric_is("headgate_event_streams", 3.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_says_reaches_the_streams_of_its_applications() {
    let gateway = Gateway::start().await;
    let [d1, d2] = gateway.devices(["d1", "d2"]).await;
    let app = App::new(&gateway, "one").await;
    app.bind(&gateway, &[&d1]).await;
    let mut stream = app.open(&gateway, "").await;
    let mut first = Client::log_in(&gateway, &Login::of(&d1)).await;
    let mut second = Client::log_in(&gateway, &Login::of(&d2)).await;
    second.publish("P/d2/data", b"not yours").await;
    first.publish("P/d1/data", b"21.5").await;
    let seen = stream.message().await;
    assert_eq!(
        (&seen["topic"], &seen["payload"], &seen["node_id"]),
        (&json!("P/d1/data"), &json!("21.5"), &json!("d1"))
    );
    app.unbind(&gateway, &d1).await;
    first.publish("P/d1/data", b"after").await;
    app.bind(&gateway, &[&d1, &d2]).await;
    second.publish("P/d2/data", b"now yours").await;
    assert_eq!(stream.message().await["payload"], "now yours");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_waits_for_its_device_until_that_has_acknowledged_it() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let path = format!("/devices/{}/messages", device.id);
    let payload = |n: u32| json!({"payload": n.to_string()});
    for n in 0..3 {
        assert_eq!(
            send(&gateway, &device, &payload(n)).await["status"],
            "queued"
        );
    }
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    client.acknowledges = false;
    client.subscribe(&["P/d1/down"], QoS::AtLeastOnce).await;
    for n in 0..3 {
        assert_eq!(client.message().await.payload, n.to_string());
    }
    // It went away without a word: they come once more.
    drop(client);
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    client.subscribe(&["P/d1/down"], QoS::AtLeastOnce).await;
    for n in 0..3 {
        assert_eq!(client.message().await.payload, n.to_string());
    }
    assert_eq!(send(&gateway, &device, &payload(3)).await["status"], "sent");
    assert_eq!(client.message().await.payload, "3");
    let brief = json!({"payload": "4", "qos": 0});
    assert_eq!(
        send(&gateway, &device, &brief).await,
        json!({"status": "sent"})
    );
    assert_eq!(client.message().await.payload, "4");
    client.ping().await;
    until("an empty mailbox", || async {
        (gateway.get(&path).await["items"] == json!([])).then_some(())
    })
    .await;
    gateway.metric_is("headgate_mailbox_messages", 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_may_what_is_its_own() {
    let gateway = Gateway::start().await;
    let [d1, d2] = gateway.devices(["d1", "d2"]).await;
    let (one, other) = (
        App::new(&gateway, "one").await,
        App::new(&gateway, "other").await,
    );
    one.bind(&gateway, &[&d1]).await;
    other.bind(&gateway, &[&d2]).await;
    let message = json!({"payload": "x"});
    let none = Value::Null;
    let cases: [(Method, &str, &Value, u16); 14] = [
        (Method::GET, "/apps/one", &none, 200),
        (Method::GET, "/apps/one/devices", &none, 200),
        (Method::POST, "/devices/P_d1/messages", &message, 202),
        (Method::POST, "/devices/P_d2/messages", &message, 404),
        (Method::POST, "/devices/P_d9/messages", &message, 404),
        (Method::GET, "/apps/other", &none, 404),
        (Method::GET, "/apps/other/devices", &none, 404),
        (Method::GET, "/apps", &none, 403),
        (Method::PATCH, "/apps/one", &json!({"name": "mine"}), 403),
        (
            Method::POST,
            "/apps/one/devices",
            &json!({"device_id": "P_d2"}),
            403,
        ),
        (Method::GET, "/devices/P_d1", &none, 403),
        (Method::GET, "/devices/P_d1/messages", &none, 403),
        (Method::GET, "/tasks", &none, 403),
        (
            Method::POST,
            "/products",
            &json!({"id": "x", "name": "x"}),
            403,
        ),
    ];
    for who in [one.basic(), one.bearer()] {
        for (method, path, body, status) in &cases {
            let answer = ask_as(&gateway, &who, method.clone(), path, body).await;
            assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
        }
    }
    let foreign = Events::open(&gateway, "/apps/other/messages", &one.basic(), "").await;
    assert_eq!(foreign.err(), Some(404));
    let wrong = format!("Basic {}", STANDARD.encode(format!("one:{}", other.secret)));
    for who in [wrong.as_str(), "Bearer hga_x", "Basic eDp5", "Basic !"] {
        let answer = ask_as(&gateway, who, Method::GET, "/apps/one", &none).await;
        assert_eq!(answer.status, 401, "{who}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_sent_after_an_unbinding_arrives() {
    let gateway = Gateway::start().await;
    let [d1, d2] = gateway.devices(["d1", "d2"]).await;
    let app = App::new(&gateway, "one").await;
    app.bind(&gateway, &[&d1, &d2]).await;
    let mut stream = app.open(&gateway, "").await;
    for round in 0..20 {
        let before = json!({"payload": format!("before {round}"), "qos": 1});
        send(&gateway, &d1, &before).await;
        assert_eq!(stream.message().await["payload"], before["payload"]);
        // Those under way while it is unbound may come or not; those after may not.
        let racing = json!({"payload": "racing"});
        tokio::join!(
            send(&gateway, &d1, &racing),
            send(&gateway, &d1, &racing),
            app.unbind(&gateway, &d1),
        );
        send(&gateway, &d1, &json!({"payload": "after"})).await;
        send(&gateway, &d2, &json!({"payload": "mark"})).await;
        loop {
            let payload = stream.message().await["payload"].clone();
            assert_ne!(payload, "after");
            if payload == "mark" {
                break;
            }
            assert_eq!(payload, "racing");
        }
        app.bind(&gateway, &[&d1]).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_where_it_was_cut_off() {
    let gateway = Gateway::with(|config| config.applications.history_messages = 4).await;
    let [device] = gateway.devices(["d1"]).await;
    let app = App::new(&gateway, "one").await;
    app.bind(&gateway, &[&device]).await;
    let mut stream = app.open(&gateway, "").await;
    send(&gateway, &device, &json!({"payload": "0"})).await;
    let id = stream
        .next()
        .await
        .and_then(|event| event.id)
        .expect("an id");
    drop(stream);
    let again = async || {
        let more = format!("Last-Event-ID: {id}\r\n");
        let path = "/apps/one/messages";
        Events::open(&gateway, path, &app.bearer(), &more)
            .await
            .expect("a stream")
    };
    send(&gateway, &device, &json!({"payload": "1"})).await;
    assert_eq!(again().await.message().await["payload"], "1");
    for n in 2..8 {
        send(&gateway, &device, &json!({"payload": n.to_string()})).await;
    }
    let mut stream = again().await;
    let lost = stream.next().await.expect("an event");
    assert_eq!(
        (lost.kind.as_str(), &lost.data),
        ("lost", &json!({"count": 3}))
    );
    assert_eq!(stream.message().await["payload"], "4");
    let who = app.basic();
    let strange = Events::open(&gateway, "/apps/one/messages", &who, "Last-Event-ID: x\r\n");
    assert_eq!(strange.await.err(), Some(400));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_told_what_it_lost() {
    let gateway = Gateway::with(|config| {
        config.applications.history_messages = 8;
        config.mailbox.max_messages = 100_000;
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let app = App::new(&gateway, "one").await;
    app.bind(&gateway, &[&device]).await;
    let mut slow = app.open(&gateway, "").await;
    let mut quick = app.open(&gateway, "").await;
    let padding = "x".repeat(60_000);
    // More than the sockets and the server's buffers hold.
    for n in 0..200 {
        send(
            &gateway,
            &device,
            &json!({"payload": format!("{n} {padding}")}),
        )
        .await;
        quick.message().await;
    }
    let number = |event: &Event| -> u64 {
        let text = event.data["payload"].as_str().expect("text");
        text.split(' ')
            .next()
            .expect("a number")
            .parse()
            .expect("a number")
    };
    let mut next = 0;
    let mut lost = 0;
    while next < 200 {
        let event = slow.next().await.expect("an event");
        if event.kind == "lost" {
            let count = event.data["count"].as_u64().expect("a count");
            (lost, next) = (lost + count, next + count);
        } else {
            assert_eq!(number(&event), next);
            next += 1;
        }
    }
    assert!(lost > 0, "nothing was lost: the reader was not slow");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_their_application_and_with_the_node() {
    let gateway = Gateway::with(|config| {
        config.applications.max_streams_per_application = 2;
        config.applications.stream_keep_alive = Duration::from_secs(1);
    })
    .await;
    let app = App::new(&gateway, "one").await;
    let mut first = app.open(&gateway, "").await;
    let _second = app.open(&gateway, "").await;
    let third = Events::open(&gateway, "/apps/one/messages", &app.basic(), "").await;
    assert_eq!(third.err(), Some(429));
    let disable = json!({"enabled": false});
    gateway
        .api(Method::PATCH, "/apps/one", Some(&disable))
        .await
        .ok(200);
    let end = first.next().await.expect("an event");
    assert_eq!(
        (end.kind.as_str(), &end.data),
        ("end", &json!({"reason": "disabled"}))
    );
    assert_eq!(first.next().await, None);
    let refused = Events::open(&gateway, "/apps/one/messages", &app.basic(), "").await;
    assert_eq!(refused.err(), Some(401));
    gateway.metric_is("headgate_event_streams", 0.0).await;

    let other = App::new(&gateway, "other").await;
    let mut stream = other.open(&gateway, "").await;
    gateway.drain();
    assert_eq!(stream.next().await, None);
    assert!(stream.comments >= 1, "the head came with a comment");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_message_survives_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &[]).await;
    let [device] = gateway.devices(["d1"]).await;
    let app = App::new(&gateway, "one").await;
    app.bind(&gateway, &[&device]).await;
    let path = format!("/devices/{}/messages", device.id);
    let mut acknowledged = Vec::new();
    for n in 0..50 {
        let body = json!({"payload": "x".repeat(n), "topic": format!("P/d1/{n}")});
        let sent = ask_as(&gateway, &app.basic(), Method::POST, &path, &body)
            .await
            .ok(202);
        assert_eq!(sent["status"], "queued");
        acknowledged.push((sent["message_id"].clone(), n));
    }
    let dir = gateway.kill().await;
    let gateway = Gateway::process(dir, &[]).await;
    let waiting = gateway.get(&format!("{path}?limit=500")).await;
    let waiting: Vec<_> = waiting["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|one| (one["message_id"].clone(), one["size"].as_u64()))
        .collect();
    let expected: Vec<_> = acknowledged
        .iter()
        .map(|(id, n)| (id.clone(), u64::try_from(*n).ok()))
        .collect();
    assert_eq!(waiting, expected);
    gateway.metric_is("headgate_mailbox_messages", 50.0).await;
    let page = gateway.get(&format!("{path}?limit=20")).await;
    let next = page["next"].as_str().expect("more");
    let page = gateway
        .get(&format!("{path}?limit=500&cursor={next}"))
        .await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(30));
    let dropped = gateway.api(Method::DELETE, &path, None).await.ok(200);
    assert_eq!(dropped, json!({"dropped": 50}));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_to_devices_have_limits() {
    let gateway = Gateway::with(|config| config.mailbox.max_messages = 2).await;
    let [d1, d2] = gateway.devices(["d1", "d2"]).await;
    let path = "/devices/P_d1/messages";
    let post = async |body: Value| gateway.api(Method::POST, path, Some(&body)).await;
    for (body, status, slug) in [
        (json!({"payload": "x".repeat(65_537)}), 413, "too-large"),
        (
            json!({"payload": "x", "topic": "P/d2/down"}),
            422,
            "invalid-field",
        ),
        (
            json!({"payload": "x", "topic": "P/d1/+"}),
            422,
            "invalid-field",
        ),
        (
            json!({"payload": "x", "topic": "$resource/down/service/P/d1"}),
            422,
            "invalid-field",
        ),
        (
            json!({"payload": "x", "topic": format!("P/d1/{}", "x".repeat(300))}),
            422,
            "invalid-field",
        ),
        (
            json!({"payload": "x", "payload_base64": "eA=="}),
            422,
            "invalid-field",
        ),
        (json!({}), 422, "invalid-field"),
        (json!({"payload_base64": "%"}), 422, "invalid-field"),
        (json!({"payload": "x", "qos": 2}), 422, "invalid-field"),
        (json!({"payload": "x", "qos": 0}), 409, "offline"),
    ] {
        let answer = post(body).await;
        let problem = answer.ok(status);
        assert_eq!(problem["type"], format!("urn:headgate:problem:{slug}"));
    }
    for _ in 0..2 {
        assert_eq!(
            post(json!({"payload": "x".repeat(65_536)})).await.status,
            202
        );
    }
    assert_eq!(post(json!({"payload": "x"})).await.status, 429);
    let sample = r#"headgate_messages_dropped_total{reason="mailbox_full"}"#;
    gateway.metric_is(sample, 1.0).await;
    // Nothing of a deleted device waits for one that is registered under its id.
    gateway
        .api(Method::DELETE, "/devices/P_d1", None)
        .await
        .ok(204);
    let _again = gateway.device("P", "d1").await;
    assert_eq!(gateway.get(path).await["items"], json!([]));
    let brief = json!({"payload": "x", "expiry_secs": 1});
    send(&gateway, &d2, &brief).await;
    until("its expiry", || async {
        let waiting = gateway.get("/devices/P_d2/messages").await;
        (waiting["items"] == json!([])).then_some(())
    })
    .await;
    drop(d1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_csv_binds_and_unbinds_and_names_the_rows_that_it_cannot() {
    let gateway = Gateway::start().await;
    gateway.devices(["d1", "d2", "d3"]).await;
    let app = App::new(&gateway, "one").await;
    let post = async |query: &str, csv: &str| {
        let path = format!("/apps/one/devices:csv{query}");
        let body = Bytes::from(csv.to_owned());
        gateway
            .ask(Method::POST, &path, "text/csv; charset=utf-8", body)
            .await
    };
    let csv = "\u{feff}note;device_id\r\nx;P_d1\r\n\"a\r\nb\";P_d2\r\nx;P_d9\r\nx;no spaces\r\nx;P_d1\r\n";
    let report = post("", csv).await.ok(200);
    assert_eq!(
        (&report["rows"], &report["changed"]),
        (&json!(5), &json!(2))
    );
    let errors: Vec<_> = report["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| (error["row"].as_u64(), error["code"].as_str()))
        .collect();
    let expected = [
        (Some(5), Some("unknown_device")),
        (Some(6), Some("invalid_name")),
    ];
    let mut errors = errors;
    errors.sort_unstable();
    assert_eq!(errors, expected, "{report}");
    assert_eq!(post("", csv).await.ok(200)["changed"], 0);
    let bound = gateway.get("/devices?app=one").await;
    assert_eq!(bound["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(gateway.get("/apps/one").await["devices"], 2);
    let report = post("?action=unbind", "device_id\nP_d1\nP_d3\n")
        .await
        .ok(200);
    assert_eq!(
        (&report["rows"], &report["changed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(post("", "device_id\nP_d8\nP_d9\n").await.status, 422);
    assert_eq!(post("", "name\nP_d1\n").await.status, 422);
    assert_eq!(post("?action=x", "device_id\nP_d1\n").await.status, 400);
    let path = "/apps/none/devices:csv";
    let missing = gateway
        .ask(Method::POST, path, "text/csv", "device_id\nP_d1\n".into())
        .await;
    assert_eq!(missing.status, 404);
    drop(app);
    gateway.stop().await;
}
