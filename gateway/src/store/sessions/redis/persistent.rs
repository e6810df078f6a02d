//! Persistent sessions, and the messages that wait for those of applications.
//!
//! A session is one hash: its key `k`, application `p`, epoch `e`, seconds that it outlives its connection `x`, and when
//! it ends `t`; its subscriptions `f:`, identifiers that its client has not released `i:`, messages under way `o:` with
//! their identifiers `q:`, and how many were ever sent `n`.

mod shared;

use std::num::NonZeroU32;

use futures_util::future::BoxFuture;
use headgate_protocol::{
    identity::DeviceId,
    mqtt::{PacketId, QoS},
};
use smallvec::SmallVec;

use super::{BLOCK, RedisSessions, form, mail, script::Call};
use crate::{
    model::{Handing, Id, Message, Millis},
    store::{
        StoreError,
        sessions::{
            Batch, Claim, Claimed, ClientPlace, Committed, KeptSession, KeptSubscription,
            NewMessage, NodeNumber, Numbered, Outbound, QueueGone, QueuedMessage, SessionBackend,
            SessionChange, SessionKey, SessionRef, SharedLimits, Standing, Totals, mail_bytes,
            persistent::{asked, options},
        },
    },
};

/// What a script gives of a session: fields and values in turn.
type Fields = Vec<Vec<u8>>;
/// What the script of a claim answers.
type ClaimAnswer = (String, i64, u8, String, Fields, usize, u8, u8);
/// What the script of a commit answers.
type CommitAnswer = (
    Vec<(String, u64, String)>,
    Vec<(String, String, u64)>,
    Vec<String>,
    Vec<NumberedAnswer>,
    (i64, i64, i64, i64),
);
type NumberedAnswer = (String, u8, u8, u8, Vec<String>);

impl SessionBackend for RedisSessions {
    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, StoreError>> {
        Box::pin(async move {
            let (name, app) = named(&claim.key);
            let mut call = self.call(&self.scripts.claim);
            call.arg(name).arg(app).arg(claim.id.to_string());
            call.arg(u8::from(claim.is_clean)).arg(claim.expiry_secs);
            call.arg(claim.max_sessions);
            let (id, epoch, is_present, gone, fields, mail, moved, refused): ClaimAnswer =
                call.run().await?;
            let mut claimed = Claimed {
                is_present: is_present == 1,
                place: Some(ClientPlace {
                    epoch,
                    mail,
                    is_moved: moved == 1,
                    is_refused: refused == 1,
                }),
                ..Claimed::default()
            };
            if !gone.is_empty() {
                claimed.discarded = Some(form::id(&gone)?);
            }
            if !id.is_empty() {
                let id = form::id(&id)?;
                claimed.session = Some(SessionRef { id, epoch });
            }
            Kept::read(fields)?.give(&mut claimed);
            Ok(claimed)
        })
    }

    fn commit<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Committed, StoreError>> {
        Box::pin(async move {
            let mut call = self.call(&self.scripts.commit);
            write(&mut call, batch)?;
            if call.arguments() == 0 {
                return Ok(Committed::default());
            }
            let (mail_gone, messages_gone, stale, numbered, totals): CommitAnswer =
                call.run().await?;
            let mut stale_ids: SmallVec<[SessionRef; 1]> = SmallVec::new();
            for stale in &stale {
                let id = form::id(stale)?;
                let of = batch.changes.iter().map(|(session, _)| *session);
                let mut of = of.filter(|session| session.id == id && !stale_ids.contains(session));
                stale_ids.extend(of.next());
            }
            Ok(Committed {
                mail_gone: mail::gone(mail_gone)?,
                messages_gone: gone(messages_gone)?,
                stale: stale_ids,
                numbered: numbered
                    .into_iter()
                    .map(numbered_one)
                    .collect::<Result<_, _>>()?,
                totals: batch.shared.is_some().then_some(Totals {
                    mail_messages: totals.0,
                    mail_bytes: totals.1,
                    queue_messages: totals.2,
                    queue_bytes: totals.3,
                }),
            })
        })
    }

