//! Huawei's topics: what devices hear without a subscription, the platform's services, commands.

use bytes::Bytes;
use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use hyper::Method;
use serde_json::json;

use crate::harness::{App, Client, Device, Gateway, Login, payload_json, publish};

const UP: &str = "$oc/devices/HUAWEI_d/sys/messages/up";
const DOWN: &str = "$oc/devices/HUAWEI_d/sys/messages/down";
const EVENTS: &str = "$oc/devices/HUAWEI_d/sys/events/up";

async fn device(gateway: &Gateway) -> Device {
    let forms = json!({"credential_forms": ["native", "huawei"]});
    gateway.product("HUAWEI", &forms).await;
    gateway.device("HUAWEI", "d").await
}

async fn bound(gateway: &Gateway) -> (Device, App, Client) {
    let device = device(gateway).await;
    let app = gateway.app("a", &[&device]).await;
    let mut client = Client::log_in(gateway, &Login::application(&app, "app:a")).await;
    client
        .subscribe(&["$oc/devices/+/sys/#"], QoS::AtLeastOnce)
        .await;
    (device, app, client)
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
async fn what_is_meant_for_the_platform_reaches_no_application() {
    let gateway = Gateway::start().await;
    let (device, _app, mut app) = bound(&gateway).await;
    let login = Login::huawei(&device).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    for service in ["$log", "$sdk_info"] {
        let message = json!({"services": [{"service_id": service, "paras": {}}]}).to_string();
        let reason = client.publish(EVENTS, message.as_bytes()).await;
        assert_eq!(reason, ReasonCode::Success, "{service}");
    }
    let own = json!({"services": [{"service_id": "smoke", "event_type": "alarm"}]}).to_string();
    client.publish(EVENTS, own.as_bytes()).await;
    assert_eq!(&app.message().await.payload[..], own.as_bytes());
    assert!(client.ping().await.is_empty(), "no answer, no echo");
    gateway.stop().await;
}

#[tokio::test]
async fn messages_go_both_ways_and_own_ones_are_not_echoed() {
    let gateway = Gateway::start().await;
    let (device, _app, mut app) = bound(&gateway).await;
    let login = Login::huawei(&device).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    let all = "$oc/devices/HUAWEI_d/#";
    client.subscribe(&[all], QoS::AtLeastOnce).await;
    assert_eq!(client.publish(UP, b"up").await, ReasonCode::Success);
    assert_eq!(&app.message().await.payload[..], b"up");
    assert!(client.ping().await.is_empty(), "no echo");

    assert_eq!(app.publish(DOWN, b"down").await, ReasonCode::Success);
    let down = client.message().await;
    assert_eq!(
        (&down.payload[..], down.qos),
        (&b"down"[..], QoS::AtLeastOnce)
    );
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_heard_since_connect_outlives_the_device_s_own_subscription() {
    let gateway = Gateway::start().await;
    let (device, _app, mut app) = bound(&gateway).await;
    let mut client = Client::log_in(&gateway, &Login::huawei(&device)).await;
    app.publish(DOWN, b"1").await;
    assert_eq!(client.message().await.qos, QoS::AtMostOnce);
    let session = gateway.get("/devices/HUAWEI_d/session").await;
    assert_eq!(session["subscriptions"], json!([]), "it counts as none");

    client.subscribe(&[DOWN], QoS::AtLeastOnce).await;
    app.publish(DOWN, b"2").await;
    assert_eq!(client.message().await.qos, QoS::AtLeastOnce);
    client.unsubscribe(&[DOWN]).await;
    app.publish(DOWN, b"3").await;
    let third = client.message().await;
    assert_eq!(
        (&third.payload[..], third.qos),
        (&b"3"[..], QoS::AtMostOnce)
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_that_came_in_natively_hears_only_what_it_subscribed_to() {
    let gateway = Gateway::start().await;
    let (device, _app, mut app) = bound(&gateway).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    assert_eq!(app.publish(DOWN, b"1").await, ReasonCode::Success);
    client.subscribe(&["HUAWEI/d/#"], QoS::AtLeastOnce).await;
    app.publish("HUAWEI/d/x", b"2").await;
    assert_eq!(&client.message().await.payload[..], b"2", "and not 1");
    client.subscribe(&[DOWN], QoS::AtLeastOnce).await;
    assert_eq!(
        &client.message().await.payload[..],
        b"1",
        "it waited for it"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_command_s_response_reaches_whoever_waits_for_it() {
    let gateway = Gateway::start().await;
    let (device, _app, mut app) = bound(&gateway).await;
    let mut client = Client::log_in(&gateway, &Login::huawei(&device)).await;
    let command = "$oc/devices/HUAWEI_d/sys/commands/request_id=7";
    let response = "$oc/devices/HUAWEI_d/sys/commands/response/request_id=7";
    assert_eq!(app.publish(command, b"{}").await, ReasonCode::Success);
    assert_eq!(client.message().await.topic.as_str(), command);
    client
        .send(&publish(response, br#"{"result_code":0}"#, None))
        .await;
    let mut answer = app.message().await;
    if answer.topic.as_str() == command {
        // Applications see each other's commands.
        answer = app.message().await;
    }
    assert_eq!(answer.topic.as_str(), response);
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

#[tokio::test]
async fn a_command_over_http_waits_for_the_response() {
    let gateway = Gateway::start().await;
    let device = device(&gateway).await;
    let mut client = Client::log_in(&gateway, &Login::huawei(&device)).await;
    let topic = "$oc/devices/HUAWEI_d/sys/properties/get/request_id=9";
    let body = json!({"topic": topic, "payload": "{}"});
    let asking = gateway.api(
        Method::POST,
        "/devices/HUAWEI_d/messages?wait=20",
        Some(&body),
    );
    let answering = async {
        assert_eq!(client.message().await.topic.as_str(), topic);
        let response = "$oc/devices/HUAWEI_d/sys/properties/get/response/request_id=9";
        client.publish(response, br#"{"on":true}"#).await;
    };
    let (answer, ()) = tokio::join!(asking, answering);
    let answer = answer.ok(200);
    assert_eq!(
        answer["response"]["payload"],
        Bytes::from_static(br#"{"on":true}"#)
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
    );
    gateway.stop().await;
}
