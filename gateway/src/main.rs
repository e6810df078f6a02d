//! The daemon `headgate`: arguments, configuration, log, runtime, signals, exit code.

mod allocator;

use std::{process::ExitCode, sync::Arc};

use headgate::{
    app::{self, Boot},
    cli::{self, Cli, Command, EXIT_FAILURE, SourceArgs, process, progress},
    config::{Config, RuntimeConfig},
    shutdown::{Shutdown, Signals},
    telemetry::log,
};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: allocator::BySize = allocator::BySize;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Cli {
            command: Command::Serve(source),
        }) => serve(source),
        Ok(Cli {
            command: Command::Config(command),
        }) => cli::config(command),
        Ok(Cli {
            command: Command::Keys(command),
        }) => cli::keys(command),
        Ok(Cli {
            command: Command::Registry(command),
        }) => cli::registry(command),
        Ok(Cli {
            command: Command::Completions { shell },
        }) => cli::completions(shell),
        Ok(Cli {
            command: Command::Remote(command),
        }) => cli::remote(*command),
        Err(code) => code,
    }
}

fn serve(source: SourceArgs) -> ExitCode {
    let sources = source.sources();
    let config = match Config::load(&sources) {
        Ok(loaded) => loaded.config,
        Err(error) => return cli::refuse(&error),
    };
    if let Err(error) = log::start(&config.log) {
        cli::complain(error);
        return ExitCode::from(EXIT_FAILURE);
    }
    process::keep_files_private();
    process::raise_open_files(&config);
    let runtime = match runtime(&config.runtime) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let reread = move || {
        let read = Config::load(&sources)?.config;
        process::raise_open_files(&read);
        Ok(read)
    };
    let boot = Boot {
        config,
        reread: Some(Arc::new(reread)),
    };
    let code = runtime.block_on(run(boot));
    // What is still there now has had its grace period.
    runtime.shutdown_background();
    code
}

fn runtime(config: &RuntimeConfig) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if config.workers > 0 {
        builder.worker_threads(config.workers);
    }
    builder
        .thread_name("headgate")
        .max_blocking_threads(config.max_blocking_threads)
        .enable_all()
        .build()
}

/// Runs the gateway until it is done; the first signal drains it, the second ends it at once.
async fn run(boot: Boot) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "no signals");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let shutdown = Shutdown::new();
    let app = app::run(boot, shutdown.clone(), progress::report);
    tokio::pin!(app);
    loop {
        tokio::select! {
            biased;
            signal = signals.recv() => {
                if shutdown.is_draining() {
                    tracing::warn!(signal, "stopped at once");
                    return ExitCode::from(EXIT_FAILURE);
                }
                tracing::info!(signal, "draining");
                shutdown.drain();
            }
            ended = &mut app => return match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(%error, "stopped");
                    cli::ended(&error)
                }
            },
        }
    }
}
