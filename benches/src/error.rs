//! Why a comparison could not be made.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a comparison could not be made; a figure that misses its bar is no error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// No runtime or no signals.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// A program of Headgate's own is not there.
    #[error(
        "no {name} at {path}; build it with `cargo build --release -p headgate -p headgate-loadtest`, or give --{name}"
    )]
    NotBuilt {
        /// `headgate` or `swarm`.
        name: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program does not start.
    #[error("cannot start {name}: {source}")]
    Spawn {
        /// The program.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A server ended, or never became ready.
    #[error("{name} {what}; the end of its log:\n{log}")]
    Server {
        /// The program.
        name: &'static str,
        /// What it did.
        what: String,
        /// Last lines of its output.
        log: String,
    },
    /// The swarm found something wrong.
    #[error("`{command}` gave {status}:\n{output}")]
    Swarm {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Last lines of its standard error.
        output: String,
    },
    /// The swarm's report is not what this program reads.
    #[error("the swarm's report: {0}")]
    SwarmReport(#[source] serde_json::Error),
    /// The report names no figure that was asked for.
    #[error("the swarm's report has no `{0}`")]
    NoFigure(&'static str),
    /// Something took longer than it may.
    #[error("{what} took longer than {limit:?}")]
    TooLate {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A file of the run.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A simulated client failed.
    #[error("client of {peer}: {source}; the end of its log:\n{log}")]
    Client {
        /// The peer that it spoke to.
        peer: &'static str,
        /// Last lines of the peer's output.
        log: String,
        /// Why.
        source: crate::fleet::ClientError,
    },
    /// What clients are made of could not be made.
    #[error("clients cannot be made: {0}")]
    Clients(#[source] crate::fleet::ClientError),
    /// The history of a task cannot have happened.
    #[error("`headgate task check`: {0}")]
    History(String),
    /// A process that is measured cannot be read.
    #[error("cannot read process {0}")]
    Sample(u32),
    /// The embedded rumqttd.
    #[error("rumqttd: {0}")]
    Rumqttd(String),
}

impl BenchError {
    /// A reading or writing of `path` that gave `source`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
