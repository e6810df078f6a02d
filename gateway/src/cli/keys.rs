//! `headgate keys rotate`.

use std::process::ExitCode;

use super::{EXIT_FAILURE, KeysCommand, complain, offline, tell};
use crate::app;

/// Runs the command.
pub fn run(command: KeysCommand) -> ExitCode {
    let KeysCommand::Rotate(source) = command;
    offline::run(source, async |config| {
        let progress = |secrets| complain(format_args!("{secrets} secrets sealed again"));
        match app::rotate_key(config, progress).await {
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
    })
}
