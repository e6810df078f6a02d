//! Errors of the HTTP API, in the gateway's own words where it has some.

use std::io;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The URL is not one of an API.
    #[error("`{0}` is no API address; write it like http://127.0.0.1:8080")]
    Url(String),
    /// Nothing listens there, or the network is in the way.
    #[error(
        "cannot reach the API at {url}: {source}; is the gateway running? (--data-dir or --http-url say where)"
    )]
    Connect {
        /// Base URL.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{method} {path}: {source}")]
    Transport {
        /// Method.
        method: Method,
        /// Path and query.
        path: String,
        /// Why.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("{method} {path}: no answer within {secs} s")]
    Timeout {
        /// Method.
        method: Method,
        /// Path and query.
        path: String,
        /// The limit.
        secs: u64,
    },
    /// The gateway refused.
    #[error("{method} {path}: {status}: {detail}")]
    Refused {
        /// Method.
        method: Method,
        /// Path and query.
        path: String,
        /// Status.
        status: StatusCode,
        /// What the problem document says.
        detail: String,
    },
    /// Devices of a batch were not registered.
    #[error("{path}: {failed} devices were not registered; its rows say why")]
    Batch {
        /// The batch.
        path: String,
        /// Rows that failed; 0: the batch itself did.
        failed: u64,
    },
    /// The answer is not of the form expected.
    #[error("{method} {path}: unexpected answer: {detail}")]
    Shape {
        /// Method.
        method: Method,
        /// Path and query.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ApiError {
    /// The status, when the gateway answered with an error.
    pub(crate) const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// What a problem document says, or the start of whatever else came.
pub(super) fn problem(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
        errors: Option<Vec<Value>>,
    }
    let Ok(problem) = serde_json::from_slice::<Problem>(bytes) else {
        return String::from_utf8_lossy(bytes).chars().take(200).collect();
    };
    let mut text = problem.title.unwrap_or_default();
    let first_row = problem
        .errors
        .and_then(|errors| errors.first().map(ToString::to_string));
    for more in [problem.detail, first_row].into_iter().flatten() {
        text = format!("{text}: {more}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_in_the_gateways_words() {
        let text = problem(
            br#"{"type":"x","title":"Name taken","detail":"device d1","errors":[{"row":3}]}"#,
        );
        assert_eq!(text, r#"Name taken: device d1: {"row":3}"#);
        assert_eq!(problem(b"<html>"), "<html>");
    }
}