    fn queued(
        &self,
        session: Id,
        after: Option<Id>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedMessage>, StoreError>> {
        Box::pin(async move {
            let mut call = self.call(&self.scripts.queue_page);
            call.arg(session.to_string())
                .arg(after.map(|id| id.to_string()).unwrap_or_default())
                .arg(limit.min(BLOCK));
            let (ids, kept, bodies): (Vec<String>, Vec<String>, Vec<Vec<u8>>) = call.run().await?;
            let rows = ids.iter().zip(&kept).zip(&bodies);
            rows.map(|((id, kept), body)| queued(form::id(id)?, kept, body))
                .collect()
        })
    }

    fn queued_of<'a>(
        &'a self,
        session: Id,
        ids: &'a [Id],
    ) -> BoxFuture<'a, Result<Vec<QueuedMessage>, StoreError>> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut found = Vec::with_capacity(ids.len());
            for block in ids.chunks(BLOCK) {
                let names: Vec<String> = block.iter().map(Id::to_string).collect();
                let (kept, bodies): (Vec<Option<String>>, Vec<Option<Vec<u8>>>) = ::redis::pipe()
                    .hmget(self.key(&format!("qh:{session}")), &names)
                    .hmget(self.key("msg"), &names)
                    .query_async(&mut connection)
                    .await?;
                for ((id, kept), body) in block.iter().zip(kept).zip(bodies) {
                    if let (Some(kept), Some(body)) = (kept, body) {
                        found.push(queued(*id, &kept, &body)?);
                    }
                }
            }
            Ok(found)
        })
    }

    fn revoke<'a>(
        &'a self,
        session: Id,
        devices: &'a [DeviceId],
    ) -> BoxFuture<'a, Result<Vec<QueueGone>, StoreError>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for block in devices.chunks(BLOCK) {
                let mut call = self.call(&self.scripts.queue_drop);
                call.arg(session.to_string()).arg(0);
                for device in block {
                    call.arg(device.as_str());
                }
                found.extend(gone(call.run().await?)?);
            }
            Ok(found)
        })
    }

    fn discard(&self, session: Id) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut call = self.call(&self.scripts.discard);
            call.arg(session.to_string());
            call.run().await
        })
    }

    fn purge(&self, session: Id) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>> {
        Box::pin(async move {
            let mut call = self.call(&self.scripts.queue_drop);
            call.arg(session.to_string()).arg(BLOCK);
            gone(call.run().await?)
        })
    }

    fn expire_messages(&self, now: Millis) -> BoxFuture<'_, Result<Vec<QueueGone>, StoreError>> {
        Box::pin(async move {
            let mut call = self.call(&self.scripts.queue_expire);
            call.arg(now.as_i64()).arg(BLOCK);
            gone(call.run().await?)
        })
    }

    fn expired_sessions(
        &self,
        now: Millis,
    ) -> BoxFuture<'_, Result<Vec<(Id, SessionKey)>, StoreError>> {
        Box::pin(async move {
            let mut call = self.call(&self.scripts.sessions_expired);
            call.arg(now.as_i64()).arg(BLOCK);
            let found: Vec<(String, String, String)> = call.run().await?;
            let keys = found.iter();
            keys.map(|(id, name, app)| Ok((form::id(id)?, key(name, app)?)))
                .collect()
        })
    }

    fn recover(&self, now: Millis) -> BoxFuture<'_, Result<Vec<KeptSession>, StoreError>> {
        Box::pin(self.find_all(now))
    }

    fn last_message(&self) -> BoxFuture<'_, Result<Option<Id>, StoreError>> {
        Box::pin(self.last("message"))
    }
}

impl RedisSessions {
    async fn find_all(&self, now: Millis) -> Result<Vec<KeptSession>, StoreError> {
        self.drop_orphans().await?;
        let names = self.scan("sid").await?;
        let mut kept = Vec::with_capacity(names.len());
        for block in names.chunks(BLOCK) {
            let mut call = self.call(&self.scripts.sessions_recover);
            call.arg(now.as_i64());
            for (_, id) in block {
                call.arg(id.as_slice());
            }
            let found: Vec<(String, String, String, usize, u64, Fields, String)> =
                call.run().await?;
            for (id, name, app, messages, bytes, fields, node) in found {
                let key = key(&name, &app)?;
                let is_device = matches!(key, SessionKey::Device(_));
                kept.push(KeptSession {
                    id: form::id(&id)?,
                    key,
                    subscriptions: Kept::read(fields)?.subscriptions,
                    messages: if is_device { 0 } else { messages },
                    bytes,
                    node: node.parse().ok().map(NodeNumber),
                });
            }
        }
        Ok(kept)
    }

    /// Takes out what waits for sessions that are no more: a process that was killed may have left it.
    async fn drop_orphans(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let queues: Vec<String> = ::redis::cmd("SMEMBERS")
            .arg(self.key("qs"))
            .query_async(&mut connection)
            .await?;
        for block in queues.chunks(BLOCK) {
            let mut call = self.call(&self.scripts.orphans);
            for session in block {
                call.arg(session);
            }
            let gone: Vec<String> = call.run().await?;
            for session in gone {
                let session = form::id(&session)?;
                while !self.purge(session).await?.is_empty() {}
            }
        }
        Ok(())
    }
}

