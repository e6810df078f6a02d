//! A small chart: one line over the last minutes, an hour at most, drawn as SVG.

use std::fmt::Write as _;

use crate::telemetry::trend::INTERVAL;

/// Samples that the width stands for at least: five minutes.
const MIN_SAMPLES: usize = 31;

/// Units of the drawing; the page stretches it.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 60.0;

/// A line with its highest and last value.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// The points of the line; empty before the second sample.
    pub(super) line: String,
    /// The same, closed along the bottom.
    pub(super) area: String,
    pub(super) last: String,
    pub(super) most: String,
    /// Minutes that its width stands for.
    pub(super) minutes: u64,
}

impl Chart {
    /// A chart of samples, the oldest first; the newest stands at the right edge.
    pub(super) fn new(title: &'static str, values: &[f64], show: impl Fn(f64) -> String) -> Self {
        let most = values.iter().copied().fold(0.0, f64::max);
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let step = WIDTH / count(values.len().max(MIN_SAMPLES) - 1);
        let first = WIDTH - step * count(values.len().saturating_sub(1));
        let mut line = String::new();
        if values.len() > 1 {
            for (index, value) in values.iter().enumerate() {
                let x = step.mul_add(count(index), first);
                // A margin above and below, so that the line's own width is not cut.
                let y = HEIGHT - 2.0 - (HEIGHT - 6.0) * value / most.max(f64::MIN_POSITIVE);
                // Writing to a string cannot fail.
                let _written = write!(line, "{x:.1},{y:.1} ");
            }
        }
        let area = if line.is_empty() {
            String::new()
        } else {
            format!("{first:.1},{HEIGHT} {line}{WIDTH},{HEIGHT}")
        };
        Self {
            title,
            line,
            area,
            last: show(values.last().copied().unwrap_or(0.0)),
            most: show(most),
            minutes: (values.len().max(MIN_SAMPLES) - 1) as u64 * INTERVAL.as_secs() / 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sample_is_at_the_right_and_the_highest_at_the_top() {
        let chart = Chart::new("x", &[0.0, 10.0, 5.0], |value| value.to_string());
        assert_eq!(chart.line.trim(), "336.0,58.0 348.0,4.0 360.0,31.0");
        assert_eq!((chart.last.as_str(), chart.most.as_str()), ("5", "10"));
        assert!(chart.area.starts_with("336.0,60 ") && chart.area.ends_with(" 360,60"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let chart = Chart::new("x", &[], |value| value.to_string());
        assert!(chart.line.is_empty() && chart.area.is_empty());
        let still = Chart::new("x", &[0.0, 0.0], |value| value.to_string());
        assert!(still.line.contains("360.0,58.0"));
    }
}
