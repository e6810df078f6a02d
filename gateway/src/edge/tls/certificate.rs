//! The certificates that are served, and their exchange while connections are open.
//!
//! A [`Served`] is asked for its certificate at every handshake; exchanging it leaves open connections
//! as they are. [`Certificates`] knows the files of all of them, and reads all anew or none.
//! Invariants: a certificate that is served fits its key and is one; files that cannot be used change
//! nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::ServerTls;

/// Why a certificate and its key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate, or no key.
    #[error("{path}: {reason}")]
    Pem {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// They do not fit each other.
    #[error("{certificate} and {key}: {source}")]
    Unfit {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
        /// Why.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Refused(#[from] rustls::Error),
}

/// One certificate with its key, as it is in its files now.
#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
    /// Digest of both files.
    digest: [u8; 32],
}

/// The certificate that listeners present.
#[derive(Debug)]
pub(super) struct Served {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    loaded: RwLock<Loaded>,
}

impl Served {
    pub(super) fn open(
        certificate: &Path,
        key: &Path,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            loaded: RwLock::new(load(certificate, key, &provider)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            provider,
        })
    }

    pub(super) fn not_after(&self) -> SystemTime {
        self.loaded.read().not_after
    }

    fn read_anew(&self) -> Result<Loaded, TlsError> {
        load(&self.certificate, &self.key, &self.provider)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.loaded.read().key))
    }
}

/// Every certificate that this process serves.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Arc<Mutex<Vec<Arc<Served>>>>);

impl Certificates {
    /// Adds what a listener presents; what shares a certificate with it is one with it.
    pub fn add(&self, tls: &ServerTls) {
        let mut all = self.0.lock();
        if !all.iter().any(|known| Arc::ptr_eq(known, &tls.served)) {
            all.push(Arc::clone(&tls.served));
        }
    }

    /// Reads the files of all certificates again and serves what stands there: all of it or, if one
    /// cannot be used, none. Gives how many changed.
    ///
    /// Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`TlsError`] of the first that cannot be used; what was served before goes on being served.
    pub fn reload(&self) -> Result<usize, TlsError> {
        let all = self.0.lock();
        let anew: Vec<_> = all
            .iter()
            .map(|served| served.read_anew())
            .collect::<Result<_, _>>()?;
        let mut changed = 0;
        for (served, anew) in all.iter().zip(anew) {
            let mut loaded = served.loaded.write();
            if loaded.digest != anew.digest {
                *loaded = anew;
                changed += 1;
            }
        }
        Ok(changed)
    }

    /// When the first of them ends.
    pub fn first_end(&self) -> Option<SystemTime> {
        self.0.lock().iter().map(|served| served.not_after()).min()
    }
}

fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
    let (chain_pem, key_pem) = (read_file(certificate)?, read_file(key)?);
    let chain = read_chain(certificate, &chain_pem)?;
    let not_after = end_of(certificate, &chain)?;
    let mut digest = Sha256::new();
    digest.update(&*chain_pem);
    digest.update(&*key_pem);
    let key_der = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| TlsError::Pem {
        path: key.display().to_string(),
        reason: error.to_string(),
    })?;
    let certified =
        CertifiedKey::from_der(chain, key_der, provider).map_err(|source| TlsError::Unfit {
            certificate: certificate.display().to_string(),
            key: key.display().to_string(),
            source,
        })?;
    Ok(Loaded {
        key: Arc::new(certified),
        not_after,
        digest: digest.finalize().into(),
    })
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.display().to_string(),
        source,
    })?;
    Ok(Zeroizing::new(bytes))
}

fn read_chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |reason: String| TlsError::Pem {
        path: path.display().to_string(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(error.to_string()))?;
    if chain.is_empty() {
        Err(refuse("holds no certificate".to_owned()))
    } else {
        Ok(chain)
    }
}

/// When the first certificate of the chain ends.
fn end_of(path: &Path, chain: &[CertificateDer<'static>]) -> Result<SystemTime, TlsError> {
    let pem = |reason: &str| TlsError::Pem {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let leaf = chain.first().ok_or_else(|| pem("holds no certificate"))?;
    let (_, leaf) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| pem("is no X.509 certificate"))?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
