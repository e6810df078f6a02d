//! TLS of the command line's own client: it trusts the authorities that it is given, and no others.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ClientError;

/// Where systems keep the authorities that everybody trusts; the first that is there.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What makes TLS of a connection, and for which name the gateway must have a certificate.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// For a gateway at `host`, whose certificate the authorities in `ca` vouch for, or without one those of the
    /// system.
    ///
    /// # Errors
    /// [`ClientError`] where the authorities cannot be read, or the host is no name that a certificate can carry.
    pub(super) fn new(host: &str, ca: Option<&Path>) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Url {
            url: host.to_owned(),
            why,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| wrong("no certificate can name this host"))?;
        let authorities = match ca {
            Some(file) => file.to_owned(),
            None => system().ok_or_else(|| {
                wrong("this system names no authorities: say with --ca which are trusted")
            })?,
        };
        let roots = read(&authorities).map_err(|source| ClientError::File {
            path: authorities.display().to_string(),
            source,
        })?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| wrong("TLS cannot be spoken here"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    /// Makes TLS of a connection.
    ///
    /// # Errors
    /// What went wrong with the handshake, or with the gateway's certificate.
    pub(super) async fn connect(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), tcp).await
    }
}

/// The authorities of this system.
fn system() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| {
        let known = SYSTEM.iter().map(PathBuf::from);
        known.into_iter().find(|path| path.is_file())
    })
}

/// Every certificate in a PEM file; one that is none of an authority is left out.
fn read(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(io::Error::other)?;
    for certificate in certificates {
        // Bundles of systems hold some that are of no use to anybody.
        let _unusable = roots.add(certificate.map_err(io::Error::other)?);
    }
    if roots.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "holds no certificate of an authority",
        ));
    }
    Ok(roots)
}
