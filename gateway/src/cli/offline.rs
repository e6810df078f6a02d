//! Commands that work on what a gateway has stored, while none runs on it.

use std::process::ExitCode;

use super::{EXIT_FAILURE, SourceArgs, complain, process, refuse};
use crate::config::Config;

/// Reads the configuration, and has `work` done on what it names by this thread alone.
pub(super) fn run(source: SourceArgs, work: impl AsyncFnOnce(&Config) -> ExitCode) -> ExitCode {
    let config = match source.load() {
        Ok(loaded) => loaded.config,
        Err(error) => return refuse(&error),
    };
    process::keep_files_private();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work(&config)),
        Err(error) => {
            complain(error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
