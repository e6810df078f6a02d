//! The policy of a task: at what pace, when, how often, and when it is given up.
//!
//! Plain data as it is stored and shown. Whoever takes one from outside calls
//! [`TaskPolicy::validate`]; the delivery service then trusts it.
//! Invariants: an absent rule means that the node's settings hold alone.

mod edit;
mod window;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::{
    edit::{Locked, Stage},
    window::{DailyWindow, InvalidClock, TimeOfDay, UtcOffset},
};
use crate::model::{text::InvalidField, time::Millis};

/// How a task runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskPolicy {
    /// Deliveries of this task that may be in progress at once; `None`: only the node's limit holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_progress: Option<u32>,
    /// Bytes a second over all its devices, by MQTT and HTTPS; `None`: only the node's limit holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_sec: Option<u64>,
    /// How many devices are told in a minute; `None`: as many as there are places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// The few devices that go first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// When so many have failed that the rest is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Before this nothing is begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Millis>,
    /// Outside of these hours nothing is begun; what has begun goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<DailyWindow>,
    /// Timers of its own.
    #[serde(skip_serializing_if = "Timers::is_default")]
    pub timers: Timers,
    /// How often a delivery is tried, and how long is waited in between.
    #[serde(skip_serializing_if = "Attempts::is_default")]
    pub attempts: Attempts,
}

/// Devices that begin in a minute, and how that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Devices a minute, spread evenly; with a ramp: at its beginning.
    pub per_minute: u32,
    /// `None`: it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
}

/// An exponential ramp: the pace grows with every so many devices that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// By how much the pace is multiplied each time.
    pub factor: Factor,
    /// After so many deliveries that succeeded.
    pub every_succeeded: u32,
    /// The pace at which the growth ends.
    pub max_per_minute: u32,
}

/// A number with two decimals, from 1.00 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    hundredths: u32,
}

/// The devices that go first; the others wait until the task is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// So many devices: the first that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
    /// Or so many hundredths of all, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Promoted once so many hundredths of them were delivered; `None`: an operator promotes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_percent: Option<u8>,
}

/// When a task is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// Once so many hundredths of the deliveries that ended have failed ...
    pub failed_percent: u8,
    /// ... and at least so many have ended. What an operator cancelled counts for neither.
    pub min_finished: u32,
}

/// Timers that a task has of its own, in seconds; `None`: the node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timers {
    /// A device that is connected and owes an answer is silent for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_timeout_secs: Option<u32>,
    /// A device knows of the delivery for so long, its absence included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_progress_timeout_secs: Option<u32>,
    /// A device has every byte for so long and says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_timeout_secs: Option<u32>,
}

/// How often a delivery is tried without anybody's asking; `None`: as the node's settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attempts {
    /// Attempts in all; 1: none but the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Before the second one; doubled before each further one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_secs: Option<u32>,
    /// Never longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backoff_secs: Option<u32>,
}

/// The longest of a task's own timers and back-offs, in seconds: a year.
const MAX_SECS: u32 = 365 * 86_400;
/// The most devices a minute.
const MAX_PER_MINUTE: u32 = 1_000_000;

impl TaskPolicy {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`InvalidField`] with the path of the first field that breaks one, `policy.` before it.
    pub fn validate(&self) -> Result<(), InvalidField> {
        within("policy.max_in_progress", self.max_in_progress, 1, u32::MAX)?;
        if self.bytes_per_sec.is_some_and(|rate| rate < 256) {
            return Err(InvalidField::new(
                "policy.bytes_per_sec",
                "must be 256 or more",
            ));
        }
        if let Some(pace) = &self.pace {
            pace.validate()?;
        }
        if let Some(canary) = &self.canary {
            canary.validate()?;
        }
        if let Some(abort) = &self.abort {
            percent("policy.abort.failed_percent", Some(abort.failed_percent))?;
            let least = Some(abort.min_finished);
            within("policy.abort.min_finished", least, 1, u32::MAX)?;
        }
        if let Some(window) = &self.window {
            window.validate()?;
        }
        self.timers.validate()?;
        self.attempts.validate()
    }
}

impl Pace {
    fn validate(&self) -> Result<(), InvalidField> {
        let start = Some(self.per_minute);
        within("policy.pace.per_minute", start, 1, MAX_PER_MINUTE)?;
        let Some(ramp) = &self.ramp else {
            return Ok(());
        };
        if !(101..=1_000).contains(&ramp.factor.hundredths) {
            return Err(InvalidField::new(
                "policy.pace.ramp.factor",
                "must be 1.01 to 10",
            ));
        }
        let every = Some(ramp.every_succeeded);
        within("policy.pace.ramp.every_succeeded", every, 1, u32::MAX)?;
        let field = "policy.pace.ramp.max_per_minute";
        let most = Some(ramp.max_per_minute);
        within(field, most, self.per_minute, MAX_PER_MINUTE)
    }

