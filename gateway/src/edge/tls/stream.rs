//! A device's connection, TLS or plain, bare or in a WebSocket, read and written in whole batches.
//!
//! Sockets are tried, never waited for, except where a function's name begins with `poll`.
//! Encrypted bytes pass through buffers of the thread, the session's plain bytes through the
//! caller's. Invariants: a connection at rest owns no buffer; what the socket does not take is kept,
//! at most one batch and what answers a handshake.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{ServerTls, buffers::Backlog, buffers::with_outgoing, client, secure::Secure};
use crate::{
    edge::web::{WebError, WebSocket},
    model::PeerCertificate,
    session::Batch,
};

/// The most plain bytes that one call of [`DeviceStream::read`] gives, so that one device does not
/// keep a thread to itself.
pub(super) const READ_BUDGET: usize = 64 * 1024;
/// Bytes asked of a plain socket at a time.
const PLAIN_READ: usize = 16 * 1024;

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
    /// The frames around MQTT, where there are some.
    web: Option<Box<WebSocket>>,
}

#[derive(Debug)]
enum Kind {
    Tls(Box<Secure>),
    Plain(Backlog),
}

impl DeviceStream {
    /// A connection without TLS.
    pub fn plain(tcp: TcpStream) -> Self {
        Self {
            tcp,
            kind: Kind::Plain(Backlog::default()),
            web: None,
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
        let secure = Secure::new(&tls.mqtt).map_err(io::Error::other)?;
        let mut stream = Self {
            tcp,
            kind: Kind::Tls(Box::new(secure)),
            web: None,
        };
        loop {
            if stream.has_backlog() {
                poll_fn(|cx| stream.poll_flush(cx)).await?;
                continue;
            }
            let Kind::Tls(secure) = &mut stream.kind else {
                return Ok(stream);
            };
            if !secure.is_handshaking() {
                return Ok(stream);
            }
            poll_fn(|cx| stream.tcp.poll_read_ready(cx)).await?;
            if secure.handshake(&mut Socket(&stream.tcp))? == ReadOutcome::Closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Speaks in frames of a WebSocket from now on; `buffer` holds those that have come already, and
    /// their payload afterwards.
    ///
    /// # Errors
    /// They are no frames.
    pub fn upgrade(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        let mut web = Box::<WebSocket>::default();
        let taken = self.unframe(&mut web, buffer, 0);
        self.web = Some(web);
        taken.map(|_| ())
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// What the peer presented in the handshake, copied: TLS keeps its own as long as the connection.
    pub fn peer_certificate(&self) -> Option<PeerCertificate> {
        match &self.kind {
            Kind::Tls(secure) => client::presented(secure.peer_certificates()?),
            Kind::Plain(_) => None,
        }
    }

    /// Whether bytes wait for the socket.
    pub fn has_backlog(&self) -> bool {
        match &self.kind {
            Kind::Tls(secure) => secure.has_backlog(),
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
    /// The peer broke TLS or the frames around MQTT, or the link broke.
    pub fn read(&mut self, buffer: &mut BytesMut) -> io::Result<ReadOutcome> {
        let Some(mut web) = self.web.take() else {
            return self.read_plain(buffer);
        };
        let outcome = self.read_frames(&mut web, buffer);
        self.web = Some(web);
        outcome
    }

    /// Encrypts a batch and hands it to the socket in as few writes as it takes; what the socket
    /// does not take stays as backlog.
    ///
    /// # Errors
    /// The link broke.
    pub fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let is_web = self.web.is_some();
        let pieces = batch.parts().map(|part| Piece {
            lead: if is_web {
                Lead::binary(
                    part.head.len() + part.payload.iter().map(bytes::Bytes::len).sum::<usize>(),
                )
            } else {
                Lead::default()
            },
            head: part.head,
            payload: part.payload,
        });
        self.write_pieces(pieces)
    }

    /// Writes bytes that are no batch: an answer of HTTP, a control frame.
    ///
    /// # Errors
    /// The link broke.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let piece = Piece {
            lead: Lead::default(),
            head: bytes,
            payload: &[],
        };
        self.write_pieces(std::iter::once(piece))
    }

    fn write_pieces<'a>(&mut self, pieces: impl Iterator<Item = Piece<'a>>) -> io::Result<()> {
        let mut socket = Socket(&self.tcp);
        match &mut self.kind {
            Kind::Tls(secure) => secure.write(pieces, &mut socket),
            Kind::Plain(backlog) => with_outgoing(|outgoing| {
                pieces.for_each(|piece| piece.slices().for_each(|slice| outgoing.push(slice)));
                backlog.send(outgoing.filled(), &mut socket)
            }),
        }
    }

    /// Hands the backlog to the socket as far as it goes; gives the bytes that it took.
    ///
    /// # Errors
    /// The link broke.
    pub fn flush(&mut self) -> io::Result<usize> {
        let mut socket = Socket(&self.tcp);
        match &mut self.kind {
            Kind::Tls(secure) => secure.flush(&mut socket),
            Kind::Plain(backlog) => backlog.flush(&mut socket),
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

    /// Says goodbye in the frames of a WebSocket and in TLS; best effort.
    pub fn close(&mut self) {
        if let Some(mut web) = self.web.take() {
            if let Some(goodbye) = web.close() {
                // The connection is over whatever comes of this.
                let _unsent = self.write_bytes(&goodbye);
            }
            self.web = Some(web);
        }
        let mut socket = Socket(&self.tcp);
        let _unsent = match &mut self.kind {
            Kind::Tls(secure) => secure.close(&mut socket),
            Kind::Plain(backlog) => backlog.flush(&mut socket).map(|_| ()),
        };
    }

    fn read_plain(&mut self, buffer: &mut BytesMut) -> io::Result<ReadOutcome> {
        match &mut self.kind {
            Kind::Tls(secure) => secure.read(&mut Socket(&self.tcp), buffer),
            Kind::Plain(_) => read_socket(&self.tcp, buffer),
        }
    }

    /// Reads frames, and takes their payloads out of them.
    fn read_frames(
        &mut self,
        web: &mut WebSocket,
        buffer: &mut BytesMut,
    ) -> io::Result<ReadOutcome> {
        if web.has_ended() {
            return Ok(ReadOutcome::Closed);
        }
        let before = buffer.len();
        let outcome = self.read_plain(buffer)?;
        let ReadOutcome::Data(_) = outcome else {
            return Ok(outcome);
        };
        self.unframe(web, buffer, before)
    }

    fn unframe(
        &mut self,
        web: &mut WebSocket,
        buffer: &mut BytesMut,
        from: usize,
    ) -> io::Result<ReadOutcome> {
        let mut answers = Vec::new();
        let taken = web.unframe(buffer, from, &mut answers);
        // A peer that takes nothing gets no pongs either: they would pile up.
        if !answers.is_empty() && !self.has_backlog() {
            self.write_bytes(&answers)?;
        }
        match (taken, buffer.len() - from) {
            (Err(WebError::Closed), 0) => Ok(ReadOutcome::Closed),
            // What came before the goodbye counts, and the next read gives none. Without a goodbye there
            // may be more even where all frames were empty.
            (Ok(()) | Err(WebError::Closed), got) => Ok(ReadOutcome::Data(got)),
            (Err(error), _) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// Bytes that belong together: they share a record where they fit into one.
pub(super) struct Piece<'a> {
    lead: Lead,
    head: &'a [u8],
    payload: &'a [bytes::Bytes],
}

impl Piece<'_> {
    pub(super) fn len(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        [self.lead.bytes(), self.head]
            .into_iter()
            .chain(self.payload.iter().map(|slice| &slice[..]))
    }
}

#[cfg(test)]
impl<'a> Piece<'a> {
    pub(super) fn of(head: &'a [u8], payload: &'a [bytes::Bytes]) -> Self {
        Self {
            lead: Lead::default(),
            head,
            payload,
        }
    }
}

/// The header of a frame that a piece is the payload of; empty where there are no frames.
#[derive(Default)]
struct Lead {
    bytes: [u8; WebSocket::MAX_HEADER],
    len: usize,
}

impl Lead {
    fn binary(len: usize) -> Self {
        let mut lead = Self::default();
        lead.len = WebSocket::header(len, &mut lead.bytes);
        lead
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

fn read_socket(tcp: &TcpStream, buffer: &mut BytesMut) -> io::Result<ReadOutcome> {
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
    /// Reads once. What fills less than there was room for has emptied the socket: the next read
    /// waits for more to come, and does not ask the kernel only to hear that there is nothing.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        let mut received = 0;
        let emptied = self.0.try_io(Interest::READABLE, || {
            received = (&*SockRef::from(self.0)).read(buffer)?;
            if received == room || received == 0 {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        match emptied {
            Err(error) if received == 0 => Err(error),
            _ => Ok(received),
        }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