/// What is read of a session.
#[derive(Default)]
struct Kept {
    subscriptions: Vec<KeptSubscription>,
    unreleased: Vec<PacketId>,
    /// With their places in the order of sending.
    outbound: Vec<(u64, Outbound)>,
}

impl Kept {
    fn read(fields: Fields) -> Result<Self, StoreError> {
        let mut kept = Self::default();
        let mut fields = fields.into_iter();
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            let (field, value) = (form::text("session", field)?, form::text("session", value)?);
            match field.split_once(':') {
                Some(("f", filter)) => kept.subscriptions.push(subscription(filter, &value)?),
                Some(("i", packet)) => kept.unreleased.push(packet_id(packet)?),
                Some(("o", message)) => {
                    let mut parts = value.split(' ');
                    let mut part = || parts.next().unwrap_or_default();
                    let place = form::parsed("place", part())?;
                    let outbound = Outbound {
                        packet_id: packet_id(part())?,
                        message: form::id(message)?,
                        is_received: part() == "1",
                    };
                    kept.outbound.push((place, outbound));
                }
                _ => {}
            }
        }
        kept.outbound.sort_by_key(|(place, _)| *place);
        Ok(kept)
    }

    fn give(self, claimed: &mut Claimed) {
        claimed.subscriptions = self.subscriptions;
        claimed.unreleased = self.unreleased;
        claimed.outbound = self.outbound.into_iter().map(|(_, one)| one).collect();
    }
}

/// A subscription, by its filter and what the session keeps under it.
pub(in super::super) fn subscription(
    filter: &str,
    kept: &str,
) -> Result<KeptSubscription, StoreError> {
    let (options, identifier) = numbers(kept)?;
    Ok(KeptSubscription {
        asked: asked(form::parsed("filter", filter)?, options)?,
        identifier: NonZeroU32::new(identifier),
    })
}

fn write(call: &mut Call<'_>, batch: &Batch<'_>) -> Result<(), StoreError> {
    if let Some(shared) = &batch.shared {
        shared::write(call, batch, shared)?;
    } else {
        for (id, message, expires_at) in &batch.mail {
            write_mail(call, &id.to_string(), message, *expires_at, None)?;
        }
        for new in &batch.messages {
            write_message(call, &new.id.to_string(), new, None)?;
        }
    }
    for id in batch.mail_gone {
        call.arg("mail_gone").arg(id.to_string());
    }
    for (session, message) in batch.messages_gone {
        call.arg("message_gone")
            .arg(session.to_string())
            .arg(message.to_string());
    }
    for (session, changes) in &batch.changes {
        let arguments: usize = changes.iter().map(count).sum();
        call.arg("session")
            .arg(session.id.to_string())
            .arg(session.epoch);
        call.arg(changes.len()).arg(arguments);
        changes.iter().for_each(|change| write_change(call, change));
    }
    Ok(())
}

fn write_mail(
    call: &mut Call<'_>,
    id: &str,
    message: &Message,
    expires_at: Millis,
    limits: Option<&SharedLimits>,
) -> Result<(), StoreError> {
    call.arg("mail").arg(id);
    call.arg(message.device.device_id.as_str());
    call.arg(mail_bytes(message)).arg(expires_at.as_i64());
    call.arg(form::encode(message)?);
    match limits {
        Some(limits) => call
            .arg(limits.mail_messages)
            .arg(limits.mail_total)
            .arg(limits.mail_total_bytes),
        None => call.arg("").arg("").arg(""),
    };
    Ok(())
}

fn write_message(
    call: &mut Call<'_>,
    id: &str,
    new: &NewMessage<'_>,
    limits: Option<&SharedLimits>,
) -> Result<(), StoreError> {
    let expires_at = new.message.properties.expires_at.map(Millis::as_i64);
    call.arg("message").arg(id);
    call.arg(expires_at.map(|at| at.to_string()).unwrap_or_default());
    call.arg(form::encode(new.message)?)
        .arg(new.receivers.len());
    match limits {
        Some(limits) => call
            .arg(limits.queue_messages)
            .arg(limits.queue_bytes)
            .arg(limits.queue_total_bytes),
        None => call.arg("").arg("").arg(""),
    };
    let (bytes, device) = (mail_bytes(new.message), &new.message.device.device_id);
    for (session, handing) in new.receivers {
        call.arg(session.to_string());
        call.arg(format!("{bytes} {} {device}", handed(handing)));
    }
    Ok(())
}

