//! What the writer is asked to do.

use std::sync::Arc;

use headgate_protocol::{identity::DeviceId, mqtt::PacketId};
use tokio::sync::oneshot;

use super::super::{
    mailbox::Place,
    persistent::Granted,
    queue::{Queue, QueuePlace},
};
use crate::{
    model::{Handing, Id, Message, Millis},
    store::sessions::{Claim, NodeNumber, SessionChange, SessionKey, SessionRef, Standing},
};

/// What is to be done.
pub(in super::super) enum Order {
    /// Store a message.
    Put(Put),
    /// Take out all that waits for a device; tells how many messages that were.
    Clear {
        device: DeviceId,
        cleared: oneshot::Sender<usize>,
    },
    /// Store changes of a session; tells whether it was still its connection's.
    Change {
        session: SessionRef,
        changes: Vec<SessionChange>,
        stored: oneshot::Sender<bool>,
    },
    /// Store what of a device's is held.
    Settle {
        device: DeviceId,
        settled: oneshot::Sender<()>,
    },
    /// Give a session to a connection.
    Claim {
        claim: Claim,
        granted: oneshot::Sender<Granted>,
    },
    /// Take what waits of these devices out of queues.
    Revoke {
        queues: Vec<Arc<Queue>>,
        devices: Vec<DeviceId>,
        revoked: oneshot::Sender<()>,
    },
    /// End sessions, whoever has them.
    End {
        sessions: Vec<(Id, SessionKey)>,
        ended: oneshot::Sender<()>,
    },
}

/// A message that is to be stored.
pub(in super::super) struct Put {
    pub(in super::super) message: Arc<Message>,
    /// For its device: until when, and in which place.
    pub(in super::super) mail: Option<(Millis, Place)>,
    /// For sessions of applications.
    pub(in super::super) receivers: Vec<(QueuePlace, Handing)>,
    /// What its sender may send again, and is to be known by then.
    pub(in super::super) receipt: Option<Receipt>,
    /// By which claim its sender sends it, where that is to be looked at.
    pub(in super::super) sender: Option<Standing>,
    pub(in super::super) stored: oneshot::Sender<Placed>,
    /// The device's session has it already.
    pub(in super::super) is_offered: bool,
    /// What other nodes are to hand out now.
    pub(in super::super) forwards: Vec<(NodeNumber, Vec<u8>)>,
}

impl Put {
    /// A message for one session, of which nobody needs to be told.
    pub(in super::super) fn alone(
        message: &Arc<Message>,
        place: QueuePlace,
        handing: Handing,
    ) -> Self {
        let (stored, _nobody) = oneshot::channel();
        Self {
            message: Arc::clone(message),
            mail: None,
            receivers: vec![(place, handing)],
            receipt: None,
            sender: None,
            stored,
            is_offered: false,
            forwards: Vec::new(),
        }
    }
}

/// A `QoS` 2 message of a persistent session's client: stored together with its identifier, it is taken once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(in super::super) session: SessionRef,
    pub(in super::super) packet_id: PacketId,
}

/// Where a stored message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Placed {
    pub(in super::super) id: Id,
    /// The device's session has it too.
    pub(in super::super) is_online: bool,
    /// Of a store that nodes share: there was no room for it in the device's mailbox.
    pub(in super::super) is_full: bool,
    /// Of such a store: sessions of applications without room.
    pub(in super::super) refused: usize,
}
