//! One live client, a device or an application: its protocol state, its outbox and its limits.
//!
//! A [`Session`] owns no socket. The edge hands it packets and asks it to fill batches; the
//! services tell it through its handle that something waits. [`Node`] is what all sessions of the
//! process share.

mod application;
mod batch;
mod cluster;
mod coap;
mod conformance;
mod connect;
mod device;
mod directory;
mod handle;
mod inbox;
mod inspect;
mod link;
mod node;
mod pace;
mod persistent;
mod pump;
mod signals;
mod slots;
mod subscriptions;
mod table;
mod will;

use std::{
    fmt,
    task::{Context, Poll},
    time::Instant,
};

use headgate_protocol::mqtt::{Packet, ReasonCode};

pub use self::{
    application::{ApplicationHandle, ApplicationSession, ApplicationTable},
    batch::{Batch, Part},
    coap::{AssociationId, Change, CoapServer, Peer, RdId, Secured, Shown},
    conformance::{ConformanceProfile, ConformanceSession, admit_anyone},
    connect::{Refused, admit},
    device::{DeviceSession, Sent},
    directory::{
        Directory, FoundSession, SessionEntry, SessionFilter, SessionKind, SessionOwner,
        SessionPage,
    },
    handle::{Canceled, CloseReason, SessionHandle},
    inbox::InboxLimits,
    inspect::{Ends, SessionInfo},
    node::{Node, NodeParts},
    signals::Signals,
    slots::{SendingSlots, Ticket},
    table::SessionTable,
};
use crate::telemetry::metrics::DisconnectReason;

/// The session of whoever is at the other end of a connection.
///
/// An application's is boxed and its futures are: there are few, and a device at rest must not pay
/// for them.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every session is a device's, and stands in its connection without a detour"
)]
pub enum Session {
    /// A device.
    Device(DeviceSession),
    /// An application.
    Application(Box<ApplicationSession>),
    /// Anyone, in the topic space of test suites.
    Conformance(Box<ConformanceSession>),
}

impl Session {
    /// Why the session ends, once it does: the edge writes what is left and closes.
    pub fn closing(&self) -> Option<DisconnectReason> {
        match self {
            Self::Device(device) => device.closing(),
            Self::Application(application) => application.closing(),
            Self::Conformance(client) => client.closing(),
        }
    }

    /// Whether more of what the client says can be taken.
    pub fn wants_input(&self) -> bool {
        match self {
            Self::Device(device) => device.wants_input(),
            Self::Application(application) => application.wants_input(),
            Self::Conformance(client) => client.wants_input(),
        }
    }

    /// Whether something that the client published is acknowledged later than the rest.
    pub fn acknowledges_later(&self) -> bool {
        match self {
            Self::Device(device) => device.acknowledges_later(),
            Self::Application(application) => application.acknowledges_later(),
            Self::Conformance(_) => false,
        }
    }

    /// Waits for a signal to the session, or for the end of something that it has under way.
    pub fn poll_signals(&mut self, cx: &mut Context<'_>) -> Poll<Signals> {
        match self {
            Self::Device(device) => device.handle().poll_signals(cx),
            Self::Application(application) => application.poll_signals(cx),
            Self::Conformance(client) => client.handle().poll_signals(cx),
        }
    }

    /// Takes one packet, to be acted on by [`Session::act`]. Apart from it, like everything that is
    /// handed to a session, so that the future of a connection at rest has no room for a packet.
    pub fn take_packet(&mut self, now: Instant, packet: Packet) {
        match self {
            Self::Device(device) => device.take_packet(now, packet),
            Self::Application(application) => application.take_packet(now, packet),
            Self::Conformance(client) => client.take_packet(now, packet),
        }
    }

    /// Acts on everything that was taken.
    pub async fn act(&mut self, now: Instant) {
        match self {
            Self::Device(device) => device.act(now).await,
            Self::Application(application) => Box::pin(application.act()).await,
            // It acts on everything as it is taken.
            Self::Conformance(_) => {}
        }
    }

    /// Ends the session because of what the client sent; `explanation` is for people.
    pub fn close_on_violation(&mut self, reason: ReasonCode, explanation: &str) {
        match self {
            Self::Device(device) => device.close_on_violation(reason, explanation),
            Self::Application(application) => application.close_on_violation(reason, explanation),
            Self::Conformance(client) => client.close_on_violation(reason),
        }
    }

    /// Takes what others signalled, to be acted on; `ends` are those of the connection, where the signals ask
    /// for them.
    pub fn handle_signals(&mut self, now: Instant, signals: Signals, ends: Ends) {
        match self {
            Self::Device(device) => device.handle_signals(now, signals, ends),
            Self::Application(application) => application.handle_signals(signals),
            Self::Conformance(client) => client.handle_signals(signals),
        }
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        match self {
            Self::Device(device) => device.timeout(),
            Self::Application(application) => application.timeout(),
            Self::Conformance(client) => client.timeout(),
        }
    }

    /// Takes note of the time, to be acted on.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Device(device) => device.handle_timeout(now),
            Self::Application(application) => application.handle_timeout(now),
            Self::Conformance(client) => client.handle_timeout(now),
        }
    }

    /// Puts into `batch` what is to be sent now; leaves it empty where there is nothing.
    ///
    /// The edge calls it only when the socket has taken everything before.
    pub async fn fill(&mut self, batch: &mut Batch) {
        match self {
            Self::Device(device) => device.fill(batch).await,
            Self::Application(application) => Box::pin(application.fill(batch)).await,
            Self::Conformance(client) => client.fill(batch),
        }
    }

    /// Takes note that the last batch was written, and whether the socket took all of it.
    pub fn on_written(&mut self, all_taken: bool) {
        if let Self::Device(device) = self {
            device.on_written(all_taken);
        }
    }

    /// The connection is gone.
    pub fn end(self, reason: DisconnectReason) {
        match self {
            Self::Device(device) => device.end(reason),
            Self::Application(application) => application.end(reason),
            Self::Conformance(client) => client.end(reason),
        }
    }
}

/// Whose session it is, for the log.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => f.write_str(device.handle().device_id.as_str()),
            Self::Application(application) => f.write_str(application.handle().client_id()),
            Self::Conformance(client) => f.write_str(client.handle().client_id()),
        }
    }
}
