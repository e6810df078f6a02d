//! Whether a device's certificate leads to an authority that its product names.
//!
//! Asked at CONNECT, once it is known which product that is; the handshake takes certificates of any authority.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};

use crate::{
    model::{Millis, PeerCertificate, certificate::read_pem},
    service::auth::ChainVerifier,
};

/// Follows chains as TLS does: signatures, dates, and that each certificate may be used so.
#[derive(Debug)]
pub struct ClientChains {
    provider: Arc<CryptoProvider>,
}

impl Default for ClientChains {
    fn default() -> Self {
        Self {
            provider: Arc::new(super::provider()),
        }
    }
}

impl ChainVerifier for ClientChains {
    fn verify(&self, peer: &PeerCertificate, authorities: &str, at: Millis) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for authority in read_pem(authorities.as_bytes()).map_err(|error| error.to_string())? {
            let added = roots.add(CertificateDer::from(authority));
            added.map_err(|error| error.to_string())?;
        }
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        let others: Vec<_> = peer.others().map(CertificateDer::from).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()));
        verifier
            .verify_client_cert(&CertificateDer::from(peer.own()), &others, now)
            .map_err(|error| error.to_string())?;
        Ok(())
    }
}
