//! Subscriptions, their options and their identifiers.

use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroU32};

use headgate_protocol::mqtt::{Properties, ReasonCode, RetainHandling, Subscription, TopicFilter};

use super::{
    super::client::{Raw, hello, qos},
    V,
};

fn filter(text: &str) -> TopicFilter {
    text.parse().expect("a filter")
}

pub(super) async fn subscribe_failure(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let reason = a.subscribe("test/nosubscribe", 2).await;
    assert_eq!(reason, ReasonCode::NotAuthorized);
}

pub(super) async fn unsubscribe(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    for topic in ["TopicA", "TopicA/B", "Topic/C"] {
        a.subscribe(topic, 2).await;
    }
    assert_eq!(a.unsubscribe("TopicA").await, [ReasonCode::Success]);
    assert_eq!(
        a.unsubscribe("TopicA").await,
        [ReasonCode::NoSubscriptionExisted]
    );
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    for topic in ["TopicA", "TopicA/B", "Topic/C"] {
        b.publish(topic, topic.as_bytes(), 1).await;
    }
    let messages = a.rest().await;
    let topics: Vec<_> = messages.iter().map(|message| &*message.topic).collect();
    assert_eq!(topics, ["TopicA/B", "Topic/C"]);
}

pub(super) async fn shared_subscriptions(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    for client in [&mut a, &mut b] {
        client.subscribe("$share/sharename/TopicA/#", 2).await;
        client.subscribe("Topic/C", 2).await;
    }
    let (mut c, _) = Raw::connect(server, hello(V, "c")).await;
    for number in 0..10 {
        c.publish("TopicA/B", &[number], 1).await;
    }
    c.publish("Topic/C", b"all", 1).await;
    let (a, b) = (a.rest().await, b.rest().await);
    for messages in [&a, &b] {
        assert!(messages.len() > 1, "everyone gets a share");
        let own = messages
            .iter()
            .filter(|message| &*message.topic == "Topic/C");
        assert_eq!(own.count(), 1, "what is not shared goes to everyone");
    }
    let shared = a.iter().chain(&b).filter(|one| &*one.topic == "TopicA/B");
    let numbers: Vec<u8> = shared.map(|message| message.payload[0]).collect();
    let different: BTreeSet<_> = numbers.iter().collect();
    assert_eq!((numbers.len(), different.len()), (10, 10), "each once");
}

pub(super) async fn subscribe_options(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    let own = Subscription {
        no_local: true,
        ..Subscription::new(filter("TopicA"), qos(2))
    };
    a.subscribe_with(own.clone(), None).await;
    b.subscribe_with(own, None).await;
    a.publish("TopicA", b"of a", 1).await;
    assert!(a.rest().await.is_empty(), "no local");
    assert_eq!(b.rest().await.len(), 1);
    // Retain as published.
    for (retain_as_published, expected) in [(false, false), (true, true)] {
        let published = Subscription {
            retain_as_published,
            ..Subscription::new(filter("Topic/C"), qos(2))
        };
        b.subscribe_with(published, None).await;
        b.rest().await;
        a.retain("Topic/C", b"retained", 1).await;
        let messages = b.rest().await;
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].retain, expected);
    }
    // Retain handling.
    let (mut c, _) = Raw::connect(server, hello(V, "c")).await;
    for (retain_handling, expected) in [
        (RetainHandling::DoNotSend, 0),
        (RetainHandling::SendIfNew, 0),
        (RetainHandling::Send, 1),
    ] {
        let handled = Subscription {
            retain_handling,
            ..Subscription::new(filter("Topic/+"), qos(2))
        };
        c.subscribe_with(handled, None).await;
        assert_eq!(c.rest().await.len(), expected, "{retain_handling:?}");
    }
    c.unsubscribe("Topic/+").await;
    let anew = Subscription {
        retain_handling: RetainHandling::SendIfNew,
        ..Subscription::new(filter("Topic/+"), qos(2))
    };
    c.subscribe_with(anew, None).await;
    assert_eq!(c.rest().await.len(), 1);
}

pub(super) async fn subscribe_identifiers(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    let numbered = |number| {
        Some(Properties {
            subscription_identifiers: NonZeroU32::new(number).into_iter().collect(),
            ..Properties::default()
        })
    };
    for (text, number) in [("TopicA/+", 456_789), ("TopicA/#", 2)] {
        a.subscribe_with(Subscription::new(filter(text), qos(2)), numbered(number))
            .await;
    }
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.publish("TopicA/B", b"one copy", 1).await;
    let messages = a.rest().await;
    assert_eq!(messages.len(), 1);
    let properties = messages[0].properties.as_deref().expect("numbers");
    let mut numbers: Vec<u32> = properties
        .subscription_identifiers
        .iter()
        .map(|number| number.get())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 456_789]);
}