/// How many arguments a change is.
const fn count(change: &SessionChange) -> usize {
    match change {
        SessionChange::Ended => 1,
        SessionChange::Subscribed(_) | SessionChange::Sending(..) => 3,
        SessionChange::Unsubscribed(_)
        | SessionChange::Taken(_)
        | SessionChange::Released(_)
        | SessionChange::Received(_)
        | SessionChange::Completed(_)
        | SessionChange::Suspended(_) => 2,
    }
}

fn write_change(call: &mut Call<'_>, change: &SessionChange) {
    match change {
        SessionChange::Subscribed(kept) => {
            let identifier = kept.identifier.map_or(0, NonZeroU32::get);
            call.arg("subscribed").arg(kept.asked.filter.to_string());
            call.arg(format!("{} {identifier}", options(&kept.asked)))
        }
        SessionChange::Unsubscribed(filter) => call.arg("unsubscribed").arg(filter.to_string()),
        SessionChange::Taken(packet) => call.arg("taken").arg(packet.get()),
        SessionChange::Released(packet) => call.arg("released").arg(packet.get()),
        SessionChange::Sending(packet, message) => call
            .arg("sending")
            .arg(packet.get())
            .arg(message.to_string()),
        SessionChange::Received(message) => call.arg("received").arg(message.to_string()),
        SessionChange::Completed(message) => call.arg("completed").arg(message.to_string()),
        SessionChange::Suspended(at) => call.arg("suspended").arg(at.as_i64()),
        SessionChange::Ended => call.arg("ended"),
    };
}

/// `qos,retain` and the identifiers of the subscriptions.
fn handed(handing: &Handing) -> String {
    let mut text = format!("{},{}", handing.qos.bits(), u8::from(handing.retain));
    for id in &handing.subscription_ids {
        text.push(',');
        text.push_str(&id.to_string());
    }
    text
}

fn queued(id: Id, kept: &str, body: &[u8]) -> Result<QueuedMessage, StoreError> {
    let corrupt = || form::corrupt("queued", "no list of numbers");
    let mut numbers = kept.split(' ').nth(1).ok_or_else(corrupt)?.split(',');
    let mut number = || numbers.next()?.parse::<u8>().ok();
    let (qos, retain) = (number().ok_or_else(corrupt)?, number().ok_or_else(corrupt)?);
    let subscription_ids = numbers
        .map(|number| form::parsed("queued", number))
        .collect::<Result<_, _>>()?;
    Ok(QueuedMessage {
        id,
        message: form::decode(body)?,
        handing: Handing {
            qos: QoS::from_bits(qos).ok_or_else(corrupt)?,
            retain: retain == 1,
            subscription_ids,
        },
    })
}

fn numbered_one((id, late, online, full, refused): NumberedAnswer) -> Result<Numbered, StoreError> {
    let refused = refused.iter().map(|session| form::id(session));
    Ok(Numbered {
        id: form::id(&id)?,
        is_late: late == 1,
        is_online: online == 1,
        is_full: full == 1,
        refused: refused.collect::<Result<_, _>>()?,
    })
}

fn gone(rows: Vec<(String, String, u64)>) -> Result<Vec<QueueGone>, StoreError> {
    rows.into_iter()
        .map(|(session, message, bytes)| {
            Ok(QueueGone {
                session: form::id(&session)?,
                message: form::id(&message)?,
                bytes,
            })
        })
        .collect()
}

/// Who sends a message: which client, by which claim; twice nothing where that does not matter.
pub(super) fn standing(call: &mut Call<'_>, sender: Option<&Standing>) {
    match sender {
        Some(sender) => call.arg(named(&sender.key).0).arg(sender.epoch),
        None => call.arg("").arg(""),
    };
}

pub(super) fn named(key: &SessionKey) -> (String, &str) {
    match key {
        SessionKey::Device(device) => (format!("d:{device}"), ""),
        SessionKey::Application(app, client_id) => (format!("a:{client_id}"), app.as_str()),
    }
}

pub(in super::super) fn key(name: &str, app: &str) -> Result<SessionKey, StoreError> {
    match name.split_once(':') {
        Some(("d", device)) => Ok(SessionKey::Device(form::parsed("device", device)?)),
        Some(("a", client_id)) => Ok(SessionKey::Application(
            form::parsed("app", app)?,
            client_id.into(),
        )),
        _ => Err(form::corrupt("session", name)),
    }
}

fn numbers(text: &str) -> Result<(i64, u32), StoreError> {
    let (first, second) = text.split_once(' ').unwrap_or((text, ""));
    Ok((
        form::parsed("options", first)?,
        form::parsed("identifier", second)?,
    ))
}

fn packet_id(text: &str) -> Result<PacketId, StoreError> {
    let number: u16 = form::parsed("packet_id", text)?;
    PacketId::new(number).ok_or_else(|| form::corrupt("packet_id", number))
}
