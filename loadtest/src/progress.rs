//! What a person sees while a run goes on: bars on a terminal, else a line every few seconds.
//!
//! Everything goes to standard error; standard output is the report's alone.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// Progress of one phase.
pub(crate) struct Phase {
    name: &'static str,
    bar: Option<ProgressBar>,
    total: u64,
    unit: Unit,
    started: Instant,
    next_line: Instant,
}

/// What a phase counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Devices.
    Devices,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Phase {
    /// Begins a phase of `total` `unit`s.
    pub(crate) fn start(name: &'static str, total: u64, unit: Unit) -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
            bar.set_style(style(unit));
            bar.set_prefix(name);
            bar
        });
        let now = Instant::now();
        Self {
            name,
            bar,
            total,
            unit,
            started: now,
            next_line: now + LINE_INTERVAL,
        }
    }

    /// Shows where the phase stands; `message` is made only when it is shown.
    pub(crate) fn update(&mut self, position: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message());
            return;
        }
        let now = Instant::now();
        if now >= self.next_line {
            self.next_line = now + LINE_INTERVAL;
            let line = self.line(position, &message());
            // Nobody reads: the run goes on.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    fn line(&self, position: u64, message: &str) -> String {
        let secs = self.started.elapsed().as_secs();
        let (position, total) = match self.unit {
            Unit::Devices => (position.to_string(), self.total.to_string()),
            Unit::Seconds => (format!("{position} s"), format!("{} s", self.total)),
            Unit::Bytes => (megabytes(position), megabytes(self.total)),
        };
        format!(
            "{:>4} s  {}: {position} of {total}  {message}",
            secs, self.name
        )
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Devices => "{prefix:>10} [{wide_bar}] {pos}/{len} {per_sec} eta {eta} {msg}",
        Unit::Seconds => "{prefix:>10} [{wide_bar}] {pos}/{len} s {msg}",
        Unit::Bytes => {
            "{prefix:>10} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} eta {eta} {msg}"
        }
    };
    let style = ProgressStyle::with_template(template).expect("constant templates are valid");
    style.progress_chars("=> ")
}

/// Between lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_is_counted() {
        let phase = Phase::start("deliver", 8_000_000, Unit::Bytes);
        assert_eq!(
            phase.line(4_000_000, "3 done"),
            "   0 s  deliver: 4 MB of 8 MB  3 done"
        );
        let phase = Phase::start("connect", 10, Unit::Devices);
        assert_eq!(phase.line(4, ""), "   0 s  connect: 4 of 10  ");
    }

    #[test]
    fn every_style_is_valid() {
        for unit in [Unit::Devices, Unit::Bytes, Unit::Seconds] {
            let _ = style(unit);
        }
    }
}
