//! Handing messages in, and out to those who are to have them.
//!
//! Invariants: what has to be stored stands in the line of the store before the bindings that it went by can change; a
//! sender is told that a message was taken once it is stored.

use std::sync::Arc;

use headgate_protocol::{identity::AppId, mqtt::QoS};
use tokio::sync::{mpsc, oneshot};

use super::{
    NotRetained, Receipt, SubscriberId, Uplink,
    mailbox::Place,
    nodes,
    queue::QueuePlace,
    subscribers::Fanned,
    writer::{Order, Placed, Put},
};
use crate::{
    model::{Handing, Id, Message, Millis},
    store::{StoreError, sessions::Standing},
    telemetry::metrics::DropReason,
};

/// Who sends a message to a device.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// An application, which must be bound to the device; its session, where it has one.
    App(&'a AppId, Option<SubscriberId>),
    /// An operator.
    Operator,
}

/// What became of a message from a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Sessions of applications that took it.
    pub receivers: u32,
}

/// Why a message from a device was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotPublished {
    /// As many messages wait for a session of an application as may.
    #[error("as many messages wait for an application as may")]
    QueueFull,
    /// The message could not be stored for a session that waits for it.
    #[error("the message could not be stored")]
    Unavailable,
    /// It is to be retained and cannot be.
    #[error(transparent)]
    NotRetained(#[from] NotRetained),
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is said of a message by the one who hands it in.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Whether its sender can be told that there is no room. One that cannot has its message dropped for the sessions
    /// without room, and counted.
    pub may_refuse: bool,
    /// That its sender sends it again until it is acknowledged.
    pub sending: Sending,
}

/// What is stored by where a message is sent again until it is acknowledged: so that it is neither taken twice, nor after
/// what its sender said later by another connection.
#[derive(Clone, Debug, Default)]
pub struct Sending {
    /// What is to be stored with the message, at `QoS` 2 from a persistent session.
    pub receipt: Option<Receipt>,
    /// The claim by which the connection has the client, at `QoS` 1 and 2 where other nodes may have it.
    pub sender: Option<Standing>,
}

/// What became of a message to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The device's session has it.
    Online(Option<Id>),
    /// It waits for the device.
    Queued(Id),
}

