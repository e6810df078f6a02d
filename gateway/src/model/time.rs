//! Points in time as the registry stores them and the API shows them.

mod clock;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
///
/// Stored as an integer, shown (and read) as RFC 3339 in UTC with three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

/// A text is no RFC 3339 time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time like 2026-01-31T12:00:00.000Z")]
pub struct InvalidTime;

impl Millis {
    /// Takes stored milliseconds.
    pub const fn from_i64(millis: i64) -> Self {
        Self(millis)
    }

    /// The milliseconds as they are stored.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// The whole seconds since 1970; 0 before.
    pub fn as_secs(self) -> u64 {
        u64::try_from(self.0 / 1_000).unwrap_or(0)
    }

    /// This time and a duration later; stops at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// This time and a duration earlier; `None` before the beginning of time.
    pub fn before(self, duration: Duration) -> Option<Self> {
        let millis = i64::try_from(duration.as_millis()).ok()?;
        self.0.checked_sub(millis).map(Self)
    }

    /// The time from `earlier` to this; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Millis {
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Self(millis)
    }
}

impl From<Millis> for SystemTime {
    fn from(time: Millis) -> Self {
        let distance = Duration::from_millis(time.0.unsigned_abs());
        let moved = if time.0 >= 0 {
            UNIX_EPOCH.checked_add(distance)
        } else {
            UNIX_EPOCH.checked_sub(distance)
        };
        moved.unwrap_or(UNIX_EPOCH)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(DAY_MS);
        let of_day = self.0.rem_euclid(DAY_MS);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        )
    }
}

impl FromStr for Millis {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let text = text.strip_suffix('Z').ok_or(InvalidTime)?;
        let (date, time) = text.split_once('T').ok_or(InvalidTime)?;
        let (time, fraction) = time
            .split_once('.')
            .map_or((time, None), |(t, f)| (t, Some(f)));
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let milli = match fraction {
            None => 0,
            Some(digits)
                if (1..=9).contains(&digits.len())
                    && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                digits
                    .bytes()
                    .chain(*b"00")
                    .take(3)
                    .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
            }
            Some(_) => return Err(InvalidTime),
        };
        if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
            return Err(InvalidTime);
        }
        let days = days_from_civil(year, month, day);
        // A day that the month does not have comes back as another date.
        if civil_from_days(days) != (year, month, day) {
            return Err(InvalidTime);
        }
        Ok(Self(
            days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + milli,
        ))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Result<[i64; 3], InvalidTime> {
    let mut out = [0; 3];
    let mut parts = text.split(separator);
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next().ok_or(InvalidTime)?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidTime);
        }
        *slot = part.parse().map_err(|_| InvalidTime)?;
    }
    if parts.next().is_some() {
        return Err(InvalidTime);
    }
    Ok(out)
}

/// Date of a day counted from 1970-01-01, in eras of 400 years that begin on the first of March.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + DAYS_TO_1970;
    let era = shifted.div_euclid(ERA_DAYS);
    let of_era = shifted.rem_euclid(ERA_DAYS);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * ERA_DAYS + of_era - DAYS_TO_1970
}

const DAY_MS: i64 = 86_400_000;
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_print_and_parse() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
        ] {
            assert_eq!(Millis(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Millis(millis)), "{text}");
        }
    }

    #[test]
    fn fractions_are_cut_to_milliseconds() {
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T00:00:01.5Z", 1_500),
            ("1970-01-01T00:00:01.1239Z", 1_123),
        ] {
            assert_eq!(text.parse(), Ok(Millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Z",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01 00:00:00Z",
            "2024-1-01T00:00:00Z",
            "2024-01-01T00:00:00+01:00",
            "+024-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Millis>(), Err(InvalidTime), "{text}");
        }
    }

    #[test]
    fn system_time_round_trips() {
        for millis in [-1_500, 0, 1_709_210_096_789] {
            let time = SystemTime::from(Millis(millis));
            assert_eq!(Millis::from(time), Millis(millis));
        }
    }

    #[test]
    fn durations_saturate() {
        assert_eq!(Millis(5).since(Millis(7)), Duration::ZERO);
        assert_eq!(Millis(7).since(Millis(5)), Duration::from_millis(2));
        assert_eq!(Millis(7).after(Duration::MAX), Millis(i64::MAX));
    }
}
