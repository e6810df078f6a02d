//! rustls's unbuffered API of 0.23: TLS that keeps keys and state, and no bytes.
//!
//! [`Secure`] decrypts in a buffer of the thread and encrypts into another. What it keeps between
//! two calls is the beginning of a record that has not come whole, the bytes that the socket has not
//! taken, and what the client said along with its Finished; each is freed once it is empty.
//!
//! How the API is driven: [`Secure::advance`] gives it all that has come, until it wants more or
//! lets application data be written. It is always given the very bytes that it has seen and not
//! discarded, since it remembers offsets into them. After a fault it hands out the alert, once.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::BytesMut;
use rustls::{
    Error, ServerConfig,
    pki_types::CertificateDer,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};

use super::{
    MAX_HANDSHAKE_BYTES,
    buffers::{Backlog, Outgoing, with_outgoing},
    stream::{Piece, READ_BUDGET, ReadOutcome},
};

/// Plain bytes of one record at most; RFC 8446, 5.1.
const MAX_FRAGMENT: usize = 16 * 1024;
/// The most that has come and cannot be decrypted yet: a record and more, and as long a handshake as is
/// taken.
const MAX_PARTIAL: usize = 40 * 1024;
/// Behind what cannot be decrypted yet there is room to read, or for a record's plain bytes.
const INCOMING_BYTES: usize = MAX_PARTIAL + MAX_FRAGMENT;
/// More than encryption adds to a record, in both versions.
const RECORD_OVERHEAD: usize = 64;

thread_local! {
    static INCOMING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends this thread's buffers: one for what comes, one for what goes.
fn with_buffers<T>(use_them: impl FnOnce(&mut [u8], &mut Outgoing) -> T) -> T {
    INCOMING.with_borrow_mut(|incoming| {
        if incoming.is_empty() {
            incoming.resize(INCOMING_BYTES, 0);
        }
        with_outgoing(|outgoing| use_them(incoming, outgoing))
    })
}

/// The server's side of one TLS connection.
pub(super) struct Secure {
    connection: UnbufferedServerConnection,
    /// Bytes that came before the handshake was done.
    handshake_bytes: u32,
    /// The peer has said goodbye, or broke TLS: nothing more is read.
    is_closed: bool,
    said_goodbye: bool,
    backlog: Backlog,
    partial: Option<Box<Partial>>,
}

/// What has come and cannot be handed on yet.
#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a record, or of a message of the handshake.
    encrypted: Vec<u8>,
    /// Plain bytes that came along with the end of the handshake.
    early: Vec<u8>,
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").finish_non_exhaustive()
    }
}

