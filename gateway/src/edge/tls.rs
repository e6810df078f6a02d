//! TLS: the only files that know which rustls API carries the bytes.
//!
//! [`DeviceStream`] is a device's connection, TLS or plain, that is read and written in whole
//! batches. [`ServerTls`] is what a listener presents: a certificate that can be exchanged while
//! connections are open ([`Certificates`]). [`HttpAcceptor`] is for listeners that speak HTTP over an
//! ordinary stream. Device listeners for MQTT ask for client certificates (`client`), those for HTTP
//! do not.
//!
//! Devices are carried by rustls's unbuffered API (`unbuffered`), or with the cargo feature
//! `buffered-tls` by its buffered one (`buffered`); `docs/decisions/0021` says why, and what comes
//! after it.

mod buffers;
mod certificate;
mod chain;
mod client;
mod stream;

#[cfg(feature = "buffered-tls")]
#[path = "tls/buffered.rs"]
mod secure;
#[cfg(not(feature = "buffered-tls"))]
#[path = "tls/unbuffered.rs"]
mod secure;
#[cfg(test)]
mod tests;

use std::{future::Future, io, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    ConfigBuilder, ServerConfig, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WantsServerCert},
};
use tokio::net::TcpStream;

use self::{certificate::Served, client::AnyCertificate};
pub use self::{
    certificate::{Certificates, TlsError},
    chain::ClientChains,
    stream::{DeviceStream, ReadOutcome},
};
use super::http::listener::AcceptStream;

/// The most that a client may send before the handshake is done: two flights with a chain of
/// certificates of the longest that is taken.
const MAX_HANDSHAKE_BYTES: u32 = 32 * 1024;

/// What a listener presents; clones share the certificate, and change it together.
#[derive(Debug, Clone)]
pub struct ServerTls {
    mqtt: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    served: Arc<Served>,
}

impl ServerTls {
    /// Reads a certificate chain and its key, both PEM. With `tickets` clients of MQTT can resume a
    /// session of TLS.
    ///
    /// # Errors
    /// [`TlsError`] naming the file.
    pub fn load(certificate: &Path, key: &Path, tickets: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let served = Arc::new(Served::open(certificate, key, Arc::clone(&provider))?);
        let any = AnyCertificate::new(provider.signature_verification_algorithms);
        let asking = builder(&provider)?.with_client_cert_verifier(Arc::new(any));
        let mut mqtt = config(asking, &served);
        if tickets {
            // One is enough for a device that connects again, and each costs 3 % of a handshake. The
            // ticket is the session: nothing is kept here, and its key is another every six hours.
            mqtt.send_tls13_tickets = 1;
            mqtt.ticketer = aws_lc_rs::Ticketer::new()?;
        }
        let mut http = config(builder(&provider)?.with_no_client_auth(), &served);
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            mqtt: Arc::new(mqtt),
            http: Arc::new(http),
            served,
        })
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.served.not_after()
    }

    /// For listeners that speak HTTP.
    pub fn http_acceptor(&self) -> HttpAcceptor {
        HttpAcceptor(tokio_rustls::TlsAcceptor::from(Arc::clone(&self.http)))
    }
}

/// ECDHE with X25519 and P-256 only; AES-128-GCM before the others where the client leaves it to us.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    provider
        .cipher_suites
        .sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    provider
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

/// Without tickets and without a store of sessions: rustls's own holds 256, which helps no fleet.
fn config(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    served: &Arc<Served>,
) -> ServerConfig {
    let mut config = builder.with_cert_resolver(Arc::<Served>::clone(served));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// Speaks TLS on sockets of HTTP listeners.
#[derive(Clone)]
pub struct HttpAcceptor(tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for HttpAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpAcceptor")
    }
}

impl AcceptStream for HttpAcceptor {
    type Stream = tokio_rustls::server::TlsStream<TcpStream>;

    fn accept_stream(
        &self,
        tcp: TcpStream,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        self.0.accept(tcp)
    }
}
