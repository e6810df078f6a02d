//! Plots as SVG, drawn here: lines over time, and distributions by percentile.
//!
//! No script and no colour that a page would have to bring: strokes and texts have classes.
//! Invariants: whatever the numbers are, what comes out is a plot of the same size.

use std::fmt::Write as _;

/// One line of a plot.
pub(super) struct Line {
    /// For the legend.
    pub(super) name: String,
    /// Where it goes; not all need to be there.
    pub(super) points: Vec<(f64, f64)>,
}

/// How the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Seconds.
    Seconds,
    /// Quantiles, ever finer towards 1.
    Quantiles,
}

/// A plot of `lines`; `show` writes what stands beside the vertical axis.
pub(super) fn plot(
    title: &str,
    lines: &[Line],
    axis: Axis,
    show: impl Fn(f64) -> String,
) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    let place = |x: f64| match axis {
        Axis::Seconds => finite(x),
        // 0.9 stands at 1, 0.99 at 2, and so on; the end at 4.5.
        Axis::Quantiles => -(1.0 - x).max(10_f64.powf(-4.5)).log10(),
    };
    let right = all().map(|(x, _)| place(x)).fold(1e-9, f64::max);
    let top = nice(all().map(|(_, y)| finite(y)).fold(0.0, f64::max));
    let at = |x: f64, y: f64| {
        let x = LEFT + place(x) / right * (WIDTH - LEFT - RIGHT);
        let y = HEIGHT - BOTTOM - (finite(y) / top).clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP);
        (x, y)
    };
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n"
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (_, y) = at(0.0, value);
        let (label, end) = (LEFT - 6.0, WIDTH - RIGHT);
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{end}\"/><text class=\"y\" x=\"{label}\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            show(value)
        );
    }
    for (x, label) in marks(axis, right) {
        let (x, _) = at(x, 0.0);
        let (y, low) = (HEIGHT - BOTTOM + 18.0, HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{low}\"/><text class=\"x\" x=\"{x:.1}\" y=\"{y}\">{label}</text>"
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (index, &(x, y)) in line.points.iter().enumerate() {
            let (x, y) = at(x, y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        let class = number % 6;
        let _ = writeln!(svg, "<path class=\"line c{class}\" d=\"{path}\"/>");
    }
    svg.push_str("</svg><p class=\"legend\">");
    for (number, line) in lines.iter().enumerate() {
        let _ = write!(svg, "<span class=\"c{}\">{}</span> ", number % 6, line.name);
    }
    svg.push_str("</p></figure>\n");
    svg
}

/// Places on the horizontal axis with what stands there.
fn marks(axis: Axis, right: f64) -> Vec<(f64, String)> {
    match axis {
        Axis::Seconds => {
            let step = nice(right / 6.0);
            let mut marks = Vec::new();
            let mut x = 0.0;
            while x <= right && marks.len() < 20 {
                marks.push((x, seconds(x)));
                x += step;
            }
            marks
        }
        Axis::Quantiles => [
            (0.0, "min"),
            (0.5, "p50"),
            (0.9, "p90"),
            (0.99, "p99"),
            (0.999, "p99.9"),
            (0.9999, "p99.99"),
        ]
        .map(|(x, label)| (x, label.to_owned()))
        .to_vec(),
    }
}

fn seconds(x: f64) -> String {
    if x >= 600.0 {
        format!("{:.0} min", x / 60.0)
    } else if x.fract() == 0.0 {
        format!("{x:.0} s")
    } else {
        format!("{x:.1} s")
    }
}

/// The next number of the form 1, 2, 4, 5 or 8 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    let step = steps
        .into_iter()
        .find(|step| step * power >= value * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (37.0, 40.0),
            (81.0, 100.0),
            (0.03, 0.04),
        ] {
            assert!((nice(value) - end).abs() < 1e-9, "{value}: {}", nice(value));
        }
    }

    #[test]
    fn a_plot_stays_within_its_frame_whatever_the_numbers_are() {
        for points in [
            vec![],
            vec![(0.0, 0.0)],
            vec![(0.0, f64::NAN), (f64::INFINITY, 3.0)],
            vec![(0.0, 5.0), (10.0, 1e12)],
        ] {
            for axis in [Axis::Seconds, Axis::Quantiles] {
                let line = Line {
                    name: "one".into(),
                    points: points.clone(),
                };
                let svg = plot("t", &[line], axis, |value| format!("{value:.0}"));
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
