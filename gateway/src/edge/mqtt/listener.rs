//! How the connections of one MQTT listener begin.

use crate::{
    config::{Network, Profile, Transport},
    edge::tls::ServerTls,
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
    /// Who is served.
    pub profile: Profile,
}
