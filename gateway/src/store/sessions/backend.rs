//! What keeps persistent sessions, whatever it is made of.
//!
//! Everything is asked for by the session's key or its id, and nothing on the way of a message lists sessions. A session
//! is claimed by each connection, and each claim has a greater epoch than the one before: what an older connection
//! still wants to write is refused. Invariants: one [`SessionBackend::commit`] is stored whole or not at all; an id is
//! never used for another session.  Spec: MQTT 5.0 s4.1.

use std::{fmt, num::NonZeroU32};

use futures_util::future::BoxFuture;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{PacketId, Subscription, TopicFilter},
};
use smallvec::SmallVec;

use super::{MailGone, NodeNumber};
use crate::{
    model::{Handing, Id, Message, Millis},
    store::StoreError,
};

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// A device's, whatever its `ClientId`.
    Device(DeviceId),
    /// An application's, by its whole `ClientId`.
    Application(AppId, Box<str>),
}

/// A session in the hands of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// Which session.
    pub id: Id,
    /// Which claim.
    pub epoch: i64,
}

/// By which claim of its client a connection sends what its client sends again until it is acknowledged: left out once
/// another connection has the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which client.
    pub key: SessionKey,
    /// The epoch of the claim.
    pub epoch: i64,
}

/// A connection that wants a session.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose.
    pub key: SessionKey,
    /// The id of a session that has to be made.
    pub id: Id,
    /// Whether what there is goes first.
    pub is_clean: bool,
    /// Seconds that the session outlives its connection; 0: it ends with it, and is not made.
    pub expiry_secs: u32,
    /// Of a store that nodes share: sessions at most, beyond which none is made.
    pub max_sessions: usize,
}

/// What a connection got.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The session; `None`: there was none, and none was made.
    pub session: Option<SessionRef>,
    /// Whether it was there before.
    pub is_present: bool,
    /// The session that went, if one did.
    pub discarded: Option<Id>,
    /// Its subscriptions.
    pub subscriptions: Vec<KeptSubscription>,
    /// Identifiers of `QoS` 2 messages from the client that it has not released.
    pub unreleased: Vec<PacketId>,
    /// `QoS` 2 messages to the client that are not complete, in the order of their sending.
    pub outbound: Vec<Outbound>,
    /// Of a store that nodes share: where the client is; `None` elsewhere.
    pub place: Option<Place>,
}

/// That a client is with this node, and what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The claim's epoch, also where there is no session.
    pub epoch: i64,
    /// Messages that wait for the device.
    pub mail: usize,
    /// Whether it was with another node.
    pub is_moved: bool,
    /// Whether no session was made because there are as many as may be.
    pub is_refused: bool,
}

/// A subscription that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSubscription {
    /// What was asked for, with the `QoS` that was granted.
    pub asked: Subscription,
    /// The number that the client gave it.
    pub identifier: Option<NonZeroU32>,
}

/// A `QoS` 2 message that is under way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Under which identifier.
    pub packet_id: PacketId,
    /// Which message.
    pub message: Id,
    /// Whether the client said that it has it: only the end of the exchange is left.
    pub is_received: bool,
}

/// What changes in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// A subscription was made or replaced.
    Subscribed(KeptSubscription),
    /// A subscription was ended.
    Unsubscribed(TopicFilter),
    /// A `QoS` 2 message of the client's was taken.
    Taken(PacketId),
    /// The client released its identifier.
    Released(PacketId),
    /// A `QoS` 2 message is about to be sent.
    Sending(PacketId, Id),
    /// The client has it.
    Received(Id),
    /// The exchange is over.
    Completed(Id),
    /// The connection is gone; the session ends at this time.
    Suspended(Millis),
    /// The session ends, but for what waits for it: that goes with [`SessionBackend::purge`].
    Ended,
}

/// A message of a device's, for sessions of applications.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    /// Its id, greater than those before it.
    pub id: Id,
    /// The message itself.
    pub message: &'a Message,
    /// Which sessions it waits for.
    pub receivers: &'a [(Id, Handing)],
}