impl Secure {
    pub(super) fn new(config: &Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(config))?,
            handshake_bytes: 0,
            is_closed: false,
            said_goodbye: false,
            backlog: Backlog::default(),
            partial: None,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Bytes that this connection keeps.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let partial = self.partial.as_ref();
        let partial = partial.map_or(0, |partial| partial.encrypted.len() + partial.early.len());
        partial + self.backlog.kept_bytes()
    }

    /// Takes what the socket has, and answers it. What is said beyond the handshake is kept for
    /// the first [`Secure::read`].
    ///
    /// # Errors
    /// The peer broke TLS, which it is told, or the link broke.
    pub(super) fn handshake(
        &mut self,
        socket: &mut (impl Read + Write),
    ) -> io::Result<ReadOutcome> {
        let mut early = BytesMut::new();
        let outcome = self.receive(socket, &mut early)?;
        if !early.is_empty() {
            let partial = self.partial.get_or_insert_default();
            partial.early.extend_from_slice(&early);
        }
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
        if let Some(partial) = &mut self.partial {
            plain.extend_from_slice(&std::mem::take(&mut partial.early));
        }
        let outcome = self.receive(socket, plain)?;
        match plain.len() - before {
            0 => Ok(outcome),
            got => Ok(ReadOutcome::Data(got)),
        }
    }

    /// Encrypts pieces, and hands them to the socket in as few writes as it takes.
    ///
    /// # Errors
    /// The link broke, or the keys are used up.
    pub(super) fn write<'a>(
        &mut self,
        pieces: impl Iterator<Item = Piece<'a>>,
        socket: &mut impl Write,
    ) -> io::Result<()> {
        with_buffers(|incoming, outgoing| {
            let sealed = self.when_writable(incoming, outgoing, |traffic, outgoing, staging| {
                seal_all(traffic, pieces, outgoing, staging)
            });
            self.backlog.send(outgoing.filled(), socket)?;
            sealed.map_err(invalid)
        })
    }

    /// Hands the backlog to the socket as far as it goes; gives the bytes that it took.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.backlog.flush(socket)
    }

    /// Says goodbye, once.
    ///
    /// # Errors
    /// The link broke.
    pub(super) fn close(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if self.said_goodbye {
            return self.backlog.flush(socket).map(|_| ());
        }
        self.said_goodbye = true;
        with_buffers(|incoming, outgoing| {
            // Where the handshake is not done there is no goodbye; the socket says it.
            let _unsaid = self.when_writable(incoming, outgoing, |mut traffic, outgoing, _| {
                let written = traffic.queue_close_notify(outgoing.room(RECORD_OVERHEAD));
                outgoing.advance(written.map_err(cannot_encrypt)?);
                Ok(())
            });
            self.backlog.send(outgoing.filled(), socket)
        })
    }

    fn receive(
        &mut self,
        socket: &mut (impl Read + Write),
        plain: &mut BytesMut,
    ) -> io::Result<ReadOutcome> {
        if self.is_closed {
            return Ok(ReadOutcome::Closed);
        }
        let before = plain.len();
        with_buffers(|incoming, outgoing| {
            let mut filled = self.take_partial(incoming);
            let outcome = loop {
                match socket.read(incoming.get_mut(filled..).unwrap_or_default()) {
                    Ok(0) => break Ok(ReadOutcome::Closed),
                    Ok(received) => {
                        filled += received;
                        if let Err(error) = self.count_handshake(received) {
                            break Err(error);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        break Ok(ReadOutcome::Blocked);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
                let come = incoming.get_mut(..filled).unwrap_or_default();
                match self.advance(come, plain, outgoing) {
                    Ok(done) => {
                        incoming.copy_within(done..filled, 0);
                        filled -= done;
                    }
                    Err(error) => break Err(error),
                }
                if self.is_closed {
                    filled = 0;
                    break Ok(ReadOutcome::Closed);
                }
                // Only a message of the handshake can be so long, and none that is any use is.
                if filled > MAX_PARTIAL {
                    break Err(Error::General("a message is too long".to_owned()));
                }
                if plain.len() - before >= READ_BUDGET {
                    break Ok(ReadOutcome::Data(plain.len() - before));
                }
            };
            // Answers to the handshake, new keys, or the alert that says what is wrong.
            let sent = self.backlog.send(outgoing.filled(), socket);
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(error) => {
                    self.is_closed = true;
                    self.said_goodbye = true;
                    return Err(invalid(error));
                }
            };
            sent?;
            self.keep_partial(incoming.get(..filled).unwrap_or_default());
            Ok(match plain.len() - before {
                0 => outcome,
                got => ReadOutcome::Data(got),
            })
        })
    }

    /// Has TLS look at all that has come; gives how many bytes of it are done with.
    fn advance(
        &mut self,
        incoming: &mut [u8],
        plain: &mut BytesMut,
        outgoing: &mut Outgoing,
    ) -> Result<usize, Error> {
        let mut done = 0;
        loop {
            let rest = incoming.get_mut(done..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    let rest = incoming.get_mut(done + discard..).unwrap_or_default();
                    self.take_alert(rest, outgoing);
                    return Err(error);
                }
            };
            let mut is_all = false;
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    encode(|room| message.encode(room), outgoing)?;
                }
                // It is on its way in `outgoing`, which is sent whatever comes after it.
                ConnectionState::TransmitTlsData(message) => message.done(),
                ConnectionState::PeerClosed => self.is_closed = true,
                ConnectionState::Closed => {
                    self.is_closed = true;
                    is_all = true;
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                    is_all = true;
                }
                // Data before the handshake is not offered, and this version knows no other state.
                _ => return Err(Error::General("an unexpected state of TLS".to_owned())),
            }
            done += discard;
            if is_all {
                return Ok(done);
            }
        }
    }

    /// After a fault: the alert that tells the peer what is wrong.
    fn take_alert(&mut self, incoming: &mut [u8], outgoing: &mut Outgoing) {
        let status = self.connection.process_tls_records(incoming);
        if let Ok(ConnectionState::EncodeTlsData(mut alert)) = status.state {
            // Without it the peer sees the connection end, which says enough.
            let _unsaid = encode(|room| alert.encode(room), outgoing);
        }
    }

    /// Lets `write` encrypt, once what TLS has to say itself is in `outgoing`.
    fn when_writable(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Outgoing,
        write: impl FnOnce(WriteTraffic<'_, ServerSide>, &mut Outgoing, &mut [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // TLS must see what it has seen of a record that is not whole; behind it is room to write in.
        let filled = self.take_partial(incoming);
        let (seen, staging) = incoming.split_at_mut(filled);
        let mut nothing = BytesMut::new();
        let done = self.advance(seen, &mut nothing, outgoing)?;
        let rest = seen.get_mut(done..).unwrap_or_default();
        let outcome = match self.connection.process_tls_records(rest).state? {
            ConnectionState::WriteTraffic(traffic) => write(traffic, outgoing, staging),
            _ => Err(Error::HandshakeNotComplete),
        };
        self.keep_partial(rest);
        outcome
    }

    /// Moves what has come of a record to the front of the thread's buffer; gives its length.
    fn take_partial(&mut self, incoming: &mut [u8]) -> usize {
        let Some(partial) = &mut self.partial else {
            return 0;
        };
        let encrypted = std::mem::take(&mut partial.encrypted);
        if partial.early.is_empty() {
            self.partial = None;
        }
        // It came out of a buffer of this size.
        incoming
            .iter_mut()
            .zip(&encrypted)
            .for_each(|(to, from)| *to = *from);
        encrypted.len()
    }

    fn keep_partial(&mut self, incoming: &[u8]) {
        if !incoming.is_empty() {
            self.partial.get_or_insert_default().encrypted = incoming.to_vec();
        }
    }

    /// Counts what came before anything was proven.
    fn count_handshake(&mut self, received: usize) -> Result<(), Error> {
        if !self.is_handshaking() {
            return Ok(());
        }
        let received = u32::try_from(received).unwrap_or(u32::MAX);
        self.handshake_bytes = self.handshake_bytes.saturating_add(received);
        if self.handshake_bytes > MAX_HANDSHAKE_BYTES {
            return Err(Error::General("the handshake is too long".to_owned()));
        }
        Ok(())
    }
}

