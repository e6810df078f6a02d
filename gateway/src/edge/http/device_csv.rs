//! The CSV of device names that a task is created from.
//!
//! Read whole (it is bounded), row by row. Only the shape is judged here: which devices exist, and
//! which stand twice, is the delivery service's to say, under the same line numbers.

use std::borrow::Cow;

use csv::{ByteRecord, ReaderBuilder};

use super::problem::{Kind, Problem, RowProblem};

/// The column that must be there; others are ignored.
pub const COLUMN: &str = "DeviceName";

/// What `/tasks/template.csv` answers.
pub const TEMPLATE: &str = "DeviceName\r\ndevice-0001\r\ndevice-0002\r\n";

/// One device name with the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRow {
    /// Line of the file, from 1; the heading is line 1.
    pub line: u32,
    /// The name as given, without the blanks around it.
    pub name: String,
}

/// Reads the device names out of `bytes`.
///
/// A byte order mark, CRLF, quoted cells, blank lines and `;` instead of `,` are taken.
///
/// # Errors
/// [`Kind::InvalidCsv`]: no such column, no row, more than `max_rows`, not text.
/// [`Kind::InvalidRows`]: rows without a name or with bytes that are no UTF-8, each by its line.
pub fn read(bytes: &[u8], max_rows: u32) -> Result<Vec<NamedRow>, Problem> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if text.starts_with(&[0xFF, 0xFE]) || text.starts_with(&[0xFE, 0xFF]) || text.contains(&0) {
        return Err(invalid(
            "the file is not UTF-8 text; save it as \"CSV UTF-8\"",
        ));
    }
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(text))
        .from_reader(text);
    let mut record = ByteRecord::new();
    let mut lines = Lines::new(text);
    let mut heading = None;
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| invalid(error.to_string()))?
    {
        let start = record.position().map_or(0, csv::Position::byte);
        let line = lines.line_of(usize::try_from(start).unwrap_or(usize::MAX));
        let Some(column) = heading else {
            heading = Some(find_column(&record)?);
            continue;
        };
        if is_blank(&record) {
            continue;
        }
        if rows.len() + errors.len() >= usize::try_from(max_rows).unwrap_or(usize::MAX) {
            return Err(invalid(format!(
                "more than {max_rows} rows; the first one too many is on line {line}"
            )));
        }
        match cell(&record, column) {
            Ok(name) => rows.push(NamedRow { line, name }),
            Err((device, code, message)) => {
                errors.push(RowProblem {
                    row: line,
                    device,
                    code: Cow::Borrowed(code),
                    message: message.to_owned(),
                });
            }
        }
    }
    if !errors.is_empty() {
        return Err(Problem::rows(errors));
    }
    if heading.is_none() {
        return Err(invalid(format!(
            "the file is empty; its first line must name the column {COLUMN}"
        )));
    }
    if rows.is_empty() {
        return Err(invalid("the file names no device"));
    }
    Ok(rows)
}

/// Counts lines as an editor shows them.
///
/// The reader's own count is one short after CRLF, and a record's position is before the blank
/// lines that it skipped.
struct Lines<'a> {
    text: &'a [u8],
    offset: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            offset: 0,
            line: 1,
        }
    }

    /// The line of the first byte at or after `start` that is no line break; `start` never falls.
    fn line_of(&mut self, start: usize) -> u32 {
        while let Some(byte) = self.text.get(self.offset) {
            let is_break = matches!(byte, b'\r' | b'\n');
            if self.offset >= start && !is_break {
                break;
            }
            let ends_pair =
                *byte == b'\n' && self.offset > 0 && self.text.get(self.offset - 1) == Some(&b'\r');
            if is_break && !ends_pair {
                self.line = self.line.saturating_add(1);
            }
            self.offset += 1;
        }
        self.line
    }
}

/// `;` where the first line has one and no comma: spreadsheets write it in many countries.
fn delimiter(text: &[u8]) -> u8 {
    let end = text
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))
        .unwrap_or(text.len());
    let heading = text.get(..end).unwrap_or_default();
    if heading.contains(&b';') && !heading.contains(&b',') {
        b';'
    } else {
        b','
    }
}

