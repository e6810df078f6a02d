//! Clients that publish faster than they may wait, and lose nothing.

use std::time::{Duration, Instant};

use headgate_protocol::mqtt::QoS;

use crate::harness::{Client, Gateway, Login, publish};

/// Has `client` publish `count` messages at once; gives how long it took until the gateway had acted on all.
async fn flood(client: &mut Client, topic: &str, count: usize, bytes: usize) -> Duration {
    let packets: Vec<_> = (0..count)
        .map(|n| {
            let mut payload = vec![b'.'; bytes];
            payload[..4].copy_from_slice(format!("{n:04}").as_bytes());
            publish(topic, &payload, None)
        })
        .collect();
    let begun = Instant::now();
    client.send_together(&packets).await;
    client.ping().await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_too_fast_waits_and_the_others_do_not() {
    let gateway = Gateway::with(|config| {
        config.rates.device_messages = Some(50);
        config.rates.burst = Duration::from_millis(200);
    })
    .await;
    let [fast, calm] = gateway.devices(["fast", "calm"]).await;
    let app = gateway.app("a", &[&fast]).await;
    let mut app = Client::log_in(&gateway, &Login::application(&app, "app:a")).await;
    app.subscribe(&["#"], QoS::AtMostOnce).await;
    let mut login = Login::of(&fast);
    // The wait is longer than it may be silent.
    login.keep_alive_secs = 1;
    let mut client = Client::log_in(&gateway, &login).await;
    let paused = r#"headgate_paused_by_rate{reason="device_rate"}"#;
    let watching = async {
        gateway.metric_is(paused, 1.0).await;
        let mut calm_client = Client::log_in(&gateway, &Login::of(&calm)).await;
        let took = flood(&mut calm_client, "P/calm/x", 5, 100).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    };
    let (took, ()) = tokio::join!(flood(&mut client, "P/fast/x", 160, 100), watching);
    assert!(took >= Duration::from_secs(2), "{took:?}");
    for n in 0..160 {
        let message = app.message().await;
        assert_eq!(message.payload[..4], *format!("{n:04}").as_bytes());
    }
    gateway.metric_is(paused, 0.0).await;
    let pauses = r#"headgate_rate_pauses_total{reason="device_rate"}"#;
    gateway.metric_is_more_than(pauses, 0.0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_all_clients_are_limited_together() {
    let gateway = Gateway::with(|config| {
        config.rates.node_bytes = Some(100_000);
        config.rates.burst = Duration::from_millis(100);
    })
    .await;
    let [one, two] = gateway.devices(["one", "two"]).await;
    let begun = Instant::now();
    let floods = [(one, "P/one/x"), (two, "P/two/x")].map(|(device, topic)| {
        let login = Login::of(&device);
        let gateway = &gateway;
        async move {
            let mut client = Client::log_in(gateway, &login).await;
            flood(&mut client, topic, 20, 5_000).await;
        }
    });
    futures_util::future::join_all(floods).await;
    // 200,000 bytes, of which a tenth of a second's worth is free.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_500), "{took:?}");
    let pauses = r#"headgate_rate_pauses_total{reason="node_rate"}"#;
    gateway.metric_is_more_than(pauses, 0.0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_time_to_an_acknowledgement_is_measured() {
    let gateway = Gateway::start().await;
    let [d] = gateway.devices(["d"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&d)).await;
    for _ in 0..3 {
        client.publish("P/d/x", b"x").await;
    }
    client.ping().await;
    gateway
        .metric_is("headgate_publish_seconds_count", 3.0)
        .await;
    gateway.stop().await;
}
