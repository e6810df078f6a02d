//! X.509 certificates of devices: what stands in one, and what is to be said against it.
//!
//! [`inspect`] reads what an operator uploads, [`PeerCertificate`] is what a device presented on its connection.
//! Invariants: a certificate is known by its fingerprint alone, the SHA-256 of its DER; nothing here decides whom to
//! trust; no key is ever read, and a file that holds one is refused.

use std::fmt;

use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    der_parser::oid::Oid,
    oid_registry,
    pem::Pem,
    prelude::FromDer as _,
    public_key::PublicKey,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use crate::model::{fingerprint::Fingerprint, time::Millis};

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Whom it names, as RFC 4514 writes it; may be empty.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// From when on it is valid.
    pub not_before: Millis,
    /// Until when it is valid.
    pub not_after: Millis,
    /// Its public key.
    pub key: KeyKind,
    /// What speaks against it; empty when nothing does.
    pub warnings: Vec<CertificateWarning>,
}

/// A public key's kind and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa {
        /// Bits of the modulus.
        bits: usize,
    },
    /// An elliptic curve.
    Ec {
        /// The curve's name, or its object identifier where it has none here.
        curve: String,
    },
    /// Ed25519.
    Ed25519,
    /// Something else.
    Other {
        /// Its object identifier.
        algorithm: String,
    },
}

/// What speaks against a certificate; it is registered all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateWarning {
    /// It ended; its device is refused unless `auth.allow_expired_certificates` is set.
    Expired {
        /// When.
        since: Millis,
    },
    /// It ends within [`SOON_DAYS`] days.
    EndsSoon {
        /// When.
        at: Millis,
    },
    /// It begins later; until then its device is refused like one whose certificate has ended.
    NotYetValid {
        /// When.
        until: Millis,
    },
    /// Its signature uses a broken digest.
    WeakSignature {
        /// Which.
        algorithm: &'static str,
    },
    /// TLS here takes no such key: a device cannot connect with it.
    UnusableKey {
        /// The key.
        key: KeyKind,
    },
}

/// Why bytes are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// They are more than any certificate needs.
    #[error("is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// PEM in which there is a private key.
    #[error("holds a private key, which never leaves its device; send the certificate alone")]
    PrivateKey,
    /// PEM without a certificate.
    #[error("holds no block \"CERTIFICATE\"")]
    NoCertificate,
    /// What stands there is no X.509.
    #[error("is no X.509 certificate in PEM or DER")]
    Malformed,
}

/// Reads a certificate as an operator uploads it: DER, or PEM whose first certificate is taken.
///
/// # Errors
/// [`CertificateError`]; its message reads on from the name of the field.
pub fn inspect(pem_or_der: &[u8], now: Millis) -> Result<CertificateInfo, CertificateError> {
    if pem_or_der.len() > MAX_BYTES {
        return Err(CertificateError::TooLarge);
    }
    if is_pem(pem_or_der) {
        let chain = read_pem(pem_or_der)?;
        let first = chain.first().ok_or(CertificateError::NoCertificate)?;
        describe(first, now)
    } else {
        describe(pem_or_der, now)
    }
}

/// The certificates of a PEM text, in its order, each checked to be one.
///
/// # Errors
/// As [`inspect`].
pub fn read_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    if pem.len() > MAX_BYTES {
        return Err(CertificateError::TooLarge);
    }
    let mut chain = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| CertificateError::Malformed)?;
        if block.label.ends_with("PRIVATE KEY") {
            return Err(CertificateError::PrivateKey);
        }
        if block.label == "CERTIFICATE" {
            parse(&block.contents)?;
            chain.push(block.contents);
        }
    }
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    Ok(chain)
}

/// Whether a certificate says that it may sign others.
///
/// # Errors
/// [`CertificateError::Malformed`].
pub fn is_authority(der: &[u8]) -> Result<bool, CertificateError> {
    Ok(parse(der)?.is_ca())
}

/// What stands in a certificate's DER, and what speaks against it at `now`.
///
/// # Errors
/// [`CertificateError::Malformed`].
pub fn describe(der: &[u8], now: Millis) -> Result<CertificateInfo, CertificateError> {
    let certificate = parse(der)?;
    let (not_before, not_after) = validity(&certificate);
    let key = key_kind(certificate.public_key());
    let mut warnings = Vec::new();
    if now < not_before {
        warnings.push(CertificateWarning::NotYetValid { until: not_before });
    }
    if now > not_after {
        warnings.push(CertificateWarning::Expired { since: not_after });
    } else if not_after.since(now).as_secs() < SOON_DAYS * 24 * 60 * 60 {
        warnings.push(CertificateWarning::EndsSoon { at: not_after });
    }
    if let Some(algorithm) = weak_signature(&certificate.signature_algorithm) {
        warnings.push(CertificateWarning::WeakSignature { algorithm });
    }
    if !key.is_usable() {
        warnings.push(CertificateWarning::UnusableKey { key: key.clone() });
    }
    Ok(CertificateInfo {
        fingerprint: fingerprint(der),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        not_before,
        not_after,
        key,
        warnings,
    })
}

/// The fingerprint of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint::new(Sha256::digest(der).into())
}

/// The certificates that a device presented, its own first, after it proved to hold its own one's key.
///
/// Kept until the device is in: a connection at rest has none.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    fingerprint: Fingerprint,
    chain: Vec<Box<[u8]>>,
}

