//! What a batch of one node among several has: messages that the store numbers, and what it tells other nodes.

use std::collections::BTreeMap;

use super::{named, standing, write_mail, write_message};
use crate::{
    model::{Id, Message, Millis},
    store::{
        StoreError,
        sessions::{Batch, NewMessage, NodeNumber, Shared, Standing, redis::script::Call},
    },
};

/// What is stored and told of one message.
#[derive(Default)]
struct Parts<'a> {
    sender: Option<&'a Standing>,
    mail: Option<(&'a Message, Millis)>,
    message: Option<&'a NewMessage<'a>>,
    forwards: Vec<(NodeNumber, &'a [u8])>,
}

pub(super) fn write(
    call: &mut Call<'_>,
    batch: &Batch<'_>,
    shared: &Shared<'_>,
) -> Result<(), StoreError> {
    let senders = shared.senders.iter();
    let mut parts: BTreeMap<Id, Parts<'_>> = senders
        .map(|(id, sender)| {
            let part = Parts {
                sender: *sender,
                ..Parts::default()
            };
            (*id, part)
        })
        .collect();
    for (id, message, expires_at) in &batch.mail {
        parts.entry(*id).or_default().mail = Some((message, *expires_at));
    }
    for new in &batch.messages {
        parts.entry(new.id).or_default().message = Some(new);
    }
    for (id, node, body) in &shared.forwards {
        let forwards = &mut parts.entry(*id).or_default().forwards;
        forwards.push((*node, body));
    }
    let limits = Some(&shared.limits);
    for part in parts.values() {
        call.arg("new");
        standing(call, part.sender);
        if let Some((message, expires_at)) = part.mail {
            write_mail(call, "*", message, expires_at, limits)?;
        }
        if let Some(new) = part.message {
            write_message(call, "*", new, limits)?;
        }
        for (node, body) in &part.forwards {
            call.arg("forward").arg(node.0).arg(*body);
        }
    }
    for (key, epoch) in shared.left {
        call.arg("left").arg(named(key).0).arg(*epoch);
    }
    Ok(())
}
