//! Sizes, times and shares as people write them.

use std::time::Duration;

use headgate_protocol::coap::Szx;

/// `64MiB`, `15360`, `1KiB`, `4MB`: bytes, at least one.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(format!("unknown unit `{unit}`; write B, KiB, MiB or GiB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write it like 64MiB".to_owned())?;
    number
        .checked_mul(factor)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "out of range".to_owned())
}

/// A chunk size that the gateway serves: 256 to 131,072 bytes.
pub(super) fn parse_chunk(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?)
        .ok()
        .filter(|bytes| (256..=131_072).contains(bytes))
        .ok_or_else(|| "a chunk has 256 to 131072 bytes".to_owned())
}

/// A block size of CoAP: 16, 32 and so on to 1,024 bytes.
pub(super) fn parse_block(text: &str) -> Result<Szx, String> {
    let bytes = parse_size(text)?;
    (0..=Szx::MAX.exponent())
        .filter_map(Szx::new)
        .find(|size| u64::from(size.bytes()) == bytes)
        .ok_or_else(|| "a block has 16, 32, 64, 128, 256, 512 or 1024 bytes".to_owned())
}

/// `200ms`, `60s`, `30m`, `24h`; a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("unknown unit `{unit}`; write ms, s, m or h")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write it like 200ms or 30s".to_owned())?;
    number
        .checked_mul(millis)
        .filter(|&ms| ms <= MAX_DURATION_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| "longer than a year".to_owned())
}

/// As [`parse_duration`], but a bare number is milliseconds, as other load tools take it; never 0.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let (_, unit) = split_unit(text);
    let interval = if unit.is_empty() {
        parse_duration(&format!("{}ms", text.trim()))?
    } else {
        parse_duration(text)?
    };
    if interval.is_zero() {
        return Err("messages need some time between them".to_owned());
    }
    Ok(interval)
}

/// A share of the devices: 0 to 1, or `10%`.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    let (number, divisor) = text
        .strip_suffix('%')
        .map_or((text, 1.0), |number| (number, 100.0));
    let share = number
        .trim()
        .parse::<f64>()
        .map_err(|_| "write it like 0.1 or 10%".to_owned())?;
    let share = share / divisor;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("a share lies between 0 and 1".to_owned())
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim())
}

const MAX_DURATION_MS: u64 = 365 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("15360", Some(15_360)),
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("4MB", Some(4_000_000)),
            ("0", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("99999999999GiB", None),
            ("4 parsecs", None),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("200ms", Some(200)),
            ("10", Some(10_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("-1s", None),
            ("1y", None),
        ] {
            let got = parse_duration(text).ok();
            assert_eq!(got, ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn intervals_are_milliseconds_unless_they_say_so() {
        assert_eq!(parse_interval("500"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        assert!(parse_interval("0").is_err());
    }

    #[test]
    fn shares() {
        for (text, share) in [
            ("0.1", Some(0.1)),
            ("10%", Some(0.1)),
            ("1", Some(1.0)),
            ("1.1", None),
            ("-0.1", None),
            ("NaN", None),
        ] {
            assert_eq!(parse_share(text).ok(), share, "{text}");
        }
    }
}
