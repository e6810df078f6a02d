//! Sessions, names and wills.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use headgate_protocol::mqtt::{Connect, Disconnect, Properties, ReasonCode};

use super::{
    super::client::{Raw, hello, hello_with, lasting, will},
    V,
};
use crate::harness::until;

pub(super) async fn will_message(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.subscribe("TopicA/C", 2).await;
    let properties = Properties {
        user: vec![("a".into(), "2".into())],
        ..Properties::default()
    };
    let mortal = || Connect {
        will: Some(will("TopicA/C", Some(properties.clone()))),
        ..hello(V, "a")
    };
    let (a, _) = Raw::connect(server, mortal()).await;
    drop(a);
    let message = b.message().await;
    assert_eq!(&message.payload[..], b"will");
    assert_eq!(message.properties.expect("passed on").user, properties.user);
    // DISCONNECT deletes the will, unless it says otherwise.
    let (a, _) = Raw::connect(server, mortal()).await;
    a.disconnect().await;
    assert!(b.rest().await.is_empty());
    let (a, _) = Raw::connect(server, mortal()).await;
    a.disconnect_with(Disconnect::new(ReasonCode::DisconnectWithWill))
        .await;
    assert_eq!(&b.message().await.payload[..], b"will");
}

pub(super) async fn zero_length_clientid(server: SocketAddr) {
    for clean_start in [true, false] {
        let nameless = Connect {
            clean_start,
            ..hello(V, "")
        };
        let (_client, connack) = Raw::connect(server, nameless).await;
        assert_eq!(connack.reason, ReasonCode::Success);
        assert!(!connack.session_present);
    }
}

pub(super) async fn assigned_clientid(server: SocketAddr) {
    let nameless = Connect {
        client_id: "".into(),
        ..lasting(V, "")
    };
    let (a, connack) = Raw::connect(server, nameless).await;
    let told = connack.properties.expect("of MQTT 5").assigned_client_id;
    let name = told.expect("a name");
    assert!(!name.is_empty());
    a.disconnect().await;
    let (a, connack) = Raw::connect(server, lasting(V, &name)).await;
    assert!(connack.session_present, "it is a name like any other");
    a.disconnect().await;
}

pub(super) async fn offline_message_queueing(server: SocketAddr) {
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

pub(super) async fn keepalive(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.subscribe("TopicA", 2).await;
    let silent = Connect {
        keep_alive_secs: 1,
        will: Some(will("TopicA", None)),
        ..hello(V, "a")
    };
    let (mut a, _) = Raw::connect(server, silent).await;
    assert_eq!(&b.message().await.payload[..], b"will");
    assert_eq!(a.closed().await, Some(ReasonCode::KeepAliveTimeout));
}

pub(super) async fn redelivery_on_reconnect(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, lasting(V, "b")).await;
    b.subscribe("TopicA/#", 2).await;
    b.answers = false;
    let (mut a, _) = Raw::connect(server, hello(V, "a")).await;
    a.publish("TopicA/B", b"1", 1).await;
    a.publish("TopicA/C", b"2", 2).await;
    let first = b.messages(2).await;
    // The new connection takes over; the old one is told.
    let (mut again, connack) = Raw::connect(server, lasting(V, "b")).await;
    assert_eq!(b.closed().await, Some(ReasonCode::SessionTakenOver));
    assert!(connack.session_present);
    for (first, again) in first.iter().zip(again.messages(2).await) {
        assert!(again.dup && !first.dup);
        assert_eq!(first.packet_id, again.packet_id);
        assert_eq!(first.payload, again.payload);
    }
}

fn expiring(secs: u32) -> Connect {
    let properties = Properties {
        session_expiry_interval_secs: Some(secs),
        ..Properties::default()
    };
    Connect {
        clean_start: false,
        ..hello_with("a", properties)
    }
}

pub(super) async fn session_expiry(server: SocketAddr) {
    // 0: it ends with the connection.
    let (a, _) = Raw::connect(server, expiring(0)).await;
    a.disconnect().await;
    let (mut a, connack) = Raw::connect(server, expiring(600)).await;
    assert!(!connack.session_present);
    a.subscribe("TopicA", 2).await;
    a.disconnect().await;
    let (a, connack) = Raw::connect(server, expiring(600)).await;
    assert!(connack.session_present);
    // DISCONNECT has the last word.
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    disconnect.properties = Some(Box::new(Properties {
        session_expiry_interval_secs: Some(1),
        ..Properties::default()
    }));
    let begun = Instant::now();
    a.disconnect_with(disconnect).await;
    // A session that is over is over for those who come back without wanting a clean one.
    until("the end of the session", || async {
        if begun.elapsed() < Duration::from_secs(1) {
            return None;
        }
        let (a, connack) = Raw::connect(server, expiring(0)).await;
        a.disconnect().await;
        (!connack.session_present).then_some(())
    })
    .await;
}

pub(super) async fn will_delay(server: SocketAddr) {
    let (mut b, _) = Raw::connect(server, hello(V, "b")).await;
    b.subscribe("TopicA", 2).await;
    let mortal = |delay_secs| Connect {
        will: Some(will(
            "TopicA",
            Some(Properties {
                will_delay_interval_secs: Some(delay_secs),
                ..Properties::default()
            }),
        )),
        ..lasting(V, "a")
    };
    let (a, _) = Raw::connect(server, mortal(1)).await;
    let begun = Instant::now();
    drop(a);
    assert_eq!(&b.message().await.payload[..], b"will");
    assert!(begun.elapsed() >= Duration::from_secs(1), "too soon");
    // Who comes back before has no will published.
    let (a, _) = Raw::connect(server, mortal(600)).await;
    drop(a);
    let (a, connack) = Raw::connect(server, lasting(V, "a")).await;
    assert!(connack.session_present);
    a.disconnect().await;
    assert!(b.rest().await.is_empty());
    // A session that ends takes its will along.
    let (a, _) = Raw::connect(server, mortal(600)).await;
    drop(a);
    let (a, _) = Raw::connect(server, hello(V, "a")).await;
    a.disconnect().await;
    assert_eq!(&b.message().await.payload[..], b"will");
}
