//! What a run did second by second: for plots, for CSV, and for what must stay flat.
//!
//! One task looks at the counters once a second; nothing else of the run knows of it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::probe::Probe;
use crate::report::as_f64;
use crate::swarm::Swarm;

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Seconds from the start.
    pub(crate) t: f64,
    /// Devices connected.
    pub(crate) connected: u64,
    /// Devices that came to their end.
    pub(crate) ended: u64,
    /// Connections lost so far, by anybody's fault but the run's own.
    pub(crate) reconnects: u64,
    /// Connections that the run cut so far.
    pub(crate) planned_drops: u64,
    /// Resource bytes so far, either way.
    pub(crate) bytes: u64,
    /// Messages published so far.
    pub(crate) sent: u64,
    /// Messages acknowledged so far.
    pub(crate) acked: u64,
    /// Messages that listeners heard so far.
    pub(crate) received: u64,
    /// 99th percentile of publish to PUBACK within this second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) puback_p99_ms: Option<f64>,
    /// 99th percentile of publish to listener within this second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_to_end_p99_ms: Option<f64>,
    /// Resident memory of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rss_bytes: Option<u64>,
    /// CPU time of the server so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_secs: Option<f64>,
}

/// A timeline that is being taken.
pub(crate) struct Timeline {
    points: Arc<Mutex<Vec<Point>>>,
    started: Instant,
    _sampler: JoinSet<()>,
}

impl Timeline {
    /// Looks at `swarm`, and at the server where it can be, from now on.
    pub(crate) fn start(swarm: &Arc<Swarm>, probe: Option<Probe>) -> Self {
        let points = Arc::new(Mutex::new(Vec::new()));
        let mut sampler = JoinSet::new();
        let (swarm, shared) = (Arc::clone(swarm), Arc::clone(&points));
        let started = Instant::now();
        sampler.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let reading = match &probe {
                    Some(probe) => probe.read().await,
                    None => None,
                };
                let mut point = look(&swarm);
                point.t = started.elapsed().as_secs_f64();
                point.rss_bytes = reading.map(|reading| reading.rss_bytes);
                point.cpu_secs = reading.map(|reading| reading.cpu_secs);
                let mut points = shared.lock();
                if points.len() < MAX_POINTS {
                    points.push(point);
                }
            }
        });
        Self {
            points,
            started,
            _sampler: sampler,
        }
    }

    /// Seconds since its start.
    pub(crate) fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// What was seen.
    pub(crate) fn finish(self) -> Vec<Point> {
        std::mem::take(&mut *self.points.lock())
    }
}

fn look(swarm: &Swarm) -> Point {
    let stats = &swarm.stats;
    let [puback, end_to_end] = stats.take_recent_p99();
    Point {
        connected: stats.connected.get(),
        ended: stats.ended(),
        reconnects: stats.reconnects.get(),
        planned_drops: stats.planned_drops.get(),
        bytes: stats.bytes.get(),
        sent: stats.sent.get(),
        acked: stats.acked.get(),
        received: stats.received.get(),
        puback_p99_ms: puback,
        end_to_end_p99_ms: end_to_end,
        ..Point::default()
    }
}

/// Adds the timeline of another process, second by second; percentiles become the greater one.
pub(crate) fn merge(all: &mut Vec<Point>, other: &[Point]) {
    let greater = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    };
    for (index, point) in other.iter().enumerate() {
        let Some(sum) = all.get_mut(index) else {
            all.push(*point);
            continue;
        };
        sum.connected += point.connected;
        sum.ended += point.ended;
        sum.reconnects += point.reconnects;
        sum.planned_drops += point.planned_drops;
        sum.bytes += point.bytes;
        sum.sent += point.sent;
        sum.acked += point.acked;
        sum.received += point.received;
        sum.puback_p99_ms = greater(sum.puback_p99_ms, point.puback_p99_ms);
        sum.end_to_end_p99_ms = greater(sum.end_to_end_p99_ms, point.end_to_end_p99_ms);
        sum.rss_bytes = sum.rss_bytes.or(point.rss_bytes);
        sum.cpu_secs = sum.cpu_secs.or(point.cpu_secs);
    }
}

/// How memory went between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Flatness {
    /// Median of the first tenth.
    pub(crate) rss_start_bytes: u64,
    /// Median of the last tenth.
    pub(crate) rss_end_bytes: u64,
    /// Growth from the one to the other, as a share of the first; negative where memory was given back.
    pub(crate) growth: f64,
    /// Growth an hour at this pace, as a share of the first.
    pub(crate) growth_per_hour: f64,
    /// Seconds looked at.
    pub(crate) seconds: f64,
}

impl Flatness {
    /// Of the points from second `from` to second `to`; `None` with fewer than twenty readings.
    pub(crate) fn of(points: &[Point], from: f64, to: f64) -> Option<Self> {
        let within = points
            .iter()
            .filter(|point| point.t >= from && point.t <= to);
        let rss: Vec<u64> = within.filter_map(|point| point.rss_bytes).collect();
        let tenth = rss.len() / 10;
        if tenth < 2 {
            return None;
        }
        let start = median(rss.get(..tenth)?)?;
        let end = median(rss.get(rss.len() - tenth..)?)?;
        let growth = as_f64(end) / as_f64(start.max(1)) - 1.0;
        // From the middle of the first tenth to the middle of the last.
        let seconds = to - from;
        let growth_per_hour = growth * 3_600.0 / (seconds * 0.9).max(1.0);
        Some(Self {
            rss_start_bytes: start,
            rss_end_bytes: end,
            growth,
            growth_per_hour,
            seconds,
        })
    }
}

fn median(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// A day.
const MAX_POINTS: usize = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn points(rss: impl Fn(u32) -> u64) -> Vec<Point> {
        let point = |second| Point {
            t: f64::from(second),
            rss_bytes: Some(rss(second)),
            ..Point::default()
        };
        (0..200).map(point).collect()
    }

    #[test]
    fn what_grows_is_not_flat_and_a_peak_alone_does_not_count() {
        let flat = points(|second| if second == 150 { 900 } else { 100 });
        let flat = Flatness::of(&flat, 50.0, 200.0).unwrap();
        assert_eq!((flat.rss_start_bytes, flat.rss_end_bytes), (100, 100));
        let growing = points(|second| 1_000 + u64::from(second));
        let growing = Flatness::of(&growing, 100.0, 199.0).unwrap();
        assert!(
            growing.growth > 0.07 && growing.growth < 0.09,
            "{growing:?}"
        );
        assert_eq!(Flatness::of(&points(|_| 1), 195.0, 199.0), None);
    }

    #[test]
    fn timelines_of_processes_add_up() {
        let mut all = vec![Point {
            sent: 1,
            puback_p99_ms: Some(2.0),
            ..Point::default()
        }];
        let other = [
            Point {
                sent: 2,
                puback_p99_ms: Some(1.0),
                ..Point::default()
            },
            Point {
                sent: 4,
                ..Point::default()
            },
        ];
        merge(&mut all, &other);
        assert_eq!((all[0].sent, all[1].sent), (3, 4));
        assert_eq!(all[0].puback_p99_ms, Some(2.0));
    }
}
