//! The API as curl sees it.

use serde_json::{Value, json};

use super::harness::{Gateway, Printed, run, sha256};

/// What curl got: the status, the content type, the body.
fn parts(printed: Printed) -> (u16, String, Value) {
    let out = String::from_utf8(printed.ok()).expect("UTF-8");
    let (body, about) = out.rsplit_once('\n').expect("two lines");
    let (status, kind) = about.split_once(' ').expect("a status and a type");
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    (status.parse().expect("a status"), kind.to_owned(), body)
}

async fn curl(gateway: &Gateway, token: Option<&str>, path: &str, more: &[&str]) -> Answer {
    let address = gateway.ports.http.expect("a listener");
    let url = format!("http://{address}/api/v1{path}");
    let bearer = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut arguments = vec!["-sS", "-w", "\n%{http_code} %{content_type}", &url];
    if let Some(bearer) = &bearer {
        arguments.extend(["-H", bearer]);
    }
    arguments.extend(more);
    let (status, kind, body) = parts(run("curl", &arguments).await);
    Answer { status, kind, body }
}

struct Answer {
    status: u16,
    kind: String,
    body: Value,
}

impl Answer {
    fn problem(self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.kind, "application/problem+json");
        assert_eq!(self.body["type"], format!("urn:headgate:problem:{slug}"));
        assert_eq!(self.body["status"], status);
        self.body
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_token_nobody_is_let_in() {
    let gateway = Gateway::start().await;
    // One that was let in does not wait because of the others.
    curl(&gateway, Some(&gateway.token), "/products", &[]).await;
    for token in [None, Some(""), Some("hg_wrong"), Some("x y")] {
        for path in ["/products", "/tasks/0000000000001", "/nothing-here"] {
            let answer = curl(&gateway, token, path, &[]).await;
            if path == "/nothing-here" && answer.status == 404 {
                continue;
            }
            answer.problem(401, "unauthenticated");
        }
    }
    let good = curl(&gateway, Some(&gateway.token), "/products", &[]).await;
    assert_eq!((good.status, &good.body["items"]), (200, &json!([])));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_with_a_wrong_digest_names_the_field_and_leaves_nothing() {
    let gateway = Gateway::start().await;
    gateway.product("P", &Value::Null).await;
    let file = gateway.data_dir.join("../upload.bin");
    let bytes = super::harness::content(300_000);
    std::fs::write(&file, &bytes).expect("written");
    let file = format!("file=@{}", file.display());
    let token = Some(gateway.token.as_str());
    let upload = async |digest: &str| {
        let digest = format!("sha256={digest}");
        let form = [
            "-F",
            "product=P",
            "-F",
            "name=fw",
            "-F",
            &digest,
            "-F",
            &file,
        ];
        curl(&gateway, token, "/resources", &form).await
    };
    let problem = upload(&"0".repeat(64))
        .await
        .problem(422, "content-mismatch");
    assert_eq!(problem["field"], "sha256", "{problem}");
    let list = gateway.get("/resources").await;
    assert_eq!(list["items"], json!([]));
    // The name is free, so is its place in the quota.
    let made = upload(&sha256(&bytes)).await;
    assert_eq!((made.status, &made.body["size"]), (201, &json!(300_000)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_rows_of_a_csv_are_named_and_nothing_is_created() {
    let gateway = Gateway::start().await;
    gateway.devices(["d1", "d2"]).await;
    let resource = gateway.resource("P", "fw", b"content").await;
    let file = gateway.data_dir.join("../devices.csv");
    let resource = format!("resource_id={resource}");
    let form = format!("file=@{};type=text/csv", file.display());
    let token = Some(gateway.token.as_str());
    let post = async |rows: &str| {
        std::fs::write(&file, rows).expect("written");
        let form = ["-F", &resource, "-F", &form];
        curl(&gateway, token, "/tasks", &form).await
    };
    let problem = post("DeviceName\nd1\nd9\nd1\nno spaces\n")
        .await
        .problem(422, "invalid-rows");
    let errors = problem["errors"].as_array().expect("errors");
    let told: Vec<_> = errors
        .iter()
        .map(|error| (error["row"].as_u64(), error["code"].as_str()))
        .collect();
    let expected = [
        (Some(3), Some("unknown_device")),
        (Some(4), Some("duplicate")),
        (Some(5), Some("invalid_name")),
    ];
    assert_eq!(told, expected, "{problem}");
    let tasks = gateway.get("/tasks").await;
    assert_eq!(tasks["items"], json!([]));
    let made = post("DeviceName\r\nd1\r\nd2\r\n").await;
    assert_eq!((made.status, &made.body["total"]), (201, &json!(2)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_is_a_problem() {
    let gateway = Gateway::start().await;
    let token = Some(gateway.token.as_str());
    for body in [
        "",
        "{",
        "[]",
        "{\"id\": 7}",
        "{\"id\": \"x\", \"nmae\": \"x\"}",
    ] {
        let more = ["-H", "Content-Type: application/json", "-d", body];
        let answer = curl(&gateway, token, "/products", &more).await;
        assert!(
            (400..500).contains(&answer.status),
            "{body}: {}",
            answer.status
        );
        assert_eq!(answer.kind, "application/problem+json", "{body}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_asks_too_often_is_told_when_to_come_back() {
    let gateway = Gateway::with(|config| {
        config.http.requests_per_sec = 1;
        config.http.request_burst = 3;
    })
    .await;
    let token = Some(gateway.token.as_str());
    let mut refused = None;
    // A second pays one request back while curl starts again and again.
    for _ in 0..50 {
        let answer = curl(&gateway, token, "/products", &[]).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    refused
        .expect("too many requests")
        .problem(429, "rate-limited");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_secrets_of_an_application_are_slowed_down_and_its_right_one_is_not() {
    let gateway = Gateway::start().await;
    let app = gateway.app("billing", &[]).await;
    let try_secret = async |secret: &str| {
        let token = Some(secret);
        curl(&gateway, token, "/apps/billing", &[]).await.status
    };
    assert_eq!(try_secret(&app.secret).await, 200);
    let mut seen = Vec::new();
    for attempt in 0..8 {
        seen.push(try_secret(&format!("hga_wrong{attempt}")).await);
    }
    assert_eq!(seen[0], 401, "{seen:?}");
    assert!(seen.contains(&429), "{seen:?}");
    assert_eq!(try_secret(&app.secret).await, 200);
    gateway.stop().await;
}
