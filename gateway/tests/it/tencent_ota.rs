//! Tencent's `$ota`, packet by packet as its Python SDK sends them: version, firmware, bytes over HTTPS, reports.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use serde_json::{Value, json};

use super::harness::{Client, Device, Gateway, Login, content, md5, payload_json, publish};

const UPDATE: &str = "$ota/update/PROD123456/dev1";
const REPORT: &str = "$ota/report/PROD123456/dev1";

/// The device of the recorded packets, with a delivery that waits for it.
async fn scene(bytes: &[u8]) -> (Gateway, Device, String, Client) {
    let gateway = Gateway::start().await;
    let forms = json!({"credential_forms": ["native", "tencent"]});
    gateway.product("PROD123456", &forms).await;
    let new = json!({
        "product_id": "PROD123456", "node_id": "dev1", "secret": "MDEyMzQ1Njc4OWFiY2RlZg==",
    });
    gateway.post("/devices", &new).await;
    let device = Device {
        id: "PROD123456_dev1".to_owned(),
        node: "dev1".to_owned(),
        product: "PROD123456".to_owned(),
        secret: String::new(),
    };
    let resource = gateway.resource("PROD123456", "firmware", bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    let login = Login {
        version: ProtocolVersion::V31,
        keep_alive_secs: 60,
        client_id: "PROD123456dev1".to_owned(),
        username: "PROD123456dev1;21010406;9DXch;1795240549864".to_owned(),
        password: "4a06bba38a5fc619b7704a7efb9ff91fae0987ba;hmacsha1".to_owned(),
        keeps_secs: None,
    };
    let client = Client::log_in(&gateway, &login).await;
    (gateway, device, task, client)
}

/// The `GET` of the SDK: its range ends one byte beyond the file.
pub(crate) fn get(url: &str, headers: &str) -> String {
    let path = url.splitn(4, '/').nth(3).expect("a path");
    format!(
        "GET /{path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.32.5\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\n{headers}\r\n"
    )
}

/// Status line and body of an answer whose head devices' parsers can take.
pub(crate) fn parts(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("a head");
    assert!(end < 1_024, "longer than a device's buffer");
    let head = String::from_utf8(answer[..end].to_vec()).expect("ASCII");
    let body = answer[end + 4..].to_vec();
    let length = format!("\r\nContent-Length: {}", body.len());
    assert!(head.contains(&length), "{head}");
    (head.lines().next().expect("a line").to_owned(), body)
}

async fn update(client: &mut Client) -> Value {
    let message = client.message().await;
    assert_eq!(message.topic.as_str(), UPDATE);
    payload_json(&message)
}

fn progress(state: &str, percent: &str, code: &str) -> String {
    format!(
        r#"{{"type": "report_progress", "report": {{"progress": {{"state": "{state}", "percent": "{percent}", "result_code": "{code}", "result_msg": ""}}, "version": "1"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_is_told_fetched_with_a_range_one_too_far_and_reported() {
    let bytes = content(5_000);
    let (gateway, device, task, mut client) = scene(&bytes).await;
    let granted = client.subscribe(&[UPDATE], QoS::AtLeastOnce).await;
    assert_eq!(granted, [ReasonCode::GrantedQoS1]);
    // It is told without asking, and again when it tells its version.
    let told = update(&mut client).await;
    assert_eq!(told["type"], "update_firmware", "{told}");
    let version = br#"{"type": "report_version", "report": {"version": "0"}}"#;
    client.publish(REPORT, version).await;
    let rsp = update(&mut client).await;
    let expected = json!({"type": "report_version_rsp", "result_code": 0, "result_msg": "success"});
    assert_eq!(rsp, expected);
    let told = update(&mut client).await;
    let url = told["url"].as_str().expect("a url").to_owned();
    assert!(url.len() < 1_000 && told.to_string().len() < 2_048);
    assert_eq!(
        told,
        json!({"type": "update_firmware", "file_size": 5_000, "md5sum": md5(&bytes),
               "url": url, "version": "1"})
    );
    client.ping().await;
    gateway.delivery_in("pushed", &task, &device).await;

    let report = progress("downloading", "0", "0");
    client.send(&publish(REPORT, report.as_bytes(), None)).await;
    let request = get(&url, "Range: bytes=0-5000\r\n");
    let answer = gateway.files_exchange(request.as_bytes()).await;
    let (status, body) = parts(&answer);
    assert_eq!(status, "HTTP/1.1 206 Partial Content");
    assert!(body == bytes, "the bytes differ");
    gateway.delivery_in("delivering", &task, &device).await;
    for report in [
        progress("burning", "100", "0"),
        progress("done", "100", "0"),
    ] {
        client.publish(REPORT, report.as_bytes()).await;
    }
    gateway.delivery_in("delivered", &task, &device).await;
    // What its new firmware says of itself is answered, and nothing more waits.
    let version = br#"{"type": "report_version", "report": {"version": "1"}}"#;
    client.publish(REPORT, version).await;
    assert_eq!(update(&mut client).await["type"], "report_version_rsp");
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_failed_and_one_that_was_never_fetched_are_no_success() {
    let bytes = content(5_000);
    for (report, reason) in [
        (progress("fail", "0", "-4"), "device"),
        (progress("done", "100", "0"), "incomplete"),
    ] {
        let (gateway, device, task, mut client) = scene(&bytes).await;
        client.subscribe(&[UPDATE], QoS::AtLeastOnce).await;
        update(&mut client).await;
        client.ping().await;
        gateway.delivery_in("pushed", &task, &device).await;
        client.publish(REPORT, report.as_bytes()).await;
        let delivery = gateway.delivery_in("failed", &task, &device).await;
        assert_eq!(delivery["reason"], reason, "{delivery}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_listens_to_both_is_told_once_as_a_resource() {
    let (gateway, device, _task, mut client) = scene(&content(5_000)).await;
    client
        .subscribe(&[&device.down(), UPDATE], QoS::AtLeastOnce)
        .await;
    let message = client.message().await;
    assert_eq!(message.topic.as_str(), device.down());
    assert_eq!(payload_json(&message)["type"], "download");
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}
