//! `headgate config check` and `headgate config print`.
//!
//! Starts nothing and writes nothing but its answer.

use std::process::ExitCode;

use super::{ConfigCommand, refuse, tell};

/// Runs the command.
pub fn run(command: ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Check(source) => match source.load() {
            Ok(_) => tell("the configuration is valid\n"),
            Err(error) => refuse(&error),
        },
        ConfigCommand::Print(source) => match source.load() {
            Ok(loaded) => tell(loaded.print()),
            Err(error) => refuse(&error),
        },
    }
}
