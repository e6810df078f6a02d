//! What a device's messages go through: datagrams as they are, or the records of a DTLS session.
//!
//! A session outlives changes of the source port by its Connection ID; losses are made good above it, but for the
//! handshake's own.  Spec: RFC 6347, RFC 9146.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use headgate_dtls::{Client, ClientConfig, ClientEvent, ClientOutput, Credential};
use tokio::time::Instant;

use super::air::Air;
use crate::device::error::DeviceError;

/// Plain or secure.
pub(super) enum Channel {
    /// UDP alone.
    Plain(Air),
    /// A session of DTLS.
    Secure(Box<Session>),
}

/// A session that is established.
pub(super) struct Session {
    air: Air,
    client: Client,
    received: VecDeque<Bytes>,
}

impl Channel {
    /// Carries out the handshake.
    ///
    /// # Errors
    /// [`DeviceError::Dtls`], [`DeviceError::DtlsLibrary`] and [`DeviceError::Io`].
    pub(super) async fn secure(air: Air, credential: &Credential) -> Result<Self, DeviceError> {
        let config = ClientConfig::default();
        let client = Client::connect(&config, credential, Instant::now().into_std())?;
        let mut session = Session {
            air,
            client,
            received: VecDeque::new(),
        };
        session.flush()?;
        while !session.client.is_connected() {
            session.turn(Instant::now() + LONGEST_FLIGHT).await?;
        }
        Ok(Self::Secure(Box::new(session)))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`DeviceError`]: the session is over, or nothing can be sent.
    pub(super) fn send(&mut self, message: &Bytes) -> Result<(), DeviceError> {
        match self {
            Self::Plain(air) => air.send(message).map_err(DeviceError::Io),
            Self::Secure(session) => {
                session.client.send(Instant::now().into_std(), message)?;
                session.flush()
            }
        }
    }

    /// The next message for the device; `None` when `until` has come.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub(super) async fn receive(&mut self, until: Instant) -> Result<Option<Bytes>, DeviceError> {
        match self {
            Self::Plain(air) => air.receive(until).await.map_err(DeviceError::Io),
            Self::Secure(session) => loop {
                if let Some(message) = session.received.pop_front() {
                    return Ok(Some(message));
                }
                if Instant::now() >= until {
                    return Ok(None);
                }
                session.turn(until).await?;
            },
        }
    }

    /// Drops what came while the device slept.
    pub(super) fn deafen(&mut self) {
        match self {
            Self::Plain(air) => air.deafen(),
            Self::Secure(session) => session.air.deafen(),
        }
    }

    /// Says that nothing follows, where there is a way to say so.
    pub(super) fn close(&mut self) {
        if let Self::Secure(session) = self {
            session.client.close(Instant::now().into_std());
            // Nobody waits for it.
            let _ = session.flush();
        }
    }
}

impl Session {
    /// Takes one datagram, or notes that time has passed.
    async fn turn(&mut self, until: Instant) -> Result<(), DeviceError> {
        let due = self.client.timeout().map(Instant::from_std);
        let due = due.map_or(until, |due| due.min(until));
        let received = self.air.receive(due).await.map_err(DeviceError::Io)?;
        let now = Instant::now().into_std();
        match received {
            Some(datagram) => self.client.handle_datagram(now, &datagram),
            None => self.client.handle_timeout(now),
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Transmit(datagram) => {
                    self.air.send(&datagram.into()).map_err(DeviceError::Io)?;
                }
                ClientOutput::Event(ClientEvent::Data(message)) => {
                    self.received.push_back(message.into());
                }
                ClientOutput::Event(ClientEvent::Connected { .. }) => {}
                ClientOutput::Event(ClientEvent::Failed(failure)) => {
                    return Err(DeviceError::Dtls(failure));
                }
                ClientOutput::Event(ClientEvent::Closed(_)) => return Err(DeviceError::Closed),
            }
        }
        Ok(())
    }
}

/// The library says when a flight goes again; this is when it says nothing.
const LONGEST_FLIGHT: Duration = Duration::from_mins(1);
