//! Batches of devices, and the credentials of single ones, over the API.

use std::time::Duration;

use axum::http::{Method, header};
use serde_json::{Value, json};

use super::stage::{Answer, Stage};

const HEADING: &str = "node_id,device_name,product_id,auth_type,secret,fingerprint,description\r\n";
const CERTIFICATE: &str = include_str!("../../../model/certificate/ec.pem");

async fn stage() -> Stage {
    let stage = Stage::new().await;
    let product = json!({"id": "meter", "name": "Meter", "auth_kinds": ["secret", "x509"]});
    stage.post("/api/v1/products", &product).await.ok(201);
    stage
}

async fn send(stage: &Stage, text: impl Into<Vec<u8>>) -> Answer {
    let request = stage
        .request(Method::POST, "/api/v1/device-batches")
        .header(header::CONTENT_TYPE, "text/csv");
    stage
        .send(request.body(text.into().into()).expect("a request"))
        .await
}

/// Waits until a batch is done.
async fn ended(stage: &Stage, batch: &Value) -> Value {
    let path = format!(
        "/api/v1/device-batches/{}",
        batch["id"].as_str().expect("an id")
    );
    let ending = async {
        loop {
            let now = stage.get(&path).await.ok(200);
            if now["state"] == "finished" {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), ending)
        .await
        .expect("an end in time")
}

#[tokio::test]
async fn a_batch_is_sent_followed_taken_and_confirmed() {
    let stage = stage().await;
    let text = format!("{HEADING}n1,,meter,,,,\r\n-n2,,meter,,,,\r\nbad/id,,meter,,,,\r\n");
    let answer = send(&stage, text.clone()).await;
    let batch = answer.ok(201);
    let path = format!(
        "/api/v1/device-batches/{}",
        batch["id"].as_str().expect("an id")
    );
    assert!(answer.header("location").ends_with(&path));
    let done = ended(&stage, &batch).await;
    assert_eq!(
        done["counts"],
        json!({"created": 2, "unchanged": 0, "failed": 1})
    );
    let rows = stage.get(&format!("{path}/rows?limit=2")).await.ok(200);
    assert_eq!(rows["items"][0]["device_id"], "meter_n1");
    assert_eq!(rows["items"][0]["secret"].as_str().map(str::len), Some(32));
    let next = rows["next"].as_str().expect("a third");
    let rest = stage
        .get(&format!("{path}/rows?cursor={next}"))
        .await
        .ok(200);
    assert_eq!(rest["items"][0]["error"]["code"], "invalid_field");
    let failed = stage
        .get(&format!("{path}/rows?state=failed"))
        .await
        .ok(200);
    assert_eq!(failed["items"].as_array().map(Vec::len), Some(1));
    let result = stage.get(&format!("{path}/result.csv")).await;
    let text = String::from_utf8(result.body.to_vec()).expect("UTF-8");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(
        lines[1].starts_with("0,2,meter,n1,created,meter_n1,"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("1,3,meter,'-n2,created,meter_-n2,"),
        "{text}"
    );
    assert!(
        lines[3].starts_with("2,4,meter,bad/id,failed,,,invalid_field,"),
        "{text}"
    );
    stage
        .post(&format!("{path}/confirm"), &json!({}))
        .await
        .ok(200);
    let rows = stage.get(&format!("{path}/rows")).await.ok(200);
    assert!(rows["items"][0].get("secret").is_none(), "{rows}");
    let list = stage
        .get("/api/v1/device-batches?state=finished")
        .await
        .ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    stage.bare(Method::DELETE, &path).await.ok(204);
    stage.get(&path).await.problem(404, "not-found");
    stage.get("/api/v1/devices/meter_n1").await.ok(200);
}

#[tokio::test]
async fn a_file_that_went_well_is_known_when_it_comes_again() {
    let stage = stage().await;
    let text = format!("{HEADING}n1,,meter,,,,\r\n");
    let batch = send(&stage, text.clone()).await.ok(201);
    ended(&stage, &batch).await;
    let again = send(&stage, text).await.ok(200);
    assert_eq!(again["id"], batch["id"]);
}

#[tokio::test]
async fn wrong_files_are_refused_with_a_reason() {
    let stage = stage().await;
    let json = json!({"a": 1});
    stage
        .post("/api/v1/device-batches", &json)
        .await
        .problem(415, "unsupported-media-type");
    send(&stage, "node_id,colour\n")
        .await
        .problem(422, "invalid-csv");
    send(&stage, HEADING).await.problem(422, "invalid-csv");
    let utf16: Vec<u8> = HEADING.encode_utf16().flat_map(u16::to_le_bytes).collect();
    send(&stage, utf16).await.problem(422, "invalid-csv");
    let many = format!("{HEADING}{}", "n,,meter,,,,\n".repeat(2_001));
    let problem = send(&stage, many).await.problem(422, "invalid-csv");
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|text| text.contains("line 2002")),
        "{problem}"
    );
    send(&stage, vec![b'x'; 100_001])
        .await
        .problem(413, "too-large");
    let list = stage.get("/api/v1/device-batches").await.ok(200);
    assert_eq!(list["items"], json!([]));
    let template = stage.get("/api/v1/device-batches/template.csv").await;
    assert!(template.body.starts_with(HEADING.as_bytes()));
}

