//! Shared subscriptions of applications, and requests and responses, with clients that others wrote.

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};

use crate::harness::{Client, Gateway, Login, need, run};

#[tokio::test]
async fn instances_of_an_application_share_what_its_devices_say() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let mut members = Vec::new();
    for n in 0..3 {
        let login = Login::application(&app, &format!("app:a:{n}"));
        let mut member = Client::log_in(&gateway, &login).await;
        let granted = member
            .subscribe(&["$share/g/P/+/data"], QoS::AtLeastOnce)
            .await;
        assert_eq!(granted, [ReasonCode::GrantedQoS1]);
        members.push(member);
    }
    let mut client = Client::log_in(&gateway, &Login::of(&d)).await;
    for n in 0..30_u8 {
        client.publish("P/d/data", &[n]).await;
    }
    let mut seen = Vec::new();
    for member in &mut members {
        let came = member.ping().await;
        assert_eq!(came.len(), 10, "they take turns");
        seen.extend(came.iter().map(|message| message.payload[0]));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..30), "each message once");
    // One that goes leaves all to the others.
    drop(members.pop());
    gateway
        .metric_is(
            r#"headgate_connections{auth="application",protocol="mqtt"}"#,
            2.0,
        )
        .await;
    for n in 0..10_u8 {
        client.publish("P/d/data", &[n]).await;
    }
    let mut left = 0;
    for member in &mut members {
        left += member.ping().await.len();
    }
    assert_eq!(left, 10);
    gateway.stop().await;
}

#[tokio::test]
async fn a_device_is_told_that_it_shares_nothing() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    for (login, is_app) in [
        (Login::of(&d).over(ProtocolVersion::V5), false),
        (Login::application(&app, "app:a"), true),
    ] {
        let mut client = Client::open(&gateway).await;
        let connack = client.introduce(&login).await;
        let told = connack.properties.expect("properties");
        let available = told.shared_subscription_available;
        assert_eq!(available, (!is_app).then_some(false));
        assert_eq!(told.retain_available, None, "it is");
        assert_eq!(told.subscription_identifiers_available, None, "they are");
        if !is_app {
            let reasons = client
                .subscribe(&["$share/g/P/d/#"], QoS::AtLeastOnce)
                .await;
            assert_eq!(reasons, [ReasonCode::SharedSubscriptionsNotSupported]);
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_asks_a_device_and_is_answered_with_all_properties() {
    need("mosquitto_rr");
    need("mosquitto_pub");
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let app = gateway.app("a", &[&d]).await;
    let port = gateway.ports.mqtts.expect("a listener").port().to_string();
    let ca = gateway.data_dir.join("tls/ca.pem").display().to_string();
    let mut device = Client::log_in(&gateway, &Login::of(&d).over(ProtocolVersion::V5)).await;
    device.subscribe(&["P/d/ask"], QoS::AtLeastOnce).await;
    let asking = [
        "-h",
        "localhost",
        "-p",
        &port,
        "--cafile",
        &ca,
        "-V",
        "5",
        "-i",
        "app:a:rr",
        "-u",
        "a",
        "-P",
        &app.secret,
        "-q",
        "1",
        "-t",
        "P/d/ask",
        "-e",
        "P/d/answer",
        "-m",
        "how warm?",
        "-W",
        "30",
        "-D",
        "publish",
        "correlation-data",
        "17",
        "-D",
        "publish",
        "user-property",
        "room",
        "9",
        "-D",
        "publish",
        "content-type",
        "text/plain",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
        "-D",
        "publish",
        "message-expiry-interval",
        "60",
        "-F",
        "%p %C %P %D %A",
    ];
    let answering = async {
        let question = device.message().await;
        let mut properties = *question.properties.expect("properties");
        assert_eq!(properties.correlation_data.as_deref(), Some(&b"17"[..]));
        assert_eq!(properties.user, [("room".into(), "9".into())]);
        assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        let left = properties.message_expiry_interval_secs.expect("an expiry");
        assert!((1..=60).contains(&left), "{left}");
        let to = properties.response_topic.take().expect("a response topic");
        let packet_id = device.packet_id();
        let headgate_protocol::mqtt::Packet::Publish(mut answer) =
            crate::harness::publish(&to, b"21.5", Some(packet_id))
        else {
            unreachable!("a PUBLISH")
        };
        properties.topic_alias = None;
        properties.subscription_identifiers.clear();
        answer.properties = Some(Box::new(properties));
        device
            .send(&headgate_protocol::mqtt::Packet::Publish(answer))
            .await;
        device.ping().await;
    };
    let (answered, ()) = tokio::join!(run("mosquitto_rr", &asking), answering);
    let printed = String::from_utf8_lossy(&answered.stdout).into_owned();
    assert!(answered.success, "{printed} {}", answered.stderr);
    assert!(
        printed.starts_with("21.5 text/plain room:9 17"),
        "{printed}"
    );
    gateway.stop().await;
}
