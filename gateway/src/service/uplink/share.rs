//! Shared subscriptions of an application: of each group one member gets a message.
//!
//! A group is one filter under one share name; its members are sessions of the application. They are asked in turn,
//! those whose clients are there before those that are away.  Spec: MQTT 5.0 s4.8.2.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use headgate_protocol::mqtt::{SubscriptionIndex, TopicFilter};

use super::subscribers::{SubscribeOptions, SubscriberId};

/// The groups of one application, each by its filter with the share name.
#[derive(Default)]
pub(super) struct Groups {
    index: SubscriptionIndex<TopicFilter, ()>,
    groups: HashMap<TopicFilter, Group>,
}

#[derive(Default)]
struct Group {
    members: Vec<(SubscriberId, SubscribeOptions)>,
    turn: AtomicUsize,
}

impl Groups {
    /// Takes note of a member, or of what it wants from now on.
    pub(super) fn insert(
        &mut self,
        filter: &TopicFilter,
        member: SubscriberId,
        options: SubscribeOptions,
    ) {
        let group = self.groups.entry(filter.clone()).or_default();
        match group.members.iter_mut().find(|(id, _)| *id == member) {
            Some(known) => known.1 = options,
            None => group.members.push((member, options)),
        }
        self.index.insert(filter, filter.clone(), ());
    }

    /// Forgets a member; a group without any is none.
    pub(super) fn remove(&mut self, filter: &TopicFilter, member: SubscriberId) {
        let Some(group) = self.groups.get_mut(filter) else {
            return;
        };
        group.members.retain(|(id, _)| *id != member);
        if group.members.is_empty() {
            self.groups.remove(filter);
            self.index.remove(filter, filter);
        }
    }

    /// Calls `visit` for every group that a message under `topic` belongs to.
    pub(super) fn for_each_match(&self, topic: &str, mut visit: impl FnMut(&TopicFilter)) {
        // What the index calls a member is a group here, the only one under its name and filter.
        self.index.for_each_group(topic, |group| {
            for (filter, ()) in group.members() {
                visit(filter);
            }
        });
    }

    /// The members of a group, beginning with the one whose turn it is; the next time it is another's.
    pub(super) fn in_turn(
        &self,
        filter: &TopicFilter,
    ) -> impl Iterator<Item = &(SubscriberId, SubscribeOptions)> + Clone {
        let group = self.groups.get(filter);
        let members = group.map_or(&[][..], |group| &group.members);
        let turn = group.map_or(0, |group| group.turn.fetch_add(1, Ordering::Relaxed));
        let (before, from) = members.split_at(turn % members.len().max(1));
        from.iter().chain(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().expect("a filter")
    }

    fn matching(groups: &Groups, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        groups.for_each_match(topic, |filter| found.push(filter.to_string()));
        found.sort();
        found
    }

    #[test]
    fn members_take_turns_and_a_group_ends_with_its_last_one() {
        let mut groups = Groups::default();
        let shared = filter("$share/g/P/+/data");
        for id in 0..3 {
            groups.insert(&shared, SubscriberId::of(id), SubscribeOptions::default());
        }
        let first = |groups: &Groups| groups.in_turn(&shared).next().map(|(id, _)| *id);
        let firsts: Vec<_> = (0..4).map(|_| first(&groups)).collect();
        let expected = [0, 1, 2, 0].map(|id| Some(SubscriberId::of(id)));
        assert_eq!(firsts, expected);
        assert_eq!(groups.in_turn(&shared).count(), 3, "the others follow");
        for id in 0..3 {
            assert_eq!(matching(&groups, "P/d/data").len(), 1);
            groups.remove(&shared, SubscriberId::of(id));
        }
        assert!(matching(&groups, "P/d/data").is_empty() && first(&groups).is_none());
    }

    #[test]
    fn groups_of_one_filter_are_told_apart_by_their_names() {
        let mut groups = Groups::default();
        for text in ["$share/g/#", "$share/h/#", "$share/g/P/d/x"] {
            let id = SubscriberId::of(1);
            groups.insert(&filter(text), id, SubscribeOptions::default());
        }
        let all = ["$share/g/#", "$share/g/P/d/x", "$share/h/#"];
        assert_eq!(matching(&groups, "P/d/x"), all);
        assert_eq!(matching(&groups, "P/d/y"), ["$share/g/#", "$share/h/#"]);
    }
}
