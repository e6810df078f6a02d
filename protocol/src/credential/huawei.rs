//! Huawei's form: client id `{device_id}_0_{sign type}_{YYYYMMDDHH}`, username `{device_id}`, password the hexadecimal
//! HMAC-SHA256 whose key is the hour as text and whose message is the secret.
//!
//! The hour is UTC. It is checked only where the sign type says so; one SDK takes it from local time.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Unproven, hex_mac::HexMac};

/// Whether a password is for one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignType {
    /// 0: the hour is only signed.
    AnyHour,
    /// 1: the hour must be this one, as far as clocks agree.
    ThisHour,
}

/// Sign type and hour of a client id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp<'a> {
    sign_type: SignType,
    hour: &'a str,
}

/// A password of this form, and the hour that keys it.
#[derive(Clone, Copy)]
pub(super) struct Signature<'a> {
    mac: HexMac,
    hour: &'a str,
}

impl<'a> Stamp<'a> {
    /// The stamp, where the client id is the username with one behind it.
    pub(super) fn read(client_id: &'a str, username: &str) -> Option<Self> {
        let rest = client_id.strip_prefix(username)?;
        let (sign_type, hour) = if let Some(hour) = rest.strip_prefix("_0_0_") {
            (SignType::AnyHour, hour)
        } else {
            (SignType::ThisHour, rest.strip_prefix("_0_1_")?)
        };
        let is_hour = hour.len() == HOUR_DIGITS && hour.bytes().all(|b| b.is_ascii_digit());
        (is_hour && !username.is_empty()).then_some(Self { sign_type, hour })
    }

    /// Reads a password that is signed for this hour.
    pub(super) fn signature(
        self,
        password: &[u8],
        now_secs: u64,
        skew: Duration,
    ) -> Result<Signature<'a>, Unproven> {
        let mac = HexMac::read(password, MAC_BYTES).ok_or(Unproven::Malformed)?;
        if self.sign_type == SignType::ThisHour {
            let begin = begin_secs(self.hour).ok_or(Unproven::WrongHour)?;
            let earliest = begin.saturating_sub(skew.as_secs());
            let end = begin.saturating_add(HOUR_SECS + skew.as_secs());
            if !(earliest..end).contains(&now_secs) {
                return Err(Unproven::WrongHour);
            }
        }
        Ok(Signature {
            mac,
            hour: self.hour,
        })
    }
}

impl Signature<'_> {
    pub(super) fn is_of(&self, secret: &[u8]) -> bool {
        Hmac::<Sha256>::new_from_slice(self.hour.as_bytes()).is_ok_and(|hmac| {
            self.mac
                .is(&hmac.chain_update(secret).finalize().into_bytes())
        })
    }
}

/// When an hour `YYYYMMDDHH` of UTC begins, in seconds since 1970; `None` where there is none such.
fn begin_secs(hour: &str) -> Option<u64> {
    let number = |from: usize, to: usize| hour.get(from..to)?.parse::<u64>().ok();
    let (year, month) = (number(0, 4)?, number(4, 6)?);
    let (day, of_day) = (number(6, 8)?, number(8, 10)?);
    if year < 1970 || !(1..=12).contains(&month) || of_day > 23 {
        return None;
    }
    if day == 0 || day > days_of(year, month) {
        return None;
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Some(((years + months + day - 1) * 24 + of_day) * HOUR_SECS)
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const HOUR_DIGITS: usize = 10;
const HOUR_SECS: u64 = 3_600;
const MAC_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_counted_as_the_calendar_has_them() {
        for (hour, secs) in [
            ("1970010100", Some(0)),
            ("2000022923", Some(951_865_200)),
            ("2000030100", Some(951_868_800)),
            ("2025020219", Some(1_738_522_800)),
            ("2026112105", Some(1_795_237_200)),
            ("2100022900", None),
            ("2025022900", None),
            ("2025130100", None),
            ("2025000100", None),
            ("2025010000", None),
            ("2025013200", None),
            ("2025010124", None),
            ("1969123123", None),
            ("9999123123", Some(253_402_297_200)),
        ] {
            assert_eq!(begin_secs(hour), secs, "{hour}");
        }
    }
}
