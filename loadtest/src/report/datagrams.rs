//! What became of the datagrams of devices by CoAP: losses explain what was sent again, or something is wrong.

use serde::Serialize;

use crate::stats::Stats;

/// Datagrams of all devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Datagrams {
    /// Sent by devices, those among them that were lost.
    pub(crate) sent: u64,
    /// Lost by the run's own choice, either way.
    pub(crate) lost: u64,
    /// Doubled by the run's own choice, either way.
    pub(crate) duplicated: u64,
    /// Late by the run's own choice, either way.
    pub(crate) reordered: u64,
    /// Came while their device slept.
    pub(crate) slept_through: u64,
    /// Source ports that were left for another one.
    pub(crate) rebinds: u64,
    /// Requests.
    pub(crate) exchanges: u64,
    /// Messages that devices sent again: at most one for each datagram that was lost, where nothing else is amiss.
    pub(crate) retransmissions: u64,
    /// Messages that devices gave up.
    pub(crate) timeouts: u64,
}

impl Datagrams {
    /// What was counted; `None` where no device speaks CoAP.
    pub(super) fn of(stats: &Stats) -> Option<Self> {
        let counts = &stats.datagrams;
        let sent = counts.sent.get();
        (sent > 0).then(|| Self {
            sent,
            lost: counts.lost.get(),
            duplicated: counts.duplicated.get(),
            reordered: counts.reordered.get(),
            slept_through: counts.slept_through.get(),
            rebinds: counts.rebinds.get(),
            exchanges: counts.exchanges.get(),
            retransmissions: counts.retransmissions.get(),
            timeouts: counts.timeouts.get(),
        })
    }
}