/// What is stored in one step.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    /// Messages to devices, with the times until which they wait.
    pub mail: Vec<(Id, &'a Message, Millis)>,
    /// Messages that devices have.
    pub mail_gone: &'a [Id],
    /// Messages to applications.
    pub messages: Vec<NewMessage<'a>>,
    /// Messages that sessions of applications have: which session, which message.
    pub messages_gone: &'a [(Id, Id)],
    /// Changes of sessions, in their order.
    pub changes: Vec<(SessionRef, &'a [SessionChange])>,
    /// Of a store that nodes share.
    pub shared: Option<Shared<'a>>,
}

/// What a batch is of one node among several: the store numbers its messages itself, whose ids say only which belong
/// together, and sees to the limits.
#[derive(Clone, Debug, Default)]
pub struct Shared<'a> {
    /// How much may wait.
    pub limits: SharedLimits,
    /// Every message, in the order of their ids, and by which claim it was sent.
    pub senders: Vec<(Id, Option<&'a Standing>)>,
    /// What other nodes are to hand out now: with which message, which node, what it is told.
    pub forwards: Vec<(Id, NodeNumber, &'a [u8])>,
    /// Clients whose connections are gone, with the epochs of their claims.
    pub left: &'a [(SessionKey, i64)],
}

/// How much may wait over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedLimits {
    /// Messages for one device.
    pub mail_messages: usize,
    /// Messages for all devices.
    pub mail_total: usize,
    /// Their bytes.
    pub mail_total_bytes: u64,
    /// Messages of one session of an application.
    pub queue_messages: usize,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Bytes of all sessions.
    pub queue_total_bytes: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Messages to devices that were taken out.
    pub mail_gone: Vec<MailGone>,
    /// Messages to applications that were taken out.
    pub messages_gone: Vec<QueueGone>,
    /// Sessions of which nothing was changed, because another connection has them.
    pub stale: SmallVec<[SessionRef; 1]>,
    /// Of a store that nodes share: what became of the messages, in the order of their ids.
    pub numbered: Vec<Numbered>,
    /// Of such a store: what waits over all nodes.
    pub totals: Option<Totals>,
}

/// What became of a message that the store was to number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its id, greater than every one before.
    pub id: Id,
    /// Whether it was left out: another connection had its sender by then.
    pub is_late: bool,
    /// Whether another node has the device, and knows.
    pub is_online: bool,
    /// Whether there was no room for it in the device's mailbox.
    pub is_full: bool,
    /// Sessions of applications that had no room for it.
    pub refused: Vec<Id>,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages to devices.
    pub mail_messages: i64,
    /// Their bytes.
    pub mail_bytes: i64,
    /// Messages to applications.
    pub queue_messages: i64,
    /// Their bytes.
    pub queue_bytes: i64,
}

/// A message that waits for a session of an application no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueGone {
    /// The session.
    pub session: Id,
    /// The message.
    pub message: Id,
    /// What it took, in bytes.
    pub bytes: u64,
}

/// A message that waits for a session of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMessage {
    /// Its id.
    pub id: Id,
    /// The message itself.
    pub message: Message,
    /// How it is to be handed over.
    pub handing: Handing,
}

/// A session that is kept, as it is found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// Its id.
    pub id: Id,
    /// Whose it is.
    pub key: SessionKey,
    /// Of an application's: its subscriptions.
    pub subscriptions: Vec<KeptSubscription>,
    /// Messages that wait for it.
    pub messages: usize,
    /// What they take, in bytes.
    pub bytes: u64,
    /// Of a store that nodes share: the node with its client.
    pub node: Option<NodeNumber>,
}

/// A store of persistent sessions. Every call is safe to be cancelled: it has its whole effect or none.
pub trait SessionBackend: fmt::Debug + Send + Sync {
    /// Gives a session to a connection, with an epoch greater than any before.
    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, StoreError>>;

    /// Stores a batch, whole or not at all; changes of a session whose epoch is past are left out.
    fn commit<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Committed, StoreError>>;

    /// Up to `limit` messages that wait for a session, in the order of their storing, those after `after`.
    fn queued(
        &self,
        session: Id,
        after: Option<Id>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedMessage>, StoreError>>;

    /// Those of these messages that wait for a session.
    fn queued_of<'a>(
        &'a self,
        session: Id,
        ids: &'a [Id],
    ) -> BoxFuture<'a, Result<Vec<QueuedMessage>, StoreError>>;

    /// Takes what waits of these devices out of a session; gives it.
    fn revoke<'a>(
        &'a self,
        session: Id,
        devices: &'a [DeviceId],
    ) -> BoxFuture<'a, Result<Vec<QueueGone>, StoreError>>;

    /// Ends a session, but for what waits for it: that goes with [`SessionBackend::purge`].
    fn discard(&self, session: Id) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Takes out a bounded number of messages that wait for a session that has ended; gives them.
    fn purge(&self, session: Id) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>>;

    /// Takes out a bounded number of messages whose time is over; gives them.
    fn expire_messages(&self, now: Millis) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>>;

    /// A bounded number of sessions whose time is over.
    fn expired_sessions(
        &self,
        now: Millis,
    ) -> BoxFuture<'_, Result<Vec<(Id, SessionKey)>, StoreError>>;

    /// Every session, once, at the start: those whose connections ended with the process before end at their time from
    /// `now` on.
    fn recover(&self, now: Millis) -> BoxFuture<'_, Result<Vec<KeptSession>, StoreError>>;

    /// The greatest id of a message that waits for an application.
    fn last_message(&self) -> BoxFuture<'_, Result<Option<Id>, StoreError>>;
}
