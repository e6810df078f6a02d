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

/// Raises the soft limit of open files to the hard one: systems start programs with 1,024, a
/// connection needs one. Warns when the configured connections do not fit.
pub fn raise_open_files(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    let wanted = config.mqtt.max_connections
        + config.files.max_connections
        + config.http.max_connections
        + OTHER_FILES;
    // No limit at all is none.
    if let Some(limit) = limit.filter(|limit| *limit < wanted as u64) {
        tracing::warn!(
            limit,
            wanted,
            "fewer open files are allowed than connections are configured: raise `ulimit -n`"
        );
    }
}
