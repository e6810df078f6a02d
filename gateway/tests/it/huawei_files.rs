//! Huawei's `$ota` and `$file_manager`, packet by packet as its Python SDK sends them.

use headgate_protocol::mqtt::QoS;
use serde_json::{Value, json};

use super::{
    harness::{Client, Device, Gateway, Login, content, payload_json, sha256},
    tencent_ota::{get, parts},
};

const UP: &str = "$oc/devices/HUAWEI_node1/sys/events/up";
const DOWN: &str = "$oc/devices/HUAWEI_node1/sys/events/down";

async fn gateway() -> (Gateway, Device, Client) {
    let gateway = Gateway::start().await;
    let forms = json!({"credential_forms": ["native", "huawei"]});
    gateway.product("HUAWEI", &forms).await;
    let device = gateway.device("HUAWEI", "node1").await;
    // It subscribes to nothing.
    let client = Client::log_in(&gateway, &Login::huawei(&device)).await;
    (gateway, device, client)
}

/// The SDK's envelope: an empty event id, and local time marked as UTC.
fn event(service: &str, kind: &str, paras: &Value) -> String {
    json!({"object_device_id": "HUAWEI_node1", "services": [{
        "service_id": service, "event_type": kind, "event_time": "2026-11-21T05:57:53Z",
        "event_id": "", "paras": paras,
    }]})
    .to_string()
}

/// The next event that the device hears, of this type; gives its parameters.
async fn told(client: &mut Client, service: &str, kind: &str) -> Value {
    let message = client.message().await;
    assert_eq!(
        (message.topic.as_str(), message.qos),
        (DOWN, QoS::AtMostOnce)
    );
    let message = payload_json(&message);
    assert_eq!(message["object_device_id"], "HUAWEI_node1");
    let event = &message["services"][0];
    assert_eq!(
        (&event["service_id"], &event["event_type"]),
        (&json!(service), &json!(kind))
    );
    let time = event["event_time"].as_str().expect("a time");
    assert!(time.len() == 16 && time.ends_with('Z'), "{time}");
    event["paras"].clone()
}

