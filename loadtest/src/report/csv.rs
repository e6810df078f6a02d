//! The run second by second, as CSV: the same columns for every scenario, empty where nothing was taken.

use std::fmt::Write as _;

use super::Report;

impl Report {
    /// The timeline, with a line of names in front.
    pub(crate) fn to_csv(&self) -> String {
        let mut text = String::from(COLUMNS);
        for point in &self.timeline {
            let shown = |value: Option<f64>| value.map(|value| format!("{value:.3}"));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{:.3},{},{},{},{},{},{},{},{},{},{},{},{}",
                point.t,
                point.connected,
                point.ended,
                point.reconnects,
                point.planned_drops,
                point.bytes,
                point.sent,
                point.acked,
                point.received,
                shown(point.puback_p99_ms).unwrap_or_default(),
                shown(point.end_to_end_p99_ms).unwrap_or_default(),
                point
                    .rss_bytes
                    .map(|rss| rss.to_string())
                    .unwrap_or_default(),
                shown(point.cpu_secs).unwrap_or_default(),
            );
        }
        text
    }
}

const COLUMNS: &str = "seconds,connected,ended,reconnects,planned_drops,bytes,sent,acked,received,\
    puback_p99_ms,end_to_end_p99_ms,server_rss_bytes,server_cpu_seconds\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;
    use crate::timeline::Point;

    #[test]
    fn every_line_has_every_column() {
        let mut report = Report::new("connect", 1, &Stats::default(), 0.0);
        report.timeline = vec![
            Point::default(),
            Point {
                t: 1.0,
                rss_bytes: Some(7),
                puback_p99_ms: Some(1.5),
                ..Point::default()
            },
        ];
        let text = report.to_csv();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == 13), "{text}");
        assert_eq!((lines[2][9], lines[2][11]), ("1.500", "7"));
    }
}
