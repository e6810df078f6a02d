//! One column of a CSV, read as it comes.
//!
//! Only whole records are parsed; what is held is the record that has not ended, which is bounded.
//! A byte order mark, CRLF, quoted cells, blank lines and `;` instead of `,` are taken.

use std::borrow::Cow;

use csv::{ByteRecord, ReaderBuilder};

use super::problem::{Kind, Problem};

/// The longest record, in bytes.
const MAX_RECORD_BYTES: usize = 4_096;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One cell with the line that its record begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::edge) struct CsvRow {
    /// Line of the file, from 1; the heading is line 1.
    pub(in crate::edge) line: u32,
    /// The cell, without the blanks around it.
    pub(in crate::edge) value: String,
}

/// Reads the cells of one column.
#[derive(Debug)]
pub(in crate::edge) struct CsvRows {
    column: &'static str,
    max_rows: usize,
    /// The record that has not ended.
    pending: Vec<u8>,
    /// Whether it ends within quotes so far.
    is_quoted: bool,
    /// Line that it begins on.
    line: u32,
    /// Where the column is, and what separates cells; `None`: the heading has not come.
    layout: Option<(usize, u8)>,
    rows: usize,
}

impl CsvRows {
    /// Expects a heading with `column`, and at most `max_rows` rows.
    pub(in crate::edge) fn new(column: &'static str, max_rows: usize) -> Self {
        Self {
            column,
            max_rows,
            pending: Vec::new(),
            is_quoted: false,
            line: 1,
            layout: None,
            rows: 0,
        }
    }

