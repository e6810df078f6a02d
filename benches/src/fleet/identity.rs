//! Certificates that clients present: ECDSA P-256, all signed by one CA of this run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest, Sha256};

use super::ClientError;

/// Signs the certificates of clients.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM: for a server that checks who signed.
    pub(crate) file: PathBuf,
}

/// What one client presents.
#[derive(Debug)]
pub(crate) struct Identity {
    /// For the handshake.
    pub(crate) resolver: Arc<SingleCertAndKey>,
    /// SHA-256 of the certificate, hex: what the client is registered by.
    pub(crate) fingerprint: String,
}

impl Authority {
    /// A new CA, whose certificate is written to `directory`.
    ///
    /// # Errors
    /// [`ClientError::Certificate`] and [`ClientError::Io`].
    pub(crate) fn make(directory: &Path) -> Result<Self, ClientError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "bench clients");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let file = directory.join("clients.pem");
        fs::write(&file, certificate.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            file,
        })
    }

    /// A certificate of its own for the client `name`.
    ///
    /// # Errors
    /// [`ClientError::Certificate`] and [`ClientError::Tls`].
    pub(crate) fn sign(&self, name: &str) -> Result<Identity, ClientError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let fingerprint = Sha256::digest(certificate.der());
        let fingerprint = fingerprint.iter().map(|byte| format!("{byte:02x}"));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified =
            CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?);
        Ok(Identity {
            fingerprint: fingerprint.collect(),
            resolver: Arc::new(SingleCertAndKey::from(certified)),
        })
    }
}
