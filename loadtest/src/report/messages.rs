//! What became of messages: the sections of telemetry, soak and chaos.

use std::fmt::{self, Formatter};

use serde::Serialize;

use super::text::{mib, write_percentiles};
use super::{Percentiles, Report};
use crate::stats::{Stats, Timing};
use crate::timeline::Flatness;

/// Messages that devices published.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Messages {
    /// QoS of messages and subscriptions.
    pub(crate) qos: u8,
    /// Bytes a message.
    pub(crate) size: u64,
    /// Clients that heard every device.
    pub(crate) listeners: u32,
    /// How long devices published.
    pub(crate) seconds: f64,
    /// Messages published.
    pub(crate) sent: u64,
    /// `sent` over `seconds`.
    pub(crate) per_second: f64,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Messages that were not acknowledged when the run ended.
    pub(crate) unacked: u64,
    /// Messages that the server refused.
    pub(crate) refused: u64,
    /// Messages that listeners heard, each once for each listener.
    pub(crate) received: u64,
    /// Messages that came to a listener again.
    pub(crate) duplicates: u64,
    /// Messages that should have come to listeners and did not: of those acknowledged, at QoS 0 of those sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// From when a message was due to its acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) puback: Option<Percentiles>,
    /// From when a message was due to a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_to_end: Option<Percentiles>,
    /// From when a device whose link the run had cut wanted it back, to the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reconnect: Option<Percentiles>,
}

/// Whether the server's memory stayed flat.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Soak {
    /// How it went; absent where the server was not looked at, or too short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Flatness>,
    /// What `growth` may be.
    pub(crate) max_growth: f64,
    /// It stayed below; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flat: Option<bool>,
}

/// What the run did to devices and server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chaos {
    /// Links cut one by one.
    pub(crate) flaps: u64,
    /// Links cut all at once.
    pub(crate) storms: u64,
    /// Connections that their devices left without a word.
    pub(crate) half_open: u64,
    /// Times that a device read nothing for some seconds.
    pub(crate) slow_readers: u64,
    /// Forbidden packets.
    pub(crate) malformed: u64,
    /// Those for which the server closed the connection.
    pub(crate) malformed_refused: u64,
}

impl Messages {
    /// Of what was counted, at `qos` in messages of `size`.
    pub(crate) fn of(stats: &Stats, qos: u8, size: u64, listeners: u32, seconds: f64) -> Self {
        let percentiles = |timing| stats.with_times(|times| Percentiles::of(times.of(timing)));
        let (sent, acked, received) = (stats.sent.get(), stats.acked.get(), stats.received.get());
        let due = if qos == 0 { sent } else { acked };
        let due = due.saturating_mul(u64::from(listeners));
        Self {
            qos,
            size,
            listeners,
            seconds,
            sent,
            per_second: super::ratio(super::as_f64(sent), seconds),
            acked,
            unacked: stats.outstanding.get(),
            refused: stats.refused.get(),
            received,
            duplicates: stats.duplicates.get(),
            lost: (listeners > 0).then(|| due.saturating_sub(received)),
            puback: percentiles(Timing::PubAck),
            end_to_end: percentiles(Timing::EndToEnd),
            reconnect: percentiles(Timing::Reconnect),
        }
    }
}

impl Chaos {
    /// Of what was counted.
    pub(crate) fn of(stats: &Stats) -> Self {
        Self {
            flaps: stats.flaps.get(),
            storms: stats.storms.get(),
            half_open: stats.half_open.get(),
            slow_readers: stats.deaf.get(),
            malformed: stats.malformed.get(),
            malformed_refused: stats.malformed_refused.get(),
        }
    }
}

impl Report {
    pub(super) fn write_messages(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(messages) = &self.messages {
            messages.write(f)?;
        }
        if let Some(chaos) = &self.chaos {
            writeln!(
                f,
                "  went wrong     {} flaps, {} in storms, {} half-open, {} slow readers, {} of {} malformed packets refused",
                chaos.flaps,
                chaos.storms,
                chaos.half_open,
                chaos.slow_readers,
                chaos.malformed_refused,
                chaos.malformed
            )?;
        }
        let Some(soak) = &self.soak else {
            return Ok(());
        };
        let Some(memory) = &soak.memory else {
            return writeln!(
                f,
                "  memory         not looked at: --server-pid or --server-metrics, for some minutes"
            );
        };
        let verdict = if soak.flat == Some(true) {
            "flat"
        } else {
            "GROWS"
        };
        writeln!(
            f,
            "  memory         {verdict}: {} to {} in {:.0} s, {:+.2} % ({:.0} % allowed)",
            mib(memory.rss_start_bytes),
            mib(memory.rss_end_bytes),
            memory.seconds,
            memory.growth * 100.0,
            soak.max_growth * 100.0
        )
    }
}

impl Messages {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  published      {} of {} bytes at QoS {} in {:.1} s ({:.0}/s), {} acknowledged, {} not, {} refused",
            self.sent,
            self.size,
            self.qos,
            self.seconds,
            self.per_second,
            self.acked,
            self.unacked,
            self.refused
        )?;
        if let Some(lost) = self.lost {
            writeln!(
                f,
                "  heard          {} by {} listeners, {} again, {lost} LOST",
                self.received, self.listeners, self.duplicates
            )?;
        }
        write_percentiles(f, "  to PUBACK", self.puback.as_ref())?;
        write_percentiles(f, "  to listener", self.end_to_end.as_ref())?;
        write_percentiles(f, "  reconnected", self.reconnect.as_ref())
    }
}
