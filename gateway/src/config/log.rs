//! Settings of the log.

use super::{
    section::section,
    setting::{Choice, Kind, Raw},
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
        /// `info,headgate::session=debug`.
        level: String = "info".to_owned(), Levels;
        /// How lines are written: "auto" is JSON unless standard error is a terminal.
        format: LogFormat = LogFormat::Auto, Choice(FORMATS);
    }
}

/// Severities by name, the most severe first; "off" is none.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A severity, or severities per module.
struct Levels;

impl Kind<String> for Levels {
    fn parse(&self, raw: &Raw) -> Result<String, String> {
        let module = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
        let part = |part: &str| match part.trim().split_once('=') {
            Some((name, level)) => name.chars().all(module) && LEVELS.contains(&level),
            None => LEVELS.contains(&part.trim()),
        };
        raw.text()
            .filter(|text| text.len() <= 1024 && text.split(',').all(part))
            .map(|text| text.replace(' ', ""))
            .ok_or_else(|| super::setting::expected(&self.range(), raw))
    }

    fn print(&self, value: &String) -> String {
        super::setting::quote(value)
    }

    fn range(&self) -> String {
        format!("{}; more after a comma: module=level", LEVELS.join(", "))
    }
}
