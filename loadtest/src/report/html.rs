//! The report as one page: the text, tables and plots, with nothing that is elsewhere.
//!
//! Invariants: it loads nothing and runs nothing; whatever came from outside is escaped.

use std::fmt::Write as _;

use super::plot::{Axis, Line, plot};
use super::text::{mib, time};
use super::{Report, as_f64};
use crate::timeline::Point;

impl Report {
    /// The page; `command` is the line that the run was started with.
    pub(crate) fn to_html(&self, command: &str) -> String {
        let verdict = if self.ok { "OK" } else { "FAILED" };
        let class = if self.ok { "ok" } else { "failed" };
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>swarm {scenario}: {verdict}</title>\n<style>{STYLE}</style>\n\
             <h1>swarm {scenario} <span class=\"{class}\">{verdict}</span></h1>\n<p><code>{command}</code></p>\n",
            scenario = self.scenario,
            command = escape(command),
        );
        if !self.broken.is_empty() {
            page.push_str("<ul class=\"failed\">");
            for broken in &self.broken {
                let _ = write!(page, "<li>{}</li>", escape(&broken.to_string()));
            }
            page.push_str("</ul>\n");
        }
        page.push_str(&self.table());
        page.push_str("<div class=\"plots\">\n");
        page.push_str(&self.plots());
        let _ = write!(
            page,
            "</div>\n<h2>In words</h2>\n<pre>{}</pre>\n</html>\n",
            escape(&self.to_string())
        );
        page
    }

    fn table(&self) -> String {
        let mut table = String::from(
            "<h2>Times</h2>\n<table><tr><th><th>count<th>min<th>p50<th>p90<th>p99<th>p99.9<th>max\n",
        );
        for (name, it) in self.distributions() {
            let _ = write!(table, "<tr><th>{name}<td>{}", it.count);
            let columns = [
                it.min_ms, it.p50_ms, it.p90_ms, it.p99_ms, it.p999_ms, it.max_ms,
            ];
            for ms in columns {
                let _ = write!(table, "<td>{}", time(ms));
            }
            table.push('\n');
        }
        table.push_str("</table>\n");
        if let Some(soak) = &self.soak
            && let Some(memory) = &soak.memory
        {
            let _ = writeln!(
                table,
                "<p>Memory of the server: {} to {}, {:+.2} % in {:.0} s.</p>",
                mib(memory.rss_start_bytes),
                mib(memory.rss_end_bytes),
                memory.growth * 100.0,
                memory.seconds
            );
        }
        table
    }

    fn plots(&self) -> String {
        let points = thinned(&self.timeline);
        let points = &points[..];
        let mut plots = String::new();
        let line = |name: &str, of: &dyn Fn(&Point) -> Option<f64>| Line {
            name: name.to_owned(),
            points: points.iter().filter_map(|p| Some((p.t, of(p)?))).collect(),
        };
        let count = |value: f64| format!("{value:.0}");
        let mut add = |title: &str, lines: Vec<Line>, show: &dyn Fn(f64) -> String| {
            let drawn: Vec<_> = lines
                .into_iter()
                .filter(|line| line.points.len() > 1)
                .collect();
            if !drawn.is_empty() {
                plots.push_str(&plot(title, &drawn, Axis::Seconds, show));
            }
        };
        if self.messages.is_some() {
            let lines = vec![
                rate("published", points, |p| p.sent),
                rate("acknowledged", points, |p| p.acked),
                rate("heard", points, |p| p.received),
            ];
            add("Messages a second", lines, &count);
            let lines = vec![
                line("to PUBACK, p99", &|p| p.puback_p99_ms),
                line("to listener, p99", &|p| p.end_to_end_p99_ms),
            ];
            add("Latency within each second", lines, &|ms| time(ms));
        }
        if self.delivery.is_some() || self.uploads.is_some() {
            let line = rate("bytes", points, |p| p.bytes);
            add("Bytes a second", vec![line], &|bytes| {
                format!("{:.0} MB", bytes / 1e6)
            });
        }
        let lines = vec![
            line("connected", &|p| Some(as_f64(p.connected))),
            line("cut by the run, so far", &|p| Some(as_f64(p.planned_drops))),
            line("lost and made again, so far", &|p| {
                Some(as_f64(p.reconnects))
            }),
        ];
        add("Connections", lines, &count);
        let memory = line("resident", &|p| p.rss_bytes.map(as_f64));
        add("Memory of the server", vec![memory], &|bytes| {
            format!("{:.0} MiB", bytes / as_f64(1 << 20))
        });
        let cpu = derivative(
            "CPU",
            points.iter().filter_map(|p| Some((p.t, p.cpu_secs?))),
        );
        add("CPU of the server, cores", vec![cpu], &|cores| {
            format!("{cores:.2}")
        });
        let curves = self.distributions().into_iter().map(|(name, it)| Line {
            name: name.to_owned(),
            points: it.curve.clone(),
        });
        let curves: Vec<_> = curves.collect();
        if !curves.is_empty() {
            plots.push_str(&plot("Times by percentile", &curves, Axis::Quantiles, time));
        }
        plots
    }
}

