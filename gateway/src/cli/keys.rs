//! `headgate keys rotate`.

use std::process::ExitCode;

use super::{EXIT_FAILURE, KeysCommand, complain, process, refuse, tell};
use crate::app;

/// Runs the command.
pub fn run(command: KeysCommand) -> ExitCode {
    let KeysCommand::Rotate(source) = command;
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
    let progress = |secrets| complain(format_args!("{secrets} secrets sealed again"));
    match runtime.block_on(app::rotate_key(&config, progress)) {
        Ok(rotated) => tell(format_args!(
            "the sealing key is now {}: {} secrets and {} settings were sealed again{}\n",
            rotated.key_id,
            rotated.secrets,
            rotated.settings,
            if rotated.resumed {
                ", after a rotation that had not ended"
            } else {
                ""
            },
        )),
        Err(error) => {
            complain(error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
