//! JSON without the control characters that JSON allows.
//!
//! JSON escapes what is below U+0020. U+007F to U+009F are control characters as well, and some
//! terminals obey them: here they are escaped like the others.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers that escape.
pub(super) struct Escaping<W>(pub(super) W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = Escaped<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaped(self.0.make_writer())
    }
}

/// A writer that escapes.
pub(super) struct Escaped<W>(W);

impl<W: io::Write> io::Write for Escaped<W> {
    /// Takes a whole line, as the log gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match escaped(line) {
            Some(safe) => self.0.write_all(&safe)?,
            None => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `line` with the escapes that it lacks; `None` where it lacks none. In JSON such characters can
/// stand in a string alone, where an escape means the same.
fn escaped(line: &[u8]) -> Option<Vec<u8>> {
    use std::fmt::Write as _;

    let text = std::str::from_utf8(line).ok()?;
    let is_meant = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !text.contains(is_meant) {
        return None;
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_meant(c) {
            // Writing to a string does not fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Some(safe.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_obey_is_escaped_and_means_the_same() {
        let value = "a\u{7f}b\u{9b}31mc\u{a0}\u{1f600}";
        let line = serde_json::to_string(value).expect("text");
        let safe = escaped(line.as_bytes()).expect("escaped");
        let safe = String::from_utf8(safe).expect("UTF-8");
        assert!(!safe.contains(['\u{7f}', '\u{9b}']), "{safe:?}");
        assert_eq!(serde_json::from_str::<String>(&safe).expect("JSON"), value);
        assert_eq!(escaped("plain \u{e9}".as_bytes()), None);
    }
}
