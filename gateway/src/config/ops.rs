//! Settings of the metrics and health listener.

use std::net::SocketAddr;

use super::{
    section::section,
    setting::{Address, Optional},
};

section! {
    /// Metrics and health: /metrics, /livez, /readyz.
    pub struct OpsConfig in "metrics" {
        /// Address of the listener; it asks for no password, so keep it where only monitoring reaches.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 9464))), Optional(Address, "off");
    }
}
