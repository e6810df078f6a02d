//! What a batch of one node among several has: messages that the store numbers, and what it tells other nodes.

use std::collections::BTreeMap;

use super::{named, write_mail, write_message};
use crate::{
    model::{Id, Message, Millis},
    store::{
        StoreError,
        sessions::{Batch, NewMessage, Shared, redis::script::Call},
    },
};

/// What is stored and told of one message.
#[derive(Default)]
struct Parts<'a> {
    mail: Option<(&'a Message, Millis)>,
    message: Option<&'a NewMessage<'a>>,
}

pub(super) fn write(
    call: &mut Call<'_>,
    batch: &Batch<'_>,
    shared: &Shared<'_>,
) -> Result<(), StoreError> {
    let mut parts: BTreeMap<Id, Parts<'_>> = BTreeMap::new();
    for (id, message, expires_at) in &batch.mail {
        parts.entry(*id).or_default().mail = Some((message, *expires_at));
    }
    for new in &batch.messages {
        parts.entry(new.id).or_default().message = Some(new);
    }
    for (id, ..) in &shared.forwards {
        parts.entry(*id).or_default();
    }
    let limits = Some(&shared.limits);
    for part in parts.values() {
        call.arg("new");
        if let Some((message, expires_at)) = part.mail {
            write_mail(call, "*", message, expires_at, limits)?;
        }
        if let Some(new) = part.message {
            write_message(call, "*", new, limits)?;
        }
    }
    for (_, node, body) in &shared.forwards {
        call.arg("forward").arg(node.0).arg(*body);
    }
    for (key, epoch) in shared.left {
        call.arg("left").arg(named(key).0).arg(*epoch);
    }
    Ok(())
}
