//! Memory of many DTLS sessions on one socket: in use, and frozen; each is asked once after it was frozen.
//!
//! Sessions are those of registered devices, with their registrations. Several swarms make them, since each device has a
//! socket of its own and one process may not have as many.

use std::time::Duration;

use tokio::time::sleep;

use super::gateway;
use crate::bar::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::peer::headgate::{Headgate, SwarmReport};
use crate::report::{Section, as_f64};

/// Measures sessions that are not frozen, and those that are.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let devices = args.devices(40, DEVICES);
    progress(&format!("coap-sessions: {devices} sessions in use"));
    let live = growth(args, devices, "freeze_after = \"1h\"\n").await?;
    progress(&format!("coap-sessions: {devices} sessions at rest"));
    let frozen = growth(args, devices, "freeze_after = \"5s\"\n").await?;
    let mut section = Section::new(format!(
        "{devices} DTLS sessions of registered devices on one socket: memory of the gateway for each"
    ));
    let must = |bytes: f64| (!args.quick).then_some(bytes);
    section.bar("in use", "B", &[live], must(10_240.0), None);
    section.bar("frozen", "B", &[frozen], must(1_024.0), None);
    section.note("every device asked once after the time of rest and was answered, else there were no figure");
    section.note(
        "resident memory with all sessions less that before the first, registrations included",
    );
    Ok(vec![section])
}

/// Bytes that the gateway grew by for each session.
async fn growth(args: &MeasureArgs, devices: u32, freeze: &str) -> Result<f64, BenchError> {
    let headgate = gateway(args, Some(freeze)).await?;
    // Registers them, so that what this takes is not counted as theirs; their sessions end with the run.
    let shares: Vec<u32> = (0..SWARMS)
        .map(|number| devices / SWARMS + u32::from(number < devices % SWARMS))
        .collect();
    run(&headgate, &shares, &["--hold", "0s"]).await?;
    sleep(REST).await;
    let before = headgate.sample()?.rss_bytes;
    let hold = if args.quick { "12s" } else { "120s" };
    let arguments = ["--hold", hold, "--ask"];
    let swarms = run(&headgate, &shares, &arguments);
    // All have come long before, and those that rest have been frozen.
    let look = async {
        sleep(Duration::from_secs(if args.quick { 11 } else { 110 })).await;
        headgate.sample().map(|sample| sample.rss_bytes)
    };
    let (ended, with) = tokio::join!(swarms, look);
    ended?;
    let grown = with?.saturating_sub(before);
    headgate.stop().await;
    Ok(as_f64(grown) / f64::from(devices))
}

/// Runs as many swarms as there are shares, each with devices of its own, which stay registered.
async fn run(headgate: &Headgate, shares: &[u32], more: &[&str]) -> Result<(), BenchError> {
    let mut swarms = Vec::new();
    for (number, share) in shares.iter().enumerate() {
        let (count, seed) = (share.to_string(), (number + 1).to_string());
        let mut arguments = vec!["connect", "--proto", "coaps", "--keep"];
        arguments.extend(["--devices", &count, "--seed", &seed, "--poll", "1h"]);
        arguments.extend(more);
        swarms.push(headgate.swarm_apart(&arguments, RUN_TIMEOUT));
    }
    let mut running = tokio::task::JoinSet::new();
    for swarm in swarms {
        running.spawn(swarm);
    }
    while let Some(ended) = running.join_next().await {
        let report: Result<SwarmReport, BenchError> =
            ended.map_err(|panicked| BenchError::Runtime(std::io::Error::other(panicked)))?;
        report?;
    }
    Ok(())
}

const DEVICES: u32 = 50_000;
/// A process may have some 20,000 files on many machines.
const SWARMS: u32 = 4;
/// Until what was freed has gone back to the system.
const REST: Duration = Duration::from_secs(15);
const RUN_TIMEOUT: Duration = Duration::from_mins(20);
