//! One MQTT connection: socket, TLS and codec, with the buffers left to the thread.
//!
//! A link at rest owns no read or write buffer: bytes are read into, decoded in and answered from
//! a scratch pair that all devices of a thread share, and only what is left over (half a packet,
//! what a full socket refused) is copied to the link.
//! Invariants: a packet is handled within the poll that decoded it; handlers never wait.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use headgate_protocol::mqtt::{Decoder, Limits, Packet, ProtocolVersion, Role};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::io::poll_read_buf;

use super::error::DeviceError;
use crate::throttle::Throttle;
use crate::web::WebSocket;

/// What a link runs over.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Where and how a socket is opened.
#[derive(Clone)]
pub(crate) struct Dial {
    /// The listener.
    pub(crate) address: SocketAddr,
    /// Connector and name of the certificate; `None` without TLS.
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Host that a WebSocket is asked of; `None`: MQTT without one.
    pub(crate) web: Option<String>,
}

impl Dial {
    /// Opens the socket from `source`, reading at most `read_bps` bytes a second.
    ///
    /// # Errors
    /// [`DeviceError::Connect`] and [`DeviceError::Tls`].
    ///
    /// # Cancel safety
    /// Safe: the socket is closed.
    pub(crate) async fn open(
        &self,
        source: Option<IpAddr>,
        read_bps: Option<u64>,
    ) -> Result<Box<dyn Socket>, DeviceError> {
        self.open_as(None, source, read_bps).await
    }

    /// As [`Self::open`], with a certificate of the device's own where `connector` has one.
    ///
    /// # Errors
    /// [`DeviceError::Connect`], [`DeviceError::Tls`] and [`DeviceError::WebSocket`].
    ///
    /// # Cancel safety
    /// Safe: the socket is closed.
    pub(crate) async fn open_as(
        &self,
        own: Option<&TlsConnector>,
        source: Option<IpAddr>,
        read_bps: Option<u64>,
    ) -> Result<Box<dyn Socket>, DeviceError> {
        let tcp = self
            .open_tcp(source, read_bps)
            .await
            .map_err(DeviceError::Connect)?;
        let socket = Throttle::new(tcp, read_bps);
        match &self.tls {
            Some((connector, name)) => {
                let connector = own.unwrap_or(connector);
                let handshake = connector.connect(name.clone(), socket);
                self.in_web(handshake.await.map_err(DeviceError::Tls)?)
                    .await
            }
            None => self.in_web(socket).await,
        }
    }

    /// Puts a WebSocket around what is said, where devices speak so.
    async fn in_web(&self, socket: impl Socket + 'static) -> Result<Box<dyn Socket>, DeviceError> {
        match &self.web {
            Some(host) => {
                let seed = MASKS.fetch_add(1, Ordering::Relaxed);
                let web = WebSocket::open(socket, host, seed).await;
                Ok(Box::new(web.map_err(DeviceError::WebSocket)?))
            }
            None => Ok(Box::new(socket)),
        }
    }

    async fn open_tcp(
        &self,
        source: Option<IpAddr>,
        read_bps: Option<u64>,
    ) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        if read_bps.is_some() {
            // A slow device has little memory too: the gateway must feel its slowness.
            socket.set_recv_buffer_size(SLOW_RECEIVE_BYTES)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What the packets of a link are handed to; `out` takes what is to be sent in answer.
pub(crate) trait Handler {
    /// Takes one packet; false ends this turn, for the caller to look at the handler's state.
    ///
    /// # Errors
    /// Any error ends the link.
    fn handle(&mut self, packet: Packet, out: &mut BytesMut) -> Result<bool, DeviceError>;
}

/// An open connection.
pub(crate) struct Link {
    socket: Box<dyn Socket>,
    decoder: Decoder,
    /// Received bytes that are no whole packet yet.
    unread: BytesMut,
    /// Bytes that the socket did not take.
    unsent: BytesMut,
    flushed: bool,
}

impl Link {
    /// A link that has sent and received nothing.
    pub(crate) fn new(socket: Box<dyn Socket>, version: ProtocolVersion) -> Self {
        let mut decoder = Decoder::new(Role::Client, LIMITS);
        decoder.set_version(version);
        Self {
            socket,
            decoder,
            unread: BytesMut::new(),
            unsent: BytesMut::new(),
            flushed: true,
        }
    }

    /// Sends what is left over, then reads until the socket is empty, the handler ends the turn or
    /// the turn's share is used; answers are written at the end of the turn.
    ///
    /// # Errors
    /// The handler's, [`DeviceError::Closed`], [`DeviceError::Io`] and [`DeviceError::Decode`].
    ///
    /// # Cancel safety
    /// Safe: nothing is held between polls.
    pub(crate) async fn turn(&mut self, handler: &mut impl Handler) -> Result<(), DeviceError> {
        poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| self.poll_turn(cx, scratch, handler))).await
    }

