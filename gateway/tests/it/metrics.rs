//! What a monitor sees: metrics that move with what happens, and health.

use std::{collections::HashSet, time::Duration};

use headgate_protocol::mqtt::QoS;

use super::{
    harness::{Client, Gateway, Login, content, until},
    transfer::Scene,
};

/// Every family that the gateway has by now, whether or not anything has happened.
const FAMILIES: &[&str] = &[
    "headgate_connections",
    "headgate_connect_attempts_total",
    "headgate_handshake_seconds",
    "headgate_handshakes_in_flight",
    "headgate_auth_failures_total",
    "headgate_disconnects_total",
    "headgate_bytes_total",
    "headgate_packets_total",
    "headgate_deliveries",
    "headgate_delivery_chunks_total",
    "headgate_delivery_first_byte_seconds",
    "headgate_delivery_seconds",
    "headgate_chunks_in_flight",
    "headgate_chunk_cache_bytes",
    "headgate_chunk_cache_hits_total",
    "headgate_chunk_cache_misses_total",
    "headgate_outbox_bytes",
    "headgate_paused_connections",
    "headgate_messages_dropped_total",
    "headgate_mailbox_messages",
    "headgate_event_streams",
    "headgate_session_takeovers_total",
    "headgate_store_seconds",
    "headgate_store_up",
    "headgate_registry_connections",
    "headgate_tls_certificate_not_after_seconds",
    "headgate_build_info",
    "headgate_draining",
    "process_resident_memory_bytes",
];

async fn page(gateway: &Gateway) -> String {
    let answer = gateway.ops("/metrics").await;
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_move_with_a_delivery() {
    let bytes = content(200_000);
    let mut scene = Scene::new(&bytes).await;
    let gateway = &scene.gateway;
    gateway
        .metric_is(r#"headgate_deliveries{state="pushed"}"#, 1.0)
        .await;
    scene.client.take_all(&scene.device, &scene.announced).await;
    scene.client.ping().await;
    gateway
        .metric_is(r#"headgate_deliveries{state="delivering"}"#, 1.0)
        .await;
    let transfer = scene.announced.transfer.clone();
    scene.client.report(&scene.device, &transfer, "done").await;
    for (sample, value) in [
        (r#"headgate_deliveries{state="pending"}"#, 0.0),
        (r#"headgate_deliveries{state="delivering"}"#, 0.0),
        (r#"headgate_deliveries{state="delivered"}"#, 1.0),
        (
            r#"headgate_connections{auth="secret",protocol="mqtt"}"#,
            1.0,
        ),
        (
            r#"headgate_connect_attempts_total{outcome="accepted",protocol="mqtt"}"#,
            1.0,
        ),
        (
            r#"headgate_delivery_chunks_total{protocol="mqtt",result="sent"}"#,
            14.0,
        ),
        (
            r#"headgate_delivery_chunks_total{protocol="mqtt",result="acked"}"#,
            14.0,
        ),
        ("headgate_delivery_seconds_count", 1.0),
        ("headgate_delivery_first_byte_seconds_count", 1.0),
        ("headgate_chunks_in_flight", 0.0),
        ("headgate_handshake_seconds_count", 1.0),
        ("headgate_handshakes_in_flight", 0.0),
        ("headgate_outbox_bytes", 0.0),
        ("headgate_draining", 0.0),
    ] {
        let is = gateway.metric(sample).await;
        assert!((is - value).abs() < 0.5, "{sample} is {is}, not {value}");
    }
    let sent = r#"headgate_bytes_total{direction="out",protocol="mqtt"}"#;
    let sent = gateway.metric(sent).await;
    assert!((200_000.0..230_000.0).contains(&sent), "{sent} bytes");
    let cached = gateway.metric("headgate_chunk_cache_bytes").await;
    assert!(cached >= 200_000.0, "{cached} bytes in the cache");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_label_names_a_device() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["unmistakable-node"]).await;
    let resource = gateway.resource("P", "unmistakable-name", b"content").await;
    gateway.task(&resource, &[&device]).await;
    let mut client = Client::listening(&gateway, &device).await;
    let announced = client.announced().await;
    client.take_all(&device, &announced).await;
    client.publish("P/unmistakable-node/x", b"data").await;
    client.subscribe(&["P/other/#"], QoS::AtMostOnce).await;
    let page = page(&gateway).await;
    for word in [
        "unmistakable",
        &*device.secret,
        &*announced.transfer,
        "\"P\"",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    let families: HashSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let missing: Vec<_> = FAMILIES
        .iter()
        .filter(|family| !families.contains(**family))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_do_not_grow_with_devices() {
    let gateway = Gateway::start().await;
    let devices = gateway.devices(["d1", "d2", "d3", "d4"]).await;
    let series = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    let mut first = Client::listening(&gateway, &devices[0]).await;
    first.ping().await;
    let before = series(&page(&gateway).await);
    let mut clients = Vec::new();
    for device in &devices[1..] {
        clients.push(Client::listening(&gateway, device).await);
    }
    assert_eq!(series(&page(&gateway).await), before);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_of_a_drain_before_devices_notice() {
    let gateway = Gateway::with(|config| {
        config.shutdown.drain_delay = Duration::from_millis(500);
    })
    .await;
    let [device] = gateway.devices(["d1"]).await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    assert_eq!(gateway.ops("/livez").await.status, 200);
    assert_eq!(gateway.ops("/readyz").await.status, 200);
    let verbose = gateway.ops("/readyz?verbose").await;
    assert!(verbose.text().contains("registry"), "{}", verbose.text());
    gateway.drain();
    until("not ready", || async {
        (gateway.ops("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(gateway.ops("/livez").await.status, 200, "it lives");
    gateway.metric_is("headgate_draining", 1.0).await;
    client.ping().await;
    let others = Client::log_in(&gateway, &Login::of(&device)).await;
    drop(others);
    gateway.stop().await;
}
