//! The process's own limits, set before the first thread is started.
//!
//! Called once by `main.rs` when the gateway is served.

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
};

use crate::config::Config;

/// Descriptors beside those of connections: stores, logs, listeners, timers.
const OTHER_FILES: usize = 256;

/// Files that are made from here on are for this user only, SQLite's own included.
pub fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Raises the limit of open files to what the configured connections need: systems start programs
/// with 1,024, a connection needs one. Warns when not even the devices' fit.
pub fn raise_open_files(config: &Config) {
    let devices = (config.mqtt.max_connections + OTHER_FILES) as u64;
    let wanted = devices + (config.files.max_connections + config.http.max_connections) as u64;
    let hard = getrlimit(Resource::Nofile).maximum;
    // No hard limit at all is none.
    let enough = hard.is_none_or(|hard| hard >= wanted);
    // Only a privileged process may raise the hard limit; every process may go up to it.
    let limit = if enough || set_open_files(Some(wanted)).is_err() {
        set_open_files(hard).map(|()| hard)
    } else {
        Ok(Some(wanted))
    };
    match limit {
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
        Ok(Some(limit)) if limit < devices => tracing::warn!(
            limit,
            devices,
            "fewer open files are allowed than mqtt.max_connections: raise `ulimit -n`"
        ),
        Ok(_) => {}
    }
}

fn set_open_files(limit: Option<u64>) -> rustix::io::Result<()> {
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, limit)
}