    /// Takes the next bytes; gives the rows that they end.
    ///
    /// # Errors
    /// [`Kind::InvalidCsv`]: no such column, too many rows, a record that is too long or no text.
    pub(in crate::edge) fn push(&mut self, bytes: &[u8]) -> Result<Vec<CsvRow>, Problem> {
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.pending.len() + part.len() > MAX_RECORD_BYTES {
                return Err(self.invalid("the record is too long"));
            }
            self.pending.extend_from_slice(part);
            for byte in part {
                self.is_quoted ^= *byte == b'"';
            }
            if part.ends_with(b"\n") && !self.is_quoted {
                found.extend(self.end_record()?);
            }
        }
        Ok(found)
    }

    /// Takes the end of the file; gives the row that had no line break.
    ///
    /// # Errors
    /// [`Kind::InvalidCsv`], as [`CsvRows::push`], and where there was no row at all.
    pub(in crate::edge) fn finish(&mut self) -> Result<Option<CsvRow>, Problem> {
        let row = self.end_record()?;
        if self.layout.is_none() {
            return Err(self.invalid("the file is empty"));
        }
        if self.rows == 0 {
            return Err(self.invalid("the file names no device"));
        }
        Ok(row)
    }

    fn end_record(&mut self) -> Result<Option<CsvRow>, Problem> {
        let record = std::mem::take(&mut self.pending);
        let line = self.line;
        let breaks = record.split(|byte| *byte == b'\n').skip(1).count();
        let value = self.cell(&record);
        self.line = line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        // Its memory is used again.
        self.pending = record;
        self.pending.clear();
        Ok(value?.map(|value| CsvRow { line, value }))
    }

    /// The column's cell of a record; nothing of the heading and of a blank line.
    fn cell(&mut self, record: &[u8]) -> Result<Option<String>, Problem> {
        let Some((column, delimiter)) = self.layout else {
            return self.read_heading(record).map(|()| None);
        };
        let cells = self.parse(record, delimiter)?;
        if cells.iter().all(|cell| cell.trim_ascii().is_empty()) {
            return Ok(None);
        }
        self.rows += 1;
        if self.rows > self.max_rows {
            let detail = format!("more than {} rows", self.max_rows);
            return Err(self.invalid(detail));
        }
        let cell = cells.get(column).unwrap_or_default().trim_ascii();
        Ok(Some(String::from_utf8_lossy(cell).into_owned()))
    }

    fn read_heading(&mut self, record: &[u8]) -> Result<(), Problem> {
        let text = record.strip_prefix(BYTE_ORDER_MARK).unwrap_or(record);
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        if text.contains(&0) || std::str::from_utf8(text).is_err() {
            return Err(self.invalid("the file is not UTF-8 text; save it as \"CSV UTF-8\""));
        }
        let has = |byte: u8| text.contains(&byte);
        let delimiter = if has(b';') && !has(b',') { b';' } else { b',' };
        let cells = self.parse(text, delimiter)?;
        let is_column = |cell: &[u8]| {
            cell.trim_ascii()
                .eq_ignore_ascii_case(self.column.as_bytes())
        };
        let Some(column) = cells.iter().position(is_column) else {
            let detail = format!("the first line must name the column {}", self.column);
            return Err(self.invalid(detail));
        };
        self.layout = Some((column, delimiter));
        Ok(())
    }

    fn parse(&self, record: &[u8], delimiter: u8) -> Result<ByteRecord, Problem> {
        let mut cells = ByteRecord::new();
        ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(record.len().max(1))
            .from_reader(record)
            .read_byte_record(&mut cells)
            .map_err(|error| self.invalid(error.to_string()))?;
        Ok(cells)
    }

    fn invalid(&self, detail: impl Into<Cow<'static, str>>) -> Problem {
        let detail = format!("line {}: {}", self.line, detail.into());
        Problem::new(Kind::InvalidCsv, detail).with_field("file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file that comes in pieces of so many bytes.
    fn read(file: &[u8], piece: usize) -> Result<Vec<(u32, String)>, Problem> {
        let mut rows = CsvRows::new("device_id", 3);
        let mut found = Vec::new();
        for bytes in file.chunks(piece) {
            found.extend(rows.push(bytes)?);
        }
        found.extend(rows.finish()?);
        Ok(found.into_iter().map(|row| (row.line, row.value)).collect())
    }

    /// Checks that a file gives these rows, whatever the pieces that it comes in.
    fn check(file: &[u8], expected: &[(u32, &str)]) {
        for piece in [1, 2, 3, 1_000] {
            let found = read(file, piece).unwrap_or_else(|error| panic!("{error:?}"));
            let found: Vec<_> = found
                .iter()
                .map(|(line, text)| (*line, text.as_str()))
                .collect();
            assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn tolerated_shapes_are_read() {
        check(b"device_id\na\nb\n", &[(2, "a"), (3, "b")]);
        check(b"\xEF\xBB\xBFDevice_ID\r\na\r\nb", &[(2, "a"), (3, "b")]);
        check(b"note;device_id\n1; a \n", &[(2, "a")]);
        check(b"device_id\n\n\na\n,\nb\n", &[(4, "a"), (6, "b")]);
        check(
            b"note,device_id\n\"two\nlines\",a\nx,b\n",
            &[(2, "a"), (4, "b")],
        );
        check(
            b"note,device_id\n\"a \"\"quote\"\"\",a\nshort\n",
            &[(2, "a"), (3, "")],
        );
        check(b"device_id\n\xFF\n", &[(2, "\u{fffd}")]);
    }

    #[test]
    fn unusable_files_are_refused() {
        let long = [b"device_id\n".as_slice(), &[b'x'; 5_000]].concat();
        let open = [b"device_id\n\"".as_slice(), &b"x\n".repeat(3_000)].concat();
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"\n\n", "empty"),
            (b"name\na\n", "must name the column device_id"),
            (b"device_id\n\n", "names no device"),
            (b"\xFF\xFED\0e\0", "UTF-8"),
            (b"device_id\na\nb\nc\nd\n", "line 5: more than 3 rows"),
            (&long, "too long"),
            (&open, "too long"),
        ];
        for (file, expected) in cases {
            let problem = read(file, 100).expect_err("refused");
            assert_eq!(problem.kind(), Kind::InvalidCsv);
            let detail = problem.to_json()["detail"].to_string();
            assert!(detail.contains(expected), "{detail}");
        }
    }
}
