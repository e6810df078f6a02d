//! The state of sessions: transfer cursors (how far each delivery's bytes were acknowledged), persistent MQTT sessions,
//! and the messages that wait for devices and applications; in a SQLite file, or in Redis.
//!
//! What a caller asks for goes to the one or the other; both hold to the same contract, which `tests/contract.rs` runs.

mod backend;
mod local;
mod mailbox;
mod nodes;
mod persistent;
mod queue;
mod ranges;
mod redis;
mod retained;
mod will;

use std::path::Path;

use futures_util::future::BoxFuture;
use headgate_protocol::identity::DeviceId;

pub use self::{
    backend::{
        Batch, Claim, Claimed, Committed, KeptSession, KeptSubscription, NewMessage, Numbered,
        Outbound, Place as ClientPlace, QueueGone, QueuedMessage, SessionBackend, SessionChange,
        SessionKey, SessionRef, Shared, SharedLimits, Standing, Totals,
    },
    mailbox::{MailCount, MailGone, mail_bytes},
    nodes::{
        AppSession, Beat, Came, NodeEntry, NodeNumber, NodeRow, NodeStore, Resubscribed,
        RetainedTold, Told, decode_message, encode_message,
    },
    retained::{RetainedChange, RetainedEntry},
    will::{StoredWill, WillChange},
};
use self::{local::LocalSessions, redis::RedisSessions};

use crate::{
    model::{Id, Message, Millis},
    store::StoreError,
};

/// How far a delivery is, in acknowledged bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which delivery.
    pub delivery: Id,
    /// In which attempt.
    pub attempt: u32,
    /// The lowest byte that is not acknowledged.
    pub acked: u64,
    /// Acknowledged ranges beyond it, `[start, end)`, ascending and apart.
    pub ranges: Vec<(u64, u64)>,
    /// When it was taken.
    pub updated_at: Millis,
    /// Whose claim it is taken under, where nodes share the store: the device, and its session's epoch. Not stored.
    pub claim: Option<(DeviceId, i64)>,
}

/// The store of what sessions leave behind. Cloning shares its connection.
#[derive(Clone, Debug)]
pub struct SessionStore {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Local(LocalSessions),
    Redis(Box<RedisSessions>),
}

/// Asks the store, whichever it is.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match &$self.place {
            Place::Local($store) => $call,
            Place::Redis($store) => {
                let $store = &**$store;
                $call
            }
        }
    };
}

