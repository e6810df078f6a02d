//! Why nothing came of a command, in words, and as an exit code.

use std::{fmt::Write as _, io, process::ExitCode};

use hyper::StatusCode;
use serde::Deserialize;

use super::PATIENCE;
use crate::{
    cli::{EXIT_CONFIG, EXIT_DENIED, EXIT_FAILURE, EXIT_UNAVAILABLE, EXIT_USAGE},
    config::ConfigError,
};

/// Rows of an answer that are named; the others are counted.
const SHOWN: usize = 20;

/// Why nothing came of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The configuration, which says where the data directory is, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command line's own settings are wrong.
    #[error("{path}: {why}")]
    Settings {
        /// In which file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No gateway runs on the data directory.
    #[error("no gateway runs on {0}; start it, or name its address with --server")]
    NotRunning(String),
    /// An address that cannot be used.
    #[error("{url}: {why}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token cannot be one.
    #[error("the token has characters that no token has")]
    Token,
    /// The connection failed.
    #[error("{address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// TLS failed.
    #[error("{address}: TLS: {source}")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// HTTP failed.
    #[error("the answer ended early: {0}")]
    Http(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TooSlow,
    /// The gateway refused.
    #[error("{}", refusal(*.status, .problem))]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The gateway's own words.
        problem: Problem,
    },
    /// A list is shown without what some nodes have.
    #[error("what these nodes have is not listed, since they did not answer: {}", .0.join(", "))]
    Silent(Vec<String>),
    /// Standard output refused.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The answer is not what this program understands.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

/// What an error answer says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    detail: String,
    field: Option<String>,
    errors: Vec<Row>,
    error_count: Option<usize>,
    used_by: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    row: u64,
    device: String,
    message: String,
}

impl Problem {
    /// Reads the body of an error answer; one of a proxy in between says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

impl ClientError {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) | Self::Settings { .. } => EXIT_CONFIG,
            Self::Usage(_) | Self::Url { .. } => EXIT_USAGE,
            Self::NotRunning(_) | Self::Connect { .. } | Self::Tls { .. } | Self::TooSlow => {
                EXIT_UNAVAILABLE
            }
            Self::Token => EXIT_DENIED,
            Self::Refused { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => EXIT_DENIED,
                StatusCode::SERVICE_UNAVAILABLE => EXIT_UNAVAILABLE,
                _ => EXIT_FAILURE,
            },
            Self::File { .. }
            | Self::Http(_)
            | Self::Output(_)
            | Self::Answer(_)
            | Self::Silent(_) => EXIT_FAILURE,
        })
    }
}

fn refusal(status: StatusCode, problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() {
        format!("the gateway answered {status}")
    } else {
        problem.detail.clone()
    };
    // Writing to a string does not fail.
    if let Some(field) = &problem.field
        && !text.contains(field.as_str())
    {
        let _ok = write!(text, " ({field})");
    }
    for used_by in &problem.used_by {
        if !text.contains(used_by.as_str()) {
            let _ok = write!(text, "\n  used by {used_by}");
        }
    }
    for row in problem.errors.iter().take(SHOWN) {
        let _ok = write!(text, "\n  row {}: {}: {}", row.row, row.device, row.message);
    }
    let count = problem.error_count.unwrap_or(problem.errors.len());
    if count > SHOWN {
        let _ok = write!(text, "\n  and {} more", count - SHOWN);
    }
    super::super::output::printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode, body: &str) -> ClientError {
        let problem = Problem::read(body.as_bytes());
        ClientError::Refused { status, problem }
    }

    #[test]
    fn a_refusal_is_told_in_the_gateways_words() {
        for (body, want) in [
            (r#"{"detail":"no such device"}"#, "no such device"),
            (r#"{"detail":"is empty","field":"name"}"#, "is empty (name)"),
            (
                r#"{"detail":"1 row cannot be used","errors":[{"row":3,"device":"d9","message":"no device"}]}"#,
                "1 row cannot be used\n  row 3: d9: no device",
            ),
            (
                "<html>\u{1b}[31m",
                "the gateway answered 422 Unprocessable Entity",
            ),
            (r#"{"detail":"a\u001b[31mb"}"#, "a\u{fffd}[31mb"),
        ] {
            let error = refused(StatusCode::UNPROCESSABLE_ENTITY, body);
            assert_eq!(error.to_string(), want);
        }
    }
}
