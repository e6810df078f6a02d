//! `swarm`: simulated devices that connect to a gateway, take deliveries and send files, and check every byte.
//!
//! Arguments, runtime, signal and exit code; everything else is in the modules.

mod api;
mod cli;
mod content;
mod device;
#[cfg(test)]
mod fake;
mod fetch;
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
mod tls;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::ctrl_c;
use tokio_util::sync::CancellationToken;

use cli::{Cli, Command, ReportForm};
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
        Ok(report) => {
            print(&report, common.report);
            exit_code(&report)
        }
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
    let scenario = async {
        match command {
            Command::Connect(args) => scenario::connect::run(args, interrupt.clone()).await,
            Command::Deliver(args) => scenario::deliver::run(args, interrupt.clone()).await,
            Command::Upload(args) => scenario::upload::run(args, interrupt.clone()).await,
        }
    };
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

fn print(report: &Report, form: ReportForm) {
    // A closed pipe is the reader's wish, not a failure of the run.
    let _ = match form {
        ReportForm::Text => write!(io::stdout(), "{report}"),
        ReportForm::Json => {
            let _ = write!(io::stderr(), "{report}");
            write!(io::stdout(), "{}", report.to_json())
        }
    };
}

fn exit_code(report: &Report) -> ExitCode {
    match (report.interrupted, report.ok) {
        (true, _) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    }
}

/// The command line is wrong.
const EXIT_USAGE: u8 = 64;
/// 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
