//! What one client has subscribed to on its connection.
//!
//! A list that is looked through: a device has a handful. Bounded by whoever inserts.

use std::num::NonZeroU32;

use headgate_protocol::mqtt::{QoS, RetainHandling, Subscribe, Subscription, TopicFilter};
use smallvec::SmallVec;

use crate::{
    model::{Handing, Message},
    service::uplink::KeptSubscription,
};

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribed {
    pub(super) filter: TopicFilter,
    /// The highest at which messages are handed over.
    pub(super) qos: QoS,
    /// Whether the client's own messages are left out.
    pub(super) no_local: bool,
    /// Whether messages keep the RETAIN that they were published with.
    pub(super) retain_as_published: bool,
    /// The number that the client gave it.
    pub(super) identifier: Option<NonZeroU32>,
}

/// What became of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inserted {
    /// What was granted.
    pub(super) qos: QoS,
    /// Whether there was none with its filter.
    pub(super) is_new: bool,
}

/// The subscriptions of one client.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(SmallVec<[Subscribed; 2]>);

impl Subscribed {
    /// How the client gets a message that is retained.  Spec: MQTT 5.0 s3.3.1.3.
    pub(super) fn retained(&self, message: &Message) -> Handing {
        Handing {
            qos: self.qos.min(message.qos),
            retain: true,
            subscription_ids: self.identifier.into_iter().collect(),
        }
    }
}

impl Subscriptions {
    /// The subscription with this filter.
    pub(super) fn of(&self, filter: &TopicFilter) -> Option<&Subscribed> {
        self.0.iter().find(|known| known.filter == *filter)
    }

    /// Adds a subscription, or replaces the one with the same filter; `None` where there are
    /// `max` already. Gives what was granted.
    pub(super) fn insert(
        &mut self,
        asked: &Subscription,
        identifier: Option<NonZeroU32>,
        max: usize,
    ) -> Option<Inserted> {
        let qos = asked.qos;
        let subscribed = Subscribed {
            filter: asked.filter.clone(),
            qos,
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            identifier,
        };
        if let Some(known) = self.0.iter_mut().find(|known| known.filter == asked.filter) {
            *known = subscribed;
            return Some(Inserted { qos, is_new: false });
        }
        if self.0.len() >= max {
            return None;
        }
        self.0.push(subscribed);
        Some(Inserted { qos, is_new: true })
    }

