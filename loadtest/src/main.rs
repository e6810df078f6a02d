//! `swarm`: simulated devices that connect to a gateway, take deliveries and send files, and check every byte.
//!
//! Arguments, runtime, signal and exit code; everything else is in the modules.

mod api;
mod cli;
mod content;
mod crew;
mod device;
#[cfg(test)]
mod fake;
mod fetch;
mod probe;
mod proc_stat;
mod progress;
mod provision;
mod report;
mod rng;
mod scenario;
mod stats;
mod swarm;
mod target;
mod throttle;
mod timeline;
mod tls;
mod traffic;
mod verify;
mod web;
mod write;

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::ctrl_c;
use tokio_util::sync::CancellationToken;

use cli::{Cli, Command};
use report::Report;
use scenario::RunError;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
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
    let common = cli.command.common();
    let outcome = runtime(common.threads)
        .map_err(RunError::Runtime)
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(&cli.command));
            // Devices that do not end by themselves end with the process.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(report) if common.part.is_some() => exit_code(&report),
        Ok(report) => match write::all(report, &common.output) {
            Ok(report) => exit_code(&report),
            Err(error) => {
                let _ = writeln!(io::stderr(), "swarm: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "swarm: {error}");
            match error {
                RunError::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Runs the scenario until it ends or Ctrl-C ends it.
async fn run(command: &Command) -> Result<Report, RunError> {
    let interrupt = CancellationToken::new();
    let scenario = scenario::run(command, interrupt.clone());
    let mut scenario = std::pin::pin!(scenario);
    tokio::select! {
        biased;
        signal = ctrl_c() => {
            if signal.is_ok() {
                interrupt.cancel();
            }
            tokio::select! {
                biased;
                // The second one does not wait for anything.
                _ = ctrl_c() => Err(RunError::Interrupted),
                report = scenario => report,
            }
        }
        report = &mut scenario => report,
    }
}

fn runtime(threads: Option<usize>) -> io::Result<Runtime> {
    let mut builder = match threads {
        Some(0 | 1) => Builder::new_current_thread(),
        Some(threads) => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
        None => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

fn exit_code(report: &Report) -> ExitCode {
    match (report.interrupted, report.ok, report.broken.is_empty()) {
        (true, ..) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true, _) => ExitCode::SUCCESS,
        (false, false, true) => ExitCode::FAILURE,
        (false, false, false) => ExitCode::from(EXIT_BOUND),
    }
}

/// The command line is wrong.
const EXIT_USAGE: u8 = 64;
/// A bound of `--fail-if` does not hold.
const EXIT_BOUND: u8 = 3;
/// 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
