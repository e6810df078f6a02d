//! How the connections of one MQTT listener begin.

use std::sync::Arc;

use crate::{
    config::{Network, Transport},
    edge::tls::ServerTls,
    session::ConformanceProfile,
};

/// One listener, apart from its socket.
#[derive(Debug)]
pub struct ListenerSetup {
    /// What it presents; `None`: it speaks no TLS.
    pub tls: Option<ServerTls>,
    /// What carries MQTT.
    pub transport: Transport,
    /// Peers that say whose connection they pass on, and must.
    pub proxies: Vec<Network>,
    /// Where anyone is let into; `None`: devices and applications, who log in.
    pub conformance: Option<Arc<ConformanceProfile>>,
}
