//! Client certificates: always asked for on device listeners, never required, from whatever authority.
//!
//! A certificate is taken when it is well formed and the peer proves to hold its key; whose it is and whether it may
//! come in is decided at CONNECT by its fingerprint. No names of authorities are sent: clients that choose by issuer
//! would send nothing.
//! Invariants: what passes here proves possession of a key and nothing more; a chain is bounded, since TLS keeps it as
//! long as the connection.

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::{
    asn1_rs::{Any, FromDer as _},
    certificate::X509Certificate,
    x509::SubjectPublicKeyInfo,
};

use crate::model::PeerCertificate;

/// Takes every well-formed certificate whose key proves possession.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    pub(super) const fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { algorithms }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let others: usize = intermediates.iter().map(|other| other.len()).sum();
        if intermediates.len() > MAX_OTHERS || end_entity.len() + others > MAX_CHAIN_BYTES {
            return Err(Error::General(
                "the client's chain of certificates is too long".to_owned(),
            ));
        }
        with_key(end_entity, |_| Ok(ClientCertVerified::assertion()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        with_key(cert, |key| {
            let mut known = self.algorithms.mapping.iter();
            let (_, candidates) = known
                .find(|(scheme, _)| *scheme == signed.scheme)
                .ok_or(BAD_SIGNATURE)?;
            let kind = algorithm_of(key)?;
            let public = key.subject_public_key.data.as_ref();
            let is_right = candidates
                .iter()
                .filter(|candidate| candidate.public_key_alg_id().as_ref() == kind)
                .any(|candidate| {
                    candidate
                        .verify_signature(public, message, signed.signature())
                        .is_ok()
                });
            if is_right {
                Ok(HandshakeSignatureValid::assertion())
            } else {
                Err(BAD_SIGNATURE)
            }
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        with_key(cert, |key| {
            let key = SubjectPublicKeyInfoDer::from(key.raw);
            verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a peer presented, copied out of the connection.
pub(super) fn presented(chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
    let (own, others) = chain.split_first()?;
    let others = others.iter().map(|other| Box::from(other.as_ref()));
    Some(PeerCertificate::new(own, others))
}

/// Hands over the public key of a certificate of any version: the key is all that is verified with.
fn with_key<T>(
    der: &CertificateDer<'_>,
    use_key: impl FnOnce(&SubjectPublicKeyInfo<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => use_key(certificate.public_key()),
        _ => Err(BAD_ENCODING),
    }
}

/// The contents of a key's algorithm identifier, as the verification algorithms name theirs.
fn algorithm_of<'k>(key: &SubjectPublicKeyInfo<'k>) -> Result<&'k [u8], Error> {
    let (_, whole) = Any::from_der(key.raw).map_err(|_| BAD_ENCODING)?;
    let (_, algorithm) = Any::from_der(whole.data).map_err(|_| BAD_ENCODING)?;
    Ok(algorithm.data)
}

const BAD_ENCODING: Error = Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
const BAD_SIGNATURE: Error = Error::InvalidCertificate(rustls::CertificateError::BadSignature);
/// Certificates that a device may send beside its own.
const MAX_OTHERS: usize = 4;
/// Most bytes of all of them.
const MAX_CHAIN_BYTES: usize = 16 * 1024;
