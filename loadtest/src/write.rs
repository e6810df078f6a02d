//! The end of a run: its bounds are checked, and the report goes where it was asked for.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::cli::{OutputArgs, ReportForm};
use crate::report::Report;
use crate::scenario::RunError;

/// Checks the bounds, prints the report and writes the files.
///
/// # Errors
/// [`RunError::Write`]: a file; the report was printed all the same.
pub(crate) fn all(mut report: Report, output: &OutputArgs) -> Result<Report, RunError> {
    if let Some(bounds) = &output.fail_if {
        report.broken = bounds.broken(&report);
        report.ok &= report.broken.is_empty();
    }
    // A closed pipe is the reader's wish, not a failure of the run.
    let _ = match output.report {
        ReportForm::Text => write!(io::stdout(), "{report}"),
        ReportForm::Json => {
            let _ = write!(io::stderr(), "{report}");
            write!(io::stdout(), "{}", report.to_json())
        }
    };
    if let Some(path) = &output.json {
        write(path, &report.to_json())?;
    }
    if let Some(path) = &output.csv {
        write(path, &report.to_csv())?;
    }
    if let Some(path) = &output.html {
        write(path, &report.to_html(&command_line()))?;
    }
    Ok(report)
}

fn write(path: &Path, text: &str) -> Result<(), RunError> {
    fs::write(path, text).map_err(|source| RunError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The command line as it was given, without what must not be shown.
fn command_line() -> String {
    let mut shown = Vec::new();
    let mut hide = false;
    for argument in std::env::args_os() {
        let text = argument.to_string_lossy().into_owned();
        let secret = SECRETS.iter().find(|name| text.starts_with(*name));
        shown.push(match secret {
            _ if std::mem::take(&mut hide) => "***".to_owned(),
            Some(name) if text.contains('=') => format!("{name}=***"),
            Some(_) => {
                hide = true;
                text
            }
            None => text,
        });
    }
    if let Some(program) = shown.first_mut() {
        "swarm".clone_into(program);
    }
    shown.join(" ")
}

/// Options whose values are secrets.
const SECRETS: [&str; 2] = ["--token", "--password"];
