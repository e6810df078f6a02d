//! The CSV of a batch: its heading and its rows, read one after the other.
//!
//! A byte order mark, CRLF, quoted cells with newlines, blank lines and `;` instead of `,` are taken. Rows keep the
//! line that they begin on. Nothing longer than one row is ever held.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use csv::{ByteRecord, ReaderBuilder, Terminator};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Columns that a heading may name, in any order; the first two must be there.
pub(super) const COLUMNS: &[&str] = &[
    "node_id",
    "product_id",
    "device_name",
    "auth_type",
    "secret",
    "fingerprint",
    "description",
    "device_id",
    "psk_encoding",
];

/// A file to be filled in.
pub const TEMPLATE: &str = "node_id,device_name,product_id,auth_type,secret,fingerprint,description\r\n\
     sensor-0001,First sensor,meter,secret,,,its secret is made\r\n\
     sensor-0002,Second sensor,meter,secret,8_to_32-characters,,its secret is given\r\n";

/// Why a file is no list of devices.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is empty.
    #[error(
        "the file has no heading; expected node_id,device_name,product_id,auth_type,secret,fingerprint,description"
    )]
    NoHeading,
    /// A column that there is not.
    #[error(
        "the heading names {0:?}; there are node_id, product_id, device_name, auth_type, secret, fingerprint, description, device_id and psk_encoding"
    )]
    UnknownColumn(String),
    /// A column that must be there.
    #[error("the heading lacks {0}")]
    MissingColumn(&'static str),
    /// A column that is there twice.
    #[error("the heading names {0} twice")]
    ColumnTwice(&'static str),
    /// Nothing but the heading.
    #[error("the file has no row")]
    NoRows,
    /// More rows than allowed.
    #[error("more than {max} rows; the first one too many is on line {line}")]
    TooManyRows {
        /// How many there may be.
        max: usize,
        /// Where the first one too many begins.
        line: u32,
    },
    /// A row that does not end.
    #[error("the row after line {line} is longer than {max} bytes; a quote may be missing")]
    RowTooLong {
        /// How long it may be.
        max: usize,
        /// Where the row before began; 0: it is the heading.
        line: u32,
    },
    /// Another encoding.
    #[error("line {line} is not UTF-8 text; save the file as \"CSV UTF-8\"")]
    NotUtf8 {
        /// Where.
        line: u32,
    },
    /// The file cannot be read, or was changed.
    #[error("the spooled file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// A row as it stands in the file.
#[derive(Debug)]
pub(super) struct RawRow {
    /// Place among the rows, from 0.
    pub(super) index: u32,
    /// Line that it begins on, from 1.
    pub(super) line: u32,
    /// Line of the row that named the same device before.
    pub(super) same_as_line: Option<u32>,
    /// Whether it has more cells than the heading.
    pub(super) is_too_wide: bool,
    cells: Vec<Zeroizing<String>>,
}

impl RawRow {
    /// The cell of a column without the blanks around it; empty where there is none.
    pub(super) fn cell(&self, column: &str) -> &str {
        let at = COLUMNS.iter().position(|known| *known == column);
        at.and_then(|at| self.cells.get(at))
            .map_or("", |cell| cell.as_str())
    }
}

/// The rows of a file.
pub(super) struct Rows<R> {
    reader: csv::Reader<Text<R>>,
    record: ByteRecord,
    /// For each cell of the file, which of [`COLUMNS`] it is.
    columns: Vec<usize>,
    next: u32,
    max_row_bytes: usize,
    /// Devices that were named, by a digest, with their lines.
    seen: HashMap<[u8; 16], u32>,
}

impl<R: Read> Rows<R> {
    /// Reads the heading.
    pub(super) fn open(source: R, max_row_bytes: usize) -> Result<Self, FileError> {
        let mut text = Text::new(source, max_row_bytes);
        let delimiter = text.delimiter().map_err(FileError::Unreadable)?;
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .terminator(Terminator::Any(b'\n'))
            .from_reader(text);
        let mut rows = Self {
            reader,
            record: ByteRecord::new(),
            columns: Vec::new(),
            next: 0,
            max_row_bytes,
            seen: HashMap::new(),
        };
        if rows.read(0)?.is_none() {
            return Err(FileError::NoHeading);
        }
        rows.columns = columns(&rows.record)?;
        Ok(rows)
    }

    /// The next rows, up to `count`; none at the end.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<RawRow>, FileError> {
        let mut rows = Vec::new();
        let mut last_line = 0;
        while rows.len() < count {
            let Some(line) = self.read(last_line)? else {
                break;
            };
            last_line = line;
            let row = self.row(line);
            self.next += 1;
            rows.push(row);
        }
        Ok(rows)
    }

    /// Passes over rows that are done, taking note of the devices that they name.
    pub(super) fn skip(&mut self, count: u32) -> Result<(), FileError> {
        for _ in 0..count {
            if self.take(1)?.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Reads to the end and checks that everything is text; says how many rows there are.
    pub(super) fn count(mut self, max: usize) -> Result<u32, FileError> {
        let mut last_line = 0;
        let mut count = 0_u32;
        while let Some(line) = self.read(last_line)? {
            last_line = line;
            if usize::try_from(count).unwrap_or(usize::MAX) >= max {
                return Err(FileError::TooManyRows { max, line });
            }
            count += 1;
        }
        if count == 0 {
            return Err(FileError::NoRows);
        }
        Ok(count)
    }

    fn row(&mut self, line: u32) -> RawRow {
        let mut cells = vec![Zeroizing::default(); COLUMNS.len()];
        for (cell, column) in self.record.iter().zip(&self.columns) {
            if let Some(to) = cells.get_mut(*column) {
                *to = Zeroizing::new(String::from_utf8_lossy(cell).trim().to_owned());
            }
        }
        let mut row = RawRow {
            index: self.next,
            line,
            same_as_line: None,
            is_too_wide: self
                .record
                .iter()
                .skip(self.columns.len())
                .any(|cell| !cell.is_empty()),
            cells,
        };
        let key = device_key(row.cell("product_id"), row.cell("node_id"));
        let first = *self.seen.entry(key).or_insert(line);
        row.same_as_line = (first != line).then_some(first);
        row
    }

    /// Reads the next row that is not blank and gives the line that it begins on.
    fn read(&mut self, last_line: u32) -> Result<Option<u32>, FileError> {
        loop {
            self.reader.get_mut().allow(self.max_row_bytes);
            let more = self.reader.read_byte_record(&mut self.record);
            let more = more.map_err(|error| self.explain(error, last_line))?;
            if !more {
                return Ok(None);
            }
            let line = self.line();
            if self
                .record
                .iter()
                .any(|cell| std::str::from_utf8(cell).is_err())
            {
                return Err(FileError::NotUtf8 { line });
            }
            if self.record.iter().any(|cell| !cell.trim_ascii().is_empty()) {
                return Ok(Some(line));
            }
        }
    }

    /// The line that the row just read begins on: it ended with a newline, and may hold some.
    fn line(&self) -> u32 {
        let newlines = |cell: &[u8]| cell.split(|byte| *byte == b'\n').count() - 1;
        let inside: usize = self.record.iter().map(newlines).sum();
        let after = self.reader.position().line();
        let line = after.saturating_sub(1 + u64::try_from(inside).unwrap_or(u64::MAX));
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn explain(&self, error: csv::Error, line: u32) -> FileError {
        if self.reader.get_ref().allowed == 0 {
            let max = self.max_row_bytes;
            return FileError::RowTooLong { max, line };
        }
        FileError::Unreadable(io::Error::other(error))
    }
}

fn device_key(product: &str, node: &str) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(product)
        .chain_update([0])
        .chain_update(node)
        .finalize();
    let mut key = [0; 16];
    key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    key
}

fn columns(heading: &ByteRecord) -> Result<Vec<usize>, FileError> {
    let mut columns = Vec::with_capacity(heading.len());
    for cell in heading {
        let name = String::from_utf8_lossy(cell).trim().to_ascii_lowercase();
        let found = COLUMNS
            .iter()
            .enumerate()
            .find(|(_, known)| **known == name);
        let Some((at, known)) = found else {
            return Err(FileError::UnknownColumn(name.chars().take(64).collect()));
        };
        if columns.contains(&at) {
            return Err(FileError::ColumnTwice(known));
        }
        columns.push(at);
    }
    for (at, needed) in COLUMNS.iter().enumerate().take(NEEDED) {
        if !columns.contains(&at) {
            return Err(FileError::MissingColumn(needed));
        }
    }
    Ok(columns)
}

/// Text with one kind of line end: without a byte order mark, LF for CRLF, and LF behind the last line. Of one row it
/// gives no more than it is told to.
struct Text<R> {
    source: R,
    ready: Vec<u8>,
    at: usize,
    after_cr: bool,
    is_begun: bool,
    has_ended: bool,
    /// Bytes that may be given until [`Text::allow`] is called again.
    allowed: usize,
}

impl<R: Read> Text<R> {
    fn new(source: R, allowed: usize) -> Self {
        Self {
            source,
            ready: Vec::new(),
            at: 0,
            after_cr: false,
            is_begun: false,
            has_ended: false,
            allowed,
        }
    }

    /// Lets the next row have so many bytes, beside what the reader holds already.
    fn allow(&mut self, bytes: usize) {
        self.allowed = bytes;
    }

    /// What separates cells: `;` where the first line has some and no `,`.
    fn delimiter(&mut self) -> io::Result<u8> {
        self.fill()?;
        let line = self
            .ready
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let is_semicolon = line.contains(&b';') && !line.contains(&b',');
        Ok(if is_semicolon { b';' } else { b',' })
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.has_ended {
            return Ok(());
        }
        let mut raw = Zeroizing::new([0; 8 * 1024]);
        let mut len = self.source.read(raw.as_mut_slice())?;
        // The mark is looked for in three bytes at least.
        while !self.is_begun && len > 0 && len < BOM.len() {
            let more = self.source.read(raw.get_mut(len..).unwrap_or_default())?;
            if more == 0 {
                break;
            }
            len += more;
        }
        let mut bytes = raw.get(..len).unwrap_or_default();
        if !self.is_begun {
            self.is_begun = true;
            bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        }
        self.ready.clear();
        self.at = 0;
        for &byte in bytes {
            if std::mem::take(&mut self.after_cr) && byte != b'\n' {
                self.ready.push(b'\r');
            }
            if byte == b'\r' {
                self.after_cr = true;
            } else {
                self.ready.push(byte);
            }
        }
        if len == 0 {
            self.has_ended = true;
            self.ready.push(b'\n');
        }
        Ok(())
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() && !self.has_ended {
            self.fill()?;
        }
        if self.allowed == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rest = self.ready.get(self.at..).unwrap_or_default();
        let room = out.len().min(self.allowed);
        let read = rest.read(out.get_mut(..room).unwrap_or_default())?;
        self.at += read;
        self.allowed -= read;
        Ok(read)
    }
}

/// How many of [`COLUMNS`] must be there.
const NEEDED: usize = 2;
const BOM: &[u8] = b"\xEF\xBB\xBF";

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "node_id,product_id,description\n";

    fn rows(text: &[u8]) -> Result<Vec<RawRow>, FileError> {
        Rows::open(text, 4096)?.take(1000)
    }

    fn error(text: impl AsRef<[u8]>) -> String {
        let text = text.as_ref();
        let counted = Rows::open(text, 4096).and_then(|rows| rows.count(3));
        counted.expect_err("refused").to_string()
    }

    #[test]
    fn what_programs_write_is_read_with_its_lines() {
        for text in [
            "node_id,product_id,description\nn1,p,\n\nn2,p,\"a\nb\"\nn3,p,x",
            "\u{feff}node_id,product_id,description\r\nn1,p,\r\n\r\nn2,p,\"a\r\nb\"\r\nn3,p,x\r\n",
            "\u{feff}\"node_id\";product_id;Description\r\n n1 ;p;\r\n;;\r\nn2;p;\"a\nb\"\r\nn3;p;x\r\n",
        ] {
            let rows = rows(text.as_bytes()).expect(text);
            let read: Vec<_> = rows
                .iter()
                .map(|row| {
                    (
                        row.index,
                        row.line,
                        row.cell("node_id"),
                        row.cell("description"),
                    )
                })
                .collect();
            let expected = [(0, 2, "n1", ""), (1, 4, "n2", "a\nb"), (2, 6, "n3", "x")];
            assert_eq!(read, expected, "{text}");
            assert!(rows.iter().all(|row| row.cell("secret").is_empty()));
        }
    }

    #[test]
    fn a_device_that_stands_twice_names_its_first_line() {
        let text = format!("{HEADING}n1,p,\nn1,q,\nn1,p,again\nn2,p,\n");
        let lines: Vec<_> = rows(text.as_bytes())
            .unwrap()
            .iter()
            .map(|row| row.same_as_line)
            .collect();
        assert_eq!(lines, [None, None, Some(2), None]);
        let mut skipped = Rows::open(text.as_bytes(), 4096).unwrap();
        skipped.skip(2).unwrap();
        let rest = skipped.take(10).unwrap();
        assert_eq!((rest[0].index, rest[0].same_as_line), (2, Some(2)));
    }

    #[test]
    fn wrong_headings_are_named() {
        assert!(error("").contains("no heading"));
        assert!(error("\n\n").contains("no heading"));
        assert!(error("node_id,colour\n").contains("\"colour\""));
        assert!(error("node_id,description\nn,d\n").contains("lacks product_id"));
        assert!(error("node_id,product_id,node_id\n").contains("twice"));
        assert!(error("n1,p,\n").contains("\"n1\""));
        assert!(error(HEADING).contains("no row"));
    }

    #[test]
    fn too_much_and_no_text_are_refused_by_line() {
        let many = format!("{HEADING}a,p,\nb,p,\nc,p,\nd,p,\n");
        assert!(error(many).contains("more than 3 rows; the first one too many is on line 5"));
        let endless = format!("{HEADING}a,p,\nb,p,\"{}", "x".repeat(100_000));
        assert!(error(endless).contains("after line 2 is longer than 4096 bytes"));
        let mut latin = format!("{HEADING}a,p,\nb,p,K").into_bytes();
        latin.extend_from_slice(b"\xe4te\n");
        assert!(error(latin).contains("line 3 is not UTF-8"));
        let utf16: Vec<u8> = HEADING.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(error([b"\xff\xfe".as_slice(), &utf16].concat()).contains("not UTF-8"));
        let wide = rows(format!("{HEADING}a,p,,more\nb,p,,\n").as_bytes()).unwrap();
        assert!(wide[0].is_too_wide && !wide[1].is_too_wide);
    }
}
