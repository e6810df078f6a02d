//! The ten cases of `client_test.py`.

use std::net::SocketAddr;

use headgate_protocol::mqtt::{Connect, Packet, ProtocolVersion, ReasonCode};

use super::{
    Case, cases,
    client::{Raw, hello, lasting, qos, will},
};

const V: ProtocolVersion = ProtocolVersion::V311;

pub(super) const CASES: [Case; 10] = cases![
    basic,
    retained_messages,
    zero_length_clientid,
    offline_message_queueing,
    overlapping_subscriptions,
    keepalive,
    redelivery_on_reconnect,
    subscribe_failure,
    dollar_topics,
    unsubscribe,
];

async fn basic(server: SocketAddr) {
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
    // A second CONNECT ends the connection.
    a.send(&Packet::Connect(Box::new(hello(V, "a")))).await;
    assert_eq!(a.closed().await, None);
    // So does another protocol's name.
    let mut b = Raw::open(server, V).await;
    b.send_bytes(&[
        0x10, 13, 0, 4, b'h', b'j', b'h', b'j', 4, 2, 0, 0, 0, 1, b'b',
    ])
    .await;
    assert_eq!(b.recv().await, None);
}

async fn retained_messages(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let topics = ["TopicA/B", "Topic/C", "TopicA/C"];
    for (topic, bits) in topics.into_iter().zip(0..3) {
        a.retain(topic, &[bits], bits).await;
    }
    a.subscribe("+/+", 2).await;
    let retained = a.rest().await;
    assert_eq!(retained.len(), 3);
    assert!(retained.iter().all(|message| message.retain));
    for (topic, bits) in topics.into_iter().zip(0..3) {
        a.retain(topic, b"", bits).await;
    }
    assert_eq!(a.rest().await.len(), 3, "the clearing ones are messages");
    a.disconnect().await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.subscribe("+/+", 2).await;
    assert!(b.rest().await.is_empty(), "nothing is retained any more");
}

async fn zero_length_clientid(server: SocketAddr) {
    let nameless = Connect {
        clean_start: false,
        ..hello(V, "")
    };
    let (mut refused, connack) = Raw::connect(server, nameless).await;
    assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(refused.recv().await, None);
    let (_client, connack) = Raw::connect(server, hello(V, "")).await;
    assert_eq!(connack.reason, ReasonCode::Success);
}

async fn offline_message_queueing(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, lasting(V, "a")).await;
    a.subscribe("+/+", 2).await;
    a.disconnect().await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    for (topic, bits) in ["TopicA/B", "Topic/C", "TopicA/C"].into_iter().zip(0..3) {
        b.publish(topic, &[bits], bits).await;
    }
    let (mut a, connack) = Raw::connect(server, lasting(V, "a")).await;
    assert!(connack.session_present);
    let messages = a.messages(2).await;
    assert_eq!(&messages[0].payload[..], [1], "QoS 0 does not wait");
    assert_eq!(&messages[1].payload[..], [2]);
}

async fn overlapping_subscriptions(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    a.subscribe("TopicA/#", 2).await;
    a.subscribe("TopicA/+", 1).await;
    a.publish("TopicA/C", b"overlapping", 2).await;
    let messages = a.rest().await;
    assert_eq!(messages.len(), 1, "one copy at the highest QoS");
    assert_eq!(messages[0].qos, qos(2));
}

async fn keepalive(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.subscribe("TopicA", 2).await;
    let silent = Connect {
        keep_alive_secs: 1,
        will: Some(will("TopicA", None)),
        ..hello(V, "a")
    };
    let (mut a, _) = Raw::connect(server, silent).await;
    assert_eq!(&b.message().await.payload[..], b"will");
    assert_eq!(a.recv().await, None);
}

async fn redelivery_on_reconnect(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, lasting(V, "b")).await;
    b.subscribe("TopicA/#", 2).await;
    b.answers = false;
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    a.publish("TopicA/B", b"1", 1).await;
    a.publish("TopicA/C", b"2", 2).await;
    let first = b.messages(2).await;
    drop(b);
    let (mut b, connack) = Raw::connect(server, lasting(V, "b")).await;
    assert!(connack.session_present);
    let again = b.messages(2).await;
    for (first, again) in first.iter().zip(&again) {
        assert!(again.dup && !first.dup);
        assert_eq!(first.packet_id, again.packet_id);
        assert_eq!(first.payload, again.payload);
    }
}

async fn subscribe_failure(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let reason = a.subscribe("test/nosubscribe", 2).await;
    assert_eq!(reason, ReasonCode::UnspecifiedError, "0x80");
}

async fn dollar_topics(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    for filter in ["#", "+/+"] {
        a.subscribe(filter, 2).await;
    }
    a.publish("$test/TopicA", b"", 1).await;
    assert!(a.rest().await.is_empty());
}

async fn unsubscribe(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    for topic in ["TopicA", "TopicA/B", "Topic/C"] {
        a.subscribe(topic, 2).await;
    }
    a.unsubscribe("TopicA").await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    for topic in ["TopicA", "TopicA/B", "Topic/C"] {
        b.publish(topic, topic.as_bytes(), 1).await;
    }
    let messages = a.rest().await;
    let topics: Vec<_> = messages.iter().map(|message| &*message.topic).collect();
    assert_eq!(topics, ["TopicA/B", "Topic/C"]);
}