    /// Takes over what an earlier connection subscribed to, as far as that is still allowed; gives the rest.
    pub(super) fn restore(
        &mut self,
        kept: Vec<KeptSubscription>,
        is_allowed: impl FnMut(&str) -> bool,
    ) -> Vec<TopicFilter> {
        let restored = kept.into_iter().map(|one| Subscribed {
            filter: one.asked.filter,
            qos: one.asked.qos,
            no_local: one.asked.no_local,
            retain_as_published: one.asked.retain_as_published,
            identifier: one.identifier,
        });
        self.0 = restored.collect();
        self.keep(is_allowed)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends a subscription; says whether there was one.
    pub(super) fn remove(&mut self, filter: &TopicFilter) -> bool {
        let before = self.0.len();
        self.0.retain(|known| known.filter != *filter);
        self.0.len() < before
    }

    /// Keeps the subscriptions whose filter is still allowed; gives the others.
    pub(super) fn keep(&mut self, mut is_allowed: impl FnMut(&str) -> bool) -> Vec<TopicFilter> {
        let mut dropped = Vec::new();
        self.0.retain(|known| {
            let keep = is_allowed(known.filter.as_str());
            if !keep {
                dropped.push(known.filter.clone());
            }
            keep
        });
        dropped
    }

    /// The QoS at which the client wants messages on this topic, if at all; `own`: of its own ones.
    pub(super) fn granted(&self, topic: &str, own: bool) -> Option<QoS> {
        self.0
            .iter()
            .filter(|known| !(own && known.no_local) && known.filter.matches(topic))
            .map(|known| known.qos)
            .max()
    }

    /// How the client wants a message, if at all: once, whatever number of its subscriptions match, and with all of
    /// their numbers. `own`: the client itself sent it.  Spec: MQTT 5.0 s3.3.4.
    pub(super) fn handing(&self, message: &Message, own: bool) -> Option<Handing> {
        let mut handing = None;
        for known in &self.0 {
            if (own && known.no_local) || !known.filter.matches(&message.topic) {
                continue;
            }
            let handing = handing.get_or_insert_with(Handing::default);
            handing.qos = handing.qos.max(known.qos.min(message.qos));
            handing.retain |= known.retain_as_published && message.retain;
            handing.subscription_ids.extend(known.identifier);
        }
        if let Some(handing) = &mut handing {
            handing.subscription_ids.sort_unstable();
            handing.subscription_ids.dedup();
        }
        handing
    }

    /// All of them, for people.
    pub(super) fn shown(&self) -> Vec<(String, QoS)> {
        self.0
            .iter()
            .map(|known| (known.filter.to_string(), known.qos))
            .collect()
    }
}

/// The number that a client gives the subscriptions of one SUBSCRIBE.
pub(super) fn subscription_identifier(subscribe: &Subscribe) -> Option<NonZeroU32> {
    let properties = subscribe.properties.as_ref()?;
    properties.subscription_identifiers.first().copied()
}

/// Whether a subscription is answered with what is retained.  Spec: MQTT 5.0 s3.8.3.1.
pub(super) const fn wants_retained(handling: RetainHandling, is_new: bool) -> bool {
    match handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(filter: &str, qos: QoS) -> Subscription {
        Subscription::new(filter.parse().expect("a filter"), qos)
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what insert gives")]
    fn granted(qos: QoS, is_new: bool) -> Option<Inserted> {
        Some(Inserted { qos, is_new })
    }

    #[test]
    fn the_same_filter_again_replaces_and_takes_no_place() {
        let mut held = Subscriptions::default();
        assert_eq!(
            held.insert(&ask("a/#", QoS::ExactlyOnce), None, 2),
            granted(QoS::ExactlyOnce, true)
        );
        assert_eq!(
            held.insert(&ask("a/b", QoS::AtMostOnce), None, 2),
            granted(QoS::AtMostOnce, true)
        );
        assert_eq!(held.insert(&ask("c", QoS::AtMostOnce), None, 2), None);
        assert_eq!(
            held.insert(&ask("a/#", QoS::AtMostOnce), None, 2),
            granted(QoS::AtMostOnce, false)
        );
        assert_eq!(held.granted("a/b", false), Some(QoS::AtMostOnce));
        assert!(held.remove(&"a/#".parse().expect("a filter")));
        assert!(!held.remove(&"a/#".parse().expect("a filter")));
        assert_eq!(held.granted("a/c", false), None);
    }

    #[test]
    fn a_subscription_without_own_messages_matches_only_others() {
        let mut held = Subscriptions::default();
        let mut asked = ask("a", QoS::AtLeastOnce);
        asked.no_local = true;
        held.insert(&asked, None, 2);
        assert_eq!(held.granted("a", true), None);
        assert_eq!(held.granted("a", false), Some(QoS::AtLeastOnce));
    }

    #[test]
    fn overlapping_subscriptions_are_one_message_with_all_numbers() {
        let mut held = Subscriptions::default();
        held.insert(&ask("P/d/#", QoS::AtMostOnce), NonZeroU32::new(9), 9);
        let mut asked = ask("P/d/x", QoS::AtLeastOnce);
        asked.retain_as_published = true;
        held.insert(&asked, NonZeroU32::new(3), 9);
        held.insert(&ask("P/+/x", QoS::AtMostOnce), NonZeroU32::new(3), 9);
        let message = Message {
            device: crate::model::DeviceName {
                device_id: "P_d".parse().expect("legal"),
                product_id: "P".parse().expect("legal"),
                node_id: "d".parse().expect("legal"),
            },
            topic: "P/d/x".parse().expect("a topic"),
            payload: bytes::Bytes::new(),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: crate::model::MessageProperties::default(),
            at: crate::model::Millis::from_i64(1),
        };
        let handing = held.handing(&message, false).expect("it matches");
        assert_eq!((handing.qos, handing.retain), (QoS::AtLeastOnce, true));
        let ids: Vec<u32> = handing.subscription_ids.iter().map(|id| id.get()).collect();
        assert_eq!(ids, [3, 9]);
        assert!(held.remove(&"P/d/x".parse().expect("a filter")));
        assert!(!held.handing(&message, false).expect("it matches").retain);
    }

    #[test]
    fn what_is_no_longer_allowed_is_dropped() {
        let mut held = Subscriptions::default();
        held.insert(&ask("a", QoS::AtMostOnce), None, 9);
        held.insert(&ask("b", QoS::AtMostOnce), None, 9);
        let dropped = held.keep(|filter| filter == "a");
        assert_eq!(dropped.len(), 1);
        assert_eq!(held.shown(), [("a".to_owned(), QoS::AtMostOnce)]);
    }
}
