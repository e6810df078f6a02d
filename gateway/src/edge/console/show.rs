//! Numbers and times as people read them.

use crate::model::Millis;

/// A size: exact up to 9,999 bytes, else with its unit and three digits.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 10_000 {
        return format!("{} B", grouped(count));
    }
    // In hundredths of the unit, so that no digit is lost on the way.
    let mut hundredths = u128::from(count) * 100 / 1_024;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if hundredths < 102_400 {
            break;
        }
        hundredths /= 1_024;
        unit = next;
    }
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    if whole < 10 {
        format!("{whole}.{rest:02} {unit}")
    } else if whole < 100 {
        format!("{whole}.{} {unit}", rest / 10)
    } else {
        format!("{whole} {unit}")
    }
}

/// A number a second: two decimals while it is small.
pub(super) fn rate(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in UTC, to the second.
pub(super) fn time(at: Millis) -> String {
    let text = at.to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    seconds.replace('T', " ")
}

/// A number of seconds in its greatest unit that is not 0, rounded down.
pub(super) fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..86_400 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (9_999, "9,999 B"),
            (10_240, "10.0 KiB"),
            (1_048_576, "1.00 MiB"),
            (1_048_575, "1023 KiB"),
            (157_286_400, "150 MiB"),
            (1_073_741_824, "1.00 GiB"),
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_are_short() {
        let at = Millis::from_i64(1_709_210_096_789);
        assert_eq!(time(at), "2024-02-29 12:34:56");
        for (secs, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7_300, "2 h"),
            (200_000, "2 d"),
        ] {
            assert_eq!(duration(secs), text);
        }
    }
}
