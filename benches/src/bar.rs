//! What is measured: one file for each bar.

mod coap;
mod delivery;
mod fan_out;
mod growth;
mod handshake;
mod idle;
mod messages;
mod probe;
mod proof;
mod registration;
mod scale;
mod storm;
mod task;
mod telemetry;

use std::io::{self, Write};
use std::path::Path;

use crate::cli::{Bar, MeasureArgs};
use crate::error::BenchError;
use crate::peer::headgate::{Headgate, TlsFiles};
use crate::report::Report;

/// Measures every bar that `args` asks for, one after the other; what is in `report` when one fails was measured.
///
/// # Errors
/// [`BenchError`] of the first that could not be measured.
pub(crate) async fn measure_all(args: &MeasureArgs, report: &mut Report) -> Result<(), BenchError> {
    args.headgate()?;
    args.swarm()?;
    if args.wants(Bar::Delivery) {
        report.sections.extend(delivery::measure(args).await?);
    }
    if args.wants(Bar::Idle) {
        report.sections.extend(idle::measure(args).await?);
    }
    if args.wants(Bar::Handshake) {
        report.sections.extend(handshake::measure(args).await?);
    }
    if args.wants(Bar::Messages) {
        report.sections.extend(messages::measure(args).await?);
    }
    if args.wants(Bar::Telemetry) {
        report.sections.extend(telemetry::measure(args).await?);
    }
    if args.wants(Bar::FanOut) {
        report.sections.extend(fan_out::measure(args).await?);
    }
    if args.wants(Bar::Growth) {
        report.sections.extend(growth::measure(args).await?);
    }
    if args.wants(Bar::Registration) {
        report.sections.extend(registration::measure(args).await?);
    }
    if args.wants(Bar::Scale) {
        report.sections.extend(scale::measure(args).await?);
    }
    if args.wants(Bar::Storm) {
        report.sections.extend(storm::measure(args).await?);
    }
    if args.wants(Bar::Task) {
        report.sections.extend(task::measure(args).await?);
    }
    if args.wants(Bar::CoapGet) {
        let sections = coap::get::measure(args, false).await?;
        report.sections.extend(sections);
    }
    if args.wants(Bar::CoapGetDtls) {
        let sections = coap::get::measure(args, true).await?;
        report.sections.extend(sections);
    }
    if args.wants(Bar::CoapHandshake) {
        let sections = coap::handshake::measure(args).await?;
        report.sections.extend(sections);
    }
    if args.wants(Bar::CoapHellos) {
        report.sections.extend(coap::hellos::measure(args).await?);
    }
    if args.wants(Bar::CoapSessions) {
        report.sections.extend(coap::sessions::measure(args).await?);
    }
    if args.wants(Bar::CoapLoss) {
        report.sections.extend(coap::loss::measure(args).await?);
    }
    if args.wants(Bar::Proof) {
        report.sections.extend(proof::measure(args).await?);
    }
    Ok(())
}

/// Tells a person who waits what is going on.
fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The certificate of a gateway that is started for nothing else.
async fn certificate(args: &MeasureArgs, directory: &Path) -> Result<TlsFiles, BenchError> {
    let headgate = Headgate::start(args).await?;
    let files = headgate.tls_files().copy_to(directory);
    headgate.stop().await;
    files
}