/// What a counter grew by, a second.
fn rate(name: &str, points: &[Point], of: impl Fn(&Point) -> u64) -> Line {
    derivative(
        name,
        points.iter().map(|point| (point.t, as_f64(of(point)))),
    )
}

fn derivative(name: &str, points: impl Iterator<Item = (f64, f64)>) -> Line {
    let points: Vec<_> = points.collect();
    let steps = points.windows(2).filter_map(|two| match two {
        &[(from, before), (to, after)] if to > from => {
            Some((to, (after - before).max(0.0) / (to - from)))
        }
        _ => None,
    });
    Line {
        name: name.to_owned(),
        points: steps.collect(),
    }
}

/// As many points as a plot can show.
fn thinned(points: &[Point]) -> Vec<Point> {
    let step = points.len().div_ceil(MAX_POINTS).max(1);
    points.iter().step_by(step).copied().collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const MAX_POINTS: usize = 700;
const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--grid:#dde3ea;--paper:#fff;--c0:#1f6feb;--c1:#d97706;--c2:#0f9d76;--c3:#b4309c;--c4:#6b7280;--c5:#c62828}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa5b4;--grid:#2c3542;--paper:#12161c;--c0:#6ea8fe;--c1:#f0a64a;--c2:#4cc9a4;--c3:#e07fd0;--c4:#9ca3af;--c5:#ff7b72}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1500px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}.ok{color:var(--c2)}.failed{color:var(--c5)}
code,pre{font:13px/1.5 ui-monospace,monospace}code{overflow-wrap:anywhere}pre{overflow-x:auto}
table{border-collapse:collapse;display:block;overflow-x:auto}th,td{padding:.25rem .75rem;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap}th:first-child{text-align:left;font-weight:600}tr:first-child th{color:var(--soft);font-weight:400}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,560px),1fr));gap:1.5rem;margin-top:1.5rem}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto;display:block}
.grid{stroke:var(--grid);fill:none}.line{fill:none;stroke-width:1.8;stroke:currentColor;stroke-linejoin:round}
text{fill:var(--soft);font-size:12px}.x{text-anchor:middle}.y{text-anchor:end}
.legend{margin:.25rem 0 0 4.75rem}.legend span{display:inline-block;margin-right:1rem}.legend span::before{content:'';display:inline-block;width:1.1em;height:3px;background:currentColor;margin-right:.4em;vertical-align:middle}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{Stats, Timing};

    #[test]
    fn the_page_needs_nothing_besides_itself_and_escapes_what_it_shows() {
        let stats = Stats::default();
        stats.record(Timing::Ready, Duration::from_millis(3));
        stats.problem("x", || "<script>alert(1)</script>".to_owned());
        let mut report = Report::new("connect", 1, &stats, 1.0);
        report.timeline = (0..3_u32)
            .map(|second| Point {
                t: f64::from(second),
                connected: 1,
                ..Point::default()
            })
            .collect();
        let page = report.to_html("swarm connect --product '<b>'");
        for outside in [
            "<script", "src=", "href=", "http:", "https:", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("'&lt;b&gt;'"));
        assert_eq!(page.matches("<svg").count(), 2);
    }
}
