//! What must hold of a run: `p99<2s,failed=0`, read with types and checked against its report.
//!
//! Invariants: a figure that was not taken holds no bound.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::Serialize;

use super::{Percentiles, Report, as_f64};

/// Bounds, all of which must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bounds(Vec<Bound>);

#[derive(Debug, Clone, PartialEq)]
struct Bound {
    metric: Metric,
    order: Order,
    /// In milliseconds, bytes, a share, or as a plain number.
    value: f64,
    text: String,
}

/// A figure of the report.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// A percentile of a distribution; without a name, of the scenario's own.
    Time(Option<Distribution>, Stat),
    Number(Number),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distribution {
    Tls,
    Login,
    Ready,
    FirstByte,
    Duration,
    PubAck,
    EndToEnd,
    Reconnect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stat {
    Min,
    P50,
    P90,
    P99,
    P999,
    Max,
    Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Ok,
    Failed,
    Wrong,
    Left,
    Errors,
    Reconnects,
    ConnectRate,
    Sent,
    Rate,
    Lost,
    Duplicates,
    Unacked,
    Refused,
    Tolerated,
    RssMax,
    RssGrowth,
}

/// What a number is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Plain,
    Bytes,
    Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Unequal,
}

/// A bound that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Broken {
    /// As it was given.
    pub(crate) bound: String,
    /// What the run had; absent: nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) was: Option<String>,
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.was {
            Some(was) => write!(f, "{}: was {was}", self.bound),
            None => write!(f, "{}: was not measured", self.bound),
        }
    }
}

impl Bounds {
    /// The bounds that do not hold of `report`.
    pub(crate) fn broken(&self, report: &Report) -> Vec<Broken> {
        let broken = self.0.iter().filter_map(|bound| {
            let value = bound.metric.of(report);
            let holds = value.is_some_and(|value| bound.order.holds(value, bound.value));
            (!holds).then(|| Broken {
                bound: bound.text.clone(),
                was: value.map(|value| bound.metric.show(value)),
            })
        });
        broken.collect()
    }
}

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bounds = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let bounds: Vec<_> = bounds.map(parse).collect::<Result<_, _>>()?;
        if bounds.is_empty() {
            return Err("write bounds like 'p99<2s,failed=0'".to_owned());
        }
        Ok(Self(bounds))
    }
}

fn parse(text: &str) -> Result<Bound, String> {
    let at = text
        .find(['<', '>', '=', '!'])
        .ok_or_else(|| format!("`{text}` has no <, <=, >, >=, = or !="))?;
    let (name, rest) = text.split_at(at);
    let orders = [
        ("<=", Order::AtMost),
        (">=", Order::AtLeast),
        ("!=", Order::Unequal),
        ("==", Order::Equal),
        ("<", Order::Less),
        (">", Order::More),
        ("=", Order::Equal),
    ];
    let order = orders
        .into_iter()
        .find_map(|(sign, order)| Some((order, rest.strip_prefix(sign)?)));
    let Some((order, value)) = order else {
        return Err(format!("`{text}`: write != for unequal"));
    };
    let metric = Metric::parse(name.trim())?;
    let value = metric
        .parse_value(value.trim())
        .map_err(|why| format!("`{text}`: {why}"))?;
    Ok(Bound {
        metric,
        order,
        value,
        text: text.to_owned(),
    })
}

impl Metric {
    fn parse(name: &str) -> Result<Self, String> {
        if let Some(number) = find(&NUMBERS, name) {
            return Ok(Self::Number(number));
        }
        let (distribution, stat) = match name.split_once('.') {
            Some((distribution, stat)) => (Some(distribution), stat),
            None => (None, name),
        };
        let unknown = || {
            let names = |all: &[&str]| all.join(", ");
            format!(
                "`{name}` is no figure; there are {}; and {}, each alone or behind one of {}, as in puback.p99",
                names(&NUMBERS.map(|(name, _)| name)),
                names(&STATS.map(|(name, _)| name)),
                names(&DISTRIBUTIONS.map(|(name, _)| name)),
            )
        };
        let stat = find(&STATS, stat).ok_or_else(unknown)?;
        let distribution = match distribution {
            Some(name) => Some(find(&DISTRIBUTIONS, name).ok_or_else(unknown)?),
            None => None,
        };
        Ok(Self::Time(distribution, stat))
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Time(..) => Kind::Time,
            Self::Number(Number::RssMax) => Kind::Bytes,
            Self::Number(Number::RssGrowth) => Kind::Share,
            Self::Number(_) => Kind::Plain,
        }
    }

    fn parse_value(self, text: &str) -> Result<f64, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let unit = text.strip_prefix(digits).unwrap_or_default();
        let number: f64 = digits
            .trim()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| format!("`{text}` is no number"))?;
        match find(self.kind().units(), unit) {
            Some(factor) => Ok(number * factor),
            None if unit.is_empty() => Err("a time needs a unit: us, ms, s or m".to_owned()),
            None => Err(format!("`{unit}` is no unit of this figure")),
        }
    }

    fn of(self, report: &Report) -> Option<f64> {
        match self {
            Self::Time(distribution, stat) => {
                let percentiles = match distribution {
                    Some(distribution) => distribution.of(report),
                    None => report.main_distribution(),
                };
                percentiles.map(|percentiles| stat.of(percentiles))
            }
            Self::Number(number) => number.of(report),
        }
    }

    fn show(self, value: f64) -> String {
        match self.kind() {
            Kind::Time => format!("{value:.2}ms"),
            Kind::Bytes => format!("{:.1}MiB", value / 1_048_576.0),
            Kind::Share => format!("{:.2}%", value * 100.0),
            Kind::Plain if value.fract() == 0.0 => format!("{value:.0}"),
            Kind::Plain => format!("{value:.2}"),
        }
    }
}

