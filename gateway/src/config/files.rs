//! Settings of the device files listener.

use std::{net::SocketAddr, time::Duration};

use super::{
    section::section,
    setting::{Address, Count, Optional, Span, Text},
    units::{hours, secs},
};

section! {
    /// Files for devices that fetch by HTTPS: nothing but signed addresses under /files.
    pub struct FilesConfig in "files" {
        /// Address of the files listener, always TLS.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([0, 0, 0, 0], 8443))), Optional(Address, "off");
        /// What devices put before /files, such as `https://files.example.org`; without it the name of
        /// this host and the listener's port.
        public_url: Option<String> = None, Optional(Text(255), "");
        /// How long a signed address can be used.
        url_lifetime: Duration = hours(24), Span(secs(60)..=hours(24 * 30));
        /// Connections open at one time; at the limit accepting waits. Each costs about 30 KB.
        max_connections: usize = 10_000, Count(1..=1_000_000);
        /// A connection with no request, or a peer that takes no byte, for so long is closed.
        idle_timeout: Duration = secs(60), Span(secs(1)..=secs(3600));
    }
}
