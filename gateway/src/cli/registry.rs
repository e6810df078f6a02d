//! `headgate registry migrate`.

use std::process::ExitCode;

use super::{RegistryCommand, complain, ended, offline, tell};
use crate::app;

/// Runs the command.
pub fn run(command: RegistryCommand) -> ExitCode {
    let RegistryCommand::Migrate(source) = command;
    offline::run(source, async |config| {
        match app::migrate_registry(config).await {
            Ok((before, after)) if before == after => tell(format_args!(
                "the registry's tables are of version {after} already\n"
            )),
            Ok((before, after)) => tell(format_args!(
                "the registry's tables went from version {before} to {after}\n"
            )),
            Err(error) => {
                complain(&error);
                ended(&error)
            }
        }
    })
}
