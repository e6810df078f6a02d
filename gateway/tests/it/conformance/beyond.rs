//! What the standards ask and the suites do not try.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use headgate_protocol::mqtt::{
    Connect, Disconnect, Packet, Properties, ProtocolVersion, PubRec, PubRel, Publish, ReasonCode,
    Will,
};

use super::{
    Case, cases,
    client::{Raw, hello, lasting, qos, will},
};

const V311: ProtocolVersion = ProtocolVersion::V311;
const V5: ProtocolVersion = ProtocolVersion::V5;

pub(super) const CASES: [Case; 9] = cases![
    a_clean_start_discards_the_session,
    a_will_is_retained_if_it_says_so,
    a_retained_message_replaces_the_one_before,
    the_lower_qos_counts,
    a_subscription_again_brings_what_is_retained_again,
    what_was_begun_is_ended_after_unsubscribe,
    a_shared_message_waits_for_its_member,
    a_shared_message_that_is_refused_is_dropped,
    what_was_sent_does_not_expire,
];

async fn a_clean_start_discards_the_session(server: SocketAddr) {
    for version in [V311, V5] {
        let (mut a, connack) = Raw::connect(server, lasting(version, "a")).await;
        assert!(!connack.session_present, "it is made");
        a.subscribe("t", 1).await;
        a.disconnect().await;
        let (a, connack) = Raw::connect(server, lasting(version, "a")).await;
        assert!(connack.session_present);
        a.disconnect().await;
        let (mut b, _) = Raw::connect(server, hello(version, "b")).await;
        b.publish("t", b"queued", 1).await;
        let (mut a, connack) = Raw::connect(server, hello(version, "a")).await;
        assert!(!connack.session_present);
        b.publish("t", b"not subscribed", 1).await;
        assert!(a.rest().await.is_empty());
        a.disconnect().await;
        let (a, connack) = Raw::connect(server, lasting(version, "a")).await;
        assert!(!connack.session_present, "it ended with its connection");
        a.disconnect().await;
        let (a, _) = Raw::connect(server, hello(version, "a")).await;
        a.disconnect().await;
    }
}

async fn a_will_is_retained_if_it_says_so(server: SocketAddr) {
    for version in [V311, V5] {
        for retain in [false, true] {
            let mortal = Connect {
                will: Some(Will {
                    retain,
                    ..will("t/will", None)
                }),
                ..hello(version, "a")
            };
            let (mut b, _) = Raw::connect(server, hello(version, "b")).await;
            b.subscribe("t/will", 2).await;
            let (a, _) = Raw::connect(server, mortal).await;
            drop(a);
            assert_eq!(&b.message().await.payload[..], b"will");
            let (mut c, _) = Raw::connect(server, hello(version, "c")).await;
            c.subscribe("t/will", 2).await;
            assert_eq!(c.rest().await.len(), usize::from(retain));
            b.retain("t/will", b"", 1).await;
        }
    }
}

async fn a_retained_message_replaces_the_one_before(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V311, "a")).await;
    a.subscribe("t", 2).await;
    a.retain("t", b"1", 2).await;
    a.retain("t", b"2", 0).await;
    a.publish("t", b"3", 1).await;
    let established = a.messages(3).await;
    assert!(established.iter().all(|message| !message.retain));
    let (mut b, _) = Raw::connect(server, hello(V311, "b")).await;
    b.subscribe("t", 2).await;
    let retained = b.rest().await;
    assert_eq!(
        retained.len(),
        1,
        "what is not to be retained changes nothing"
    );
    assert_eq!(&retained[0].payload[..], b"2");
    assert!(retained[0].retain);
    a.retain("t", b"", 1).await;
    let (mut c, _) = Raw::connect(server, hello(V311, "c")).await;
    c.subscribe("t", 2).await;
    assert!(c.rest().await.is_empty(), "an empty one is not kept");
}

async fn the_lower_qos_counts(server: SocketAddr) {
    for version in [V311, V5] {
        let (mut a, _) = Raw::connect(server, hello(version, "a")).await;
        for granted in 0..3 {
            for filter in ["t", "$share/g/t"] {
                a.subscribe(filter, granted).await;
                for published in 0..3 {
                    a.publish("t", b"", published).await;
                    let message = a.message().await;
                    assert_eq!(message.qos, qos(published.min(granted)));
                }
                a.unsubscribe(filter).await;
            }
        }
    }
}

