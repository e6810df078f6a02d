//! The daemon `headgate`: arguments, configuration, log, runtime, signals, exit code.

use std::process::ExitCode;

use headgate::cli::{self, Cli, Command, SourceArgs};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Cli {
            command: Command::Serve(source),
        }) => serve(source),
        Ok(Cli {
            command: Command::Config(command),
        }) => cli::config(command),
        Err(code) => code,
    }
}

fn serve(source: SourceArgs) -> ExitCode {
    match source.load() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => cli::refuse(&error),
    }
}
