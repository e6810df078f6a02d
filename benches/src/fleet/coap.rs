//! Clients of CoAP, plain or over DTLS: each asks one thing again and again, one request at a time.
//!
//! A client has a socket of its own; a datagram that is lost is made good by a repetition, which is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headgate_dtls::{Client, ClientConfig, ClientEvent, ClientOutput, CloseReason, Credential};
use headgate_protocol::coap::{Code, Message, MessageId, MessageType, OptionNumber, Token};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::ClientError;

/// One client.
pub(crate) struct CoapClient {
    socket: UdpSocket,
    session: Option<Client>,
    next_id: u16,
}

/// A request to be repeated: its path and its query.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Segments.
    pub(crate) path: Vec<String>,
    /// `key=value`.
    pub(crate) query: Vec<String>,
}

impl CoapClient {
    /// A client of the server at `address`; with `credential` the handshake is carried out.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn connect(
        address: SocketAddr,
        credential: Option<&Credential>,
    ) -> Result<Self, ClientError> {
        let mut client = Self::open(address, credential).await?;
        if client.session.is_some() {
            client.finish().await?;
        }
        Ok(client)
    }

    /// A client that has been given a cookie and has not shown it yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn begin(
        address: SocketAddr,
        credential: &Credential,
    ) -> Result<Self, ClientError> {
        let mut client = Self::open(address, Some(credential)).await?;
        client.flush().await?;
        let mut cookie = [0; 2_048];
        let until = Instant::now() + PATIENCE;
        let answered = timeout_at(until, client.socket.recv(&mut cookie)).await;
        let bytes = answered.map_err(|_elapsed| ClientError::Answer("no cookie".to_owned()))??;
        if let Some(session) = &mut client.session {
            let cookie = cookie.get(..bytes).unwrap_or_default();
            session.handle_datagram(Instant::now().into_std(), cookie);
        }
        Ok(client)
    }

    /// Carries its handshake to the end.
    ///
    /// # Errors
    /// [`ClientError`]: it does not end within some seconds.
    pub(crate) async fn finish(&mut self) -> Result<(), ClientError> {
        let until = Instant::now() + PATIENCE;
        self.flush().await?;
        while !self.session.as_ref().is_some_and(Client::is_connected) {
            self.turn(until).await?;
            if Instant::now() >= until {
                return Err(ClientError::Answer("no handshake".to_owned()));
            }
        }
        Ok(())
    }

    async fn open(
        address: SocketAddr,
        credential: Option<&Credential>,
    ) -> Result<Self, ClientError> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(address).await?;
        let session = credential.map(handshake).transpose()?;
        Ok(Self {
            socket,
            session,
            next_id: 1,
        })
    }

    /// Asks, and gives the response.
    ///
    /// # Errors
    /// [`ClientError`]: there is none within some seconds.
    pub(crate) async fn exchange(
        &mut self,
        method: Code,
        ask: &Ask,
    ) -> Result<Message, ClientError> {
        self.next_id = self.next_id.wrapping_add(1);
        let token = Token::new(&self.next_id.to_be_bytes()).unwrap_or_default();
        let id = MessageId(self.next_id);
        let mut request = Message::new(MessageType::Confirmable, method, id, token);
        for segment in &ask.path {
            request.add(OptionNumber::URI_PATH, segment.as_bytes());
        }
        for argument in &ask.query {
            request.add(OptionNumber::URI_QUERY, argument.as_bytes());
        }
        let datagram = request.encode(MAX_BYTES).map_err(io::Error::other)?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.send(&datagram).await?;
            let again = Instant::now() + REPEAT;
            while let Some(message) = self.turn(again).await? {
                if message.token == token && message.code != Code::EMPTY {
                    return Ok(message);
                }
            }
        }
        Err(ClientError::Answer("no response".to_owned()))
    }

    /// Ends its session, so that the server need not wait for the end.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub(crate) async fn close(mut self) -> Result<(), ClientError> {
        if let Some(session) = &mut self.session {
            session.close(Instant::now().into_std());
        }
        self.flush().await.map(drop)
    }

    async fn send(&mut self, datagram: &[u8]) -> Result<(), ClientError> {
        match &mut self.session {
            Some(session) => {
                let now = Instant::now().into_std();
                session.send(now, datagram).map_err(io::Error::other)?;
                self.flush().await.map(drop)
            }
            None => Ok(self.socket.send(datagram).await.map(drop)?),
        }
    }

    /// Takes one datagram; `None` when `until` has come.
    async fn turn(&mut self, until: Instant) -> Result<Option<Message>, ClientError> {
        let mut buffer = [0; 2_048];
        loop {
            let due = self.session.as_mut().and_then(Client::timeout);
            let due = due.map_or(until, |due| until.min(due.into()));
            let received = timeout_at(due, self.socket.recv(&mut buffer)).await;
            let now = Instant::now().into_std();
            let Ok(received) = received else {
                if let Some(session) = &mut self.session {
                    session.handle_timeout(now);
                    self.flush().await?;
                }
                if Instant::now() >= until {
                    return Ok(None);
                }
                continue;
            };
            let datagram = buffer.get(..received?).unwrap_or_default();
            let Some(session) = &mut self.session else {
                return Ok(Message::decode(datagram).ok());
            };
            let was_connected = session.is_connected();
            session.handle_datagram(now, datagram);
            let came = self.flush().await?;
            let is_connected = self.session.as_ref().is_some_and(Client::is_connected);
            if came.is_some() || is_connected != was_connected {
                return Ok(came);
            }
        }
    }

    /// Sends what the session wants sent; gives the message that came with it.
    async fn flush(&mut self) -> Result<Option<Message>, ClientError> {
        let mut came = None;
        while let Some(output) = self.session.as_mut().and_then(Client::poll_output) {
            match output {
                ClientOutput::Transmit(datagram) => {
                    self.socket.send(&datagram).await?;
                }
                ClientOutput::Event(ClientEvent::Data(data)) => came = Message::decode(&data).ok(),
                // The end of a session that this client ended is no news.
                ClientOutput::Event(
                    ClientEvent::Connected { .. } | ClientEvent::Closed(CloseReason::Local),
                ) => {}
                ClientOutput::Event(event) => {
                    return Err(ClientError::Answer(format!("{event:?}")));
                }
            }
        }
        Ok(came)
    }
}

