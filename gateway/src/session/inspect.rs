//! How a session is, for an operator who asks: the session itself answers, so it keeps nothing for
//! the case.

use std::{net::SocketAddr, time::Duration};

use headgate_protocol::mqtt::{ProtocolVersion, QoS};

use crate::model::Millis;

/// The two ends of a connection, as far as they are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Where the client is.
    pub client: Option<SocketAddr>,
    /// Which address of this node it came to.
    pub listener: Option<SocketAddr>,
}

/// One session as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// When the device came in.
    pub since: Millis,
    /// How it named its connection.
    pub client_id: String,
    /// Which MQTT it speaks; `None`: CoAP.
    pub version: Option<ProtocolVersion>,
    /// Where it comes from; `None` where the connection is going away.
    pub address: Option<SocketAddr>,
    /// Where it came to: the address of a listener of this node.
    pub listener: Option<SocketAddr>,
    /// How long it may be silent, half of it more before it is given up.
    pub keep_alive: Duration,
    /// Seconds that its session outlives the connection.
    pub session_expiry_secs: u32,
    /// What it subscribed to, with the QoS that was granted.
    pub subscriptions: Vec<(String, QoS)>,
    /// Bytes that wait for it on this connection.
    pub outbox_bytes: usize,
    /// Messages that wait for it on this connection.
    pub outbox_messages: usize,
}
