//! Warnings and errors that repeat: some of each kind every second, and how many were left out.
//!
//! A store that is away must not fill the disk with one line for each of thousands of devices. What
//! is left out is told by a line of its own as soon as the same place has something to say again.
//! Invariants: the table has one entry for each place in the program that warns, and no more.

use std::{fmt::Write as _, io::Write as _, time::Instant};

use dashmap::DashMap;
use tracing::{Event, Level, Metadata, callsite::Identifier};
use tracing_subscriber::{
    fmt::{MakeWriter, format::Writer, time::FormatTime as _, time::SystemTime},
    layer::{Context, Filter},
};

/// Lines of one place in each second.
const PER_SECOND: u32 = 20;

/// Lets some of what repeats through.
pub(super) struct Repeats<W> {
    writer: W,
    json: bool,
    since: Instant,
    places: DashMap<Identifier, Place>,
}

/// What one place of the program wrote.
#[derive(Debug, Default)]
struct Place {
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Place {
    /// Whether a line is written in `second`; with how many were left out before it.
    const fn admit(&mut self, second: u64) -> Option<u64> {
        if self.second != second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines >= PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        let left_out = self.left_out;
        self.left_out = 0;
        Some(left_out)
    }
}

impl<W> Repeats<W> {
    /// Tells through `writer` what was left out.
    pub(super) fn new(writer: W, json: bool) -> Self {
        Self {
            writer,
            json,
            since: Instant::now(),
            places: DashMap::new(),
        }
    }
}

impl<W: for<'w> MakeWriter<'w>> Repeats<W> {
    fn tell(&self, count: u64, of: &Metadata<'_>) {
        let mut time = String::new();
        if SystemTime.format_time(&mut Writer::new(&mut time)).is_err() {
            return;
        }
        let (file, line) = (of.file().unwrap_or_default(), of.line().unwrap_or_default());
        let mut text = String::new();
        // Names of files and modules are ours, and need no escape. Writing to a string does not fail.
        let _ = if self.json {
            writeln!(
                text,
                r#"{{"timestamp":"{time}","level":"WARN","message":"lines were left out","count":{count},"of":"{}","place":"{file}:{line}","target":"headgate::telemetry::log"}}"#,
                of.target()
            )
        } else {
            writeln!(
                text,
                "{time}  WARN headgate::telemetry::log: lines were left out count={count} of={} place={file}:{line}",
                of.target()
            )
        };
        // Nobody reads: there is nobody to tell that either.
        let _ = self.writer.make_writer().write_all(text.as_bytes());
    }
}

impl<S, W: for<'w> MakeWriter<'w> + 'static> Filter<S> for Repeats<W> {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let of = event.metadata();
        if *of.level() > Level::WARN {
            return true;
        }
        let second = self.since.elapsed().as_secs();
        let admitted = self.places.entry(of.callsite()).or_default().admit(second);
        if let Some(left_out) = admitted.filter(|left_out| *left_out > 0) {
            self.tell(left_out, of);
        }
        admitted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_told_with_the_next_line() {
        let mut place = Place::default();
        let admitted = (0..100).filter(|_| place.admit(0) == Some(0)).count();
        assert_eq!(admitted, 20);
        assert_eq!(place.admit(1), Some(80));
        assert_eq!(place.admit(1), Some(0));
    }
}
