//! Messages and what goes along with them.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use headgate_protocol::mqtt::{Packet, PayloadFormat, Properties, Publish, ReasonCode};

use super::{
    super::client::{Raw, hello, lasting, qos},
    V,
};

pub(super) async fn basic(server: SocketAddr) {
    let (mut a, connack) = Raw::connect(server, hello(V, "a")).await;
    assert_eq!(connack.reason, ReasonCode::Success);
    assert!(!connack.session_present);
    assert_eq!(a.subscribe("TopicA", 2).await, ReasonCode::GrantedQoS2);
    for bits in 0..3 {
        a.publish("TopicA", &[bits], bits).await;
    }
    for (bits, message) in (0..3).zip(a.messages(3).await) {
        assert_eq!(
            (&message.payload[..], message.qos),
            (&[bits][..], qos(bits))
        );
    }
    a.send(&Packet::Connect(Box::new(hello(V, "a")))).await;
    assert_eq!(a.closed().await, Some(ReasonCode::ProtocolError));
}

fn named(name: &str) -> Properties {
    Properties {
        user: vec![("a".into(), name.into()), ("a".into(), "again".into())],
        ..Properties::default()
    }
}

pub(super) async fn retained_message(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let topics = ["TopicA/B", "Topic/C", "TopicA/C"];
    for (topic, bits) in topics.into_iter().zip(0..3) {
        let mut publish = Publish::new(topic.parse().expect("a topic"), Bytes::from(vec![bits]));
        publish.retain = true;
        publish.properties = Some(Box::new(named(topic)));
        a.hand_over(publish, bits).await;
    }
    a.subscribe("+/+", 2).await;
    let retained = a.rest().await;
    assert_eq!(retained.len(), 3);
    for message in &retained {
        assert!(message.retain);
        let user = &message.properties.as_deref().expect("kept, too").user;
        assert_eq!(*user, named(&message.topic).user);
    }
    for topic in topics {
        a.retain(topic, b"", 1).await;
    }
    a.disconnect().await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.subscribe("+/+", 2).await;
    assert!(b.rest().await.is_empty(), "nothing is retained any more");
}

pub(super) async fn overlapping_subscriptions(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    a.subscribe("TopicA/#", 2).await;
    a.subscribe("TopicA/+", 1).await;
    a.publish("TopicA/C", b"overlapping", 2).await;
    let messages = a.rest().await;
    assert_eq!(messages.len(), 1, "one copy at the highest QoS");
    assert_eq!(messages[0].qos, qos(2));
}

pub(super) async fn dollar_topics(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    for filter in ["#", "+/+"] {
        a.subscribe(filter, 2).await;
    }
    a.publish("$test/TopicA", b"", 1).await;
    assert!(a.rest().await.is_empty());
}

pub(super) async fn user_properties(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    a.subscribe("TopicA", 2).await;
    for bits in 0..3 {
        a.publish_with("TopicA", b"", bits, named("2")).await;
    }
    for message in a.messages(3).await {
        let user = message.properties.expect("passed on").user;
        assert_eq!(user, named("2").user, "in their order");
    }
}

pub(super) async fn payload_format(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    a.subscribe("TopicA", 2).await;
    let text = Properties {
        payload_format: Some(PayloadFormat::Utf8),
        content_type: Some("My name".into()),
        ..Properties::default()
    };
    for bits in 0..3 {
        a.publish_with("TopicA", b"text", bits, text.clone()).await;
    }
    for (bits, message) in (0..3).zip(a.messages(3).await) {
        assert_eq!(message.qos, qos(bits));
        assert_eq!(message.properties.as_deref(), Some(&text));
    }
}

pub(super) async fn publication_expiry(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, lasting(V, "b")).await;
    b.subscribe("TopicA", 2).await;
    b.disconnect().await;
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    for (bits, secs) in [(1, 1), (2, 600), (1, 600), (2, 1)] {
        let expiring = Properties {
            message_expiry_interval_secs: Some(secs),
            ..Properties::default()
        };
        a.publish_with("TopicA", &secs.to_be_bytes(), bits, expiring)
            .await;
    }
    // Nothing tells that a second is over but a clock.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (mut b, connack) = Raw::connect(server, lasting(V, "b")).await;
    assert!(connack.session_present);
    let messages = b.rest().await;
    assert_eq!(messages.len(), 2, "two have expired");
    for message in messages {
        let left = message.properties.expect("an expiry");
        let left = left.message_expiry_interval_secs.expect("an expiry");
        assert!((500..600).contains(&left), "{left}");
    }
}

pub(super) async fn request_response(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    a.subscribe("Topic/responses", 2).await;
    b.subscribe("Topic/requests", 2).await;
    let request = Properties {
        response_topic: Some("Topic/responses".parse().expect("a topic")),
        correlation_data: Some(Bytes::from_static(b"334")),
        ..Properties::default()
    };
    a.publish_with("Topic/requests", b"request", 1, request.clone())
        .await;
    let asked = b.message().await.properties.expect("of the request");
    assert_eq!(*asked, request);
    let topic = asked.response_topic.expect("where to");
    let response = Properties {
        correlation_data: asked.correlation_data,
        ..Properties::default()
    };
    b.publish_with(&topic, b"response", 1, response.clone())
        .await;
    let answer = a.message().await;
    assert_eq!(&answer.payload[..], b"response");
    assert_eq!(answer.properties.as_deref(), Some(&response));
}
