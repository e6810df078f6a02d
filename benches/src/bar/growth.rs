//! Peak memory of the gateway while devices take a file, in full flow and as the file grows, and its
//! time over links with a long round trip.
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
    Ok(vec![
        taking(args).await?,
        full_flow(args).await?,
        round_trip(args).await?,
    ])
}

/// What memory grows by while devices take a file, above the file in the cache.
async fn taking(args: &MeasureArgs) -> Result<Section, BenchError> {
    let devices = args.devices(20, 1000);
    let size_mib = if args.quick { 1 } else { TAKEN_MIB };
    let size = format!("{size_mib}MiB");
    let mut section = Section::new(format!(
        "growth: memory while {devices} devices take {size}"
    ));
    let report = run(args, &["--size", &size], devices, &mut section).await?;
    let server = report.server()?;
    let (peak, connected) = (mib(server.rss_peak_bytes), mib(server.rss_connected_bytes));
    section.figure("all connected", "MiB", &[connected]);
    section.figure("peak", "MiB", &[peak]);
    section.bar(
        "peak - all connected - file",
        "MiB",
        &[peak - connected - as_f64(size_mib)],
        (!args.quick).then_some(MUST_GROWN_MIB),
        (!args.quick).then_some(AIM_GROWN_MIB),
    );
    Ok(section)
}

/// Memory in full flow, which must not depend on the size of the file: held, and then cancelled.
async fn full_flow(args: &MeasureArgs) -> Result<Section, BenchError> {
    let devices = args.devices(20, 10_000);
    let (sizes, held) = if args.quick {
        (QUICK_MIB, "1s")
    } else {
        (SIZES_MIB, "60s")
    };
    let title = format!("growth: memory in full flow, {devices} devices, cancelled after {held}");
    let mut section = Section::new(title);
    let mut grown = Vec::new();
    for size_mib in sizes {
        let size = format!("{size_mib}MiB");
        let arguments = ["--size", &size, "--cancel-after", held];
        let report = run(args, &arguments, devices, &mut section).await?;
        let server = report.server()?;
        let (peak, connected) = (mib(server.rss_peak_bytes), mib(server.rss_connected_bytes));
        section.figure(format!("{size}: all connected"), "MiB", &[connected]);
        section.figure(format!("{size}: peak"), "MiB", &[peak]);
        section.bar(
            format!("{size}: peak - all connected - file"),
            "MiB",
            &[peak - connected - as_f64(size_mib)],
            (!args.quick).then_some(MUST_FLOW_MIB),
            None,
        );
        let speed = report.delivery()?.mb_per_second;
        section.figure(format!("{size}: all devices together"), "MB/s", &[speed]);
        grown.push(peak - as_f64(size_mib));
    }
    if let ([small, large], [from, to]) = (grown.as_slice(), sizes) {
        let must = (!args.quick).then_some(MUST_FLAT);
        let name = format!("(peak of {to} MiB - file) / (peak of {from} MiB - file)");
        section.bar(name, "x", &[large / small], must, None);
        section.note("both files fit the chunk cache (256 MiB)");
    }
    Ok(section)
}

fn mib(bytes: u64) -> f64 {
    as_f64(bytes) / as_f64(1 << 20)
}

async fn round_trip(args: &MeasureArgs) -> Result<Section, BenchError> {
    let devices = args.devices(20, 2000);
    let size = if args.quick { "1MiB" } else { "4MiB" };
    // Two chunks a round trip are 154 KB/s for each device: what all want together is less than two cores give.
    let arguments = ["--size", size, "--rtt", "200ms", "--window", "2"];
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

const TAKEN_MIB: u64 = 4;
const SIZES_MIB: [u64; 2] = [4, 64];
const QUICK_MIB: [u64; 2] = [1, 4];
const MUST_GROWN_MIB: f64 = 16.0;
const AIM_GROWN_MIB: f64 = 4.0;
const MUST_FLOW_MIB: f64 = 256.0;
/// What a run differs from the next one by is not growth.
const MUST_FLAT: f64 = 1.1;
/// 2,000 devices at the pace of their links, or 10,000 for a minute.
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