fn path_of(url: &str) -> &str {
    url.splitn(4, '/').nth(3).expect("a path")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_asked_for_told_fetched_with_a_token_and_reported() {
    let bytes = content(300_000);
    let (gateway, device, mut client) = gateway().await;
    let resource = gateway.resource("HUAWEI", "fw", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    told(&mut client, "$ota", "version_query").await;
    let version = event(
        "$ota",
        "version_report",
        &json!({"fw_version": "v1", "sw_version": "v1"}),
    );
    client.publish(UP, version.as_bytes()).await;
    let paras = told(&mut client, "$ota", "firmware_upgrade").await;
    assert_eq!(
        (&paras["file_size"], &paras["version"]),
        (&json!(300_000), &json!("1"))
    );
    assert_eq!(paras["sign"], sha256(&bytes));
    assert!(paras["expires"].as_u64() > Some(0));
    gateway.delivery_in("pushed", &task, &device).await;

    let (url, token) = (paras["url"].as_str(), paras["access_token"].as_str());
    let (url, token) = (url.expect("a url"), token.expect("a token"));
    let request = get(url, &format!("Authorization: Bearer {token}\r\n"));
    let (status, body) = parts(&gateway.files_exchange(request.as_bytes()).await);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body == bytes, "the bytes differ");
    for (code, progress) in [(0, 50), (0, 100)] {
        let paras =
            json!({"result_code": code, "version": "1", "progress": progress, "description": "ok"});
        let report = event("$ota", "upgrade_progress_report", &paras);
        client.publish(UP, report.as_bytes()).await;
    }
    gateway.delivery_in("delivered", &task, &device).await;
    // Nothing waits any more: its version is taken note of and not answered.
    client.publish(UP, version.as_bytes()).await;
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_firmware_upgrades_its_software_and_says_why_it_could_not() {
    let (gateway, device, mut client) = gateway().await;
    let resource = gateway.resource("HUAWEI", "sw", &content(1_000)).await;
    let task = gateway.task(&resource, &[&device]).await;
    told(&mut client, "$ota", "version_query").await;
    let version = event("$ota", "version_report", &json!({"sw_version": "v1"}));
    client.publish(UP, version.as_bytes()).await;
    told(&mut client, "$ota", "software_upgrade").await;
    gateway.delivery_in("pushed", &task, &device).await;
    let paras =
        json!({"result_code": 7, "version": "1", "progress": 10, "description": "wrong digest"});
    let report = event("$ota", "upgrade_progress_report", &paras);
    client.publish(UP, report.as_bytes()).await;
    let delivery = gateway.delivery_in("failed", &task, &device).await;
    assert!(delivery.to_string().contains("wrong digest"), "{delivery}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_waits_is_fetched_by_its_name() {
    let bytes = content(10_000);
    let (gateway, device, mut client) = gateway().await;
    let ask = |name: &str| {
        event(
            "$file_manager",
            "get_download_url",
            &json!({"file_name": name}),
        )
    };
    // Nothing of that name waits: no answer, and the connection stays.
    client.publish(UP, ask("config.json").as_bytes()).await;
    assert!(client.ping().await.is_empty());
    let resource = gateway.resource("HUAWEI", "config", &bytes).await;
    let task = gateway.task(&resource, &[&device]).await;
    told(&mut client, "$ota", "version_query").await;
    client.publish(UP, ask("config.json").as_bytes()).await;
    let paras = told(&mut client, "$file_manager", "get_download_url_response").await;
    let digest = json!({"hash_code": sha256(&bytes), "size": 10_000});
    assert_eq!(paras["file_attributes"], digest);
    let request = get(paras["url"].as_str().expect("a url"), "");
    let (status, body) = parts(&gateway.files_exchange(request.as_bytes()).await);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body == bytes, "the bytes differ");
    let result = json!({"object_name": paras["object_name"], "result_code": 0, "status_code": 200, "status_description": "ok"});
    let report = event("$file_manager", "download_result_report", &result);
    client.publish(UP, report.as_bytes()).await;
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_sent_without_an_md5_and_checked_by_its_sha256() {
    let bytes = content(20_000);
    let (gateway, _device, mut client) = gateway().await;
    let attributes = json!({"hash_code": sha256(&bytes), "size": bytes.len()});
    let paras = json!({"file_name": "upload_test.txt", "file_attributes": attributes});
    let ask = event("$file_manager", "get_upload_url", &paras);
    client.publish(UP, ask.as_bytes()).await;
    let paras = told(&mut client, "$file_manager", "get_upload_url_response").await;
    assert_eq!(paras["object_name"], "upload_test.txt");
    assert_eq!(paras["file_attributes"], attributes);
    let path = path_of(paras["url"].as_str().expect("a url"));
    let put = |body: &[u8]| {
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.32.5\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let (status, _) = parts(&gateway.files_exchange(&put(&bytes)).await);
    assert_eq!(status, "HTTP/1.1 200 ok");
    let result = json!({"object_name": "upload_test.txt", "result_code": 0, "status_code": 200, "status_description": "upload file success"});
    let report = event("$file_manager", "upload_result_report", &result);
    client.publish(UP, report.as_bytes()).await;
    assert!(client.ping().await.is_empty());
    let uploads = gateway.uploads("?name=upload_test.txt").await;
    let [upload] = &uploads[..] else {
        panic!("{uploads:?}")
    };
    assert_eq!(
        (&upload["device_id"], &upload["state"]),
        (&json!("HUAWEI_node1"), &json!("stored"))
    );
    gateway
        .has_uploaded(upload["id"].as_str().expect("an id"), &bytes)
        .await;

    // Other bytes than announced.
    let wrong = vec![7; 20_000];
    client.publish(UP, ask.as_bytes()).await;
    let again = told(&mut client, "$file_manager", "get_upload_url_response").await;
    let path = path_of(again["url"].as_str().expect("a url"));
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 20000\r\n\r\n"
    );
    let request = [head.as_bytes(), &wrong].concat();
    let (status, body) = parts(&gateway.files_exchange(&request).await);
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert_eq!(body, b"sha256 not matched");
    gateway.stop().await;
}
