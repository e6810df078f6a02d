//! `side-by-side`: Headgate and its peers at the same work, in one run and in turns.
//!
//! Arguments, runtime, signals and exit code; what is measured is in [`bar`], what it is measured
//! against in [`peer`], the clients that are not the swarm in [`fleet`].

mod bar;
mod cli;
mod error;
mod fleet;
mod http;
mod peer;
mod process;
mod report;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command, MeasureArgs};
use error::BenchError;
use report::Report;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match cli.command {
        Some(Command::Rumqttd { port }) => peer::rumqttd::serve(port),
        None => measure(&cli.measure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "side-by-side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &MeasureArgs) -> Result<(), BenchError> {
    process::raise_open_files();
    let runtime = tokio::runtime::Runtime::new().map_err(BenchError::Runtime)?;
    let mut report = Report::new();
    let outcome = runtime.block_on(run(args, &mut report));
    // A closed pipe is the reader's wish, not a failure of the run.
    let _ = write!(io::stdout(), "{report}");
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    outcome
}

/// Measures every bar that was asked for; a signal ends the run, and with it every child process.
async fn run(args: &MeasureArgs, report: &mut Report) -> Result<(), BenchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(BenchError::Runtime)?;
    tokio::select! {
        biased;
        _ = ctrl_c() => Err(BenchError::Interrupted),
        _ = terminate.recv() => Err(BenchError::Interrupted),
        outcome = bar::measure_all(args, report) => outcome,
    }
}

/// The command line is wrong.
const EXIT_USAGE: u8 = 64;
