//! What goes into a connection and what comes out of it.

use std::time::Duration;

use super::Resumed;
use crate::mqtt::{Connect, Packet, PacketId, Publish, ReasonCode, Subscribe, Unsubscribe};

/// Something that happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// The client sent this packet.
    Packet(Packet),
    /// Time passed.
    Timeout,
}

/// Something that the caller has to act on.
///
/// What is transmitted after an event is taken from [`super::Connection::poll_output`] after it: whoever
/// has to store what the event says does so before taking the next output.
#[derive(Debug, PartialEq)]
pub enum Event<T> {
    /// A client introduced itself: answer with [`super::Connection::accept`] or
    /// [`super::Connection::refuse`].
    Connect(Box<Connect>),
    /// A message, its topic alias resolved: act on it, then call [`super::Connection::acknowledge`]
    /// unless it is of QoS 0.
    Publish(Publish),
    /// The client released this identifier of a QoS 2 message: the next one under it is a new one.
    Released(PacketId),
    /// A request to subscribe: answer with [`super::Connection::grant`].
    Subscribe(Box<Subscribe>),
    /// A request to unsubscribe: answer with [`super::Connection::confirm_unsubscribe`].
    Unsubscribe(Box<Unsubscribe>),
    /// The client has a QoS 2 message and will not take it again; only its PUBREL is left.
    Received(T),
    /// The exchange is over: the client has taken over the responsibility, or refused it.
    Acknowledged(T),
    /// The client took leave; the connection closes.
    Disconnected {
        /// Why: the will is dropped for [`ReasonCode::Success`] alone.
        reason: ReasonCode,
        /// How long the session is to last from now on, in seconds, where the client changed that;
        /// within what is offered.
        session_expiry: Option<u32>,
    },
}

/// What the caller has to do next.
#[derive(Debug, PartialEq)]
pub enum Output<T> {
    /// Send this packet.
    Transmit(Packet),
    /// Act on this.
    Event(Event<T>),
    /// Close the connection once everything before is sent; nothing follows.
    Close(ReasonCode),
}

/// How a client is let in.
#[derive(Debug)]
pub struct Accept<T> {
    /// What its session had under way; CONNACK says that the session is present.
    pub resumed: Option<Resumed<T>>,
    /// How long the session outlives the connection; what is longer than offered is cut. With zero
    /// nothing is kept for [`super::Connection::suspend`].
    pub session_expiry: Duration,
}

impl<T> Default for Accept<T> {
    fn default() -> Self {
        Self {
            resumed: None,
            session_expiry: Duration::ZERO,
        }
    }
}

/// What an MQTT 5 client is told beside the reason why it is turned away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseDetails {
    /// Another server, for [`ReasonCode::UseAnotherServer`] and [`ReasonCode::ServerMoved`]; left out
    /// with any other.
    pub server_reference: Option<Box<str>>,
    /// For people to read.
    pub reason_string: Option<Box<str>>,
}
