//! Clients that peers are driven with: HTTPS readers, MQTT subscribers and CoAP clients.
//!
//! They share the swarm's habits: one read buffer a thread, source addresses spread over
//! 127.0.0.0/8, full TLS 1.3 handshakes with AES-128-GCM and X25519.

pub(crate) mod coap;
pub(crate) mod https;
pub(crate) mod identity;
pub(crate) mod mqtt;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::ready;
use std::time::Duration;

use headgate_protocol::mqtt::{DecodeError, EncodeError};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use self::identity::Identity;

/// Why a client ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The CA cannot be read.
    #[error("the CA: {0}")]
    Ca(#[from] rustls::pki_types::pem::Error),
    /// A certificate for a client cannot be made.
    #[error("a client's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls refused the settings.
    #[error("tls settings: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer's answer is not the one that was to come.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// The peer sent what MQTT forbids.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A packet of ours cannot exist.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A client's task panicked.
    #[error("a client ended early")]
    Ended,
    /// Clients did not get as far as they should have.
    #[error("only {reached} of {wanted} clients {what}")]
    TooLate {
        /// How many did.
        reached: usize,
        /// How many were to.
        wanted: usize,
        /// What.
        what: &'static str,
    },
}

/// A socket of either kind.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Where a fleet connects to, and how.
#[derive(Clone)]
pub(crate) struct Dial {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    /// Plain TCP.
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// TLS 1.3 that trusts the certificates of `ca`.
    ///
    /// # Errors
    /// [`ClientError::Ca`] and [`ClientError::Tls`].
    pub(crate) fn tls(address: SocketAddr, ca: &Path) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self {
            address,
            tls: Some(Arc::new(config)),
        })
    }

    /// Opens a connection; with TLS the client presents `identity`, if it has one.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub(crate) async fn open(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Socket>, ClientError> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(source())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let mut config = Arc::clone(config);
        if let Some(identity) = identity {
            let resolver = Arc::clone(&identity.resolver);
            Arc::make_mut(&mut config).client_auth_cert_resolver = resolver;
        }
        let connector = TlsConnector::from(config);
        let name = ServerName::from(self.address.ip());
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// The next source address: ports that wait out an earlier run are not missed.
fn source() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 4096;
    let [_, _, high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, high, low)), 0)
}

/// Reads once into the thread's buffer; `take` sees what came, nothing at the end of the stream.
///
/// # Cancel safety
/// Safe: bytes are taken in the poll that read them.
pub(crate) async fn read_shared<T>(
    socket: &mut Box<dyn Socket>,
    mut take: impl FnMut(&[u8]) -> T,
) -> io::Result<T> {
    thread_local! {
        static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
    }
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *socket).poll_read(context, &mut buf))?;
            Ok(take(buf.filled())).into()
        })
    })
    .await
}

/// Waits until `count` gives `wanted`; `ended` tells of a client that ended before.
///
/// # Errors
/// What `ended` gives, and [`ClientError::TooLate`] after `limit`.
pub(crate) async fn until_all(
    wanted: usize,
    what: &'static str,
    limit: Duration,
    count: impl Fn() -> usize,
    mut ended: impl FnMut() -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let deadline = Instant::now() + limit;
    while count() < wanted {
        ended()?;
        if Instant::now() >= deadline {
            let reached = count();
            return Err(ClientError::TooLate {
                reached,
                wanted,
                what,
            });
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// What the first client that ended has to say; clients stay until they are told to leave.
///
/// # Errors
/// Its error, or [`ClientError::Ended`].
pub(crate) fn first_end(tasks: &mut JoinSet<Result<(), ClientError>>) -> Result<(), ClientError> {
    match tasks.try_join_next() {
        Some(Ok(Err(error))) => Err(error),
        Some(Ok(Ok(())) | Err(_)) => Err(ClientError::Ended),
        None => Ok(()),
    }
}

/// Connections being made at once; rumqttd resets some when there are 256 of them.
pub(crate) const MAX_CONNECTING: usize = 64;
/// For all clients of a fleet to connect, or to receive everything.
pub(crate) const FLEET_TIMEOUT: Duration = Duration::from_mins(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const READ_BYTES: usize = 65_536;
