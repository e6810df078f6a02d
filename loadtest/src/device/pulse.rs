//! Keep-alive of one connection: PINGREQ when it is time, and whether the server is still there.
//!
//! Invariants: at most one PINGREQ is unanswered.  Spec: MQTT 5.0 s3.1.2.10.

use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{Packet, ProtocolVersion};
use tokio::time::Instant;

use super::error::DeviceError;

/// When a connection pings.
#[derive(Debug)]
pub(crate) struct Pulse {
    secs: u16,
    every: Duration,
    next: Instant,
    /// Nothing came since the last PINGREQ.
    pinged: bool,
}

impl Pulse {
    /// Pings at half of `keep_alive`; never where that is less than a second, which CONNECT says as 0.
    pub(crate) fn new(keep_alive: Duration, now: Instant) -> Self {
        let secs = u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX);
        let every = if secs == 0 { FOREVER } else { keep_alive / 2 };
        Self {
            secs,
            every,
            next: now + every,
            pinged: false,
        }
    }

    /// Seconds, as CONNECT has it.
    pub(crate) const fn secs(&self) -> u16 {
        self.secs
    }

    /// When [`Self::beat`] has something to do.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// Something came.
    pub(crate) const fn heard(&mut self) {
        self.pinged = false;
    }

    /// Sends PINGREQ when it is time.
    ///
    /// # Errors
    /// [`DeviceError::Silent`] when the last one was not answered, [`DeviceError::Encode`].
    pub(crate) fn beat(
        &mut self,
        now: Instant,
        version: ProtocolVersion,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        if now < self.next {
            return Ok(());
        }
        if self.pinged {
            return Err(DeviceError::Silent);
        }
        self.pinged = true;
        self.next = now + self.every;
        Ok(Packet::PingReq.encode(version, out)?)
    }
}

/// Longer than any run.
const FOREVER: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_no_ping_is_silent() {
        let now = Instant::now();
        let mut pulse = Pulse::new(Duration::from_mins(1), now);
        let mut out = BytesMut::new();
        let mut beat = |pulse: &mut Pulse, secs| {
            out.clear();
            let at = now + Duration::from_secs(secs);
            let beaten = pulse.beat(at, ProtocolVersion::V311, &mut out);
            beaten.map(|()| out.len())
        };
        assert!(matches!(beat(&mut pulse, 29), Ok(0)));
        assert!(matches!(beat(&mut pulse, 30), Ok(2)));
        pulse.heard();
        assert!(matches!(beat(&mut pulse, 60), Ok(2)));
        assert!(matches!(beat(&mut pulse, 90), Err(DeviceError::Silent)));
    }

    #[test]
    fn without_a_keep_alive_nothing_is_sent() {
        let now = Instant::now();
        let mut pulse = Pulse::new(Duration::ZERO, now);
        let mut out = BytesMut::new();
        let at = now + Duration::from_hours(24);
        pulse.beat(at, ProtocolVersion::V5, &mut out).expect("sent");
        assert!(out.is_empty() && pulse.secs() == 0);
    }
}
