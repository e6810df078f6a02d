//! The summary of a run: JSON with stable keys, and the text that a person reads.
//!
//! Both are made from one [`Report`]. GB is 10^9 bytes, MB/s 10^6 bytes a second, MiB 2^20 bytes.
//! Invariants: a key of the JSON never changes its meaning; a figure that was not taken is absent.

pub(crate) mod bounds;
mod csv;
mod datagrams;
mod html;
mod messages;
mod plot;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use self::bounds::Broken;
pub(crate) use self::datagrams::Datagrams;
pub(crate) use self::messages::{Chaos, Messages, Soak};
use crate::stats::{ErrorCount, Stats, Timing};
use crate::timeline::Point;

/// Everything that a run found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// `connect`, `deliver`, `upload`, `telemetry`, `soak` or `chaos`.
    pub(crate) scenario: &'static str,
    /// Every device is right and the gateway agrees.
    pub(crate) ok: bool,
    /// The run was stopped by its user.
    pub(crate) interrupted: bool,
    /// The run was stopped by `--timeout`.
    pub(crate) timed_out: bool,
    /// How devices ended.
    pub(crate) devices: Devices,
    /// The connecting phase.
    pub(crate) connect: Connect,
    /// Devices that asked once after they had stayed and were answered, with `--ask`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answered: Option<u64>,
    /// The delivery, for `deliver`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delivery: Option<Delivery>,
    /// The uploads, for `upload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uploads: Option<Uploads>,
    /// The messages that devices published, for `telemetry`, `soak` and `chaos`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<Messages>,
    /// Whether the server's memory stayed flat, for `soak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) soak: Option<Soak>,
    /// What went wrong by plan, for `chaos`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chaos: Option<Chaos>,
    /// What became of datagrams, by CoAP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) datagrams: Option<Datagrams>,
    /// The gateway's process, with `--server-pid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<Server>,
    /// CPU seconds that the swarm itself used.
    pub(crate) swarm_cpu_seconds: f64,
    /// Peak memory of the swarm itself.
    pub(crate) swarm_rss_peak_bytes: u64,
    /// Errors by kind, also those that devices recovered from.
    pub(crate) errors: BTreeMap<Cow<'static, str>, ErrorCount>,
    /// Bounds of `--fail-if` that do not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) broken: Vec<Broken>,
    /// The run second by second: in the CSV and the page.
    #[serde(skip)]
    pub(crate) timeline: Vec<Point>,
}

/// How devices ended.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Devices {
    /// How many there were.
    pub(crate) total: u64,
    /// Right to the end.
    pub(crate) ok: u64,
    /// Got other bytes than the resource's.
    pub(crate) wrong: u64,
    /// Did not come to an end.
    pub(crate) failed: u64,
    /// Slow ones that were not waited for, and those whose delivery the run itself cancelled.
    pub(crate) left: u64,
}

/// The connecting phase.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Connect {
    /// Devices that were connected at least once.
    pub(crate) connected: u64,
    /// First start to last SUBACK.
    pub(crate) seconds: f64,
    /// Devices per second over that time.
    pub(crate) per_second: f64,
    /// Start to the end of the TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Percentiles>,
    /// Start to CONNACK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<Percentiles>,
    /// Start to SUBACK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready: Option<Percentiles>,
    /// Connections made again after the gateway or the network ended one.
    pub(crate) reconnects: u64,
    /// Connections that the swarm cut itself.
    pub(crate) planned_drops: u64,
}

/// The delivery.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Delivery {
    /// Size of the resource.
    pub(crate) resource_bytes: u64,
    /// SHA-256 of the resource.
    pub(crate) resource_sha256: String,
    /// Bytes that devices took for the first time.
    pub(crate) bytes: u64,
    /// Bytes that came again.
    pub(crate) duplicate_bytes: u64,
    /// Chunks received.
    pub(crate) chunks: u64,
    /// Requests repeated because nothing came.
    pub(crate) stalls: u64,
    /// Creation of the task to the last device's end.
    pub(crate) seconds: f64,
    /// `bytes` over `seconds`, 10^6 bytes a second.
    pub(crate) mb_per_second: f64,
    /// First request to first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_byte: Option<Percentiles>,
    /// `download` to the acknowledged `done`, devices that are not slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<Percentiles>,
    /// The same of slow devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slow_duration: Option<Percentiles>,
    /// Resource size over (window over round trip), with `--rtt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link_bound_seconds: Option<f64>,
    /// `seconds` over `link_bound_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link_bound_ratio: Option<f64>,
    /// What the gateway says of its deliveries at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway_counts: Option<BTreeMap<String, u64>>,
}

/// The uploads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Uploads {
    /// Size of each device's file.
    pub(crate) file_bytes: u64,
    /// Bytes that the gateway acknowledged.
    pub(crate) bytes: u64,
    /// Chunks sent.
    pub(crate) chunks: u64,
    /// Chunks sent again because the gateway was busy, and announcements that were repeated.
    pub(crate) postponed: u64,
    /// First start to the last device's end.
    pub(crate) seconds: f64,
    /// `bytes` over `seconds`, 10^6 bytes a second.
    pub(crate) mb_per_second: f64,
    /// First announcement to `upload_result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<Percentiles>,
    /// Files that were fetched back and are what was sent.
    pub(crate) verified: u64,
}

