//! The proof of a task: what its watchers are told, its report, and that its history holds over a kill.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use super::{
    cli::{headgate, text},
    harness::{Client, Device, Gateway, PATIENCE, Site, content, until},
};

/// Server-sent events of a task, as they come.
struct Events {
    body: Incoming,
    seen: String,
}

/// One event.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Events {
    async fn of(site: &Site, task: &str, last: Option<&str>) -> Self {
        let address = site.ports.http.expect("a listener");
        let tcp = TcpStream::connect(address).await.expect("it listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
            .await
            .expect("HTTP");
        headgate::shutdown::Shutdown::new().spawn(connection);
        let mut request = Request::builder()
            .uri(format!("/api/v1/tasks/{task}/events"))
            .header("host", address.to_string())
            .header("authorization", format!("Bearer {}", site.token));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            body: answer.into_body(),
            seen: String::new(),
        }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.seen.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.seen = rest;
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                if !field("data:").is_empty() {
                    return Some(Event {
                        id: field("id:"),
                        name: field("event:"),
                        data: serde_json::from_str(&field("data:")).expect("JSON"),
                    });
                }
                continue;
            }
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .expect("in time")?;
            let data = frame.expect("whole").into_data().expect("data");
            self.seen
                .push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
    }
}

/// Takes what is announced and says so.
async fn take(client: &mut Client, device: &Device, expected: &[u8]) {
    let announced = client.announced().await;
    assert!(
        client.take_all(device, &announced).await == expected,
        "the bytes differ"
    );
    let receipt = client.report(device, &announced.transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_watched_to_its_end() {
    let gateway = Gateway::start().await;
    let [first, second] = gateway.devices(["d1", "d2"]).await;
    let bytes = content(20_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    let task = gateway.task(&resource, &[&first, &second]).await;
    let mut events = Events::of(&gateway, &task, None).await;
    let snapshot = events.next().await.expect("a snapshot");
    assert_eq!(snapshot.name, "snapshot");
    assert_eq!(snapshot.data["task"]["counts"]["pending"], 2);
    assert!(snapshot.data.get("deliveries").is_none());

    take(
        &mut Client::listening(&gateway, &first).await,
        &first,
        &bytes,
    )
    .await;
    let last = loop {
        let change = events.next().await.expect("a change");
        assert_eq!(change.name, "change");
        assert_ne!(change.id, snapshot.id);
        let deliveries = change.data["deliveries"].as_array().expect("a list");
        assert!(deliveries.iter().all(|one| one["device_id"] == *first.id));
        let is_counted = change.data["task"]["counts"]["delivered"] == 1;
        if is_counted && deliveries.iter().any(|one| one["state"] == "delivered") {
            break change.id;
        }
    };
    // The connection breaks; nothing of what happens meanwhile is lost.
    drop(events);
    take(
        &mut Client::listening(&gateway, &second).await,
        &second,
        &bytes,
    )
    .await;
    gateway.delivery_in("delivered", &task, &second).await;
    until("the end", || async {
        (gateway.get(&format!("/tasks/{task}")).await["run"] == "finished").then_some(())
    })
    .await;
    let mut events = Events::of(&gateway, &task, Some(&last)).await;
    let end = events.next().await.expect("the end");
    assert_eq!(end.name, "end");
    assert_eq!(end.data["task"]["run"], "finished");
    assert_eq!(end.data["task"]["counts"]["delivered"], 2);
    assert!(events.next().await.is_none());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_counted_and_a_drain_ends_them() {
    let gateway = Gateway::with(|config| config.delivery.max_event_streams = 1).await;
    let [device] = gateway.devices(["d1"]).await;
    let resource = gateway.resource("P", "r", b"x").await;
    let task = gateway.task(&resource, &[&device]).await;
    let mut events = Events::of(&gateway, &task, None).await;
    events.next().await.expect("a snapshot");
    let path = format!("/tasks/{task}/events");
    let refused = gateway.api(hyper::Method::GET, &path, None).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    gateway.drain();
    while events.next().await.is_some() {}
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_made_for_a_filter_and_deleted_when_it_is_over() {
    let gateway = Gateway::start().await;
    let [first, _second] = gateway.devices(["north-1", "south-1"]).await;
    let bytes = content(5_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    let body = json!({"resource_id": resource, "filter": {"name": "north-*"}});
    let made = gateway.post("/tasks", &body).await;
    let task = made["id"].as_str().expect("an id").to_owned();
    let path = format!("/tasks/{task}");
    let made = until("created", || async {
        let task = gateway.get(&path).await;
        (task["creation"] == "created").then_some(task)
    })
    .await;
    assert_eq!(
        (&made["total"], &made["filter"]["name"]),
        (&json!(1), &json!("north-*"))
    );
    let open = gateway.api(hyper::Method::DELETE, &path, None).await;
    assert_eq!(open.status, 409, "{}", open.text());
    take(
        &mut Client::listening(&gateway, &first).await,
        &first,
        &bytes,
    )
    .await;
    until("the end", || async {
        (gateway.get(&path).await["run"] == "finished").then_some(())
    })
    .await;
    gateway
        .api(hyper::Method::DELETE, &path, None)
        .await
        .ok(204);
    assert_eq!(
        gateway.api(hyper::Method::GET, &path, None).await.status,
        404
    );
    gateway.stop().await;
}

/// A task for two devices with so many bytes a second: where it is in the API, and the devices.
async fn limited_task(site: &Site, bytes: &[u8], bytes_per_sec: u64) -> (String, [Device; 2]) {
    let devices = site.devices(["d1", "d2"]).await;
    let resource = site.resource("P", "r", bytes).await;
    let body = json!({
        "resource_id": resource, "device_ids": [devices[0].id, devices[1].id],
        "policy": {"bytes_per_sec": bytes_per_sec},
    });
    let task = site.post("/tasks", &body).await;
    let path = format!("/tasks/{}", task["id"].as_str().expect("an id"));
    (path, devices)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_sends_no_more_than_its_bytes_a_second() {
    let gateway = Gateway::start().await;
    let bytes = content(60_000);
    let (_, [first, second]) = limited_task(&gateway, &bytes, 60_000).await;
    let start = std::time::Instant::now();
    let mut one = Client::listening(&gateway, &first).await;
    let mut two = Client::listening(&gateway, &second).await;
    tokio::join!(
        take(&mut one, &first, &bytes),
        take(&mut two, &second, &bytes)
    );
    let taken = start.elapsed();
    assert!(taken.as_secs_f64() > 0.8, "120,000 bytes came in {taken:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_raised_holds_for_devices_that_wait_by_it() {
    let gateway = Gateway::start().await;
    let bytes = content(60_000);
    let (task, [first, second]) = limited_task(&gateway, &bytes, 256).await;
    let mut one = Client::listening(&gateway, &first).await;
    let mut two = Client::listening(&gateway, &second).await;
    // What nobody stands before goes at once; what comes then waits for minutes.
    take(&mut one, &first, &bytes).await;
    let announced = two.announced().await;
    two.want(&second, &announced.transfer, 0, 8).await;
    let of_second = format!("/deliveries/{}", announced.transfer);
    until("what it waits for", || async {
        let delivery = gateway.get(&of_second).await;
        (delivery["waiting"] == "bytes_rate").then_some(())
    })
    .await;
    let body = json!({"policy": {"bytes_per_sec": 10_000_000}});
    let edited = gateway.api(hyper::Method::PATCH, &task, Some(&body)).await;
    edited.ok(200);
    let mut have = Vec::new();
    two.take_until(&mut have, bytes.len()).await;
    assert!(have == bytes, "the bytes differ");
    gateway.stop().await;
}

/// What the program says about a task of a gateway.
async fn ask(site: &Site, verb: &str, task: &str, more: &[&str]) -> std::process::Output {
    let directory = site.data_dir.to_str().expect("UTF-8").to_owned();
    let arguments: Vec<String> = ["task", verb, task, "--data-dir", &directory]
        .iter()
        .chain(more)
        .map(|argument| (*argument).to_owned())
        .collect();
    spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        headgate(&arguments, &[])
    })
    .await
    .expect("no panic")
}

/// Half of the devices take theirs, some after a failure; every third is cut off in the middle.
async fn first_half(site: &Site, devices: &[Device], bytes: &[u8]) {
    let half = devices
        .iter()
        .enumerate()
        .step_by(2)
        .map(|(index, device)| async move {
            let mut client = Client::listening(site, device).await;
            if index % 3 == 0 {
                let announced = client.announced().await;
                client.want(device, &announced.transfer, 0, 4).await;
                client.take_until(&mut Vec::new(), 15_360).await;
                return;
            }
            if index % 4 == 0 {
                let announced = client.announced().await;
                let report = json!({
                    "type": "report_download_progress", "transfer": announced.transfer,
                    "progress": {"state": "fail", "result_code": 6, "result_msg": "slow"},
                });
                client.exchange(device, &report).await;
            }
            take(&mut client, device, bytes).await;
        });
    futures_util::future::join_all(half).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_is_in_order_over_failures_and_a_kill() {
    const DEVICES: usize = 16;
    let settings = [("HEADGATE__DELIVERY__ANNOUNCE_DELAY", "20ms")];
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &settings).await;
    gateway.product("P", &Value::Null).await;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(gateway.device("P", &format!("d{number}")).await);
    }
    let bytes = content(100_000);
    let resource = gateway.resource("P", "r", &bytes).await;
    let all: Vec<&Device> = devices.iter().collect();
    let task = gateway.task(&resource, &all).await;
    first_half(&gateway, &devices, &bytes).await;

    let dir = gateway.kill().await;
    let gateway = Gateway::process(dir, &settings).await;
    let rest = devices.iter().map(|device| {
        let (gateway, task, bytes) = (&gateway, &task, &bytes);
        async move {
            if gateway.delivery(task, device).await["state"] != "delivered" {
                take(&mut Client::listening(gateway, device).await, device, bytes).await;
            }
        }
    });
    futures_util::future::join_all(rest).await;
    until("the end", || async {
        (gateway.get(&format!("/tasks/{task}")).await["run"] == "finished").then_some(())
    })
    .await;

    let judged = ask(&gateway, "check", &task, &[]).await;
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    let verdict = text(&judged.stdout);
    assert!(
        verdict.contains("16 delivered, 0 failed, 0 open"),
        "{verdict}"
    );
    assert!(
        verdict.ends_with("every history is in order\n"),
        "{verdict}"
    );
    let report = ask(&gateway, "report", &task, &["--csv"]).await;
    let rows = text(&report.stdout);
    assert_eq!(rows.lines().count(), DEVICES + 1, "{rows}");
    assert!(rows.starts_with("delivery_id,device_id,DeviceName,attempt,state,"));
    let summary = ask(&gateway, "report", &task, &[]).await;
    let mut lines = text(&summary.stdout).lines();
    let counts = lines.find(|line| line.split_whitespace().eq(["delivered", "16"]));
    assert!(counts.is_some(), "{summary:?}");
    gateway.stop().await;
    let nobody = tempfile::tempdir().expect("a directory");
    let directory = nobody.path().to_str().expect("UTF-8");
    let none = headgate(&["task", "check", &task, "--data-dir", directory], &[]);
    assert_eq!(none.status.code(), Some(69));
    assert!(
        text(&none.stderr).contains("no gateway runs on"),
        "{none:?}"
    );
}
