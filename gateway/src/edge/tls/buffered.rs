//! rustls's buffered API: the fallback, compiled with the cargo feature `buffered-tls`.
//!
//! [`Secure`] does what its namesake over the unbuffered API does, and costs about 4 KB more for each
//! connection: rustls keeps a receive buffer of that size as long as the connection lives.

use std::{
    io::{self, BufRead as _, IoSlice, Read, Write},
    sync::Arc,
};

use bytes::BytesMut;
use rustls::{Error, ServerConfig, ServerConnection, pki_types::CertificateDer};

use super::{
    MAX_HANDSHAKE_BYTES,
    stream::{Piece, READ_BUDGET, ReadOutcome},
};

/// The server's side of one TLS connection.
#[derive(Debug)]
pub(super) struct Secure {
    connection: ServerConnection,
    /// Bytes that came before the handshake was done.
    handshake_bytes: u32,
}

impl Secure {
    pub(super) fn new(config: &Arc<ServerConfig>) -> Result<Self, Error> {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        // What is encrypted and not taken by the socket is bounded by the size of a batch.
        connection.set_buffer_limit(None);
        Ok(Self {
            connection,
            handshake_bytes: 0,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.connection.wants_write()
    }

    /// What rustls keeps is its own affair.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        0
    }

    /// Takes what the socket has, and answers it.
    ///
    /// # Errors
    /// The peer broke TLS, which it is told, or the link broke.
    pub(super) fn handshake(
        &mut self,
        socket: &mut (impl Read + Write),
    ) -> io::Result<ReadOutcome> {
        let outcome = self.receive(socket);
        // An alert that explains the failure goes out, too.
        let flushed = self.flush(socket);
        let outcome = outcome?;
        flushed?;
        Ok(outcome)
    }

    /// Appends what has come to `plain`, about [`READ_BUDGET`] bytes at most.
    ///
    /// # Errors
    /// As for [`Secure::handshake`].
    pub(super) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        plain: &mut BytesMut,
    ) -> io::Result<ReadOutcome> {
        let before = plain.len();
        loop {
            let outcome = self.handshake(socket)?;
            let is_closed = self.take_plain(plain)?;
            let got = plain.len() - before;
            match outcome {
                _ if is_closed && got == 0 => return Ok(ReadOutcome::Closed),
                ReadOutcome::Closed if got == 0 => return Ok(ReadOutcome::Closed),
                ReadOutcome::Blocked if got == 0 => return Ok(ReadOutcome::Blocked),
                ReadOutcome::Data(_) if got < READ_BUDGET && !is_closed => {}
                _ => return Ok(ReadOutcome::Data(got)),
            }
        }
    }

    /// Encrypts pieces, and hands them to the socket in as few writes as it takes.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn write<'a>(
        &mut self,
        pieces: impl Iterator<Item = Piece<'a>>,
        socket: &mut impl Write,
    ) -> io::Result<()> {
        for piece in pieces {
            let slices: smallvec::SmallVec<[IoSlice<'_>; 4]> =
                piece.slices().map(IoSlice::new).collect();
            // Without a buffer limit everything is taken at once.
            if self.connection.writer().write_vectored(&slices)? != piece.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.flush(socket).map(|_| ())
    }

    /// Hands the backlog to the socket as far as it goes; gives the bytes that it took.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let mut taken = 0;
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => taken += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn close(&mut self, socket: &mut impl Write) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush(socket).map(|_| ())
    }

    /// Takes encrypted bytes from the socket and decrypts them.
    fn receive(&mut self, socket: &mut impl Read) -> io::Result<ReadOutcome> {
        let received = match self.connection.read_tls(socket) {
            Ok(0) => return Ok(ReadOutcome::Closed),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(ReadOutcome::Blocked);
            }
            Err(error) => return Err(error),
        };
        if self.is_handshaking() {
            let more = u32::try_from(received).unwrap_or(u32::MAX);
            self.handshake_bytes = self.handshake_bytes.saturating_add(more);
            if self.handshake_bytes > MAX_HANDSHAKE_BYTES {
                let error = Error::General("the handshake is too long".to_owned());
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        self.connection
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(ReadOutcome::Data(received))
    }

    /// Moves what was decrypted; says whether the peer has said goodbye.
    fn take_plain(&mut self, plain: &mut BytesMut) -> io::Result<bool> {
        loop {
            match self.connection.reader().fill_buf() {
                Ok([]) => return Ok(true),
                Ok(some) => {
                    let len = some.len();
                    plain.extend_from_slice(some);
                    self.connection.reader().consume(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // A peer that goes without a goodbye: an end all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}
