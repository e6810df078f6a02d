use std::time::Duration;

use super::*;
use crate::stats::{Stats, Timing};

fn report() -> Report {
    let stats = Stats::default();
    stats.done.add(9);
    stats.failed.add(1);
    stats.ever_connected.add(10);
    stats.record(Timing::Ready, Duration::from_millis(20));
    Report::new("connect", 10, &stats, 2.0)
}

fn broken(text: &str) -> Vec<String> {
    let bounds: Bounds = text.parse().unwrap();
    bounds
        .broken(&report())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn bounds_hold_or_say_what_was() {
    assert!(broken("p99<2s, failed<=1,ready.max<100ms,ok>=9,wrong=0,connect_rate>4.9").is_empty());
    assert_eq!(broken("failed=0"), ["failed=0: was 1"]);
    assert_eq!(broken("p50<1ms,ok!=9").len(), 2);
    assert!(
        broken("p50<1ms")[0].starts_with("p50<1ms: was 2"),
        "{:?}",
        broken("p50<1ms")
    );
}

#[test]
fn what_was_not_measured_holds_nothing() {
    assert_eq!(broken("puback.p99<2s"), ["puback.p99<2s: was not measured"]);
    assert_eq!(broken("rss_growth<3%"), ["rss_growth<3%: was not measured"]);
}

#[test]
fn mistakes_are_told_in_words() {
    for (text, words) in [
        ("", "write bounds like"),
        ("failed", "has no <"),
        ("p98<2s", "`p98` is no figure"),
        ("login.p99.max<2s", "is no figure"),
        ("p99<2", "a time needs a unit"),
        ("p99<2MiB", "`MiB` is no unit of this figure"),
        ("failed=2s", "`s` is no unit of this figure"),
        ("failed=x", "is no number"),
        ("failed!0", "write != for unequal"),
        ("rss_max<1parsec", "`parsec` is no unit"),
    ] {
        let error = text.parse::<Bounds>().unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}