#[tokio::test]
async fn a_certificate_is_registered_by_its_fingerprint_or_as_it_is() {
    let stage = stage().await;
    let new =
        json!({"product_id": "meter", "node_id": "c1", "auth": "x509", "certificate": CERTIFICATE});
    let made = stage.post("/api/v1/devices", &new).await.ok(201);
    let fingerprint = made["fingerprint"].as_str().expect("computed").to_owned();
    assert_eq!(fingerprint.len(), 64);
    assert!(made["certificate"]["subject"].is_string(), "{made}");
    for digits in [39, 40, 63, 65] {
        let body = json!({"fingerprint": "a".repeat(digits)});
        let problem = stage
            .post("/api/v1/devices/meter_c1/fingerprint", &body)
            .await
            .problem(422, "invalid-field");
        assert_eq!(problem["field"], "fingerprint");
    }
    let colons = ["AB"; 32].join(":");
    let second = json!({"which": "secondary", "fingerprint": colons, "disconnect": true});
    let set = stage
        .post("/api/v1/devices/meter_c1/fingerprint", &second)
        .await
        .ok(200);
    assert_eq!(set["fingerprint"], "ab".repeat(32));
    let shown = stage.get("/api/v1/devices/meter_c1").await.ok(200);
    assert_eq!(shown["fingerprint"], fingerprint.as_str());
    assert_eq!(shown["secondary_fingerprint"], "ab".repeat(32));
    stage
        .bare(Method::DELETE, "/api/v1/devices/meter_c1/fingerprint")
        .await
        .ok(204);
    let shown = stage.get("/api/v1/devices/meter_c1").await.ok(200);
    assert!(shown.get("secondary_fingerprint").is_none(), "{shown}");
    let both = json!({"fingerprint": "ab".repeat(32), "certificate": CERTIFICATE});
    stage
        .post("/api/v1/devices/meter_c1/fingerprint", &both)
        .await
        .problem(422, "invalid-field");
    stage
        .post("/api/v1/devices/meter_c1/fingerprint", &json!({}))
        .await
        .problem(422, "invalid-field");
    stage
        .post("/api/v1/devices/meter_c1/secret", &json!({}))
        .await
        .problem(422, "invalid-field");
    let nonsense =
        json!({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"});
    let problem = stage
        .post("/api/v1/devices/meter_c1/fingerprint", &nonsense)
        .await
        .problem(422, "invalid-field");
    assert_eq!(problem["field"], "certificate");
}

#[tokio::test]
async fn a_device_is_frozen_let_in_again_and_loses_its_second_secret() {
    let stage = stage().await;
    let new =
        json!({"product_id": "meter", "node_id": "n1", "name": "Attic", "description": "left"});
    stage.post("/api/v1/devices", &new).await.ok(201);
    let none = json!({});
    let frozen = stage
        .post("/api/v1/devices/meter_n1/freeze", &none)
        .await
        .ok(200);
    assert_eq!(frozen["enabled"], false);
    let list = stage
        .get("/api/v1/devices?enabled=false&name=attic")
        .await
        .ok(200);
    assert_eq!(list["items"][0]["description"], "left");
    let thawed = stage
        .post("/api/v1/devices/meter_n1/unfreeze", &none)
        .await
        .ok(200);
    assert_eq!(thawed["enabled"], true);
    let second = json!({"which": "secondary"});
    stage
        .post("/api/v1/devices/meter_n1/secret", &second)
        .await
        .ok(200);
    assert_eq!(
        stage.get("/api/v1/devices/meter_n1").await.ok(200)["has_secondary_secret"],
        true
    );
    stage
        .bare(
            Method::DELETE,
            "/api/v1/devices/meter_n1/secret?disconnect=true",
        )
        .await
        .ok(204);
    assert_eq!(
        stage.get("/api/v1/devices/meter_n1").await.ok(200)["has_secondary_secret"],
        false
    );
    stage
        .bare(Method::DELETE, "/api/v1/devices/meter_n1/fingerprint")
        .await
        .problem(422, "invalid-field");
    for path in ["freeze", "unfreeze"] {
        let answer = stage
            .post(&format!("/api/v1/devices/nobody/{path}"), &none)
            .await;
        answer.problem(404, "not-found");
    }
}

#[tokio::test]
async fn what_devices_need_is_not_taken_from_their_product() {
    let stage = stage().await;
    let new = json!({"product_id": "meter", "node_id": "n1"});
    stage.post("/api/v1/devices", &new).await.ok(201);
    let body = json!({"name": "Meter", "auth_kinds": ["x509"]});
    let answer = stage
        .with_json(Method::PUT, "/api/v1/products/meter", &body)
        .await;
    let problem = answer.problem(409, "in-use");
    assert_eq!(problem["used_by"], json!(["device meter_n1"]));
}