impl SessionStore {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let place = Place::Local(LocalSessions::open(path).await?);
        Ok(Self { place })
    }

    /// Opens what is below a prefix of a Redis server as a node, for the registry of a name, to which it belongs from then
    /// on. Waits for the lease of a node that died with the same name.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for wrong credentials, a server that cannot hold sessions, a prefix that belongs to
    /// another registry, and a name that another node has; else what the server says.
    pub async fn open_redis(
        url: &str,
        prefix: &str,
        registry: &[u8],
        node: NodeEntry,
    ) -> Result<Self, StoreError> {
        let opened = RedisSessions::open(url, prefix, registry, node).await?;
        let place = Place::Redis(Box::new(opened));
        Ok(Self { place })
    }

    /// The nodes that share the store; `None` where it is one node's alone.
    pub fn nodes(&self) -> Option<NodeStore> {
        match &self.place {
            Place::Local(_) => None,
            Place::Redis(store) => Some(NodeStore {
                store: (**store).clone(),
            }),
        }
    }

    /// Whether it is another process, which may be away while this one is well.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Redis(_))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// What it says when it does not; [`StoreError::Fenced`] when another gateway has it.
    pub async fn ping(&self) -> Result<(), StoreError> {
        each!(self, store => store.ping().await)
    }

    /// Stores cursors. A cursor of a smaller attempt than the stored one changes nothing, nor does one under a claim that
    /// is past: its device is at another node.
    ///
    /// # Cancel safety
    /// Safe: each is stored or not.
    pub async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        each!(self, store => store.save_cursors(cursors).await)
    }

    /// Every cursor, by delivery.
    pub async fn load_cursors(&self) -> Result<Vec<Cursor>, StoreError> {
        each!(self, store => store.load_cursors().await)
    }

    /// The cursors of these deliveries, as far as there are any.
    pub async fn cursors_of(&self, deliveries: &[Id]) -> Result<Vec<Cursor>, StoreError> {
        each!(self, store => store.cursors_of(deliveries).await)
    }

    /// Forgets the cursors of deliveries that ended.
    ///
    /// # Cancel safety
    /// Safe: each is deleted or not.
    pub async fn delete_cursors(&self, deliveries: &[Id]) -> Result<(), StoreError> {
        each!(self, store => store.delete_cursors(deliveries).await)
    }

    /// Takes out what waits for a device; gives it.
    pub async fn clear_mail(&self, device: &DeviceId) -> Result<Vec<MailGone>, StoreError> {
        each!(self, store => store.clear_mail(device).await)
    }

    /// Takes out a bounded number of messages to devices whose time is over; gives them.
    pub async fn expire_mail(&self, now: Millis) -> Result<Vec<MailGone>, StoreError> {
        each!(self, store => store.expire_mail(now).await)
    }

    /// Up to `limit` messages that wait for a device, in the order of their storing, those after `after`.
    pub async fn mail(
        &self,
        device: &DeviceId,
        after: Option<Id>,
        limit: usize,
        now: Millis,
    ) -> Result<Vec<(Id, Message)>, StoreError> {
        each!(self, store => store.mail(device, after, limit, now).await)
    }

    /// Those of these messages that wait for a device.
    pub async fn mail_of(
        &self,
        device: &DeviceId,
        ids: &[Id],
    ) -> Result<Vec<(Id, Message)>, StoreError> {
        each!(self, store => store.mail_of(device, ids).await)
    }

    /// How much waits for each device that anything waits for.
    pub async fn mail_counts(&self) -> Result<Vec<MailCount>, StoreError> {
        each!(self, store => store.mail_counts().await)
    }

    /// The greatest id of a message that waits, or waited, for a device.
    pub async fn last_mail(&self) -> Result<Option<Id>, StoreError> {
        each!(self, store => store.last_mail().await)
    }

    /// Carries changes of retained messages out in their order, all or none, but for those whose sender was with another
    /// connection by then: gives which of them those are.
    ///
    /// # Cancel safety
    /// Safe: all or none are carried out.
    pub async fn change_retained(
        &self,
        changes: &[RetainedChange<'_>],
    ) -> Result<Vec<usize>, StoreError> {
        each!(self, store => store.change_retained(changes).await)
    }

    /// Where there are retained messages.
    pub async fn retained_entries(&self) -> Result<Vec<RetainedEntry>, StoreError> {
        each!(self, store => store.retained_entries().await)
    }

    /// The retained messages of these devices and topics that have not expired, in no order; a bounded number is looked
    /// up.
    pub async fn retained(
        &self,
        wanted: &[(&DeviceId, &str)],
        now: Millis,
    ) -> Result<Vec<Message>, StoreError> {
        each!(self, store => store.retained(wanted, now).await)
    }

    /// Takes out a bounded number of retained messages whose time is over; gives them.
    pub async fn expire_retained(&self, now: Millis) -> Result<Vec<RetainedEntry>, StoreError> {
        each!(self, store => store.expire_retained(now).await)
    }

    /// Stores and deletes wills, all or none.
    ///
    /// # Cancel safety
    /// Safe: all or none are changed.
    pub async fn change_wills(&self, changes: &[WillChange<'_>]) -> Result<(), StoreError> {
        each!(self, store => store.change_wills(changes).await)
    }

    /// Every will.
    pub async fn load_wills(&self) -> Result<Vec<StoredWill>, StoreError> {
        each!(self, store => store.load_wills().await)
    }

    /// Writes everything out and closes the store of this machine; what is asked of it afterwards fails.
    pub async fn close(&self) {
        match &self.place {
            Place::Local(store) => store.close().await,
            // What was answered is stored; the connection goes with the last who has it.
            Place::Redis(_) => {}
        }
    }
}

impl SessionBackend for SessionStore {
    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, StoreError>> {
        each!(self, store => SessionBackend::claim(store, claim))
    }

    fn commit<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Committed, StoreError>> {
        each!(self, store => SessionBackend::commit(store, batch))
    }

    fn queued(
        &self,
        session: Id,
        after: Option<Id>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedMessage>, StoreError>> {
        each!(self, store => store.queued(session, after, limit))
    }

    fn queued_of<'a>(
        &'a self,
        session: Id,
        ids: &'a [Id],
    ) -> BoxFuture<'a, Result<Vec<QueuedMessage>, StoreError>> {
        each!(self, store => store.queued_of(session, ids))
    }

    fn revoke<'a>(
        &'a self,
        session: Id,
        devices: &'a [DeviceId],
    ) -> BoxFuture<'a, Result<Vec<QueueGone>, StoreError>> {
        each!(self, store => store.revoke(session, devices))
    }

    fn discard(&self, session: Id) -> BoxFuture<'_, Result<(), StoreError>> {
        each!(self, store => store.discard(session))
    }

    fn purge(&self, session: Id) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>> {
        each!(self, store => store.purge(session))
    }

    fn expire_messages(&self, now: Millis) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>> {
        each!(self, store => store.expire_messages(now))
    }

    fn expired_sessions(
        &self,
        now: Millis,
    ) -> BoxFuture<'_, Result<Vec<(Id, SessionKey)>, StoreError>> {
        each!(self, store => store.expired_sessions(now))
    }

    fn recover(&self, now: Millis) -> BoxFuture<'_, Result<Vec<KeptSession>, StoreError>> {
        each!(self, store => store.recover(now))
    }

    fn last_message(&self) -> BoxFuture<'_, Result<Option<Id>, StoreError>> {
        each!(self, store => store.last_message())
    }
}

/// Rows of one statement at most.
const BLOCK: usize = 500;
/// Messages of one statement at most: eleven values each.
const MAIL_BLOCK: usize = 100;

#[cfg(test)]
mod tests;
