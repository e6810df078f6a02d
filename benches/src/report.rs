//! What was found: a table for people, and the same figures as JSON.
//!
//! GB is 10^9 bytes, MiB 2^20. Invariants: every figure keeps all of its runs; one that was not
//! taken is absent and a note says why.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::BenchError;

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The command that gave them.
    pub(crate) command: String,
    /// Cores of this machine.
    pub(crate) cores: usize,
    /// Load average before the first run: above zero, something else was running.
    pub(crate) load_before: Option<f64>,
    /// In the order in which they were measured.
    pub(crate) sections: Vec<Section>,
}

/// The figures of one piece of work.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    /// What was done.
    pub(crate) title: String,
    /// What was counted, for each who did it.
    pub(crate) figures: Vec<Figure>,
    /// What one must know to read them.
    pub(crate) notes: Vec<String>,
}

/// One quantity of one program, or the ratio of two.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// Whose, and of which work.
    pub(crate) name: String,
    /// Of `runs`, `median` and the bars.
    pub(crate) unit: &'static str,
    /// One for each run, in order.
    pub(crate) runs: Vec<f64>,
    /// Median of `runs`.
    pub(crate) median: Option<f64>,
    /// At most this is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) must: Option<f64>,
    /// At most this is aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aim: Option<f64>,
}

impl Section {
    /// A section without figures.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a figure without a bar; nothing when there was no run.
    pub(crate) fn figure(&mut self, name: impl Into<String>, unit: &'static str, runs: &[f64]) {
        self.bar(name, unit, runs, None, None);
    }

    /// Adds a figure with its bar; nothing when there was no run.
    pub(crate) fn bar(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        runs: &[f64],
        must: impl Into<Option<f64>>,
        aim: impl Into<Option<f64>>,
    ) {
        if !runs.is_empty() {
            self.figures.push(Figure {
                name: name.into(),
                unit,
                runs: runs.to_vec(),
                median: median(runs),
                must: must.into(),
                aim: aim.into(),
            });
        }
    }

    /// Adds a note.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Report {
    /// A report that names this command and machine.
    pub(crate) fn new() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            command: format!("side-by-side {}", arguments.join(" ")),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            load_before: load.split(' ').next().and_then(|first| first.parse().ok()),
            sections: Vec::new(),
        }
    }

    /// Writes all of it to `path`.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub(crate) fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        // Plain structs of numbers and text always serialise.
        let json = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        fs::write(path, json).map_err(BenchError::file(path))
    }
}

impl Figure {
    fn verdict(&self) -> &'static str {
        match (self.median, self.must, self.aim) {
            (Some(median), _, Some(aim)) if median <= aim => "aim reached",
            (Some(median), Some(must), _) if median <= must => "met",
            (Some(_), Some(_), _) => "MISSED",
            _ => "",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.command.trim_end())?;
        write!(f, "{} cores", self.cores)?;
        if let Some(load) = self.load_before {
            write!(f, ", load {load:.2} before the first run")?;
        }
        writeln!(f)?;
        self.sections
            .iter()
            .try_for_each(|section| write!(f, "\n{section}"))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let width = self
            .figures
            .iter()
            .map(|figure| figure.name.chars().count());
        let width = width.max().unwrap_or(0);
        for figure in &self.figures {
            write!(f, "  {:width$}  {figure}", figure.name)?;
            writeln!(f)?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  - {note}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = number(self.median.unwrap_or(f64::NAN));
        write!(f, "{median:>9} {}", self.unit)?;
        if self.runs.len() > 1 {
            let low = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
            let high = self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (low, high) = (number(low), number(high));
            write!(f, " ({low}-{high}, n {})", self.runs.len())?;
        }
        if let Some(must) = self.must {
            write!(f, "  must {}", number(must))?;
        }
        if let Some(aim) = self.aim {
            write!(f, "  aim {}", number(aim))?;
        }
        match self.verdict() {
            "" => Ok(()),
            verdict => write!(f, "  {verdict}"),
        }
    }
}

/// Three figures that count, thousands apart.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let split = digits.len().saturating_sub(3);
            match digits.split_at_checked(split) {
                Some((thousands, rest)) => format!("{thousands},{rest}"),
                None => digits,
            }
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle of `runs`, or the mean of the two in the middle; `None` without runs.
pub(crate) fn median(runs: &[f64]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied()?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1).copied()?;
    Some(f64::midpoint(lower, upper))
}

/// Nearest `f64`, for figures below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, exact below 2^53"
)]
pub(crate) const fn as_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_table_shows_the_spread_and_the_bar() {
        let mut section = Section::new("work");
        section.bar("ratio", "x", &[0.8, 0.6, 0.7], 0.75, 0.62);
        section.figure("memory", "B", &[15_519.0]);
        section.figure("absent", "B", &[]);
        let text = section.to_string();
        assert!(text.contains("0.700 x (0.600-0.800, n 3)  must 0.750  aim 0.620  met"));
        assert!(
            text.contains("15,519 B") && !text.contains("absent"),
            "{text}"
        );
    }
}
