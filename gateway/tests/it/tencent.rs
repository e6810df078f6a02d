//! Tencent's topics: the time, `$broadcast` and `$rrpc`.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use serde_json::json;

use crate::harness::{Client, Device, Gateway, Login, payload_json, publish};

async fn device(gateway: &Gateway) -> Device {
    let forms = json!({"credential_forms": ["native", "tencent"]});
    gateway.product("PROD123456", &forms).await;
    gateway.device("PROD123456", "dev1").await
}

#[tokio::test]
async fn the_time_is_told_where_the_device_listens() {
    let gateway = Gateway::start().await;
    let device = device(&gateway).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    let ask = br#"{"type": "get", "resource": ["time"]}"#;
    client
        .send(&publish("$sys/operation/PROD123456/dev1", ask, None))
        .await;
    assert!(client.ping().await.is_empty(), "it does not listen yet");
    let topic = "$sys/operation/result/PROD123456/dev1";
    let granted = client.subscribe(&[topic], QoS::AtMostOnce).await;
    assert_eq!(granted, [ReasonCode::Success]);
    client
        .send(&publish("$sys/operation/PROD123456/dev1", ask, None))
        .await;
    let answer = client.message().await;
    assert_eq!(answer.topic.as_str(), topic);
    let answer = payload_json(&answer);
    assert_eq!(answer["type"], "get");
    let (seconds, sent) = (answer["time"].as_i64(), answer["ntptime2"].as_i64());
    assert_eq!(seconds, sent.map(|millis| millis / 1000));
    assert!(answer["ntptime1"].as_i64() <= sent && seconds > Some(1_700_000_000));
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_asks_a_device_and_hears_its_answer() {
    let gateway = Gateway::start().await;
    let device = device(&gateway).await;
    let app = gateway.app("a", &[&device]).await;
    let mut app = Client::log_in(&gateway, &Login::application(&app, "app:a")).await;
    app.subscribe(&["$rrpc/txd/#", "$shadow/operation/#"], QoS::AtLeastOnce)
        .await;
    let login = Login::of(&device).over(ProtocolVersion::V5);
    let mut client = Client::log_in(&gateway, &login).await;
    let topics = [
        "$rrpc/rxd/PROD123456/dev1/+",
        "$broadcast/rxd/PROD123456/dev1",
    ];
    let granted = client.subscribe(&topics, QoS::AtMostOnce).await;
    assert_eq!(granted, [ReasonCode::Success; 2]);

    app.publish("$rrpc/rxd/PROD123456/dev1/41", b"ask").await;
    assert_eq!(&client.message().await.payload[..], b"ask");
    client
        .publish("$rrpc/txd/PROD123456/dev1/41", b"answer")
        .await;
    assert_eq!(&app.message().await.payload[..], b"answer");

    app.publish("$broadcast/rxd/PROD123456/dev1", b"all").await;
    assert_eq!(&client.message().await.payload[..], b"all");

    // The shadow is for applications to keep.
    client
        .publish("$shadow/operation/PROD123456/dev1", b"{}")
        .await;
    let shadow = app.message().await;
    assert_eq!(shadow.topic.as_str(), "$shadow/operation/PROD123456/dev1");
    gateway.stop().await;
}
