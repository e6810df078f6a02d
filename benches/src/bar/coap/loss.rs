//! A delivery by Block2 over DTLS where the network loses datagrams: every byte arrives, and little is sent again.

use std::time::Duration;

use super::gateway;
use crate::bar::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::peer::headgate::spoken;
use crate::report::{Section, as_f64};

/// Delivers once; a wrong byte is an error of the run.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let devices = args.devices(20, 1_000);
    let count = devices.to_string();
    let arguments = [
        "deliver",
        "--proto",
        "coaps",
        "--devices",
        &count,
        "--size",
        "64KiB",
        "--loss",
        "0.05",
    ];
    progress(&spoken(&arguments));
    let headgate = gateway(args, Some("")).await?;
    let report = headgate.swarm(&arguments, RUN_TIMEOUT).await?;
    headgate.stop().await;
    let datagrams = report.datagrams.ok_or(BenchError::NoFigure("datagrams"))?;
    let again = as_f64(datagrams.retransmissions) / as_f64(datagrams.lost.max(1));
    let mut section = Section::new(format!(
        "64 KiB by Block2 over DTLS to {devices} devices, 5 % of the datagrams lost: all bytes verified"
    ));
    let must = (!args.quick).then_some(1.05);
    section.bar(
        "messages sent again / datagrams lost",
        "x",
        &[again],
        must,
        None,
    );
    let delivery = report.delivery.ok_or(BenchError::NoFigure("delivery"))?;
    section.figure("time", "s", &[delivery.seconds]);
    section.note(spoken(&arguments));
    Ok(vec![section])
}

const RUN_TIMEOUT: Duration = Duration::from_mins(20);
