//! Certificates of devices, made by the test, and TLS that presents them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::ResolvesClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{Site, sha256};

/// A certificate and the key that is said to be its.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// An authority that signs certificates of devices.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) pem: String,
}

impl Identity {
    /// Signed by itself, valid now.
    pub(crate) fn self_signed() -> Self {
        Self::valid(-1, 1)
    }

    /// Signed by itself, valid from so many days from now to so many.
    pub(crate) fn valid(from_days: i64, to_days: i64) -> Self {
        let key = KeyPair::generate().expect("a key");
        let made = params(from_days, to_days).self_signed(&key).expect("made");
        Self::of(made.der().clone(), &key)
    }

    /// One of PEM texts.
    pub(crate) fn from_pem(certificate: &str, key: &str) -> Self {
        Self {
            chain: vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")],
            key: Arc::new(PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM")),
        }
    }

    fn of(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate],
            key: Arc::new(PrivateKeyDer::Pkcs8(key.serialize_der().into())),
        }
    }

    /// This certificate with the key of another one.
    pub(crate) fn with_key_of(&self, other: &Self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: Arc::clone(&other.key),
        }
    }

    /// What is registered of it.
    pub(crate) fn fingerprint(&self) -> String {
        sha256(&self.chain[0])
    }

    /// TLS with this certificate, whether its key fits or not.
    pub(crate) fn tls(&self, site: &Site) -> Arc<ClientConfig> {
        let mut config = (*site.tls).clone();
        config.client_auth_cert_resolver = self.resolver();
        Arc::new(config)
    }

    /// The same over one version of TLS.
    pub(crate) fn tls_over(
        &self,
        site: &Site,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        over(site, version, self.resolver())
    }

    fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        let key = aws_lc_rs::sign::any_supported_type(&self.key).expect("a key");
        let certified = CertifiedKey::new(self.chain.clone(), key);
        Arc::new(Presents(Arc::new(certified)))
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(-1, 100);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("made").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// The authority's own certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of a server `localhost`, and its key, both PEM.
    pub(crate) fn server(&self) -> [String; 2] {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(-1, 1);
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().expect("a name"))];
        let made = params.signed_by(&key, &self.issuer).expect("made");
        [made.pem(), key.serialize_pem()]
    }

    /// TLS that trusts this authority and nobody else.
    pub(crate) fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(own).expect("a good CA");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A certificate that this authority signed, valid now.
    pub(crate) fn sign(&self) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let made = params(-1, 1).signed_by(&key, &self.issuer).expect("made");
        Identity::of(made.der().clone(), &key)
    }
}

fn params(from_days: i64, to_days: i64) -> CertificateParams {
    let at = |days: i64| {
        let distance = Duration::from_hours(days.unsigned_abs() * 24);
        if days < 0 {
            SystemTime::now() - distance
        } else {
            SystemTime::now() + distance
        }
    };
    let mut params = CertificateParams::default();
    params.not_before = at(from_days).into();
    params.not_after = at(to_days).into();
    params
}

fn over(
    site: &Site,
    version: &'static SupportedProtocolVersion,
    resolver: Arc<dyn ResolvesClientCert>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(site.data_dir.join("tls/ca.pem")).expect("a CA");
    roots.add(ca).expect("a good CA");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver);
    Arc::new(config)
}

/// TLS that presents nothing, and notes whether it was asked to.
pub(crate) fn listens_for_requests(
    site: &Site,
    version: &'static SupportedProtocolVersion,
) -> (Arc<ClientConfig>, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    (over(site, version, Arc::clone(&asked) as Arc<_>), asked)
}

#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Notes whether a server asked for a certificate, and whether it named authorities.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    asked: AtomicBool,
    named: AtomicBool,
}

impl Asked {
    /// Whether it asked, and whether it named authorities.
    pub(crate) fn seen(&self) -> (bool, bool) {
        let flags = [&self.asked, &self.named].map(|flag| flag.load(Ordering::SeqCst));
        (flags[0], flags[1])
    }
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, names: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::SeqCst);
        self.named.fetch_or(!names.is_empty(), Ordering::SeqCst);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}
