//! What one client has subscribed to on its connection.
//!
//! A list that is looked through: a device has a handful. Bounded by whoever inserts.

use headgate_protocol::mqtt::{QoS, ReasonCode, Subscription, TopicFilter};
use smallvec::SmallVec;

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribed {
    pub(super) filter: TopicFilter,
    /// At which messages are handed over; never above 1.
    pub(super) qos: QoS,
    /// Whether the client's own messages are left out.
    pub(super) no_local: bool,
}

/// The subscriptions of one client.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(SmallVec<[Subscribed; 2]>);

impl Subscriptions {
    /// Adds a subscription, or replaces the one with the same filter; `None` where there are
    /// `max` already. Gives the QoS that was granted.
    pub(super) fn insert(&mut self, asked: &Subscription, max: usize) -> Option<QoS> {
        let qos = asked.qos.min(QoS::AtLeastOnce);
        if let Some(known) = self.0.iter_mut().find(|known| known.filter == asked.filter) {
            known.qos = qos;
            known.no_local = asked.no_local;
            return Some(qos);
        }
        if self.0.len() >= max {
            return None;
        }
        self.0.push(Subscribed {
            filter: asked.filter.clone(),
            qos,
            no_local: asked.no_local,
        });
        Some(qos)
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

    /// All of them, for people.
    pub(super) fn shown(&self) -> Vec<(String, QoS)> {
        self.0
            .iter()
            .map(|known| (known.filter.to_string(), known.qos))
            .collect()
    }
}

/// What SUBACK says of a granted QoS.
pub(super) fn granted_reason(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce | QoS::ExactlyOnce => ReasonCode::GrantedQoS1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(filter: &str, qos: QoS) -> Subscription {
        Subscription::new(filter.parse().expect("a filter"), qos)
    }

    #[test]
    fn the_same_filter_again_replaces_and_takes_no_place() {
        let mut held = Subscriptions::default();
        assert_eq!(
            held.insert(&ask("a/#", QoS::ExactlyOnce), 2),
            Some(QoS::AtLeastOnce)
        );
        assert_eq!(
            held.insert(&ask("a/b", QoS::AtMostOnce), 2),
            Some(QoS::AtMostOnce)
        );
        assert_eq!(held.insert(&ask("c", QoS::AtMostOnce), 2), None);
        assert_eq!(
            held.insert(&ask("a/#", QoS::AtMostOnce), 2),
            Some(QoS::AtMostOnce)
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
        held.insert(&asked, 2);
        assert_eq!(held.granted("a", true), None);
        assert_eq!(held.granted("a", false), Some(QoS::AtLeastOnce));
    }

    #[test]
    fn what_is_no_longer_allowed_is_dropped() {
        let mut held = Subscriptions::default();
        held.insert(&ask("a", QoS::AtMostOnce), 9);
        held.insert(&ask("b", QoS::AtMostOnce), 9);
        let dropped = held.keep(|filter| filter == "a");
        assert_eq!(dropped.len(), 1);
        assert_eq!(held.shown(), [("a".to_owned(), QoS::AtMostOnce)]);
    }
}
