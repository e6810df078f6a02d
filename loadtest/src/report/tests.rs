use std::time::Duration;

use super::*;
use crate::device::error::DeviceError;

fn stats() -> Stats {
    let stats = Stats::default();
    stats.ever_connected.add(3);
    stats.done.add(2);
    stats.failed.add(1);
    stats.record(Timing::Ready, Duration::from_millis(20));
    stats.error("d3", &DeviceError::Closed);
    stats
}

#[test]
fn one_failed_device_fails_the_run() {
    let report = Report::new("deliver", 3, &stats(), 1.5);
    assert!(!report.ok);
    assert_eq!(report.devices.ok, 2);
    let text = report.to_string();
    assert!(
        text.starts_with("deliver FAILED: 2 of 3 devices ok, 1 failed\n"),
        "{text}"
    );
    assert!(
        text.contains("closed_by_gateway x 1, first: d3: closed by the gateway"),
        "{text}"
    );
}

#[test]
fn a_device_that_never_ended_fails_the_run() {
    let stats = Stats::default();
    stats.done.add(2);
    assert!(!Report::new("connect", 3, &stats, 1.0).ok);
    stats.left.add(1);
    assert!(Report::new("connect", 3, &stats, 1.0).ok);
}

#[test]
fn json_keys_are_stable() {
    let mut report = Report::new("deliver", 3, &stats(), 1.5);
    report.server = Some(Server::default());
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    for pointer in [
        "/scenario",
        "/ok",
        "/devices/ok",
        "/devices/wrong",
        "/devices/failed",
        "/connect/per_second",
        "/connect/ready/p99_ms",
        "/server/rss_peak_bytes",
        "/server/run_cpu_seconds",
        "/errors/closed_by_gateway/count",
    ] {
        assert!(json.pointer(pointer).is_some(), "{pointer}");
    }
    assert!(json.get("delivery").is_none());
    assert_eq!(json["connect"]["per_second"], 2.0);
}

#[test]
fn percentiles_of_nothing_are_absent() {
    let empty = Stats::default();
    assert_eq!(
        empty.with_times(|times| Percentiles::of(times.of(Timing::Tls))),
        None
    );
}
