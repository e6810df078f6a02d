//! Settings of the MQTT listeners beside the simple ones: `[[mqtt.listener]]`, one table for each.
//!
//! `mqtt.listen` and `mqtt.plain_listen` open one listener each with the defaults that stand here;
//! whatever differs from these is written as a table of its own.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    network::Network,
    section::section,
    setting::{Address, Choice, FilePath, Flag, Networks, Optional},
};

/// Most listeners that can be written as tables.
pub(super) const MAX_LISTENERS: usize = 32;

/// What carries MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The connection itself.
    Mqtt,
    /// Binary frames of a WebSocket at `/mqtt`.
    WebSocket,
}

/// Who is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Devices and applications, who log in.
    Devices,
    /// Suites that test brokers: anyone, in a space of topics of their own.
    Conformance,
}

const TRANSPORTS: &[(&str, Transport)] = &[
    ("mqtt", Transport::Mqtt),
    ("websocket", Transport::WebSocket),
];
const PROFILES: &[(&str, Profile)] = &[
    ("devices", Profile::Devices),
    ("conformance", Profile::Conformance),
];

section! {
    /// One more MQTT listener; the table may be repeated. `mqtt.listen` and `mqtt.plain_listen` open one
    /// each with the defaults of this table.
    pub struct ListenerConfig in "mqtt.listener" {
        /// Address of the listener; must be given.
        address: Option<SocketAddr> = None, Optional(Address, "");
        /// Whether TLS is spoken. Without it secrets and data travel readable.
        tls: bool = true, Flag;
        /// PEM file with this listener's own certificate chain; needs `key`. Without it that of `[tls]`.
        certificate: Option<PathBuf> = None, Optional(FilePath, "");
        /// PEM file with the private key of `certificate`.
        key: Option<PathBuf> = None, Optional(FilePath, "");
        /// What carries MQTT: the connection itself, or a WebSocket at /mqtt.
        transport: Transport = Transport::Mqtt, Choice(TRANSPORTS);
        /// Load balancers that say with the PROXY protocol whose connection they pass on. One from here
        /// must begin with it, and every other must not.
        proxy_protocol: Vec<Network> = Vec::new(), Networks(64);
        /// Who is served. "conformance" lets anyone in, to run test suites: on a loopback address only.
        profile: Profile = Profile::Devices, Choice(PROFILES);
    }
}

impl ListenerConfig {
    /// A listener with the defaults at this address.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            ..Self::default()
        }
    }
}
