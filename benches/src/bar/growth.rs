//! Peak memory of the gateway as the resource grows, and its time over links with a long round
//! trip.
//!
//! Headgate is measured against itself and against arithmetic: no peer takes part.

use std::time::Duration;

use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::peer::headgate::{Headgate, SwarmReport, spoken};
use crate::report::{Section, as_f64};

/// Measures memory, then the long round trip.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    Ok(vec![memory(args).await?, round_trip(args).await?])
}

async fn memory(args: &MeasureArgs) -> Result<Section, BenchError> {
    let devices = args.devices(20, 2000);
    let sizes = if args.quick { QUICK_MIB } else { SIZES_MIB };
    let mut section = Section::new(format!("growth: memory of the gateway, {devices} devices"));
    let mut peaks = Vec::new();
    for size_mib in sizes {
        let size = format!("{size_mib}MiB");
        let report = run(args, &["--size", &size], devices, &mut section).await?;
        let server = report.server()?;
        let mib = |bytes| as_f64(bytes) / as_f64(1 << 20);
        let (peak, connected) = (mib(server.rss_peak_bytes), mib(server.rss_connected_bytes));
        section.figure(format!("{size}: all connected"), "MiB", &[connected]);
        section.figure(format!("{size}: peak"), "MiB", &[peak]);
        section.figure(format!("{size}: growth"), "MiB", &[peak - connected]);
        let cost = report.cpu_seconds_per_gb()?;
        section.figure(format!("{size}: CPU"), "CPU-s/GB", &[cost]);
        let speed = report.delivery()?.mb_per_second;
        section.figure(format!("{size}: all devices together"), "MB/s", &[speed]);
        peaks.push(peak);
    }
    if let [small, large] = peaks.as_slice() {
        let [from, to] = sizes;
        let more_cached = as_f64(to - from);
        let must = (!args.quick).then_some(MUST_FLAT);
        let name = format!("(peak of {to} MiB - {more_cached} MiB) / peak of {from} MiB");
        section.bar(name, "x", &[(large - more_cached) / small], must, None);
        section.note(
            "both files fit the chunk cache (256 MiB): what the larger one adds is not growth",
        );
    }
    Ok(section)
}

async fn round_trip(args: &MeasureArgs) -> Result<Section, BenchError> {
    let devices = args.devices(20, 2000);
    let size = if args.quick { "1MiB" } else { "4MiB" };
    let arguments = ["--size", size, "--rtt", "200ms"];
    let mut section = Section::new(format!("growth: {devices} devices behind 200 ms"));
    let report = run(args, &arguments, devices, &mut section).await?;
    let delivery = report.delivery()?;
    let ratio = delivery
        .link_bound_ratio
        .ok_or(BenchError::NoFigure("delivery.link_bound_ratio"))?;
    let must = (!args.quick).then_some(1.2);
    let name = "time / (size / (window / round trip))";
    section.bar(name, "x", &[ratio], must, None);
    section.figure("all devices together", "MB/s", &[delivery.mb_per_second]);
    Ok(section)
}

/// Runs the swarm against a gateway of its own, and notes with which command.
async fn run(
    args: &MeasureArgs,
    what: &[&str],
    devices: u32,
    section: &mut Section,
) -> Result<SwarmReport, BenchError> {
    let devices = devices.to_string();
    let mut arguments = vec!["deliver", "--devices", &devices];
    arguments.extend(what);
    arguments.extend(["--verify", "crc32"]);
    progress(&format!("growth: {}", spoken(&arguments)));
    let headgate = Headgate::start(args).await?;
    let report = headgate.swarm(&arguments, RUN_TIMEOUT).await?;
    headgate.stop().await;
    section.note(format!("`{}`", spoken(&arguments)));
    Ok(report)
}

const SIZES_MIB: [u64; 2] = [4, 64];
const QUICK_MIB: [u64; 2] = [1, 4];
const MUST_FLAT: f64 = 1.05;
/// 2,000 x 64 MiB are 134 GB.
const RUN_TIMEOUT: Duration = Duration::from_mins(20);
