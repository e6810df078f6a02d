//! Huawei's topics: what devices hear without a subscription, the platform's services, commands.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use serde_json::json;

use crate::harness::{Client, Device, Gateway, Login, payload_json};

const DOWN: &str = "$oc/devices/HUAWEI_d/sys/messages/down";
const EVENTS: &str = "$oc/devices/HUAWEI_d/sys/events/up";

async fn device(gateway: &Gateway) -> Device {
    let forms = json!({"credential_forms": ["native", "huawei"]});
    gateway.product("HUAWEI", &forms).await;
    gateway.device("HUAWEI", "d").await
}

#[tokio::test]
async fn the_time_is_told_to_a_device_that_has_subscribed_to_nothing() {
    let gateway = Gateway::start().await;
    let device = device(&gateway).await;
    let mut client = Client::log_in(&gateway, &Login::huawei(&device)).await;
    let ask = json!({"object_device_id": "HUAWEI_d", "services": [
        {"service_id": "$time_sync", "event_type": "time_sync_request", "event_id": "",
         "event_time": "2026-11-21T05:57:53Z", "paras": {"device_send_time": 17}}]});
    client.publish(EVENTS, ask.to_string().as_bytes()).await;
    let answer = client.message().await;
    assert_eq!(
        answer.topic.as_str(),
        "$oc/devices/HUAWEI_d/sys/events/down"
    );
    assert_eq!(answer.qos, QoS::AtMostOnce);
    let answer = payload_json(&answer);
    assert_eq!(answer["object_device_id"], "HUAWEI_d");
    let service = &answer["services"][0];
    assert_eq!(service["event_type"], "time_sync_response");
    assert_eq!(service["paras"]["device_send_time"], 17);
    assert!(service["paras"]["server_send_time"].as_i64() > Some(1_700_000_000_000));
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_cannot_speak_as_the_platform() {
    let gateway = Gateway::start().await;
    let device = device(&gateway).await;
    let login = Login::huawei(&device).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    for topic in [
        DOWN,
        "$oc/devices/HUAWEI_d/sys/commands/request_id=1",
        "$oc/devices/HUAWEI_other/sys/messages/up",
    ] {
        let reason = client.publish(topic, b"{}").await;
        assert_eq!(reason, ReasonCode::NotAuthorized, "{topic}");
    }
    gateway.stop().await;
}
