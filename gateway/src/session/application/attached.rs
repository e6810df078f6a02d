//! By what an application's session is subscribed: of its own, or persistent.

use std::sync::Arc;

use headgate_protocol::{
    identity::AppId,
    mqtt::{Subscription, TopicFilter},
};

use crate::{
    model::Message,
    service::uplink::{
        KeptSubscription, NotSubscribed, Offered, Persistent, RetainedReceiver, SessionChange,
        SubscribeOptions, Subscriber, SubscriberId,
    },
};

/// The session's subscriptions, and what keeps them.
#[derive(Debug)]
pub(super) enum Attached {
    /// They end with the connection.
    Own(Subscriber),
    /// They are kept, and everything else of the session is.
    Kept(Box<Persistent>),
}

impl Attached {
    /// Whom messages of this session come from; `None` once another connection has it.
    pub(super) fn id(&self) -> Option<SubscriberId> {
        match self {
            Self::Own(subscriber) => Some(subscriber.id()),
            Self::Kept(persistent) => persistent.subscriber().map(|subscriber| subscriber.id()),
        }
    }

    /// Subscribes, or replaces what the filter says; says whether it is new.
    pub(super) fn subscribe(
        &mut self,
        asked: &Subscription,
        options: SubscribeOptions,
    ) -> Result<bool, NotSubscribed> {
        match self {
            Self::Own(subscriber) => subscriber.subscribe(&asked.filter, options),
            Self::Kept(persistent) => {
                let is_new = match persistent.subscriber() {
                    Some(mut subscriber) => subscriber.subscribe(&asked.filter, options)?,
                    None => false,
                };
                persistent.note(SessionChange::Subscribed(KeptSubscription {
                    asked: Subscription {
                        qos: options.qos,
                        ..asked.clone()
                    },
                    identifier: options.identifier,
                }));
                Ok(is_new)
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, filter: &TopicFilter) -> bool {
        match self {
            Self::Own(subscriber) => subscriber.unsubscribe(filter),
            Self::Kept(persistent) => {
                let is_ended = persistent
                    .subscriber()
                    .is_some_and(|mut subscriber| subscriber.unsubscribe(filter));
                if is_ended {
                    persistent.note(SessionChange::Unsubscribed(filter.clone()));
                }
                is_ended
            }
        }
    }

    /// The persistent session.
    pub(super) fn kept(&mut self) -> Option<&mut Persistent> {
        match self {
            Self::Own(_) => None,
            Self::Kept(persistent) => Some(persistent),
        }
    }
}

/// Retained messages for whoever it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receiver<'a> {
    pub(super) app: &'a AppId,
    pub(super) attached: &'a Attached,
}

impl RetainedReceiver for Receiver<'_> {
    fn app(&self) -> &AppId {
        self.app
    }

    fn offer_retained(
        &self,
        message: &Arc<Message>,
        filter: Option<&TopicFilter>,
    ) -> Option<Offered> {
        match self.attached {
            Attached::Own(subscriber) => subscriber.offer_retained(message, filter),
            Attached::Kept(persistent) => persistent.offer_retained(message, filter),
        }
    }
}
