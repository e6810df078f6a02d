//! What it costs to find whose message it is: by number of subscriptions, and so of devices.
//!
//! Run by `cargo bench -p headgate-benches --bench subscriptions`. A message visits what it matches,
//! not what there is: with one topic (`wildcard`) the figures are to be alike. Where each message is
//! another device's (`exact`, `filter`), they grow by the memory that no cache holds, and by no more.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use headgate_protocol::mqtt::{SubscriptionIndex, TopicFilter};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    one_match(&mut criterion, "index/exact", |device| {
        format!("P/d{device}/data")
    });
    one_match(&mut criterion, "index/filter", |device| {
        format!("P/d{device}/+")
    });
    wildcard(&mut criterion);
    criterion.final_summary();
}

/// One subscription for each device; a message belongs to one of them.
fn one_match(criterion: &mut Criterion, name: &str, filter: impl Fn(u32) -> String) {
    let mut group = criterion.benchmark_group(name);
    for devices in [10, 1_000, 100_000, 1_000_000] {
        let mut index = SubscriptionIndex::new();
        for device in 0..devices {
            index.insert(&parse(&filter(device)), device, ());
        }
        // Different devices, as they come: the cost of memory that is not in a cache is part of it.
        let topics: Vec<String> = (0..devices.min(4_096))
            .map(|n| {
                let device = n.wrapping_mul(2_654_435_761) % devices;
                format!("P/d{device}/data")
            })
            .collect();
        group.bench_function(BenchmarkId::from_parameter(devices), |bencher| {
            let mut topics = topics.iter().cycle();
            bencher.iter(|| {
                let topic = topics.next().expect("a cycle");
                let mut found = 0_u32;
                index.for_each_match(black_box(topic), |_, ()| found += 1);
                assert_eq!(black_box(found), 1);
            });
        });
    }
    group.finish();
}

/// One application that wants `+/+/data` beside so many exact subscriptions of another topic.
fn wildcard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index/wildcard");
    for others in [10, 1_000_000] {
        let mut index = SubscriptionIndex::new();
        index.insert(&parse("+/+/data"), u32::MAX, ());
        for other in 0..others {
            index.insert(&parse(&format!("P/d{other}/state")), other, ());
        }
        group.bench_function(BenchmarkId::from_parameter(others), |bencher| {
            bencher.iter(|| {
                let mut found = 0_u32;
                index.for_each_match(black_box("P/d7/data"), |_, ()| found += 1);
                assert_eq!(black_box(found), 1);
            });
        });
    }
    group.finish();
}

fn parse(filter: &str) -> TopicFilter {
    filter.parse().expect("a filter")
}
