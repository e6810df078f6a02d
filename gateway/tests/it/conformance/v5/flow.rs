//! Limits that the two ends tell each other.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
};

use bytes::Bytes;
use headgate_protocol::mqtt::{
    Connect, Packet, Properties, PubAck, PubComp, PubRec, Publish, ReasonCode, TopicName,
};

use super::{
    super::client::{Raw, hello, hello_with, qos},
    V,
};

fn alias(number: u16) -> Properties {
    Properties {
        topic_alias: NonZeroU16::new(number),
        ..Properties::default()
    }
}

pub(super) async fn client_topic_alias(server: SocketAddr) {
    let (mut a, connack) = Raw::connect(server, hello(V, "a")).await;
    let told = connack.properties.expect("of MQTT 5").topic_alias_maximum;
    let max = told.expect("aliases are taken");
    a.subscribe("TopicA", 2).await;
    a.publish_with("TopicA", b"first", 1, alias(1)).await;
    a.publish_with("", b"second", 2, alias(1)).await;
    let messages = a.messages(2).await;
    assert!(messages.iter().all(|message| &*message.topic == "TopicA"));
    // Aliases are of one connection.
    for (topic, number, reason) in [
        ("", 1, ReasonCode::ProtocolError),
        ("TopicA", max + 1, ReasonCode::TopicAliasInvalid),
    ] {
        let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
        let topic = match topic {
            "" => TopicName::aliased(),
            topic => topic.parse().expect("a topic"),
        };
        let mut publish = Publish::new(topic, Bytes::new());
        publish.properties = Some(Box::new(alias(number)));
        a.send(&Packet::Publish(publish)).await;
        assert_eq!(a.closed().await, Some(reason));
    }
}

pub(super) async fn server_topic_alias(server: SocketAddr) {
    let taking = Properties {
        topic_alias_maximum: Some(1),
        ..Properties::default()
    };
    let (mut a, _) = Raw::connect(server, hello_with("a", taking)).await;
    a.subscribe("TopicA", 2).await;
    for bits in 0..3 {
        a.publish("TopicA", b"topic alias", bits).await;
    }
    let messages = a.messages(3).await;
    let aliases: Vec<_> = messages
        .iter()
        .map(|message| {
            let properties = message.properties.as_deref().expect("an alias");
            (&*message.topic, properties.topic_alias)
        })
        .collect();
    let one = NonZeroU16::new(1);
    assert_eq!(aliases, [("TopicA", one), ("", one), ("", one)]);
}

pub(super) async fn maximum_packet_size(server: SocketAddr) {
    // Larger than the server takes.
    let (mut a, connack) = Raw::connect(server, hello(V, "a")).await;
    let told = connack.properties.expect("of MQTT 5").maximum_packet_size;
    let max = usize::try_from(told.expect("a limit").get()).expect("fits");
    let publish = Publish::new("TopicA".parse().expect("legal"), vec![0; max].into());
    a.send(&Packet::Publish(publish)).await;
    assert_eq!(a.closed().await, Some(ReasonCode::PacketTooLarge));
    // Larger than the client takes.
    let small = Properties {
        maximum_packet_size: NonZeroU32::new(64),
        ..Properties::default()
    };
    let (mut a, _) = Raw::connect(server, hello_with("a", small)).await;
    a.subscribe("TopicA", 2).await;
    a.publish("TopicA", &[0; 64], 1).await;
    a.publish("TopicA", b"small", 1).await;
    let messages = a.rest().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(&messages[0].payload[..], b"small");
}

pub(super) async fn server_keep_alive(server: SocketAddr) {
    let patient = Connect {
        keep_alive_secs: 120,
        ..hello(V, "a")
    };
    let (_a, connack) = Raw::connect(server, patient).await;
    let told = connack
        .properties
        .expect("of MQTT 5")
        .server_keep_alive_secs;
    assert_eq!(told, Some(60));
}

/// From the server: no more than the client said are under way.
pub(super) async fn flow_control1(server: SocketAddr) {
    let narrow = Properties {
        receive_maximum: NonZeroU16::new(2),
        ..Properties::default()
    };
    let (mut a, _) = Raw::connect(server, hello_with("a", narrow)).await;
    a.subscribe("TopicA", 2).await;
    a.answers = false;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    for number in 0..6 {
        b.publish("TopicA", &[number], 1 + number % 2).await;
    }
    let mut waiting = a.rest().await;
    assert_eq!(waiting.len(), 2, "two are the limit");
    let mut numbers = Vec::new();
    while numbers.len() < 6 {
        let message = if waiting.is_empty() {
            a.message().await
        } else {
            waiting.remove(0)
        };
        numbers.push(message.payload[0]);
        let id = message.packet_id.expect("above QoS 0");
        if message.qos == qos(1) {
            a.send(&Packet::PubAck(PubAck::new(id))).await;
        } else {
            a.send(&Packet::PubRec(PubRec::new(id))).await;
            a.wait(|packet| matches!(packet, Packet::PubRel(_)).then_some(()))
                .await;
            a.send(&Packet::PubComp(PubComp::new(id))).await;
        }
    }
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
}

/// From the client: more than the server said are an error. The flood is as long as it must be.
pub(super) async fn flow_control2(server: SocketAddr) {
    let (mut a, connack) = Raw::connect(server, hello(V, "a")).await;
    a.answers = false;
    let told = connack.properties.expect("of MQTT 5").receive_maximum;
    let max = told.map_or(u16::MAX, NonZeroU16::get);
    for _ in 0..=max {
        let mut publish = Publish::new("TopicA".parse().expect("legal"), Bytes::new());
        publish.qos = qos(2);
        publish.packet_id = Some(a.id());
        a.send(&Packet::Publish(publish)).await;
    }
    assert_eq!(a.closed().await, Some(ReasonCode::ReceiveMaximumExceeded));
}