async fn a_subscription_again_brings_what_is_retained_again(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V311, "a")).await;
    a.retain("t", b"retained", 1).await;
    for bits in [1, 2, 0] {
        a.subscribe("t", bits).await;
        let messages = a.rest().await;
        assert_eq!(messages.len(), 1);
        assert!(messages[0].retain);
    }
    a.publish("t", b"once", 2).await;
    let messages = a.rest().await;
    assert_eq!(messages.len(), 1, "it was replaced");
    assert_eq!(messages[0].qos, qos(0));
}

async fn what_was_begun_is_ended_after_unsubscribe(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V5, "a")).await;
    a.subscribe("t", 2).await;
    a.answers = false;
    a.publish_without_end("t", b"before", 0).await;
    a.publish_without_end("t", b"begun", 2).await;
    let begun = loop {
        let message = a.message().await;
        if message.qos == qos(2) {
            break message;
        }
    };
    assert_eq!(a.unsubscribe("t").await, [ReasonCode::Success]);
    let id = begun.packet_id.expect("above QoS 0");
    a.send(&Packet::PubRec(PubRec::new(id))).await;
    a.wait(|packet| (*packet == Packet::PubRel(PubRel::new(id))).then_some(()))
        .await;
    a.publish_without_end("t", b"after", 0).await;
    assert!(a.rest().await.is_empty());
}

async fn a_shared_message_waits_for_its_member(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, lasting(V5, "a")).await;
    a.subscribe("$share/g/t", 2).await;
    a.answers = false;
    let (mut c, _) = Raw::connect(server, hello(V5, "c")).await;
    c.publish("t", b"begun", 2).await;
    let first = a.message().await;
    let (mut b, _) = Raw::connect(server, hello(V5, "b")).await;
    b.subscribe("$share/g/t", 2).await;
    drop(a);
    assert!(b.rest().await.is_empty(), "it is a's");
    let (mut a, connack) = Raw::connect(server, lasting(V5, "a")).await;
    assert!(connack.session_present);
    a.answers = false;
    let again = a.message().await;
    assert_eq!((again.packet_id, again.dup), (first.packet_id, true));
    // The session ends with the message under way: nobody else gets it.
    c.publish("t", b"lost", 2).await;
    let (mut theirs, mut own) = (b.rest().await, a.rest().await);
    if own.is_empty() {
        // It was b's turn.
        c.publish("t", b"lost", 2).await;
        theirs.clear();
        own = a.rest().await;
    }
    assert!(!own.is_empty() && theirs.is_empty());
    drop(a);
    let (a, _) = Raw::connect(server, hello(V5, "a")).await;
    a.disconnect().await;
    assert!(b.rest().await.is_empty());
}

async fn a_shared_message_that_is_refused_is_dropped(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, hello(V5, "a")).await;
    a.subscribe("$share/g/t", 2).await;
    a.answers = false;
    let (mut c, _) = Raw::connect(server, hello(V5, "c")).await;
    c.publish("t", b"refused", 2).await;
    let message = a.message().await;
    let (mut b, _) = Raw::connect(server, hello(V5, "b")).await;
    b.subscribe("$share/g/t", 2).await;
    let refusal = PubRec {
        packet_id: message.packet_id.expect("above QoS 0"),
        reason: ReasonCode::QuotaExceeded,
        properties: None,
    };
    a.send(&Packet::PubRec(refusal)).await;
    assert!(a.rest().await.is_empty());
    assert!(b.rest().await.is_empty());
}

async fn what_was_sent_does_not_expire(server: SocketAddr) {
    let (mut a, _) = Raw::connect(server, lasting(V5, "a")).await;
    a.subscribe("t", 2).await;
    a.answers = false;
    let (mut c, _) = Raw::connect(server, hello(V5, "c")).await;
    let mut publish = Publish::new(
        "t".parse().expect("legal"),
        Bytes::from_static(b"soon over"),
    );
    publish.properties = Some(Box::new(Properties {
        message_expiry_interval_secs: Some(1),
        ..Properties::default()
    }));
    c.hand_over(publish, 2).await;
    let first = a.message().await;
    a.disconnect_with(Disconnect::new(ReasonCode::Success))
        .await;
    // Nothing tells that a second is over but a clock.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (mut a, _) = Raw::connect(server, lasting(V5, "a")).await;
    let again = a.message().await;
    assert_eq!((again.packet_id, again.dup), (first.packet_id, true));
}
