//! What a device does on its connections besides staying: takes a delivery, or sends a file.
//!
//! One type over both, so that connection and driver know neither.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{PubAck, Publish};
use tokio::time::Instant;

use super::error::DeviceError;
use super::identity::{Fate, Identity};
use super::sending::{SendPlan, Sending};
use super::transfer::{Counts, Event, Plan, Transfer};
use crate::verify::Verifier;

/// What all devices of a run do.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// They take a delivery.
    Take(Arc<Plan>),
    /// Each sends a file.
    Send(Arc<SendPlan>),
}

/// What one device does.
#[derive(Debug)]
pub(crate) enum Work {
    /// It takes a delivery.
    Take(Box<Transfer>),
    /// It sends a file.
    Send(Box<Sending>),
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($work:expr, $inner:ident => $call:expr) => {
        match $work {
            Work::Take($inner) => $call,
            Work::Send($inner) => $call,
        }
    };
}

impl Work {
    /// Work that has not begun.
    pub(crate) fn new(job: &Job, identity: &Identity, fate: Fate) -> Self {
        match job {
            Job::Take(plan) => {
                Self::Take(Box::new(Transfer::new(Arc::clone(plan), identity, fate)))
            }
            Job::Send(plan) => Self::Send(Box::new(Sending::new(Arc::clone(plan), identity, fate))),
        }
    }

    /// A new connection was logged in and subscribed.
    ///
    /// # Errors
    /// [`DeviceError`] that ends the connection.
    pub(crate) fn on_ready(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        match self {
            Self::Take(transfer) => transfer.on_ready(out),
            Self::Send(sending) => sending.on_ready(now, out),
        }
    }

    /// Takes a message of the gateway.
    ///
    /// # Errors
    /// [`DeviceError`] that ends the connection.
    pub(crate) fn on_publish(
        &mut self,
        now: Instant,
        publish: &Publish,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        either!(self, work => work.on_publish(now, publish, out))
    }

    /// Takes an acknowledgement of the gateway.
    ///
    /// # Errors
    /// [`DeviceError`] that ends the connection.
    pub(crate) fn on_puback(
        &mut self,
        now: Instant,
        ack: &PubAck,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Take(_) => Ok(()),
            Self::Send(sending) => sending.on_puback(now, ack, out),
        }
    }

    /// When [`Self::on_timer`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        either!(self, work => work.deadline())
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`DeviceError`] that ends the connection.
    pub(crate) fn on_timer(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        either!(self, work => work.on_timer(now, out))
    }

    /// A download by HTTPS came to its end.
    ///
    /// # Errors
    /// [`DeviceError`] that ends the connection.
    pub(crate) fn on_fetched(
        &mut self,
        now: Instant,
        verifier: Verifier,
        result: Result<(), DeviceError>,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Take(transfer) => transfer.on_fetched(now, verifier, result, out),
            Self::Send(_) => Ok(()),
        }
    }

    /// What the driver has to do, once.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        either!(self, work => work.take_event())
    }

    /// Whether there is something for the driver that should not wait for more packets.
    pub(crate) fn has_event(&self) -> bool {
        either!(self, work => work.has_event())
    }

    /// The verifier, for a download by HTTPS.
    pub(crate) fn take_verifier(&mut self) -> Option<Verifier> {
        match self {
            Self::Take(transfer) => transfer.take_verifier(),
            Self::Send(_) => None,
        }
    }

    /// Numbers since the last call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        either!(self, work => work.take_counts())
    }

    /// First request to first byte, once it is known.
    pub(crate) fn take_first_byte(&mut self) -> Option<Duration> {
        match self {
            Self::Take(transfer) => transfer.take_first_byte(),
            Self::Send(_) => None,
        }
    }

    /// When it was announced for the first time.
    pub(crate) fn announced_at(&self) -> Option<Instant> {
        either!(self, work => work.announced_at())
    }
}