/// The gateway's process.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Server {
    /// CPU seconds while devices connected.
    pub(crate) connect_cpu_seconds: f64,
    /// The same per 1,000 devices.
    pub(crate) connect_cpu_seconds_per_1000: f64,
    /// CPU seconds from the task's creation to the last device's end, or while devices stayed.
    pub(crate) run_cpu_seconds: f64,
    /// `run_cpu_seconds` for each 10^9 bytes delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_seconds_per_gb: Option<f64>,
    /// Connecting included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_seconds_per_gb_with_connect: Option<f64>,
    /// Resident memory before the first device connected.
    pub(crate) rss_before_bytes: u64,
    /// With all devices connected and nothing else going on.
    pub(crate) rss_connected_bytes: u64,
    /// (`rss_connected` - `rss_before`) for each device.
    pub(crate) rss_per_device_bytes: u64,
    /// Largest sample of the run.
    pub(crate) rss_max_bytes: u64,
    /// `VmHWM`; of this run where it could be reset at the start, else of the process's life.
    pub(crate) rss_peak_bytes: u64,
    /// True where the peak is this run's alone.
    pub(crate) rss_peak_is_of_this_run: bool,
    /// At the end.
    pub(crate) rss_now_bytes: u64,
}

/// A distribution in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Measurements.
    pub(crate) count: u64,
    pub(crate) min_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) mean_ms: f64,
    /// Quantiles for a plot, each with its value: ever finer towards the end.
    #[serde(skip)]
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Percentiles {
    /// The distribution of `histogram` (microseconds); `None` when nothing was measured.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| as_f64(histogram.value_at_quantile(quantile)) / 1e3;
        Some(Self {
            count: histogram.len(),
            min_ms: as_f64(histogram.min()) / 1e3,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: as_f64(histogram.max()) / 1e3,
            mean_ms: histogram.mean() / 1e3,
            curve: QUANTILES.map(|quantile| (quantile, at(quantile))).to_vec(),
        })
    }
}

impl Report {
    /// The parts that every scenario fills from `stats`; the others are the scenario's.
    pub(crate) fn new(
        scenario: &'static str,
        total: u32,
        stats: &Stats,
        connect_secs: f64,
    ) -> Self {
        let connected = stats.ever_connected.get();
        let percentiles = |timing| stats.with_times(|times| Percentiles::of(times.of(timing)));
        let own = crate::proc_stat::ProcSample::read(std::process::id()).unwrap_or_default();
        Self {
            scenario,
            ok: stats.wrong.get() == 0
                && stats.failed.get() == 0
                && stats.ended() == u64::from(total),
            interrupted: false,
            timed_out: false,
            devices: Devices {
                total: u64::from(total),
                ok: stats.done.get(),
                wrong: stats.wrong.get(),
                failed: stats.failed.get(),
                left: stats.left.get(),
            },
            connect: Connect {
                connected,
                seconds: connect_secs,
                per_second: ratio(as_f64(connected), connect_secs),
                tls: percentiles(Timing::Tls),
                login: percentiles(Timing::Login),
                ready: percentiles(Timing::Ready),
                reconnects: stats.reconnects.get(),
                planned_drops: stats.planned_drops.get(),
            },
            answered: None,
            delivery: None,
            uploads: None,
            messages: None,
            soak: None,
            chaos: None,
            datagrams: Datagrams::of(stats),
            server: None,
            swarm_cpu_seconds: own.cpu_secs,
            swarm_rss_peak_bytes: own.rss_peak_bytes,
            errors: stats.errors(),
            broken: Vec::new(),
            timeline: Vec::new(),
        }
    }

    /// The distribution that the scenario is about.
    pub(crate) fn main_distribution(&self) -> Option<&Percentiles> {
        if let Some(messages) = &self.messages {
            return messages.end_to_end.as_ref().or(messages.puback.as_ref());
        }
        let delivery = self.delivery.as_ref().and_then(|it| it.duration.as_ref());
        let uploads = self.uploads.as_ref().and_then(|it| it.duration.as_ref());
        delivery.or(uploads).or(self.connect.ready.as_ref())
    }

    /// Every distribution that was measured, with its name for people.
    fn distributions(&self) -> Vec<(&'static str, &Percentiles)> {
        let messages = self.messages.as_ref();
        let delivery = self.delivery.as_ref();
        let all = [
            ("TLS handshake", self.connect.tls.as_ref()),
            ("logged in", self.connect.login.as_ref()),
            ("ready", self.connect.ready.as_ref()),
            ("first byte", delivery.and_then(|it| it.first_byte.as_ref())),
            ("delivery", delivery.and_then(|it| it.duration.as_ref())),
            (
                "upload",
                self.uploads.as_ref().and_then(|it| it.duration.as_ref()),
            ),
            ("to PUBACK", messages.and_then(|it| it.puback.as_ref())),
            (
                "to listener",
                messages.and_then(|it| it.end_to_end.as_ref()),
            ),
            ("reconnected", messages.and_then(|it| it.reconnect.as_ref())),
        ];
        let measured = all.into_iter();
        measured
            .filter_map(|(name, it)| Some((name, it?)))
            .collect()
    }

    /// The report as JSON, with a newline at its end.
    pub(crate) fn to_json(&self) -> String {
        // Plain structs of numbers and text with string keys always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// Quantiles of a plot.
const QUANTILES: [f64; 16] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9999, 1.0,
];

/// Nearest `f64`; exact below 2^53, which no figure here reaches.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, exact below 2^53"
)]
pub(crate) const fn as_f64(n: u64) -> f64 {
    n as f64
}

/// `a / b`, 0 when `b` is 0.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests;
