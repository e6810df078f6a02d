//! `headgate registry migrate`.

use std::process::ExitCode;

use super::{EXIT_FAILURE, RegistryCommand, complain, ended, process, refuse, tell};
use crate::app;

/// Runs the command.
pub fn run(command: RegistryCommand) -> ExitCode {
    let RegistryCommand::Migrate(source) = command;
    let config = match source.load() {
        Ok(loaded) => loaded.config,
        Err(error) => return refuse(&error),
    };
    process::keep_files_private();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(error);
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    match runtime.block_on(app::migrate_registry(&config)) {
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
}
