//! Resources: uploads, versions, downloads.

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, header},
};
use futures_util::stream;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::stage::{Answer, Stage, form};

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn content(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

async fn try_upload(stage: &Stage, fields: &[(&str, &str)], file: &[u8]) -> Answer {
    stage
        .send(stage.form("/api/v1/resources", fields, file))
        .await
}

#[tokio::test]
async fn resource_is_uploaded_listed_and_deleted() {
    let stage = Stage::furnished().await;
    let bytes = content(200_000);
    let (digest, size) = (sha256(&bytes), bytes.len().to_string());
    let fields = [
        ("product", "p"),
        ("name", "固件(1)"),
        ("description", "first"),
        ("sha256", &digest.to_uppercase()),
        ("size", &size),
    ];
    let created = try_upload(&stage, &fields, &bytes).await;
    let location = created.header("location").to_owned();
    let created = created.ok(201);
    assert_eq!(created["sha256"], digest);
    assert_eq!(
        (&created["size"], &created["version"]),
        (&json!(200_000), &json!(1))
    );
    assert_eq!(stage.get(&location).await.ok(200), created);
    let list = stage
        .get("/api/v1/resources?product=p&filter=FIRST")
        .await
        .ok(200);
    assert_eq!(list["items"], json!([created]));

    let patch = json!({"description": "second"});
    let patched = stage
        .with_json(Method::PATCH, &location, &patch)
        .await
        .ok(200);
    assert_eq!(
        (&patched["description"], &patched["name"]),
        (&json!("second"), &json!("固件(1)"))
    );
    let statistics = stage.get(&format!("{location}/statistics")).await.ok(200);
    assert_eq!(statistics["pending"], 0);
    stage.bare(Method::DELETE, &location).await.ok(204);
    stage.get(&location).await.problem(404, "not-found");
}

/// Fields, and the status, type and field of the answer.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str, Value);

#[tokio::test]
async fn wrong_uploads_name_the_field_and_leave_nothing() {
    let stage = Stage::furnished().await;
    stage.upload("taken", b"x").await;
    let long = "x".repeat(101);
    let zeros = "0".repeat(64);
    let no_md5 = "0".repeat(32);
    let cases: [Case<'_>; 12] = [
        (&[("name", "a")], 422, "invalid-field", json!("product")),
        (&[("product", "p")], 422, "invalid-field", json!("name")),
        (
            &[("product", "none"), ("name", "a")],
            404,
            "not-found",
            Value::Null,
        ),
        (
            &[("product", "p"), ("name", "-a")],
            422,
            "invalid-field",
            json!("name"),
        ),
        (
            &[("product", "p"), ("name", "taken")],
            409,
            "already-exists",
            json!("name"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("description", &long)],
            422,
            "invalid-field",
            json!("description"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("sha256", "12")],
            422,
            "invalid-field",
            json!("sha256"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("size", "-1")],
            422,
            "invalid-field",
            json!("size"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("size", "3000001")],
            413,
            "too-large",
            json!("file"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("sha256", &zeros)],
            422,
            "content-mismatch",
            json!("sha256"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("md5", &no_md5)],
            422,
            "content-mismatch",
            json!("md5"),
        ),
        (
            &[("product", "p"), ("name", "a"), ("size", "5")],
            422,
            "content-mismatch",
            json!("size"),
        ),
    ];
    for (fields, status, slug, field) in cases {
        let problem = try_upload(&stage, fields, b"four")
            .await
            .problem(status, slug);
        assert_eq!(problem["field"], field, "{fields:?}: {problem}");
    }
    let list = stage.get("/api/v1/resources").await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let fields = [("product", "p"), ("name", "a")];
    try_upload(&stage, &fields, b"")
        .await
        .problem(422, "invalid-field");
    try_upload(&stage, &fields, &content(3_000_001))
        .await
        .problem(413, "too-large");
}

#[tokio::test]
async fn quota_is_checked_before_the_body_is_read() {
    let stage = Stage::furnished().await;
    stage.upload("large", &content(2_500_000)).await;
    // The file itself never comes: only an answer that does not wait for it can end this.
    let fields = [("product", "p"), ("name", "second"), ("size", "2500000")];
    let mut head = form(&fields, b"");
    head.truncate(head.len() - b"\r\n--==B--\r\n".len());
    let body = Body::from_stream(stream::iter([Ok::<_, std::io::Error>(Bytes::from(head))]));
    let request = stage
        .request(Method::POST, "/api/v1/resources")
        .header(
            header::CONTENT_TYPE,
            "multipart/form-data; boundary=\"==B\"",
        )
        .body(body)
        .expect("a request");
    stage.send(request).await.problem(409, "quota-exceeded");
}

#[tokio::test]
async fn upload_that_breaks_off_leaves_nothing() {
    let stage = Stage::furnished().await;
    let mut whole = form(&[("product", "p"), ("name", "half")], &content(500_000));
    whole.truncate(300_000);
    let slices = [Ok(Bytes::from(whole)), Err(std::io::Error::other("gone"))];
    let request = stage
        .request(Method::POST, "/api/v1/resources")
        .header(
            header::CONTENT_TYPE,
            "multipart/form-data; boundary=\"==B\"",
        )
        .body(Body::from_stream(stream::iter(slices)))
        .expect("a request");
    stage.send(request).await.problem(400, "incomplete-body");
    let list = stage.get("/api/v1/resources").await.ok(200);
    assert_eq!(list["items"], json!([]));
    stage.upload("half", b"whole this time").await;
}

#[tokio::test]
async fn content_is_downloaded_whole_and_in_parts() {
    let stage = Stage::furnished().await;
    let bytes = content(700_000);
    let resource = stage.upload("fw", &bytes).await;
    let path = format!(
        "/api/v1/resources/{}/content",
        resource["id"].as_str().expect("an id")
    );
    let whole = stage.get(&path).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.body, bytes);
    assert_eq!(whole.header("content-length"), "700000");
    assert_eq!(
        whole.header("content-disposition"),
        "attachment; filename*=UTF-8''fw"
    );
    let etag = whole.header("etag").to_owned();

    let ranged = async |range: &str, condition: &str| {
        let request = stage.request(Method::GET, &path).header("range", range);
        let request = request.header("if-range", condition).body(Body::empty());
        stage.send(request.expect("a request")).await
    };
    let part = ranged("bytes=262143-262145", &etag).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.body, &bytes[262_143..=262_145]);
    assert_eq!(part.header("content-range"), "bytes 262143-262145/700000");
    assert_eq!(ranged("bytes=0-1", "\"old\"").await.status, 200);
    let beyond = ranged("bytes=700000-", &etag).await;
    beyond.problem(416, "range-not-satisfiable");
    assert_eq!(beyond.header("content-range"), "bytes */700000");
    let head = stage.bare(Method::HEAD, &path).await;
    assert_eq!(
        (head.body.len(), head.header("content-length")),
        (0, "700000")
    );
}