/// Why a message to a device was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// The application is not bound to the device, or there is no such device: which of them is not said.
    #[error("no such device is bound to the application")]
    NotBound,
    /// There is no such device.
    #[error("no such device")]
    UnknownDevice,
    /// The topic is none of the device's.
    #[error("the topic is none of the device's own")]
    ForeignTopic,
    /// The payload is above the limit.
    #[error("the payload is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// As many messages wait for the device, or for all devices, as may.
    #[error("as many messages wait as may")]
    MailboxFull,
    /// The device is not there, and a message of `QoS` 0 does not wait.
    #[error("the device is not connected")]
    Offline,
    /// It is to be retained, and as many are as may be.
    #[error("as many messages are retained as may be")]
    RetainedFull,
    /// The message could not be stored.
    #[error("the message could not be stored")]
    Unavailable,
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Uplink {
    /// Hands out a message from its device, and before that retains it where it asks for that. What persistent sessions
    /// want at `QoS` 1 or 2 is stored before this returns.
    ///
    /// # Errors
    /// [`NotPublished`]: it is stored for nobody then, though sessions that are not persistent may have it.
    ///
    /// # Cancel safety
    /// A cancelled call may have handed it out.
    pub async fn publish_from_device(
        &self,
        message: Message,
        terms: Terms,
    ) -> Result<Published, NotPublished> {
        let message = Arc::new(message);
        self.inner.sightings.note(&message, true);
        if message.retain {
            let sender = terms.sending.sender.clone();
            self.inner.retained.keep(&message, sender).await?;
        }
        let (published, _) = self.hand_out(&message, None, None, terms).await?;
        Ok(published)
    }

    /// Sends a message to its device, and before that retains it where it asks for that. With `QoS` 1 or 2 it is stored
    /// before this returns, and waits for as long as the device is away; with `QoS` 0 it is sent now or not at all.
    /// Applications that are bound to the device and subscribed to the topic see it too.
    ///
    /// # Errors
    /// [`NotSent`]; nobody has it then.
    ///
    /// # Cancel safety
    /// A cancelled call may have sent it.
    pub async fn publish_to_device(
        &self,
        from: Origin<'_>,
        message: Message,
        sending: Sending,
    ) -> Result<Sent, NotSent> {
        // Nobody commands a device in vain because another application does not read what it is shown.
        let terms = Terms {
            may_refuse: false,
            sending,
        };
        let inner = &self.inner;
        let device = &message.device.device_id;
        let (sender, session) = match from {
            Origin::App(app, session) => (Some(app), session),
            Origin::Operator => (None, None),
        };
        if let Some(app) = sender
            && !self.is_bound(app, device).await?
        {
            return Err(NotSent::NotBound);
        }
        let owner = self.resolve(&message.topic).await?;
        if owner.is_none_or(|owner| owner.device_id != *device) {
            return Err(NotSent::ForeignTopic);
        }
        let max_bytes = inner.max_message_bytes;
        if message.payload.len() > max_bytes {
            inner.metrics.messages_dropped(DropReason::TooLarge).inc();
            return Err(NotSent::TooLarge { max_bytes });
        }
        let message = Arc::new(message);
        if message.retain {
            let sender = terms.sending.sender.clone();
            let kept = inner.retained.keep(&message, sender).await;
            kept.map_err(|error| match error {
                NotRetained::Full => NotSent::RetainedFull,
                NotRetained::Unavailable => NotSent::Unavailable,
            })?;
        }
        if message.qos == QoS::AtMostOnce {
            if !inner.mailbox.offer_once(Arc::clone(&message))
                && !self.offer_elsewhere(&message).await
            {
                inner.metrics.messages_dropped(DropReason::Offline).inc();
                return Err(NotSent::Offline);
            }
            inner.sightings.note(&message, false);
            // The device has it: that other applications cannot be found out now changes nothing of that.
            if let Err(error) = self.hand_out(&message, session, None, terms).await {
                tracing::warn!(%error, device_id = %message.device.device_id, "a message could not be shown to applications");
            }
            return Ok(Sent::Online(None));
        }
        let Some(place) = inner.mailbox.reserve(&message) else {
            let dropped = inner.metrics.messages_dropped(DropReason::MailboxFull);
            dropped.inc();
            return Err(NotSent::MailboxFull);
        };
        inner.sightings.note(&message, false);
        let mail = Some((inner.mailbox.expiry_of(&message), place));
        match self.hand_out(&message, session, mail, terms).await {
            Ok((_, Some(placed))) if placed.is_full => {
                let dropped = inner.metrics.messages_dropped(DropReason::MailboxFull);
                dropped.inc();
                Err(NotSent::MailboxFull)
            }
            Ok((_, Some(placed))) if placed.is_online => Ok(Sent::Online(Some(placed.id))),
            Ok((_, Some(placed))) => Ok(Sent::Queued(placed.id)),
            Err(NotPublished::Store(error)) => Err(NotSent::Store(error)),
            Ok((_, None)) | Err(_) => Err(NotSent::Unavailable),
        }
    }

    /// Has the node that has a device hand it a message that is not kept; says whether another node has it.
    async fn offer_elsewhere(&self, message: &Message) -> bool {
        let Some(shared) = &self.inner.shared else {
            return false;
        };
        shared.once(message).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "another node could not be told of a message");
            false
        })
    }

    /// Hands a message to applications, and has it stored for those who are to have it in any case.
    async fn hand_out(
        &self,
        message: &Arc<Message>,
        from: Option<SubscriberId>,
        mail: Option<(Millis, Place)>,
        terms: Terms,
    ) -> Result<(Published, Option<Placed>), NotPublished> {
        let inner = &self.inner;
        let device = &message.device.device_id;
        let elsewhere = inner.elsewhere.get();
        let may_store = mail.is_some() || inner.sessions.has_queues() || elsewhere.is_some();
        let is_awaited = mail.is_some() || message.qos != QoS::AtMostOnce;
        // A place in the line of what is stored is had before the bindings are locked: whoever unbinds the device comes
        // behind in it.
        let permit = if may_store {
            let permit = inner.orders.clone().reserve_owned().await;
            Some(permit.map_err(|_| NotPublished::Unavailable)?)
        } else {
            None
        };
        let Terms {
            may_refuse,
            sending: Sending { receipt, sender },
        } = terms;
        let offer = |apps: &[AppId]| {
            let mut fanned = Fanned::default();
            for app in apps {
                inner.subscribers.offer(app, message, from, &mut fanned);
                fanned.taken += u32::from(inner.histories.push(app, message));
            }
            let receivers = self.places(message, &mut fanned, may_refuse)?;
            let mut to = std::mem::take(&mut fanned.elsewhere);
            if let Some(elsewhere) = elsewhere {
                elsewhere.add_streams(apps, &mut to);
            }
            let forwards = nodes::forwards(message, to)?;
            let mut waiting = None;
            if let Some(permit) = permit
                && (mail.is_some() || !receivers.is_empty() || !forwards.is_empty())
            {
                let (stored, done) = oneshot::channel();
                permit.send(Order::Put(Put {
                    message: Arc::clone(message),
                    mail,
                    receivers,
                    receipt,
                    sender,
                    stored,
                    is_offered: false,
                    forwards,
                }));
                waiting = is_awaited.then_some(done);
            }
            Ok::<_, NotPublished>((fanned, waiting))
        };
        let (fanned, waiting) = inner.bindings.with(device, offer).await??;
        if fanned.full > 0 {
            let dropped = inner.metrics.messages_dropped(DropReason::ApplicationFull);
            dropped.inc_by(u64::from(fanned.full));
        }
        let placed = match waiting {
            Some(waiting) => Some(waiting.await.map_err(|_| NotPublished::Unavailable)?),
            None => None,
        };
        let refused = placed.map_or(0, |placed| placed.refused);
        if may_refuse && refused > 0 {
            return Err(NotPublished::QueueFull);
        }
        let receivers = fanned.taken;
        Ok((Published { receivers }, placed))
    }

    /// Places for a message in the queues of the sessions that it is to be stored for.
    fn places(
        &self,
        message: &Message,
        fanned: &mut Fanned,
        may_refuse: bool,
    ) -> Result<Vec<(QueuePlace, Handing)>, NotPublished> {
        let mut places = Vec::with_capacity(fanned.to_store.len());
        for (queue, handing) in fanned.to_store.drain(..) {
            if let Some(place) = queue.reserve(message) {
                places.push((place, handing));
                fanned.taken += 1;
                continue;
            }
            let dropped = self.inner.metrics.messages_dropped(DropReason::QueueFull);
            dropped.inc();
            if may_refuse {
                return Err(NotPublished::QueueFull);
            }
        }
        Ok(places)
    }

    /// A place in the line of what is stored, where anything may have to be.
    pub(super) async fn permit(&self) -> Option<mpsc::OwnedPermit<Order>> {
        if !self.inner.sessions.has_queues() {
            return None;
        }
        self.inner.orders.clone().reserve_owned().await.ok()
    }
}
