//! The servers that are measured, each fresh for every run, on 127.0.0.1 and in a temporary
//! directory.

pub(crate) mod headgate;
pub(crate) mod libcoap;
pub(crate) mod mosquitto;
pub(crate) mod nginx;
pub(crate) mod openssl;
pub(crate) mod rumqttd;

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether `program` can be run at all; `version_flag` makes it end at once.
pub(crate) fn is_there(program: &Path, version_flag: &str) -> bool {
    // Any exit code will do: what counts is that there is a program to start.
    Command::new(program)
        .arg(version_flag)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