impl PeerCertificate {
    /// What a device presented: its certificate and those that lead from it to an authority.
    pub fn new(own: &[u8], others: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let mut chain = vec![Box::from(own)];
        chain.extend(others);
        Self {
            fingerprint: fingerprint(own),
            chain,
        }
    }

    /// SHA-256 of the device's own certificate.
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The device's own certificate, DER.
    pub fn own(&self) -> &[u8] {
        self.chain.first().map_or(&[], |own| own)
    }

    /// Those that it sent beside its own, DER.
    pub fn others(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().skip(1).map(AsRef::as_ref)
    }

    /// What its own certificate says, and what speaks against it at `now`.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`]: TLS let in what is none.
    pub fn describe(&self, now: Millis) -> Result<CertificateInfo, CertificateError> {
        describe(self.own(), now)
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("fingerprint", &self.fingerprint)
            .field("certificates", &self.chain.len())
            .finish()
    }
}

impl KeyKind {
    /// Whether TLS here verifies signatures of such a key.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::Rsa { bits } => (MIN_RSA_BITS..=MAX_RSA_BITS).contains(bits),
            Self::Ec { curve } => USABLE_CURVES.contains(&curve.as_str()),
            Self::Ed25519 => true,
            Self::Other { .. } => false,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Ec { curve } => write!(f, "EC {curve}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other { algorithm } => write!(f, "algorithm {algorithm}"),
        }
    }
}

impl fmt::Display for CertificateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { since } => write!(f, "the certificate ended at {since}"),
            Self::EndsSoon { at } => write!(f, "the certificate ends at {at}"),
            Self::NotYetValid { until } => write!(f, "the certificate begins at {until}"),
            Self::WeakSignature { algorithm } => {
                write!(
                    f,
                    "the certificate is signed with {algorithm}, which is broken"
                )
            }
            Self::UnusableKey { key } => write!(
                f,
                "the certificate's key is {key}, with which no device can connect: use RSA of \
                 {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, EC P-256, P-384 or P-521, or Ed25519"
            ),
        }
    }
}

fn is_pem(bytes: &[u8]) -> bool {
    // DER begins with the tag of a sequence, which is a digit in PEM's preamble at best.
    let start = bytes.trim_ascii_start();
    start.windows(BEGIN.len()).any(|window| window == BEGIN)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::Malformed),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (Millis, Millis) {
    let millis = |seconds: i64| Millis::from_i64(seconds.saturating_mul(1_000));
    let validity = certificate.validity();
    (
        millis(validity.not_before.timestamp()),
        millis(validity.not_after.timestamp()),
    )
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> KeyKind {
    let algorithm = &key.algorithm.algorithm;
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => KeyKind::Rsa {
            bits: bits(rsa.modulus),
        },
        Ok(PublicKey::EC(_)) => KeyKind::Ec {
            curve: curve(&key.algorithm),
        },
        _ if *algorithm == oid_registry::OID_SIG_ED25519 => KeyKind::Ed25519,
        _ => KeyKind::Other {
            algorithm: algorithm.to_id_string(),
        },
    }
}

/// Bits of an unsigned number, without what leads it.
fn bits(number: &[u8]) -> usize {
    let mut bytes = number.iter().skip_while(|byte| **byte == 0);
    bytes.next().map_or(0, |first| {
        8 * (bytes.count() + 1) - first.leading_zeros() as usize
    })
}

fn curve(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let oid = algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    oid.map_or_else(
        || "with parameters of its own".to_owned(),
        |oid| {
            let known = CURVES.into_iter().find(|(known, _)| *known == oid);
            known.map_or_else(|| oid.to_id_string(), |(_, name)| name.to_owned())
        },
    )
}

fn weak_signature(algorithm: &AlgorithmIdentifier<'_>) -> Option<&'static str> {
    let weak = WEAK_SIGNATURES
        .into_iter()
        .find(|(oid, _)| *oid == algorithm.algorithm);
    weak.map(|(_, name)| name)
}

/// A certificate that ends within so many days is warned about.
pub const SOON_DAYS: u64 = 30;
/// Most that is read of a certificate, a chain or a product's authorities.
pub const MAX_BYTES: usize = 32 * 1024;
const MIN_RSA_BITS: usize = 2_048;
const MAX_RSA_BITS: usize = 8_192;
const USABLE_CURVES: [&str; 3] = ["P-256", "P-384", "P-521"];
const BEGIN: &[u8] = b"-----BEGIN ";
const CURVES: [(Oid<'static>, &str); 4] = [
    (oid_registry::OID_EC_P256, "P-256"),
    (oid_registry::OID_NIST_EC_P384, "P-384"),
    (oid_registry::OID_NIST_EC_P521, "P-521"),
    (SECP256K1, "secp256k1"),
];
const SECP256K1: Oid<'static> = x509_parser::der_parser::oid!(1.3.132.0.10);
const WEAK_SIGNATURES: [(Oid<'static>, &str); 4] = [
    (oid_registry::OID_PKCS1_MD5WITHRSAENC, "MD5"),
    (oid_registry::OID_PKCS1_SHA1WITHRSA, "SHA-1"),
    (ECDSA_WITH_SHA1, "SHA-1"),
    (DSA_WITH_SHA1, "SHA-1"),
];
const ECDSA_WITH_SHA1: Oid<'static> = x509_parser::der_parser::oid!(1.2.840.10045.4.1);
const DSA_WITH_SHA1: Oid<'static> = x509_parser::der_parser::oid!(1.2.840.10040.4.3);

#[cfg(test)]
mod tests;
