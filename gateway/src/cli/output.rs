//! What commands show: tables and lines for people, JSON for programs, bars on a terminal.
//!
//! Invariants: what was asked for goes to standard output and nothing else does; nothing that came from a gateway can
//! steer a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::client::{Client, ClientError, with_query};

/// Rows that are held to find how wide the columns are; the rest keeps to that.
const MEASURED_ROWS: usize = 500;

/// A column: its heading, and where in an entry its value is (`counts.delivered`).
pub(super) type Column = (&'static str, &'static str);

/// Shows what commands have to show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// JSON instead of text.
    pub(super) is_json: bool,
}

impl Output {
    /// Shows one thing: its fields a line each, those of `columns` alone.
    pub(super) fn one(self, value: &Value, columns: &[Column]) -> Result<(), ClientError> {
        if self.is_json {
            return json(value);
        }
        let shown: Vec<_> = columns
            .iter()
            .map(|(heading, path)| (*heading, cell(value, path)))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let width = shown.iter().map(|(heading, _)| heading.width()).max();
        let mut text = String::new();
        for (heading, cell) in shown {
            pad(&mut text, heading, width.unwrap_or(0) + 2);
            text.push_str(&cell);
            text.push('\n');
        }
        write(text.as_bytes())
    }

    /// Says something to a person; programs have seen the JSON.
    pub(super) fn say(self, text: &str) -> Result<(), ClientError> {
        if self.is_json {
            return Ok(());
        }
        write(format!("{}\n", printable(text)).as_bytes())
    }

    /// Shows what was done: JSON where the API gave some, else the sentence.
    pub(super) fn done(self, value: &Value, text: &str) -> Result<(), ClientError> {
        if self.is_json && !value.is_null() {
            return json(value);
        }
        self.say(text)
    }

    /// Shows every entry of a list.
    pub(super) async fn list(
        self,
        client: &Client,
        path: &str,
        query: &[(&str, Option<String>)],
        columns: &'static [Column],
    ) -> Result<(), ClientError> {
        let mut table = Table::new(self.is_json, columns);
        let listed = client.list(path, query, |item| table.take(&item)).await;
        if matches!(listed, Ok(()) | Err(ClientError::Silent(_))) {
            table.end()?;
        }
        listed
    }

    /// Saves what a path gives in a file, or writes it to standard output.
    pub(super) async fn save(
        self,
        client: &Client,
        path: &str,
        query: &[(&str, Option<String>)],
        file: Option<&Path>,
        size: Option<u64>,
    ) -> Result<(), ClientError> {
        let path = with_query(path, query);
        let Some(file) = file else {
            return client.stream(&path, to_output()).await;
        };
        let failed = |source| ClientError::File {
            path: file.display().to_string(),
            source,
        };
        // Beside it first: a download that breaks off leaves what was there.
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let mut out = std::fs::File::create(&part).map_err(failed)?;
        let bar = bar(size.unwrap_or(0), self.is_json);
        let saved = client
            .stream(&path, |piece: Bytes| {
                bar.inc(piece.len() as u64);
                out.write_all(&piece).map_err(failed)
            })
            .await;
        let saved = saved.and_then(|()| out.sync_all().map_err(failed));
        bar.finish_and_clear();
        match saved {
            Ok(()) => std::fs::rename(&part, file).map_err(failed),
            Err(error) => {
                // The first error is the one to tell.
                let _left = std::fs::remove_file(&part);
                Err(error)
            }
        }
    }
}

/// Shows a value as the API gave it.
pub(super) fn json(value: &Value) -> Result<(), ClientError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| ClientError::Answer(error.to_string()))?;
    write(format!("{text}\n").as_bytes())
}

/// Shows a value on one line, as one of many.
pub(super) fn line(value: &Value) -> Result<(), ClientError> {
    write(format!("{value}\n").as_bytes())
}

/// Entries of a list as they come.
struct Table {
    is_json: bool,
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    entries: usize,
}

impl Table {
    fn new(is_json: bool, columns: &'static [Column]) -> Self {
        Self {
            is_json,
            columns,
            rows: Vec::new(),
            widths: None,
            entries: 0,
        }
    }

    fn take(&mut self, item: &Value) -> Result<(), ClientError> {
        self.entries += 1;
        if self.is_json {
            let before: &[u8] = if self.entries == 1 { b"[\n" } else { b",\n" };
            let text = serde_json::to_string(item)
                .map_err(|error| ClientError::Answer(error.to_string()))?;
            return write(&[before, text.as_bytes()].concat());
        }
        let row = self.columns.iter().map(|(_, path)| cell(item, path));
        self.rows.push(row.collect());
        if self.rows.len() >= MEASURED_ROWS {
            self.print()?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), ClientError> {
        if self.is_json {
            return write(if self.entries == 0 { b"[]\n" } else { b"\n]\n" });
        }
        self.print()
    }

    fn print(&mut self) -> Result<(), ClientError> {
        let mut text = String::new();
        let rows = std::mem::take(&mut self.rows);
        let is_first = self.widths.is_none();
        let widths = self.widths.get_or_insert_with(|| {
            let widest = |(index, (heading, _)): (usize, &Column)| {
                let cells = rows.iter().map(|row| row[index].width());
                cells.chain([heading.width()]).max().unwrap_or(0)
            };
            self.columns.iter().enumerate().map(widest).collect()
        });
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            for (cell, width) in cells.zip(widths.iter()) {
                pad(&mut text, cell, width + 2);
            }
            let end = text.trim_end_matches(' ').len();
            text.truncate(end);
            text.push('\n');
        };
        if is_first {
            line(&mut self.columns.iter().map(|(heading, _)| *heading));
        }
        for row in &rows {
            line(&mut row.iter().map(String::as_str));
        }
        write(text.as_bytes())
    }
}

/// A value of an entry as people read it.
fn cell(value: &Value, path: &str) -> String {
    let mut keys = path.split('.');
    let found = keys.try_fold(value, |value, key| value.get(key));
    readable(found.unwrap_or(&Value::Null))
}

fn readable(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(readable).collect();
            items.join(", ")
        }
        other => other.to_string(),
    };
    printable(&text)
}

/// A text without what would steer a terminal.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(shown).collect()
}

fn pad(text: &mut String, cell: &str, width: usize) {
    text.push_str(cell);
    let missing = width.saturating_sub(cell.width());
    text.extend(std::iter::repeat_n(' ', missing));
}

/// Writes to standard output; a reader that has seen enough, as in `| head`, is no failure.
fn write(bytes: &[u8]) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes pieces to standard output.
fn to_output() -> impl FnMut(Bytes) -> Result<(), ClientError> {
    |piece| write(&piece)
}

/// A bar for so many bytes on standard error, where that is a terminal.
pub(super) fn bar(bytes: u64, is_quiet: bool) -> ProgressBar {
    if is_quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    );
    let bar = ProgressBar::new(bytes);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A bar for so many deliveries on standard error, where that is a terminal.
pub(super) fn deliveries_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_found_and_cannot_steer_a_terminal() {
        let value = json!({
            "name": "a\u{1b}[2Jb\tc",
            "counts": {"delivered": 3},
            "enabled": false,
            "list": ["x", 1],
        });
        for (path, want) in [
            ("name", "a\u{fffd}[2Jb\u{fffd}c"),
            ("counts.delivered", "3"),
            ("enabled", "no"),
            ("list", "x, 1"),
            ("nothing.there", ""),
        ] {
            assert_eq!(cell(&value, path), want);
        }
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut text = String::new();
        pad(&mut text, "固件", 6);
        assert_eq!(text, "固件  ");
    }
}
