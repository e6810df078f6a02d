//! The one TLS client configuration that all devices share.
//!
//! TLS 1.3 with AES-128-GCM first, no client certificate, no tickets: every handshake is a full
//! one, as after a power cut. Only the given CA is trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The CA file is missing or no PEM.
    #[error("cannot read the CA {path}: {source}; give --ca, or the gateway's --data-dir")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What its reading gave.
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate that can be trusted.
    #[error("no usable certificate in {path}")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// rustls refused the settings.
    #[error("tls settings: {0}")]
    Settings(#[from] rustls::Error),
    /// The host is neither a DNS name nor an address.
    #[error("`{0}` is no name that a certificate can carry")]
    Name(String),
}

/// A connector that trusts the certificates of the PEM file `ca`.
///
/// # Errors
/// [`TlsError`]: the file cannot be read or holds no certificate.
pub(crate) fn connector(ca: &Path) -> Result<TlsConnector, TlsError> {
    let unreadable = |source| TlsError::Ca {
        path: ca.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificate {
            path: ca.to_owned(),
        });
    }
    connector_with(roots)
}

/// A connector that trusts `roots`.
///
/// # Errors
/// [`TlsError::Settings`].
pub(crate) fn connector_with(roots: RootCertStore) -> Result<TlsConnector, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// `base` with a certificate of the device's own.
///
/// # Errors
/// [`TlsError::Settings`]: the key cannot be used.
pub(crate) fn connector_as(
    base: &TlsConnector,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsConnector, TlsError> {
    let key = base
        .config()
        .crypto_provider()
        .key_provider
        .load_private_key(key)?;
    let certified = Arc::new(CertifiedKey::new(vec![certificate], key));
    let mut config = ClientConfig::clone(base.config());
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the gateway's certificate must carry.
///
/// # Errors
/// [`TlsError::Name`].
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
}

/// aws-lc with the suites in the order in which they are offered.
fn provider() -> CryptoProvider {
    use aws_lc_rs::{cipher_suite, kx_group};
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_ca_names_the_file_and_the_flags() {
        let error = connector(Path::new("/nonexistent/ca.pem"))
            .map(drop)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nonexistent/ca.pem") && text.contains("--data-dir"),
            "{text}"
        );
    }

    #[test]
    fn aes_128_is_offered_first() {
        let first = provider().cipher_suites[0].suite();
        assert_eq!(first, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    #[test]
    fn names_and_addresses_are_both_accepted() {
        assert!(server_name("localhost").is_ok());
        assert!(server_name("127.0.0.1").is_ok());
        assert!(server_name("not a name").is_err());
    }
}
