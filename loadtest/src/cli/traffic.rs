//! Options of the scenarios in which devices publish.

use std::time::Duration;

use clap::Args;

use super::CommonArgs;
use super::values::{parse_duration, parse_interval, parse_share, parse_size};
use crate::traffic::trouble::FaultKind;

/// What devices publish and who listens.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrafficArgs {
    /// Between two messages of a device, e.g. 500ms; a bare number is milliseconds.
    #[arg(long, short = 'I', default_value = "1s", value_parser = parse_interval)]
    pub(crate) interval: Duration,
    /// QoS of messages and of listeners' subscriptions.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Bytes a message, at least 24.
    #[arg(long, short, default_value = "256", value_parser = parse_message)]
    pub(crate) size: u64,
    /// Behind `{product}/{device}/` in topics.
    #[arg(long, short, default_value = "telemetry")]
    pub(crate) topic: String,
    /// Clients that each hear every device: with a gateway, connections of one application to which all are bound.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) listeners: u32,
    /// Listeners' sessions go on when their connections end: what comes meanwhile is kept for them.
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Messages of a device that may be unacknowledged.
    #[arg(long, short = 'F', default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) inflight: u16,
    /// The rate of messages grows to its full height in this time.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub(crate) ramp: Duration,
}

/// Options of `swarm telemetry`.
#[derive(Debug, Args)]
pub(crate) struct TelemetryArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// How long devices publish.
    #[arg(long = "for", default_value = "60s", value_parser = parse_duration)]
    pub(crate) length: Duration,
}

/// Options of `swarm soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// How long devices publish.
    #[arg(long = "for", default_value = "20m", value_parser = parse_duration)]
    pub(crate) length: Duration,
    /// Share of devices that lose their link again and again, 0 to 1.
    #[arg(long, default_value = "10%", value_parser = parse_share)]
    pub(crate) flap: f64,
    /// Between two such losses of a device.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) flap_every: Duration,
    /// The server's memory is not looked at in this first share of the time.
    #[arg(long, default_value = "25%", value_parser = parse_share)]
    pub(crate) settle: f64,
    /// The server's memory may grow by this share in the rest of it.
    #[arg(long, default_value = "3%", value_parser = parse_share)]
    pub(crate) max_growth: f64,
}

/// Options of `swarm chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// How long devices publish; nothing goes wrong in the last fifth of it, at most 20s.
    #[arg(long = "for", default_value = "60s", value_parser = parse_duration)]
    pub(crate) length: Duration,
    /// Between two things that go wrong.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(crate) every: Duration,
    /// Share of devices that each of them takes, 0 to 1; a storm takes ten times as many.
    #[arg(long, default_value = "5%", value_parser = parse_share)]
    pub(crate) share: f64,
    /// What goes wrong.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = FaultKind::ALL)]
    pub(crate) faults: Vec<FaultKind>,
}

fn parse_message(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes > MAX_MESSAGE_BYTES {
        return Err("a message has 16MiB at most".to_owned());
    }
    Ok(bytes)
}

const MAX_MESSAGE_BYTES: u64 = 16 << 20;
