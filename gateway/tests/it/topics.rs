//! What devices may publish and see, and what a change of their product does to those connected.

use headgate_protocol::mqtt::{Packet, ProtocolVersion, QoS, ReasonCode};
use serde_json::{Value, json};

use crate::harness::{Client, Device, Gateway, Login, publish, until};

async fn device_with(gateway: &Gateway, policy: Value) -> Device {
    let product = json!({"topic_policy": policy});
    gateway.product("P", &product).await;
    gateway.device("P", "d").await
}

async fn v5(gateway: &Gateway, device: &Device) -> Client {
    Client::log_in(gateway, &Login::of(device).over(ProtocolVersion::V5)).await
}

#[tokio::test]
async fn a_product_s_policy_adds_topics() {
    let gateway = Gateway::start().await;
    let policy = json!({"publish": ["fleet/{device}/up"], "subscribe": ["fleet/#"]});
    let device = device_with(&gateway, policy).await;
    let mut client = v5(&gateway, &device).await;
    let granted = client
        .subscribe(&["fleet/+/up", "fleet2/#", "#"], QoS::AtLeastOnce)
        .await;
    assert_eq!(
        granted,
        [
            ReasonCode::GrantedQoS1,
            ReasonCode::NotAuthorized,
            ReasonCode::NotAuthorized
        ]
    );
    assert_eq!(
        client.publish("fleet/d/up", b"mine").await,
        ReasonCode::Success
    );
    assert_eq!(&client.message().await.payload[..], b"mine");
    assert_eq!(
        client.publish("fleet/other/up", b"theirs").await,
        ReasonCode::NotAuthorized
    );
    gateway.stop().await;
}

#[tokio::test]
async fn before_mqtt_5_what_is_not_allowed_is_taken_and_dropped() {
    let gateway = Gateway::start().await;
    let device = device_with(&gateway, json!({"subscribe": ["fleet/#"]})).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    let granted = client
        .subscribe(&["other/#", "fleet/#"], QoS::AtMostOnce)
        .await;
    assert_eq!(
        granted,
        [ReasonCode::UnspecifiedError, ReasonCode::Success],
        "0x80 is the one failure that 3.1.1 knows"
    );
    // What its policy lets it see it may not publish.
    assert_eq!(client.publish("fleet/x", b"x").await, ReasonCode::Success);
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_changed_policy_acts_on_those_who_are_connected() {
    let gateway = Gateway::start().await;
    let policy = json!({"publish": ["fleet/+"], "subscribe": ["fleet/#"]});
    let device = device_with(&gateway, policy).await;
    let mut client = v5(&gateway, &device).await;
    let topics = ["fleet/#", "P/d/#"];
    client.subscribe(&topics, QoS::AtLeastOnce).await;
    assert_eq!(client.publish("fleet/x", b"1").await, ReasonCode::Success);
    assert_eq!(&client.message().await.payload[..], b"1");

    let narrower = json!({"name": "P", "topic_policy": {"publish": ["fleet/+"]}});
    let put = gateway
        .api(hyper::Method::PUT, "/products/P", Some(&narrower))
        .await;
    put.ok(200);
    until("the subscription dropped", || async {
        let session = gateway.get("/devices/P_d/session").await;
        let held = session["subscriptions"].as_array().expect("a list").len();
        (held == 1).then_some(())
    })
    .await;
    assert_eq!(
        client.publish("fleet/x", b"2").await,
        ReasonCode::NoMatchingSubscribers
    );
    assert_eq!(client.publish("P/d/x", b"3").await, ReasonCode::Success);
    assert_eq!(&client.message().await.payload[..], b"3", "and no 2");

    let none = json!({"name": "P"});
    let put = gateway
        .api(hyper::Method::PUT, "/products/P", Some(&none))
        .await;
    put.ok(200);
    assert_eq!(
        client.publish("fleet/x", b"4").await,
        ReasonCode::NotAuthorized,
        "in force when the change is answered"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn vendors_topics_are_for_products_with_the_vendor_s_form() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d"]).await;
    let mut client = v5(&gateway, &device).await;
    let topics = ["$oc/devices/P_d/#", "$rrpc/rxd/P/d/+"];
    assert_eq!(
        client.subscribe(&topics, QoS::AtMostOnce).await,
        [ReasonCode::NotAuthorized; 2]
    );
    assert_eq!(
        client
            .publish("$oc/devices/P_d/sys/messages/up", b"{}")
            .await,
        ReasonCode::NotAuthorized
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_that_wants_no_echo_gets_none() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d"]).await;
    let mut client = v5(&gateway, &device).await;
    let packet_id = client.packet_id();
    let mut packet = crate::harness::subscribe(packet_id, &["P/d/#"], QoS::AtMostOnce);
    if let Packet::Subscribe(subscribe) = &mut packet {
        subscribe.filters[0].no_local = true;
    }
    client.send(&packet).await;
    client.send(&publish("P/d/x", b"x", None)).await;
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}
