//! Settings of the device listeners' TLS certificate.

use std::path::PathBuf;

use super::{
    section::section,
    setting::{FilePath, Optional},
};

section! {
    /// The certificate of the device listeners (MQTT over TLS, files).
    pub struct TlsConfig in "tls" {
        /// PEM file with the certificate chain; needs `key`. Without it a development certificate is made
        /// under the data directory, signed by a CA of its own (tls/ca.pem).
        certificate: Option<PathBuf> = None, Optional(FilePath, "");
        /// PEM file with the private key of `certificate`.
        key: Option<PathBuf> = None, Optional(FilePath, "");
    }
}
