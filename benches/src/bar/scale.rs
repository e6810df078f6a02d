//! Server CPU per GB with many devices against that with few, and what slow devices do to the others.
//!
//! Headgate is measured against itself: the two runs of a pair differ in nothing else.

use std::time::Duration;

use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::peer::headgate::{Headgate, SwarmReport, spoken};
use crate::report::Section;

/// Measures many against few, then the company of slow ones.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    Ok(vec![many(args).await?, slow(args).await?])
}

async fn many(args: &MeasureArgs) -> Result<Section, BenchError> {
    let few = args.devices(10, 1000);
    let many = few * if args.quick { 4 } else { 15 };
    let mut section = Section::new(format!(
        "scale: server CPU per GB, {few} and {many} devices"
    ));
    let (few, many) = (few.to_string(), many.to_string());
    let run = |devices| vec!["deliver", "--devices", devices, "--size", "1MiB"];
    let (mut cost_few, mut cost_many) = (Vec::new(), Vec::new());
    for _ in 0..args.pairs() {
        cost_few.push(swarm(args, &run(&few)).await?.cpu_seconds_per_gb()?);
        cost_many.push(swarm(args, &run(&many)).await?.cpu_seconds_per_gb()?);
    }
    section.figure(format!("{few} devices"), "CPU-s/GB", &cost_few);
    section.figure(format!("{many} devices"), "CPU-s/GB", &cost_many);
    let must = (!args.quick).then_some(MUST_SCALE);
    let ratios = ratios(&cost_many, &cost_few);
    section.bar("many / few, pair by pair", "x", &ratios, must, None);
    section.note(format!("`{}`", spoken(&run(&many))));
    Ok(section)
}

async fn slow(args: &MeasureArgs) -> Result<Section, BenchError> {
    let all = args.devices(20, 1000);
    let fast = all - all / 10;
    let title = format!(
        "scale: {fast} devices, alone and beside {} at 1 KiB/s",
        all / 10
    );
    let mut section = Section::new(title);
    let (all, fast) = (all.to_string(), fast.to_string());
    let size = if args.quick { "256KiB" } else { "4MiB" };
    let alone = ["deliver", "--devices", &fast, "--size", size];
    let beside = [
        "deliver",
        "--devices",
        &all,
        "--size",
        size,
        "--slow-fraction",
        "0.1",
        "--slow-bps",
        "1KiB",
        "--leave-slow",
    ];
    let (mut time_alone, mut time_beside) = (Vec::new(), Vec::new());
    for _ in 0..args.pairs() {
        time_alone.push(swarm(args, &alone).await?.delivery()?.seconds);
        time_beside.push(swarm(args, &beside).await?.delivery()?.seconds);
    }
    section.figure("alone", "s", &time_alone);
    section.figure("beside slow ones", "s", &time_beside);
    let must = (!args.quick).then_some(MUST_BESIDE_SLOW);
    let ratios = ratios(&time_beside, &time_alone);
    section.bar("beside / alone, pair by pair", "x", &ratios, must, None);
    section.note(format!("`{}`", spoken(&beside)));
    section.note("about a tenth is slow: which devices are is drawn by the seed");
    Ok(section)
}

/// Runs the swarm against a gateway of its own.
async fn swarm(args: &MeasureArgs, arguments: &[&str]) -> Result<SwarmReport, BenchError> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--verify", "crc32"]);
    progress(&format!("scale: {}", spoken(&arguments)));
    let headgate = Headgate::start(args).await?;
    let report = headgate.swarm(&arguments, RUN_TIMEOUT).await?;
    headgate.stop().await;
    Ok(report)
}

fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    over.iter()
        .zip(under)
        .map(|(over, under)| over / under)
        .collect()
}

const MUST_SCALE: f64 = 1.15;
const MUST_BESIDE_SLOW: f64 = 1.15;
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
