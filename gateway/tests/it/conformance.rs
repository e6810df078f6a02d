//! The cases of the Eclipse Paho interoperability suites, against a listener of profile "conformance":
//! ten for MQTT 3.1.1 and twenty-seven for MQTT 5.0, with the suite's names.
//!
//! All cases of a version run one after the other against one gateway, as the suite does, and the
//! number of those that pass is printed.

mod beyond;
mod clauses;
mod client;
mod v311;
mod v5;

use std::{future::Future, net::SocketAddr, pin::Pin};

use headgate::{
    config::{ListenerConfig, Profile},
    shutdown::Shutdown,
};
use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};

use self::client::{Raw, hello, lasting};
use crate::harness::{Client, Gateway, Login};

/// One case of a suite.
type Case = (
    &'static str,
    fn(SocketAddr) -> Pin<Box<dyn Future<Output = ()> + Send>>,
);

/// Names a case after its function.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        [$((stringify!($name), |server| Box::pin($name(server)))),+]
    };
}
use cases;

/// A gateway with a listener for suites.
async fn start() -> (Gateway, SocketAddr) {
    let gateway = Gateway::with(|config| {
        config.listeners.push(for_suites());
    })
    .await;
    let address = gateway.ports.listeners[0];
    (gateway, address)
}

fn for_suites() -> ListenerConfig {
    ListenerConfig {
        tls: false,
        profile: Profile::Conformance,
        ..ListenerConfig::at(([127, 0, 0, 1], 0).into())
    }
}

/// Runs every case and prints how many passed.
#[expect(clippy::print_stdout, reason = "the number is what is asked for")]
async fn run(suite: &str, cases: &[Case]) {
    let (gateway, server) = start().await;
    let owner = Shutdown::new();
    let mut failed = Vec::new();
    for (name, case) in cases {
        clean_up(server).await;
        if owner.spawn(case(server)).await.is_err() {
            failed.push(*name);
        }
    }
    let passed = cases.len() - failed.len();
    println!("{suite}: {passed}/{}", cases.len());
    assert!(failed.is_empty(), "{failed:?}");
    gateway.stop().await;
}

/// Ends the sessions that cases leave, and what is retained.
async fn clean_up(server: SocketAddr) {
    for name in ["a", "b", "c"] {
        let (client, _) = Raw::connect(server, hello(ProtocolVersion::V5, name)).await;
        client.disconnect().await;
    }
    let (mut client, _) = Raw::connect(server, hello(ProtocolVersion::V5, "clean-up")).await;
    client.subscribe("#", 0).await;
    client.subscribe("$test/#", 0).await;
    for message in client.rest().await {
        client.retain(&message.topic, b"", 0).await;
    }
    client.disconnect().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cases_of_3_1_1_pass() {
    run("Paho cases of MQTT 3.1.1", &v311::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cases_of_5_pass() {
    run("Paho cases of MQTT 5.0", &v5::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_suites_do_not_try_passes_too() {
    run("beyond the suites", &beyond::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_space_is_bounded() {
    let gateway = Gateway::with(|config| {
        config.listeners.push(for_suites());
        config.conformance.max_sessions = 2;
        config.conformance.max_subscriptions = 1;
        config.conformance.max_retained = 1;
        config.conformance.queue_messages = 2;
    })
    .await;
    let server = gateway.ports.listeners[0];
    let (mut a, _) = Raw::connect(server, lasting(ProtocolVersion::V5, "a")).await;
    assert_eq!(a.subscribe("t/#", 1).await, ReasonCode::GrantedQoS1);
    assert_eq!(a.subscribe("u", 1).await, ReasonCode::QuotaExceeded);
    a.disconnect().await;
    let (mut b, _) = Raw::connect(server, hello(ProtocolVersion::V5, "b")).await;
    let (_, connack) = Raw::connect(server, hello(ProtocolVersion::V5, "c")).await;
    assert_eq!(connack.reason, ReasonCode::QuotaExceeded);
    for number in 0..4 {
        b.publish("t/1", &[number], 1).await;
    }
    gateway.metric_is(DROPPED, 2.0).await;
    b.retain("u/1", b"kept", 1).await;
    b.retain("u/2", b"not kept", 1).await;
    gateway.metric_is(DROPPED, 3.0).await;
    let (mut a, connack) = Raw::connect(server, lasting(ProtocolVersion::V5, "a")).await;
    assert!(connack.session_present);
    let got: Vec<u8> = a.rest().await.iter().map(|one| one.payload[0]).collect();
    assert_eq!(got, [0, 1], "the first that came");
    gateway.stop().await;
}

const DROPPED: &str = r#"headgate_messages_dropped_total{reason="outbox_full"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_space_hears_nothing_of_devices_nor_they_of_it() {
    let (gateway, server) = start().await;
    let [device] = gateway.devices(["d1"]).await;
    let topic = format!("{}/{}/x", device.product, device.node);
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    client.subscribe(&[&topic], QoS::AtLeastOnce).await;
    let (mut anyone, _) = Raw::connect(server, hello(ProtocolVersion::V5, &device.id)).await;
    anyone.subscribe("#", 1).await;
    anyone.publish(&topic, b"of the space", 1).await;
    client.publish(&topic, b"of the device").await;
    let heard = client.ping().await;
    assert_eq!(heard.len(), 1);
    assert_eq!(&heard[0].payload[..], b"of the device");
    let heard = anyone.rest().await;
    assert_eq!(heard.len(), 1);
    assert_eq!(&heard[0].payload[..], b"of the space");
    // Nor does the name of a device end its connection.
    assert!(client.ping().await.is_empty());
    gateway.stop().await;
}
