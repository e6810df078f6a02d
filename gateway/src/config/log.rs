//! Settings of the log.

use super::{
    section::section,
    setting::{Choice, Text},
};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// JSON unless standard error is a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Pretty,
}

const FORMATS: &[(&str, LogFormat)] = &[
    ("auto", LogFormat::Auto),
    ("json", LogFormat::Json),
    ("pretty", LogFormat::Pretty),
];

section! {
    /// The log, on standard error.
    pub struct LogConfig in "log" {
        /// Least severe level that is written: error, warn, info, debug, trace; or per module, as in
        /// "info,headgate::session=debug".
        level: String = "info".to_owned(), Text(1024);
        /// How lines are written: "auto" is JSON unless standard error is a terminal.
        format: LogFormat = LogFormat::Auto, Choice(FORMATS);
    }
}