fn find_column(heading: &ByteRecord) -> Result<usize, Problem> {
    let mut found = heading
        .iter()
        .enumerate()
        .filter(|(_, cell)| cell.trim_ascii().eq_ignore_ascii_case(COLUMN.as_bytes()));
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(index),
        (None, _) => Err(invalid(format!(
            "the first line must name the column {COLUMN}"
        ))),
        (Some(_), Some(_)) => Err(invalid(format!(
            "the first line names the column {COLUMN} twice"
        ))),
    }
}

fn is_blank(record: &ByteRecord) -> bool {
    record.iter().all(|cell| cell.trim_ascii().is_empty())
}

fn cell(
    record: &ByteRecord,
    column: usize,
) -> Result<String, (String, &'static str, &'static str)> {
    let bytes = record.get(column).unwrap_or_default().trim_ascii();
    if bytes.is_empty() {
        return Err((String::new(), "missing_name", "the row has no device name"));
    }
    match std::str::from_utf8(bytes) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err((
            String::from_utf8_lossy(bytes).into_owned(),
            "not_utf8",
            "the device name is not UTF-8",
        )),
    }
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::InvalidCsv, detail).with_field("file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], want: &[(u32, &str)]) {
        let rows = read(bytes, 10).unwrap_or_else(|problem| panic!("{bytes:?}: {problem:?}"));
        let got: Vec<_> = rows
            .iter()
            .map(|row| (row.line, row.name.as_str()))
            .collect();
        assert_eq!(got, want, "{:?}", String::from_utf8_lossy(bytes));
    }

    fn refused(bytes: &[u8]) -> (Kind, serde_json::Value) {
        let problem = read(bytes, 3).expect_err("must be refused");
        (problem.kind(), problem.to_json())
    }

    #[test]
    fn tolerated_shapes_are_read() {
        check(b"DeviceName\na\nb\n", &[(2, "a"), (3, "b")]);
        check(b"\xEF\xBB\xBFDeviceName\r\na\r\nb", &[(2, "a"), (3, "b")]);
        check(b"\xEF\xBB\xBF\"DeviceName\"\r\n\"a\"\r\n", &[(2, "a")]);
        check(
            b"note,devicename ,x\n\"one, two\", a ,1\nshort,b\n",
            &[(2, "a"), (3, "b")],
        );
        check(b"note;DeviceName\n1;a\n", &[(2, "a")]);
        check(b"DeviceName\n\n\na\n,\nb\n", &[(4, "a"), (6, "b")]);
        check(
            b"note,DeviceName\n\"two\nlines\",a\nx,b\n",
            &[(2, "a"), (4, "b")],
        );
        check(
            TEMPLATE.as_bytes(),
            &[(2, "device-0001"), (3, "device-0002")],
        );
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let (kind, body) = refused(b"note,DeviceName\r\nx,a\r\nx,\r\nx,\xFF\xFE\r\n");
        assert_eq!(kind, Kind::InvalidRows);
        assert_eq!(body["errors"][0]["row"], 3);
        assert_eq!(body["errors"][0]["code"], "missing_name");
        assert_eq!(body["errors"][1]["row"], 4);
        assert_eq!(body["errors"][1]["code"], "not_utf8");
    }

    #[test]
    fn unusable_files_are_refused() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "empty"),
            (b"Name\na\n", "must name the column"),
            (b"DeviceName,DeviceName\na,b\n", "twice"),
            (b"DeviceName\n", "names no device"),
            (b"\xFF\xFED\0e\0", "UTF-8"),
            (b"DeviceName\na\nb\nc\nd\n", "line 5"),
        ];
        for (bytes, want) in cases {
            let (kind, body) = refused(bytes);
            assert_eq!(kind, Kind::InvalidCsv);
            assert_eq!(body["field"], "file");
            let detail = body["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(want), "{bytes:?}: {detail}");
        }
    }
}
