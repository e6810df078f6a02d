//! Metrics of the nodes as this one sees them.

use prometheus::{IntCounter, IntGauge};

use super::Maker;

/// What is counted of nodes.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    /// Nodes that have their leases, this one among them.
    pub nodes: IntGauge,
    /// Messages of other nodes that wait for this one.
    pub inbox: IntGauge,
    /// Messages of other nodes that this one took.
    pub heard: IntCounter,
    /// Times that messages of other nodes were missed.
    pub missed: IntCounter,
    /// Times that this node's lease had ended.
    pub leases_lost: IntCounter,
    /// Changes that not every node confirmed in time.
    pub unconfirmed: IntCounter,
    /// Devices of dead nodes that this one saw off.
    pub reaped: IntCounter,
    /// Seconds by which this machine's clock is ahead of the sessions' server's.
    pub clock_offset: IntGauge,
}

impl ClusterMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            nodes: make.gauge(
                "cluster_nodes",
                "Nodes that have their leases, this one among them; 0 without a cluster.",
            ),
            inbox: make.gauge(
                "cluster_inbox_messages",
                "Messages of other nodes that wait for this one.",
            ),
            heard: make.counter(
                "cluster_messages_total",
                "Messages of other nodes that this one took.",
            ),
            missed: make.counter(
                "cluster_missed_total",
                "Times that messages of other nodes were missed and everything was read anew.",
            ),
            leases_lost: make.counter(
                "cluster_leases_lost_total",
                "Times that this node took another lease: its own had ended, or Redis was started again or failed over.",
            ),
            unconfirmed: make.counter(
                "cluster_unconfirmed_total",
                "Changes that not every node confirmed in time.",
            ),
            reaped: make.counter(
                "cluster_devices_reaped_total",
                "Devices of dead nodes that this one saw off.",
            ),
            clock_offset: make.gauge(
                "cluster_clock_offset_seconds",
                "Seconds by which this machine's clock is ahead of the sessions' server's.",
            ),
        }
    }
}