fn handshake(credential: &Credential) -> Result<Client, ClientError> {
    let now = Instant::now().into_std();
    let session = Client::connect(&ClientConfig::default(), credential, now);
    Ok(session.map_err(io::Error::other)?)
}

/// The first datagram of a handshake: a `ClientHello` without a cookie.
///
/// # Errors
/// [`ClientError`].
pub(crate) fn hello(credential: &Credential) -> Result<Vec<u8>, ClientError> {
    match handshake(credential)?.poll_output() {
        Some(ClientOutput::Transmit(hello)) => Ok(hello),
        other => Err(ClientError::Answer(format!("{other:?}"))),
    }
}

/// Has every client ask `times` times, all at once.
///
/// # Errors
/// [`ClientError`] of the first that was not answered with 2.05.
pub(crate) async fn ask_all(
    clients: Vec<(CoapClient, Ask)>,
    times: u32,
) -> Result<Vec<(CoapClient, Ask)>, ClientError> {
    let mut tasks = JoinSet::new();
    let times = Arc::new(times);
    for (mut client, ask) in clients {
        let times = Arc::clone(&times);
        tasks.spawn(async move {
            for _ in 0..*times {
                let response = client.exchange(Code::GET, &ask).await?;
                if response.code != Code::CONTENT {
                    return Err(ClientError::Answer(response.code.to_string()));
                }
            }
            Ok((client, ask))
        });
    }
    let mut done = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(|_panicked| ClientError::Ended)??);
    }
    Ok(done)
}

/// For one response, its repetitions included.
const PATIENCE: Duration = Duration::from_secs(20);
const REPEAT: Duration = Duration::from_secs(2);
const MAX_BYTES: usize = 1_152;