    /// Devices a minute after so many deliveries that succeeded.
    pub fn per_minute_after(&self, succeeded: u32) -> f64 {
        let start = f64::from(self.per_minute);
        let Some(ramp) = &self.ramp else {
            return start;
        };
        let steps = succeeded / ramp.every_succeeded.max(1);
        let most = f64::from(ramp.max_per_minute);
        // 1.01 to the power of 1,400 is beyond every limit; more steps change nothing.
        let steps = i32::try_from(steps.min(1_400)).unwrap_or(1_400);
        (start * ramp.factor.value().powi(steps)).min(most)
    }
}

impl Canary {
    fn validate(&self) -> Result<(), InvalidField> {
        match (self.devices, self.percent) {
            (Some(devices), None) => {
                within("policy.canary.devices", Some(devices), 1, u32::MAX)?;
            }
            (None, Some(share)) => percent("policy.canary.percent", Some(share))?,
            _ => {
                return Err(InvalidField::new(
                    "policy.canary",
                    "must have exactly one of devices and percent",
                ));
            }
        }
        percent("policy.canary.success_percent", self.success_percent)
    }

    /// How many devices of so many go first.
    pub fn size(&self, total: u32) -> u32 {
        let share = |percent: u8| share_of(total, percent).max(1);
        let wanted = self
            .devices
            .or_else(|| self.percent.map(share))
            .unwrap_or(total);
        wanted.min(total)
    }

    /// How many of them must have been delivered; `None`: that is for an operator to say.
    pub fn needed(&self, total: u32) -> Option<u32> {
        let percent = self.success_percent?;
        Some(share_of(self.size(total), percent).max(1))
    }
}

impl Abort {
    /// Whether so many failures among so many ends are too many.
    pub fn is_reached(&self, failed: u32, finished: u32) -> bool {
        finished >= self.min_finished
            && u64::from(failed) * 100 >= u64::from(finished) * u64::from(self.failed_percent)
    }
}

impl Timers {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn validate(&self) -> Result<(), InvalidField> {
        let step = self.step_timeout_secs;
        within("policy.timers.step_timeout_secs", step, 1, MAX_SECS)?;
        let all = self.in_progress_timeout_secs;
        within("policy.timers.in_progress_timeout_secs", all, 1, MAX_SECS)?;
        let confirm = self.confirm_timeout_secs;
        within("policy.timers.confirm_timeout_secs", confirm, 1, MAX_SECS)
    }
}

impl Attempts {
    /// The most attempts of one round.
    pub const MAX: u32 = 20;

    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn validate(&self) -> Result<(), InvalidField> {
        within("policy.attempts.max", self.max, 1, Self::MAX)?;
        let first = self.backoff_secs;
        within("policy.attempts.backoff_secs", first, 0, MAX_SECS)?;
        let most = self.max_backoff_secs;
        within("policy.attempts.max_backoff_secs", most, 0, MAX_SECS)
    }
}

/// How long the attempt after `failed` failures waits: doubled each time, and moved by up to a
/// quarter either way so that devices that failed together do not come back together. `seed` makes
/// the same attempt of the same delivery wait equally long after a restart.
pub fn backoff(first: Duration, most: Duration, failed: u32, seed: u64) -> Duration {
    let doubled = first.saturating_mul(
        1_u32
            .checked_shl(failed.saturating_sub(1))
            .unwrap_or(u32::MAX),
    );
    let whole = doubled.min(most);
    // SplitMix64's last step spreads neighbouring seeds evenly.
    let mut mixed = seed ^ (u64::from(failed) << 48);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let thousandths = u32::try_from((mixed >> 32) % 501).unwrap_or(0);
    whole * (750 + thousandths) / 1_000
}

impl Factor {
    /// The number itself.
    pub fn value(self) -> f64 {
        f64::from(self.hundredths) / 100.0
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.value())
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(from)?;
        if !(0.0..=1_000.0).contains(&value) {
            return Err(de::Error::custom("must be 1.01 to 10"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 100,000 after the check above"
        )]
        let hundredths = (value * 100.0).round() as u32;
        Ok(Self { hundredths })
    }
}

/// So many hundredths of a number, rounded up.
fn share_of(number: u32, percent: u8) -> u32 {
    let share = (u64::from(number) * u64::from(percent)).div_ceil(100);
    u32::try_from(share).unwrap_or(u32::MAX)
}

fn within(
    field: &'static str,
    value: Option<u32>,
    least: u32,
    most: u32,
) -> Result<(), InvalidField> {
    match value {
        Some(value) if value < least || value > most => {
            let rule = if most == u32::MAX {
                format!("must be {least} or more")
            } else {
                format!("must be {least} to {most}")
            };
            Err(InvalidField::new(field, rule))
        }
        _ => Ok(()),
    }
}

fn percent(field: &'static str, value: Option<u8>) -> Result<(), InvalidField> {
    within(field, value.map(u32::from), 1, 100)
}

#[cfg(test)]
mod tests;
