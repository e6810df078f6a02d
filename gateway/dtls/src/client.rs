//! The client half: one peer, and what a device does with it.
//!
//! Driven as [`crate::Server`] is. A client has no address: it may send from another socket whenever it likes, and the
//! server follows it where a Connection ID was agreed on.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use crate::{
    MAX_DATA_BYTES,
    certificate::{Certificate, Fingerprint},
    context::{Context, Progress, Received},
    error::{CloseReason, DtlsError, HandshakeFailure},
    handshake::failure,
    record::records,
    settings::{Options, Role, Settings},
    suite::Suite,
};

/// How a client shows who it is.
#[derive(Clone)]
pub enum Credential {
    /// A key that the server has too.
    Psk {
        /// What the server finds the key by.
        identity: Vec<u8>,
        /// 1 to [`crate::MAX_KEY_BYTES`] bytes.
        key: Zeroizing<Vec<u8>>,
    },
    /// A certificate of its own.
    Certificate(Certificate),
}

/// What a client does.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The suites that are offered, the preferred one first; default: all that fit the credential.
    pub suites: Option<Vec<Suite>>,
    /// Whether a Connection ID is asked for, so that the session outlives a change of address. Default: yes.
    pub with_cid: bool,
    /// How long a flight waits for its answer at first; doubled for each repetition. Default: 1 s.
    pub handshake_timeout: Duration,
    /// The longest wait, after which the handshake is given up. Default: 60 s.
    pub max_handshake_timeout: Duration,
    /// The largest datagram that is sent, in bytes. Default: 1,232, which fits the least MTU of IPv6.
    pub mtu: u16,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            suites: None,
            with_cid: true,
            handshake_timeout: Duration::from_secs(1),
            max_handshake_timeout: Duration::from_mins(1),
            mtu: 1_232,
        }
    }
}

/// What a client has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send this datagram to the server.
    Transmit(Vec<u8>),
    /// Something happened.
    Event(ClientEvent),
}

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The handshake is over.
    Connected {
        /// The suite that was agreed on.
        suite: Suite,
        /// Whether the session outlives a change of address.
        has_cid: bool,
        /// The server's certificate, which is the caller's to judge.
        server: Option<Fingerprint>,
    },
    /// The handshake came to nothing; the client is of no use any more.
    Failed(HandshakeFailure),
    /// The server sent this.
    Data(Vec<u8>),
    /// The session ended; the client is of no use any more.
    Closed(CloseReason),
}

/// One peer's side of a session.
pub struct Client {
    context: Context,
    state: State,
    has_psk: bool,
    output: VecDeque<ClientOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake,
    Connected,
    Closed,
}

impl Client {
    /// A client that begins its handshake; its first datagram is in the output.
    ///
    /// # Errors
    /// [`DtlsError::Key`] and [`DtlsError::Certificate`] for a credential that is none; [`DtlsError::Library`].
    pub fn connect(
        config: &ClientConfig,
        credential: &Credential,
        now: Instant,
    ) -> Result<Self, DtlsError> {
        let (psk, certificate) = match credential {
            Credential::Psk { identity, key } => (Some((&identity[..], &key[..])), None),
            Credential::Certificate(certificate) => (None, Some(certificate)),
        };
        let all = if psk.is_some() {
            &Suite::PSK
        } else {
            &Suite::ECDHE_ECDSA
        };
        let settings = Settings::new(&Options {
            role: Role::Client,
            suites: config.suites.clone().unwrap_or_else(|| all.to_vec()),
            certificate,
            psk,
            handshake_timeout: (config.handshake_timeout, config.max_handshake_timeout),
            now,
        })?;
        let mut context = Context::new(&Arc::new(settings), config.mtu, now)?;
        if config.with_cid {
            context.offer_cid(&[])?;
        }
        let mut client = Self {
            context,
            state: State::Handshake,
            has_psk: psk.is_some(),
            output: VecDeque::new(),
        };
        client.go_on(now, None);
        Ok(client)
    }

    /// Takes a datagram that the server sent.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        for record in records(datagram) {
            match self.state {
                State::Handshake => self.go_on(now, Some(record.bytes)),
                State::Connected => self.receive(now, record.bytes),
                State::Closed => return,
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`DtlsError::NotConnected`] before the handshake is over and after the session; [`DtlsError::TooLarge`].
    pub fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), DtlsError> {
        if self.state != State::Connected {
            return Err(DtlsError::NotConnected);
        }
        if data.len() > MAX_DATA_BYTES {
            return Err(DtlsError::TooLarge);
        }
        let sent = self.context.send(now, data);
        self.transmit();
        sent
    }

    /// Tells the server that the session ends.
    pub fn close(&mut self, now: Instant) {
        if self.state == State::Connected {
            self.context.say_goodbye(now);
            self.transmit();
            self.end(ClientEvent::Closed(CloseReason::Local));
        }
    }

    /// The next thing to do; `None` when there is none until the next call.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.output.pop_front()
    }

    /// When [`Client::handle_timeout`] wants to be called.
    pub fn timeout(&mut self) -> Option<Instant> {
        let in_handshake = self.state == State::Handshake;
        in_handshake.then(|| self.context.deadline())?
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timeout().is_some_and(|at| at <= now) {
            self.go_on(now, None);
        }
    }

    /// Whether messages can be sent.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    fn go_on(&mut self, now: Instant, datagram: Option<&[u8]>) {
        let awaited = self.context.awaits_finished();
        let progress = self.context.handshake(now, datagram);
        self.transmit();
        match progress {
            Progress::Pending | Progress::CookieSent => {}
            Progress::Done => {
                self.state = State::Connected;
                let connected = ClientEvent::Connected {
                    suite: self.context.suite(),
                    has_cid: self.context.has_cid(),
                    server: self.context.fingerprint(),
                };
                self.output.push_back(ClientOutput::Event(connected));
            }
            Progress::Failed(code) => {
                let shows_key = self.has_psk && (awaited || self.context.awaits_finished());
                self.end(ClientEvent::Failed(failure(code, shows_key)));
            }
        }
    }

    fn receive(&mut self, now: Instant, record: &[u8]) {
        let mut data = [0; DATA_BUFFER_BYTES];
        let received = self.context.receive(now, record, &mut data);
        self.transmit();
        match received {
            Received::Data(bytes) => {
                let event = ClientEvent::Data(data[..bytes].to_vec());
                self.output.push_back(ClientOutput::Event(event));
            }
            Received::Nothing => {}
            Received::Closed => self.end(ClientEvent::Closed(CloseReason::Peer)),
            Received::Failed(code) => self.end(ClientEvent::Closed(CloseReason::Error(code))),
        }
    }

    fn end(&mut self, event: ClientEvent) {
        self.state = State::Closed;
        self.output.push_back(ClientOutput::Event(event));
    }

    fn transmit(&mut self) {
        let datagrams = self.context.take_output();
        let transmits = datagrams.into_iter().map(ClientOutput::Transmit);
        self.output.extend(transmits);
    }
}

/// What a record that the library takes may carry.
pub(crate) const DATA_BUFFER_BYTES: usize = 4_096;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Psk { .. } => "Psk",
            Self::Certificate(_) => "Certificate",
        })
    }
}
