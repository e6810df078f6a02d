//! TLS: the only file that knows which rustls API carries the bytes.
//!
//! [`DeviceStream`] is a device's connection, TLS or plain, that is read and written in whole
//! batches: encrypted bytes pass through buffers of the thread, the session's plain bytes through
//! the caller's, and a connection at rest owns neither. [`HttpAcceptor`] is for listeners that speak
//! HTTP over an ordinary stream. Device listeners for MQTT ask for client certificates (`client`), those for HTTP do not.
//!
//! rustls's buffered `ServerConnection` is driven by hand here; `docs/decisions/0003` says why and
//! what comes after it.

mod chain;
mod client;

use std::{
    fs,
    future::Future,
    io::{self, BufRead, IoSlice, Read, Write},
    path::Path,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::{Buf, BytesMut};
use rustls::{
    ConfigBuilder, ServerConfig, ServerConnection, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WantsServerCert},
};
use tokio::net::TcpStream;

pub use self::chain::ClientChains;
use self::client::AnyCertificate;
use super::http::listener::AcceptStream;
use crate::{model::PeerCertificate, session::Batch};

/// The most plain bytes that one call of [`DeviceStream::read`] gives, so that one device does not
/// keep a thread to itself.
const READ_BUDGET: usize = 64 * 1024;
/// Bytes asked of a plain socket at a time.
const PLAIN_READ: usize = 16 * 1024;

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
    /// They do not fit each other, or TLS refuses them.
    #[error("certificate and key: {0}")]
    Refused(#[from] rustls::Error),
}

/// What the server presents, for any number of listeners.
#[derive(Debug, Clone)]
pub struct ServerTls {
    mqtt: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    not_after: SystemTime,
}