#[tokio::test]
async fn new_content_is_a_new_version() {
    let stage = Stage::furnished().await;
    let resource = stage.upload("fw", b"one").await;
    let path = format!(
        "/api/v1/resources/{}/content",
        resource["id"].as_str().expect("an id")
    );
    let put = async |query: &str, body: &'static str| {
        let request: Request<Body> = stage
            .request(Method::PUT, &format!("{path}{query}"))
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(body))
            .expect("a request");
        stage.send(request).await
    };
    let replaced = put(&format!("?sha256={}", sha256(b"second")), "second")
        .await
        .ok(200);
    assert_eq!(
        (&replaced["version"], &replaced["size"]),
        (&json!(2), &json!(6))
    );
    assert_eq!(stage.get(&path).await.body, "second");
    let wrong = put(&format!("?md5={}", "0".repeat(32)), "third").await;
    assert_eq!(wrong.problem(422, "content-mismatch")["field"], "md5");
    put("", "").await.problem(422, "invalid-field");
    assert_eq!(stage.get(&path).await.body, "second");
}

#[tokio::test]
async fn resource_in_delivery_cannot_be_deleted() {
    let stage = Stage::furnished().await;
    let resource = stage.upload("fw", b"one").await;
    let body = json!({"resource_id": resource["id"], "device_id": "p_d1"});
    let task = stage.post("/api/v1/tasks", &body).await.ok(201);
    let path = format!(
        "/api/v1/resources/{}",
        resource["id"].as_str().expect("an id")
    );
    let problem = stage
        .bare(Method::DELETE, &path)
        .await
        .problem(409, "in-use");
    let task_id = task["id"].as_str().expect("an id");
    assert!(
        problem["used_by"].to_string().contains(task_id),
        "{problem}"
    );
    let statistics = stage.get(&format!("{path}/statistics")).await.ok(200);
    assert_eq!(statistics["pending"], 1);
}
