//! Which subscriptions a message belongs to: a hash of exact topics and a trie of filters.
//!
//! A filter without wildcards is one entry of the hash; the others stand in a trie whose edges are
//! topic levels. Finding the matches of a topic visits the nodes that its levels lead to and no
//! others, so its cost is that of the matches, however many subscriptions there are.
//!
//! Shared subscriptions (`$share/{name}/{filter}`) stand at the place of their filter, in groups:
//! each group that a message belongs to is visited once, and the caller chooses a member.
//! Invariants: agrees with [`TopicFilter::matches`]; a node without subscribers and without children
//! is not kept. The trie is as deep as its filters, so whoever inserts limits their levels.
//! Spec: MQTT 5.0 s4.7, s4.8.2.

mod subscribers;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, hash::Hash};

pub use self::subscribers::ShareGroup;
use self::subscribers::Subscribers;
use super::TopicFilter;

/// Subscriptions of subscribers `K`, each with what `V` says of it.
#[derive(Debug)]
pub struct SubscriptionIndex<K, V> {
    exact: HashMap<Box<str>, Subscribers<K, V>>,
    filters: Node<K, V>,
    len: usize,
    shared: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    levels: HashMap<Box<str>, Self>,
    /// Behind `+`.
    any: Option<Box<Self>>,
    /// Of filters that end here.
    here: Subscribers<K, V>,
    /// Of filters that go on with `#`.
    below: Subscribers<K, V>,
}

impl<K: Eq + Hash, V> SubscriptionIndex<K, V> {
    /// An index without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `subscriber` wants what `filter` matches; gives what the same subscription said before.
    pub fn insert(&mut self, filter: &TopicFilter, subscriber: K, value: V) -> Option<V> {
        let pattern = filter.pattern();
        let subscribers = if filter.has_wildcard() {
            self.filters.subscribers_of(pattern)
        } else {
            self.exact.entry(pattern.into()).or_default()
        };
        let former = subscribers.insert(filter.share_name(), subscriber, value);
        if former.is_none() {
            self.len += 1;
            self.shared += usize::from(filter.is_shared());
        }
        former
    }

    /// Forgets a subscription; gives what it said.
    pub fn remove(&mut self, filter: &TopicFilter, subscriber: &K) -> Option<V> {
        let (share, pattern) = (filter.share_name(), filter.pattern());
        let removed = if filter.has_wildcard() {
            self.filters.remove(pattern, share, subscriber)
        } else {
            let subscribers = self.exact.get_mut(pattern)?;
            let removed = subscribers.remove(share, subscriber);
            if subscribers.is_empty() {
                self.exact.remove(pattern);
            }
            removed
        };
        if removed.is_some() {
            self.len -= 1;
            self.shared -= usize::from(filter.is_shared());
        }
        removed
    }

    /// Calls `visit` for every subscription that a message under `topic` belongs to, shared ones
    /// excepted. A subscriber with overlapping filters is visited for each of them.
    pub fn for_each_match(&self, topic: &str, mut visit: impl FnMut(&K, &V)) {
        self.for_each_place(topic, &mut |subscribers| subscribers.visit(&mut visit));
    }

    /// Calls `visit` for every group of a shared subscription that a message under `topic` belongs to;
    /// one member of each is to have it. [MQTT-4.8.2-4]
    pub fn for_each_group<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a ShareGroup<K, V>)) {
        if self.shared > 0 {
            self.for_each_place(topic, &mut |subscribers| {
                subscribers.groups().for_each(&mut visit);
            });
        }
    }

    /// How many subscriptions there are, shared ones among them.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no subscription.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn for_each_place<'a>(&'a self, topic: &str, visit: &mut impl FnMut(&'a Subscribers<K, V>)) {
        if let Some(subscribers) = self.exact.get(topic) {
            visit(subscribers);
        }
        // [MQTT-4.7.2-1]
        let with_wildcards = !topic.starts_with('$');
        self.filters.visit(Some(topic), with_wildcards, visit);
    }
}

impl<K, V> Default for SubscriptionIndex<K, V> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            filters: Node::default(),
            len: 0,
            shared: 0,
        }
    }
}

impl<K: Eq + Hash, V> Node<K, V> {
    /// The place of a filter's subscribers, made where there is none.
    fn subscribers_of(&mut self, pattern: &str) -> &mut Subscribers<K, V> {
        let mut node = self;
        for level in pattern.split('/') {
            node = match level {
                // Always the last one.
                "#" => return &mut node.below,
                "+" => node.any.get_or_insert_default(),
                level => node.levels.entry(level.into()).or_default(),
            };
        }
        &mut node.here
    }

    /// Takes a subscriber out, and on the way back every node that has become empty.
    fn remove(&mut self, pattern: &str, share: Option<&str>, subscriber: &K) -> Option<V> {
        let (level, rest) = split(pattern);
        if level == "#" {
            return self.below.remove(share, subscriber);
        }
        let child = if level == "+" {
            self.any.as_deref_mut()?
        } else {
            self.levels.get_mut(level)?
        };
        let removed = match rest {
            Some(rest) => child.remove(rest, share, subscriber),
            None => child.here.remove(share, subscriber),
        };
        if child.is_empty() {
            if level == "+" {
                self.any = None;
            } else {
                self.levels.remove(level);
            }
        }
        removed
    }

    /// Visits the subscribers behind this node; `rest` are the topic's levels that are left.
    fn visit<'a>(
        &'a self,
        rest: Option<&str>,
        with_wildcards: bool,
        visit: &mut impl FnMut(&'a Subscribers<K, V>),
    ) {
        if with_wildcards {
            // Also the parent itself: `sport/#` matches `sport`.
            visit(&self.below);
        }
        let Some(rest) = rest else {
            return visit(&self.here);
        };
        let (level, rest) = split(rest);
        if let Some(child) = self.levels.get(level) {
            child.visit(rest, true, visit);
        }
        if let Some(any) = self.any.as_deref().filter(|_| with_wildcards) {
            any.visit(rest, true, visit);
        }
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self {
            levels: HashMap::new(),
            any: None,
            here: Subscribers::default(),
            below: Subscribers::default(),
        }
    }
}

/// The first level, and what follows it.
fn split(levels: &str) -> (&str, Option<&str>) {
    levels
        .split_once('/')
        .map_or((levels, None), |(level, rest)| (level, Some(rest)))
}