impl ServerTls {
    /// Reads a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// [`TlsError`] naming the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = read_chain(certificate)?;
        let not_after = end_of(certificate, &chain)?;
        let key = read_key(key)?;
        let provider = Arc::new(provider());
        let any = AnyCertificate::new(provider.signature_verification_algorithms);
        let asking = builder(&provider)?.with_client_cert_verifier(Arc::new(any));
        let mqtt = config(asking, chain.clone(), key.clone_key(), &[])?;
        let http = config(
            builder(&provider)?.with_no_client_auth(),
            chain,
            key,
            &[b"http/1.1"],
        )?;
        Ok(Self {
            mqtt,
            http,
            not_after,
        })
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
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

fn config(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = builder.with_single_cert(chain, key)?;
    // Devices stay connected: a ticket costs 3 % of each handshake, and would keep client certificates.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.display().to_string(),
        source,
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |reason: String| TlsError::Pem {
        path: path.display().to_string(),
        reason,
    };
    let chain = CertificateDer::pem_slice_iter(&read_file(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(error.to_string()))?;
    if chain.is_empty() {
        Err(pem("holds no certificate".to_owned()))
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

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read_file(path)?).map_err(|error| TlsError::Pem {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
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

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many plain bytes were appended; there may be more.
    Data(usize),
    /// Nothing now.
    Blocked,
    /// The peer has closed its side.
    Closed,
}

/// A device's connection.
#[derive(Debug)]
pub struct DeviceStream {
    tcp: TcpStream,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tls(Box<ServerConnection>),
    /// What the socket has not taken.
    Plain(BytesMut),
}

impl DeviceStream {
    /// A connection without TLS.
    pub fn plain(tcp: TcpStream) -> Self {
        Self {
            tcp,
            kind: Kind::Plain(BytesMut::new()),
        }
    }

    /// Carries out the TLS handshake.
    ///
    /// # Errors
    /// What went wrong with the peer or its link; the alert has been sent where that was possible.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn handshake(tcp: TcpStream, tls: &ServerTls) -> io::Result<Self> {
        let mut connection =
            Box::new(ServerConnection::new(Arc::clone(&tls.mqtt)).map_err(io::Error::other)?);
        // What is encrypted and not taken by the socket is bounded by the size of a batch.
        connection.set_buffer_limit(None);
        let mut stream = Self {
            tcp,
            kind: Kind::Tls(connection),
        };
        while stream.is_handshaking() {
            if stream.has_backlog() {
                std::future::poll_fn(|cx| stream.poll_flush(cx)).await?;
                continue;
            }
            std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await?;
            if stream.handshake_step()? == ReadOutcome::Closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(stream)
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// What the peer presented in the handshake, copied: TLS keeps its own as long as the connection.
    pub fn peer_certificate(&self) -> Option<PeerCertificate> {
        match &self.kind {
            Kind::Tls(connection) => client::presented(connection.peer_certificates()?),
            Kind::Plain(_) => None,
        }
    }

    /// Whether bytes wait for the socket.
    pub fn has_backlog(&self) -> bool {
        match &self.kind {
            Kind::Tls(connection) => connection.wants_write(),
            Kind::Plain(backlog) => !backlog.is_empty(),
        }
    }

    /// Waits until something can be read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Appends what has been received to `buffer`, at most about 64 KiB a call.
    ///
    /// # Errors
    /// The peer broke TLS, or the link broke.
    pub fn read(&mut self, buffer: &mut BytesMut) -> io::Result<ReadOutcome> {
        match &mut self.kind {
            Kind::Tls(connection) => read_tls(&self.tcp, connection, buffer),
            Kind::Plain(_) => read_plain(&self.tcp, buffer),
        }
    }

    /// Encrypts a batch and hands it to the socket in as few writes as it takes; what the socket
    /// does not take stays as backlog.
    ///
    /// # Errors
    /// The link broke.
    pub fn write(&mut self, batch: &Batch) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tls(connection) => {
                for part in batch.parts() {
                    encrypt(connection, part.head, part.payload)?;
                }
            }
            Kind::Plain(backlog) => {
                for part in batch.parts() {
                    backlog.extend_from_slice(part.head);
                    part.payload
                        .iter()
                        .for_each(|slice| backlog.extend_from_slice(slice));
                }
            }
        }
        self.flush().map(|_| ())
    }

    /// Hands the backlog to the socket as far as it goes; gives the bytes that it took.
    ///
    /// # Errors
    /// The link broke.
    pub fn flush(&mut self) -> io::Result<usize> {
        let mut socket = Socket(&self.tcp);
        let mut taken = 0;
        loop {
            let result = match &mut self.kind {
                Kind::Tls(connection) if connection.wants_write() => {
                    connection.write_tls(&mut socket)
                }
                Kind::Plain(backlog) if !backlog.is_empty() => {
                    socket.write(backlog).inspect(|n| backlog.advance(*n))
                }
                Kind::Plain(backlog) => {
                    *backlog = BytesMut::new();
                    return Ok(taken);
                }
                Kind::Tls(_) => return Ok(taken),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => taken += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the socket takes bytes, and hands it the backlog.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            let taken = self.flush()?;
            if taken > 0 || !self.has_backlog() {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// Says goodbye in TLS and closes the sending side; best effort.
    pub fn close(&mut self) {
        if let Kind::Tls(connection) = &mut self.kind {
            connection.send_close_notify();
        }
        // The connection is over whatever comes of this.
        let _unsent = self.flush();
    }

    fn is_handshaking(&self) -> bool {
        match &self.kind {
            Kind::Tls(connection) => connection.is_handshaking(),
            Kind::Plain(_) => false,
        }
    }

    fn handshake_step(&mut self) -> io::Result<ReadOutcome> {
        let Kind::Tls(connection) = &mut self.kind else {
            return Ok(ReadOutcome::Blocked);
        };
        let outcome = receive(&self.tcp, connection);
        // An alert that explains the failure goes out, too.
        let flushed = self.flush();
        let outcome = outcome?;
        flushed?;
        Ok(outcome)
    }
}

/// Encrypts one packet into records of its own.
fn encrypt(
    connection: &mut ServerConnection,
    head: &[u8],
    payload: &[bytes::Bytes],
) -> io::Result<()> {
    let mut writer = connection.writer();
    let [slice] = payload else {
        writer.write_all(head)?;
        return payload.iter().try_for_each(|slice| writer.write_all(slice));
    };
    let written = writer.write_vectored(&[IoSlice::new(head), IoSlice::new(slice)])?;
    // Without a buffer limit everything is taken at once.
    if written == head.len() + slice.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

fn read_tls(
    tcp: &TcpStream,
    connection: &mut ServerConnection,
    buffer: &mut BytesMut,
) -> io::Result<ReadOutcome> {
    let before = buffer.len();
    loop {
        let outcome = receive(tcp, connection)?;
        loop {
            match connection.reader().fill_buf() {
                // The peer has said goodbye.
                Ok([]) => {
                    let got = buffer.len() - before;
                    return Ok(if got == 0 {
                        ReadOutcome::Closed
                    } else {
                        ReadOutcome::Data(got)
                    });
                }
                Ok(plain) => {
                    let len = plain.len();
                    buffer.extend_from_slice(plain);
                    connection.reader().consume(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let got = buffer.len() - before;
        match outcome {
            ReadOutcome::Closed if got == 0 => return Ok(ReadOutcome::Closed),
            ReadOutcome::Blocked if got == 0 => return Ok(ReadOutcome::Blocked),
            ReadOutcome::Data(_) if got < READ_BUDGET => {}
            _ => return Ok(ReadOutcome::Data(got)),
        }
    }
}

/// Takes encrypted bytes from the socket and decrypts them.
fn receive(tcp: &TcpStream, connection: &mut ServerConnection) -> io::Result<ReadOutcome> {
    let received = match connection.read_tls(&mut Socket(tcp)) {
        Ok(0) => return Ok(ReadOutcome::Closed),
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadOutcome::Blocked),
        Err(error) => return Err(error),
    };
    connection
        .process_new_packets()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(ReadOutcome::Data(received))
}

fn read_plain(tcp: &TcpStream, buffer: &mut BytesMut) -> io::Result<ReadOutcome> {
    buffer.reserve(PLAIN_READ);
    match tcp.try_read_buf(buffer) {
        Ok(0) => Ok(ReadOutcome::Closed),
        Ok(received) => Ok(ReadOutcome::Data(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadOutcome::Blocked),
        Err(error) => Err(error),
    }
}

/// A tokio socket as a blocking-style reader and writer that never blocks.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
