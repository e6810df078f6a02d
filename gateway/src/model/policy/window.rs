//! The hours of a day in which a task may begin deliveries.
//!
//! Invariants: a window that crosses midnight is open on both sides of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::{text::InvalidField, time::Millis};

/// Hours of every day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DailyWindow {
    /// From this time on, `HH:MM`.
    pub from: TimeOfDay,
    /// Up to and without this time; before `from`: of the next day.
    pub to: TimeOfDay,
    /// The time zone of both, `+HH:MM` or `-HH:MM` from UTC.
    #[serde(default)]
    pub utc_offset: UtcOffset,
}

/// Minutes since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay(u16);

/// Minutes east of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UtcOffset(i16);

impl DailyWindow {
    pub(super) fn validate(self) -> Result<(), InvalidField> {
        if self.from == self.to {
            return Err(InvalidField::new(
                "policy.window.to",
                "must differ from policy.window.from",
            ));
        }
        Ok(())
    }

    /// Whether it is open at this time.
    pub fn is_open(&self, at: Millis) -> bool {
        let minutes = at.as_i64().div_euclid(60_000) + i64::from(self.utc_offset.0);
        let minute = u16::try_from(minutes.rem_euclid(1_440)).unwrap_or(0);
        let (from, to) = (self.from.0, self.to.0);
        if from < to {
            (from..to).contains(&minute)
        } else {
            minute >= from || minute < to
        }
    }
}

/// A text is no time of day or no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidClock(&'static str);

impl FromStr for TimeOfDay {
    type Err = InvalidClock;

    fn from_str(text: &str) -> Result<Self, InvalidClock> {
        minutes(text)
            .filter(|minutes| *minutes < 1_440)
            .map(Self)
            .ok_or(InvalidClock("must be a time like 22:30"))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl FromStr for UtcOffset {
    type Err = InvalidClock;

    fn from_str(text: &str) -> Result<Self, InvalidClock> {
        const WRONG: InvalidClock = InvalidClock("must be an offset from UTC like +08:00");
        let (east, digits) = match text.strip_prefix('-') {
            Some(digits) => (false, digits),
            None => (true, text.strip_prefix('+').ok_or(WRONG)?),
        };
        let minutes = minutes(digits).filter(|minutes| *minutes <= 14 * 60);
        let minutes = i16::try_from(minutes.ok_or(WRONG)?).map_err(|_| WRONG)?;
        Ok(Self(if east { minutes } else { -minutes }))
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Gives a type the JSON of its text.
macro_rules! as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}
as_text!(TimeOfDay);
as_text!(UtcOffset);

/// `HH:MM` as minutes.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let legal = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        legal.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let minute = two(minutes).filter(|minute| *minute < 60)?;
    Some(two(hours)? * 60 + minute)
}
