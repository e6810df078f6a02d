//! Durations and sizes as people write them: `"10s"`, `"1h 30min"`, `"256 KiB"`.
//!
//! Pure functions of the configuration. Invariants: what is printed is read back as the same value.

use std::time::Duration;

/// Bytes in a KiB.
pub(crate) const KIB: usize = 1024;
/// Bytes in a MiB.
pub(crate) const MIB: usize = 1024 * KIB;

const NANOS: [(&str, u128); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Seconds as a duration.
pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Milliseconds as a duration.
pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Hours as a duration.
pub(crate) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Reads a duration: numbers with units d, h, min (or m), s, ms, each at most once, largest first.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0_u128;
    let mut last = u128::MAX;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_at_first(after.trim_start(), |c| !c.is_ascii_alphabetic());
        let unit = if unit == "m" { "min" } else { unit };
        let (_, nanos) = NANOS.iter().find(|(name, _)| *name == unit)?;
        if *nanos >= last {
            return None;
        }
        last = *nanos;
        total = total.checked_add(u128::from(number.parse::<u32>().ok()?).checked_mul(*nanos)?)?;
        rest = after.trim_start();
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// Writes a duration in the fewest units, down to milliseconds.
pub(crate) fn print_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanos) in NANOS {
        // Days only where nothing smaller follows: "24h" and "36h" read better than "1d 12h".
        if unit == "d" && (!rest.is_multiple_of(nanos) || rest == nanos || rest == 0) {
            continue;
        }
        if rest >= nanos {
            parts.push(format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if parts.is_empty() {
        return "0s".to_owned();
    }
    parts.join(" ")
}

/// Reads a size: a whole number with B, KiB, MiB, GiB or TiB.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_at_first(text.trim(), |c| !c.is_ascii_digit());
    let unit = unit.trim_start();
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size in the largest unit that leaves no fraction.
pub(crate) fn print_size(bytes: u64) -> String {
    let (unit, factor) = SIZES
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&("B", 1));
    format!("{} {unit}", bytes / factor)
}

fn split_at_first(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        let cases = [
            ("10s", millis(10_000), "10s"),
            ("20ms", millis(20), "20ms"),
            ("1h30m", secs(5400), "1h 30min"),
            (" 1h 30 min ", secs(5400), "1h 30min"),
            ("24h", hours(24), "24h"),
            ("1d", hours(24), "24h"),
            ("180d", hours(24 * 180), "180d"),
            ("0s", secs(0), "0s"),
        ];
        for (text, duration, printed) in cases {
            assert_eq!(parse_duration(text), Some(duration), "{text}");
            assert_eq!(print_duration(duration), printed);
            assert_eq!(parse_duration(printed), Some(duration), "{printed}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "10x",
            "-1s",
            "1s 1h",
            "1s 1s",
            "1.5s",
            "99999999999s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        let cases = [
            ("256 KiB", 262_144, "256 KiB"),
            ("1GiB", 1 << 30, "1 GiB"),
            ("15360 B", 15_360, "15 KiB"),
            ("1025 B", 1025, "1025 B"),
            ("0 B", 0, "0 B"),
        ];
        for (text, bytes, printed) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(print_size(bytes), printed);
            assert_eq!(parse_size(printed), Some(bytes), "{printed}");
        }
        for text in ["", "256", "1 KB", "1.5 MiB", "-1 B", "99999999999 TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
