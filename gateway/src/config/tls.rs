//! Settings of the device listeners' TLS certificate, and of what all certificates share.

use std::{path::PathBuf, time::Duration};

use super::{
    section::section,
    setting::{FilePath, Flag, Optional, Span},
    units::{hours, millis, secs},
};

section! {
    /// The certificate of the device listeners (MQTT over TLS, files).
    pub struct TlsConfig in "tls" {
        /// PEM file with the certificate chain; needs `key`. Without it a development certificate is made
        /// under the data directory, signed by a CA of its own (tls/ca.pem).
        certificate: Option<PathBuf> = None, Optional(FilePath, "");
        /// PEM file with the private key of `certificate`.
        key: Option<PathBuf> = None, Optional(FilePath, "");
        /// How often the files of all certificates are looked at; changed ones are served from then on,
        /// open connections stay. SIGHUP has them looked at now.
        reload_interval: Option<Duration> = Some(secs(60)), Optional(Span(millis(100)..=hours(24)), "off");
        /// Whether devices get a ticket with which they resume their TLS session. For those with certificates that
        /// is a third less work when they come back; for all others each handshake costs about a tenth more.
        tickets: bool = false, Flag;
    }
}
