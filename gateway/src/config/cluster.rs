//! Settings of a node among several.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Optional, Span, Text},
    units::secs,
};

section! {
    /// The nodes of one gateway, which share its stores: of effect where sessions.url is redis:// (see docs/cluster.md).
    pub struct ClusterConfig in "cluster" {
        /// This node's name, which no other one has: letters, digits, -, _ and dots; the machine's name unless given.
        node: Option<String> = None, Optional(Text(64), "");
        /// Where operators find this node; shown, and used for nothing else.
        address: Option<String> = None, Optional(Text(255), "");
        /// A node that has said nothing for so long is taken for dead: others tell of its devices that they are gone.
        lease: Duration = secs(10), Span(secs(2)..=secs(60));
        /// Messages of other nodes that may wait for this one; with more, the oldest go, and what is in memory is read anew.
        inbox_messages: usize = 100_000, Count(1_000..=10_000_000);
        /// How long a change that is to hold on every node at once waits for the others to say that it does.
        confirm_timeout: Duration = secs(2), Span(secs(1)..=secs(30));
    }
}
