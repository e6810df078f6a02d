//! Nodes whose machines' clocks jump, by libfaketime: by days, forward and back, while they work.

use std::{fs, path::PathBuf};

use headgate_protocol::mqtt::{ProtocolVersion, QoS, ReasonCode};
use serde_json::json;
use tempfile::TempDir;

use super::{Cluster, lists};
use crate::harness::{Client, Gateway, Login, announcement, content, until};

const V5: ProtocolVersion = ProtocolVersion::V5;
const OFFSET: &str = "headgate_cluster_clock_offset_seconds";
const SIZE: usize = 200_000;
/// Some whole chunks of it.
const PART: usize = 5 * 15_360;

/// The clock of one process.
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(tempfile::tempdir().expect("a directory"));
        clock.jump("+0");
        clock
    }

    /// Sets it so far from the true time.
    fn jump(&self, offset: &str) {
        let next = self.0.path().join("next");
        fs::write(&next, offset).expect("written");
        // Read at any moment: it is there whole, or as it was.
        fs::rename(next, self.0.path().join("offset")).expect("renamed");
    }

    fn settings(&self) -> [(&'static str, String); 4] {
        let file = self.0.path().join("offset").display().to_string();
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

fn library() -> PathBuf {
    let machines = fs::read_dir("/usr/lib").into_iter().flatten();
    machines
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|path| path.is_file())
        .expect("libfaketime is missing: apt-get install faketime")
}

async fn is_off(node: &Gateway, seconds: f64) {
    until("the clock's offset", || async {
        let off = node.metric(OFFSET).await;
        ((off - seconds).abs() < 60.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_moves_nothing() {
    let mut cluster = Cluster::new();
    let clock = Clock::new();
    let a = cluster.node("a").await;
    let b = cluster.node_with("b", &clock.settings()).await;
    let [d, away] = a.devices(["d", "e"]).await;
    let app = a.app("app", &[&d, &away]).await;
    let mut hears = Client::log_in(&a, &Login::application(&app, "app:app")).await;
    hears.subscribe(&["P/d/up"], QoS::AtLeastOnce).await;
    let mut device = Client::listening(&b, &d).await;
    let bytes = content(SIZE);
    let upload = device.announce(&d, &announcement("log", &bytes)).await;
    device.send_until(&d, &upload, &bytes, PART).await;
    let resource = a.resource("P", "firmware", &bytes).await;
    for (jump, off) in [("+9d", 777_600.0), ("-9d", -777_600.0), ("+0", 0.0)] {
        clock.jump(jump);
        is_off(&b, off).await;
        // It has its lease, and its clients.
        for node in [&a, &b] {
            lists(node, &[("a", "ready"), ("b", "ready")]).await;
            assert!(node.metric("headgate_cluster_leases_lost_total").await < 0.5);
        }
        assert_eq!(
            device.publish("P/d/up", jump.as_bytes()).await,
            ReasonCode::Success
        );
        assert_eq!(&hears.message().await.payload[..], jump.as_bytes());
        // What waits is a day old at most: by its clock it would be over, or not yet begun.
        assert_eq!(
            hears.publish("P/e/x", jump.as_bytes()).await,
            ReasonCode::Success
        );
        let mut waited = Client::log_in(&b, &Login::of(&away).over(V5)).await;
        waited.subscribe(&["P/e/x"], QoS::AtLeastOnce).await;
        assert_eq!(&waited.message().await.payload[..], jump.as_bytes());
        drop(waited);
        // A delivery begins and ends.
        let task = b.task(&resource, &[&d]).await;
        let told = device.announced().await;
        assert!(device.take_all(&d, &told).await == bytes);
        let receipt = device.report(&d, &told.transfer, "done").await;
        assert_eq!(receipt["result_code"], 0, "{receipt}");
        a.delivery_in("delivered", &task, &d).await;
    }
    // An upload of before is not too old, nor is it from the future.
    let state = device.upload_state(&d, &upload.transfer).await;
    assert_eq!(state["offset"], json!(PART), "{state}");
    device
        .send_until(
            &d,
            &crate::harness::Sending {
                offset: PART,
                ..upload.clone()
            },
            &bytes,
            SIZE,
        )
        .await;
    let told = device.told().await;
    assert_eq!(told["report"]["progress"]["result_code"], 0, "{told}");
    a.has_uploaded(&upload.transfer, &bytes).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_with_a_wrong_clock_goes_by_the_others() {
    let mut cluster = Cluster::new();
    let clock = Clock::new();
    let a = cluster.node("a").await;
    clock.jump("+9d");
    let b = cluster.node_with("b", &clock.settings()).await;
    is_off(&b, 777_600.0).await;
    let [d] = a.devices(["d"]).await;
    let mut device = Client::log_in(&b, &Login::of(&d)).await;
    device.ping().await;
    lists(&a, &[("a", "ready"), ("b", "ready")]).await;
    let shown = a.get("/devices/P_d/session").await;
    let since = shown["since"].as_str().expect("a time");
    let made = a.get("/devices/P_d").await;
    let made = made["created_at"].as_str().expect("a time");
    // Of the same day, or the one after at midnight: not nine days apart.
    assert!(since >= made, "{since} {made}");
    assert_eq!(since.get(..7), made.get(..7), "{since} {made}");
    b.stop().await;
    a.stop().await;
}
