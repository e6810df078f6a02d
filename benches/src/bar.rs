//! What is measured: one file for each bar.

mod delivery;
mod growth;

use std::io::{self, Write};

use crate::cli::{Bar, MeasureArgs};
use crate::error::BenchError;
use crate::report::Report;

/// Measures every bar that `args` asks for, one after the other.
///
/// # Errors
/// [`BenchError`] of the first that could not be measured.
pub(crate) async fn measure_all(args: &MeasureArgs) -> Result<Report, BenchError> {
    args.headgate()?;
    args.swarm()?;
    let mut report = Report::new();
    if args.wants(Bar::Delivery) {
        report.sections.extend(delivery::measure(args).await?);
    }
    if args.wants(Bar::Growth) {
        report.sections.extend(growth::measure(args).await?);
    }
    Ok(report)
}

/// Tells a person who waits what is going on.
fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