    /// Sends what `write` appends, as far as the socket takes it now; the rest goes with the next
    /// turn.
    ///
    /// # Errors
    /// `write`'s own and [`DeviceError::Io`].
    ///
    /// # Cancel safety
    /// Safe: never waits.
    pub(crate) async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        write(&mut self.unsent)?;
        poll_fn(|cx| match self.poll_unsent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Bytes that the socket has not taken.
    pub(crate) fn backlog(&self) -> usize {
        self.unsent.len()
    }

    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        handler: &mut impl Handler,
    ) -> Poll<Result<(), DeviceError>> {
        if let Poll::Ready(Err(error)) = self.poll_unsent(cx) {
            return Poll::Ready(Err(error));
        }
        let Scratch { read, write } = scratch;
        read.clear();
        write.clear();
        let received = self.poll_receive(cx, read, write, handler);
        // What is no whole packet yet waits in the link; the scratch is the next device's.
        self.unread.extend_from_slice(read);
        if !write.is_empty() {
            self.poll_answers(cx, write)?;
        }
        received
    }

    /// Decodes what was left over, then reads and decodes; ready once anything was read or handled.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        read: &mut BytesMut,
        write: &mut BytesMut,
        handler: &mut impl Handler,
    ) -> Poll<Result<(), DeviceError>> {
        let mut progress = false;
        if !self.unread.is_empty() {
            // Taken, not cleared: a link at rest keeps no memory for what came in pieces.
            read.extend_from_slice(&std::mem::take(&mut self.unread));
            match self.decode(read, write, handler)? {
                Decoded::Stop => return Poll::Ready(Ok(())),
                Decoded::All { any } => progress |= any,
            }
        }
        for _ in 0..READS_PER_TURN {
            read.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut *self.socket), cx, read) {
                Poll::Pending if progress => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(DeviceError::Closed)),
                Poll::Ready(Ok(_)) => progress = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(error))),
            }
            if matches!(self.decode(read, write, handler)?, Decoded::Stop) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn decode(
        &mut self,
        read: &mut BytesMut,
        write: &mut BytesMut,
        handler: &mut impl Handler,
    ) -> Result<Decoded, DeviceError> {
        let mut any = false;
        while let Some(packet) = self.decoder.decode(read)? {
            any = true;
            if !handler.handle(packet, write)? {
                return Ok(Decoded::Stop);
            }
        }
        Ok(Decoded::All { any })
    }

    /// Writes `answers`, behind what is left over from before.
    fn poll_answers(
        &mut self,
        cx: &mut Context<'_>,
        answers: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        while self.unsent.is_empty() && !answers.is_empty() {
            match Pin::new(&mut *self.socket).poll_write(cx, answers) {
                Poll::Ready(Ok(n)) => answers.advance(n),
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => break,
            }
            self.flushed = false;
        }
        self.unsent.extend_from_slice(answers);
        if let Poll::Ready(Err(error)) = self.poll_unsent(cx) {
            return Err(error);
        }
        Ok(())
    }

    /// Writes and flushes what the socket did not take before.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DeviceError>> {
        while !self.unsent.is_empty() {
            let n =
                ready!(Pin::new(&mut *self.socket).poll_write(cx, &self.unsent)).map_err(lost)?;
            self.unsent.advance(n);
            self.flushed = false;
        }
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        if !self.flushed {
            ready!(Pin::new(&mut *self.socket).poll_flush(cx)).map_err(lost)?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// How a pass over received bytes ended.
enum Decoded {
    /// The handler wants the turn to end.
    Stop,
    /// Every whole packet was handled; `any`: there was one.
    All { any: bool },
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    read: BytesMut,
    write: BytesMut,
}

/// Gives every WebSocket masks of its own.
static MASKS: AtomicU32 = AtomicU32::new(0x5eed);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// An end of the stream within a TLS record is a close like any other.
fn lost(error: io::Error) -> DeviceError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DeviceError::Closed,
        _ => DeviceError::Io(error),
    }
}

/// What the swarm takes from a gateway: more than any gateway should send.
const LIMITS: Limits = Limits {
    max_packet_bytes: 1 << 20,
    max_connect_bytes: 1 << 16,
    max_topic_bytes: 1_024,
    max_topic_levels: 32,
    max_client_id_bytes: 256,
    max_filters_per_packet: 64,
};
/// Room for one read: two TLS records.
const READ_BYTES: usize = 32 * 1024;
/// A device that has read this often lets the others have their turn.
const READS_PER_TURN: usize = 16;
/// Receive buffer of a slow device's socket; the kernel doubles it.
const SLOW_RECEIVE_BYTES: u32 = 8 * 1024;