type ServerSide = rustls::server::ServerConnectionData;

/// Encrypts pieces into records: small ones share a record, a larger one has its own.
fn seal_all<'a>(
    mut traffic: WriteTraffic<'_, ServerSide>,
    pieces: impl Iterator<Item = Piece<'a>>,
    outgoing: &mut Outgoing,
    staging: &mut [u8],
) -> Result<(), Error> {
    let mut staged = 0;
    for piece in pieces {
        if staged > 0 && staged + piece.len() > MAX_FRAGMENT {
            seal(&mut traffic, &staging[..staged], outgoing)?;
            staged = 0;
        }
        for mut slice in piece.slices() {
            while !slice.is_empty() {
                // What fills a record by itself is encrypted from where it lies.
                if slice.len() >= MAX_FRAGMENT {
                    if staged > 0 {
                        seal(&mut traffic, &staging[..staged], outgoing)?;
                        staged = 0;
                    }
                    let (now, later) = slice.split_at(MAX_FRAGMENT);
                    seal(&mut traffic, now, outgoing)?;
                    slice = later;
                    continue;
                }
                let room = MAX_FRAGMENT - staged;
                let (now, later) = slice.split_at(slice.len().min(room));
                staging[staged..staged + now.len()].copy_from_slice(now);
                staged += now.len();
                slice = later;
                if staged == MAX_FRAGMENT {
                    seal(&mut traffic, &staging[..staged], outgoing)?;
                    staged = 0;
                }
            }
        }
    }
    if staged > 0 {
        seal(&mut traffic, &staging[..staged], outgoing)?;
    }
    Ok(())
}

/// Encrypts one record.
fn seal(
    traffic: &mut WriteTraffic<'_, ServerSide>,
    plain: &[u8],
    outgoing: &mut Outgoing,
) -> Result<(), Error> {
    let mut needed = plain.len() + RECORD_OVERHEAD;
    loop {
        match traffic.encrypt(plain, outgoing.room(needed)) {
            Ok(written) => {
                outgoing.advance(written);
                return Ok(());
            }
            // New keys are announced before the record.
            Err(EncryptError::InsufficientSize(size)) if size.required_size > needed => {
                needed = size.required_size;
            }
            Err(error) => return Err(cannot_encrypt(error)),
        }
    }
}

/// Encodes a message of TLS's own.
fn encode(
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    outgoing: &mut Outgoing,
) -> Result<(), Error> {
    let mut needed = RECORD_OVERHEAD;
    loop {
        match encode(outgoing.room(needed)) {
            Ok(written) => {
                outgoing.advance(written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > needed => {
                needed = size.required_size;
            }
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}

fn cannot_encrypt(error: EncryptError) -> Error {
    match error {
        EncryptError::EncryptExhausted => Error::EncryptError,
        error @ EncryptError::InsufficientSize(_) => Error::General(error.to_string()),
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