impl Kind {
    /// What a value may end with, and what it is multiplied by.
    const fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Time => &[
                ("us", 1e-3),
                ("ms", 1.0),
                ("s", 1e3),
                ("m", 6e4),
                ("min", 6e4),
            ],
            Self::Plain => &[("", 1.0)],
            Self::Bytes => &[
                ("", 1.0),
                ("B", 1.0),
                ("KiB", 1024.0),
                ("MiB", 1_048_576.0),
                ("GiB", 1_073_741_824.0),
            ],
            Self::Share => &[("", 1.0), ("%", 0.01)],
        }
    }
}

impl Distribution {
    fn of(self, report: &Report) -> Option<&Percentiles> {
        let messages = report.messages.as_ref();
        let delivery = report.delivery.as_ref();
        let uploads = report.uploads.as_ref();
        match self {
            Self::Tls => report.connect.tls.as_ref(),
            Self::Login => report.connect.login.as_ref(),
            Self::Ready => report.connect.ready.as_ref(),
            Self::FirstByte => delivery?.first_byte.as_ref(),
            Self::Duration => match (delivery, uploads) {
                (Some(delivery), _) => delivery.duration.as_ref(),
                (None, uploads) => uploads?.duration.as_ref(),
            },
            Self::PubAck => messages?.puback.as_ref(),
            Self::EndToEnd => messages?.end_to_end.as_ref(),
            Self::Reconnect => messages?.reconnect.as_ref(),
        }
    }
}

impl Stat {
    const fn of(self, percentiles: &Percentiles) -> f64 {
        match self {
            Self::Min => percentiles.min_ms,
            Self::P50 => percentiles.p50_ms,
            Self::P90 => percentiles.p90_ms,
            Self::P99 => percentiles.p99_ms,
            Self::P999 => percentiles.p999_ms,
            Self::Max => percentiles.max_ms,
            Self::Mean => percentiles.mean_ms,
        }
    }
}

impl Number {
    fn of(self, report: &Report) -> Option<f64> {
        let messages = report.messages.as_ref();
        let count = |n: u64| Some(as_f64(n));
        match self {
            Self::Ok => count(report.devices.ok),
            Self::Failed => count(report.devices.failed),
            Self::Wrong => count(report.devices.wrong),
            Self::Left => count(report.devices.left),
            Self::Errors => count(report.errors.values().map(|error| error.count).sum()),
            Self::Reconnects => count(report.connect.reconnects),
            Self::ConnectRate => Some(report.connect.per_second),
            Self::Sent => count(messages?.sent),
            Self::Rate => Some(messages?.per_second),
            Self::Lost => count(messages?.lost?),
            Self::Duplicates => count(messages?.duplicates),
            Self::Unacked => count(messages?.unacked),
            Self::Refused => count(messages?.refused),
            Self::Tolerated => {
                let chaos = report.chaos.as_ref()?;
                count(chaos.malformed.saturating_sub(chaos.malformed_refused))
            }
            Self::RssMax => {
                let rss = report.timeline.iter().filter_map(|point| point.rss_bytes);
                let peak = report.server.as_ref().map(|server| server.rss_max_bytes);
                rss.chain(peak).max().map(as_f64)
            }
            Self::RssGrowth => Some(report.soak.as_ref()?.memory?.growth),
        }
    }
}

impl Order {
    fn holds(self, value: f64, bound: f64) -> bool {
        let equal = (value - bound).abs() < 1e-9;
        match self {
            Self::Less => value < bound,
            Self::AtMost => value <= bound,
            Self::More => value > bound,
            Self::AtLeast => value >= bound,
            Self::Equal => equal,
            Self::Unequal => !equal,
        }
    }
}

fn find<T: Copy>(all: &[(&str, T)], name: &str) -> Option<T> {
    let mut found = all.iter().filter(|(known, _)| *known == name);
    found.next().map(|(_, value)| *value)
}

const DISTRIBUTIONS: [(&str, Distribution); 8] = [
    ("tls", Distribution::Tls),
    ("login", Distribution::Login),
    ("ready", Distribution::Ready),
    ("first_byte", Distribution::FirstByte),
    ("duration", Distribution::Duration),
    ("puback", Distribution::PubAck),
    ("end_to_end", Distribution::EndToEnd),
    ("reconnect", Distribution::Reconnect),
];
const STATS: [(&str, Stat); 7] = [
    ("min", Stat::Min),
    ("p50", Stat::P50),
    ("p90", Stat::P90),
    ("p99", Stat::P99),
    ("p999", Stat::P999),
    ("max", Stat::Max),
    ("mean", Stat::Mean),
];
const NUMBERS: [(&str, Number); 16] = [
    ("ok", Number::Ok),
    ("failed", Number::Failed),
    ("wrong", Number::Wrong),
    ("left", Number::Left),
    ("errors", Number::Errors),
    ("reconnects", Number::Reconnects),
    ("connect_rate", Number::ConnectRate),
    ("sent", Number::Sent),
    ("rate", Number::Rate),
    ("lost", Number::Lost),
    ("duplicates", Number::Duplicates),
    ("unacked", Number::Unacked),
    ("refused", Number::Refused),
    ("tolerated", Number::Tolerated),
    ("rss_max", Number::RssMax),
    ("rss_growth", Number::RssGrowth),
];

#[cfg(test)]
mod tests;
