//! Which subscriptions a message belongs to: a hash of exact topics and a trie of filters.
//!
//! A filter without wildcards is one entry of the hash; the others stand in a trie whose edges are
//! topic levels. Finding the matches of a topic visits the nodes that its levels lead to and no
//! others, so its cost is that of the matches, however many subscriptions there are.
//! Invariants: agrees with [`TopicFilter::matches`]; a node without subscribers and without children
//! is not kept. The trie is as deep as its filters, so whoever inserts limits their levels.
//! Spec: MQTT 5.0 s4.7.

use std::{collections::HashMap, hash::Hash};

use super::TopicFilter;

/// Subscriptions of subscribers `K`, each with what `V` says of it.
///
/// For a shared subscription the part after the share name counts; groups are the caller's.
#[derive(Debug)]
pub struct SubscriptionIndex<K, V> {
    exact: HashMap<Box<str>, Subscribers<K, V>>,
    filters: Node<K, V>,
    len: usize,
}

type Subscribers<K, V> = HashMap<K, V>;

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
        let former = subscribers.insert(subscriber, value);
        if former.is_none() {
            self.len += 1;
        }
        former
    }

    /// Forgets a subscription; gives what it said.
    pub fn remove(&mut self, filter: &TopicFilter, subscriber: &K) -> Option<V> {
        let pattern = filter.pattern();
        let removed = if filter.has_wildcard() {
            self.filters.remove(pattern, subscriber)
        } else {
            let subscribers = self.exact.get_mut(pattern)?;
            let removed = subscribers.remove(subscriber);
            if subscribers.is_empty() {
                self.exact.remove(pattern);
            }
            removed
        };
        if removed.is_some() {
            self.len -= 1;
        }
        removed
    }

    /// Calls `visit` for every subscription that a message under `topic` belongs to. A subscriber with
    /// overlapping filters is visited for each of them.
    pub fn for_each_match(&self, topic: &str, mut visit: impl FnMut(&K, &V)) {
        if let Some(subscribers) = self.exact.get(topic) {
            for (key, value) in subscribers {
                visit(key, value);
            }
        }
        // [MQTT-4.7.2-1]
        let with_wildcards = !topic.starts_with('$');
        self.filters.visit(Some(topic), with_wildcards, &mut visit);
    }

    /// How many subscriptions there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no subscription.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K, V> Default for SubscriptionIndex<K, V> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            filters: Node::default(),
            len: 0,
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
    fn remove(&mut self, pattern: &str, subscriber: &K) -> Option<V> {
        let (level, rest) = split(pattern);
        if level == "#" {
            return self.below.remove(subscriber);
        }
        let child = if level == "+" {
            self.any.as_deref_mut()?
        } else {
            self.levels.get_mut(level)?
        };
        let removed = match rest {
            Some(rest) => child.remove(rest, subscriber),
            None => child.here.remove(subscriber),
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
    fn visit(&self, rest: Option<&str>, with_wildcards: bool, visit: &mut impl FnMut(&K, &V)) {
        if with_wildcards {
            // Also the parent itself: `sport/#` matches `sport`.
            for (key, value) in &self.below {
                visit(key, value);
            }
        }
        let Some(rest) = rest else {
            for (key, value) in &self.here {
                visit(key, value);
            }
            return;
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
            here: HashMap::new(),
            below: HashMap::new(),
        }
    }
}

/// The first level, and what follows it.
fn split(levels: &str) -> (&str, Option<&str>) {
    levels
        .split_once('/')
        .map_or((levels, None), |(level, rest)| (level, Some(rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().expect("a filter")
    }

    fn matches(index: &SubscriptionIndex<u32, u8>, topic: &str) -> Vec<(u32, u8)> {
        let mut found = Vec::new();
        index.for_each_match(topic, |key, value| found.push((*key, *value)));
        found.sort_unstable();
        found
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("a/b", &["a/b"], &["a", "a/b/c", "a/c", "/a/b"]),
            ("a/#", &["a", "a/b", "a/b/c"], &["b", "ab"]),
            (
                "+/+/data",
                &["p/d/data", "//data"],
                &["p/data", "p/d/data/x", "$oc/d/data"],
            ),
            ("#", &["a", "a/b", "/"], &["$oc/devices/d", "$a"]),
            ("+", &["a"], &["$a", "a/b", "/a"]),
            (
                "$oc/devices/+/sys/#",
                &["$oc/devices/d/sys/x", "$oc/devices/d/sys"],
                &["oc/devices/d/sys/x"],
            ),
            ("+/a/#", &["x/a", "x/a/b"], &["$oc/a", "x/b"]),
        ];
        for (text, yes, no) in cases {
            let mut index = SubscriptionIndex::new();
            index.insert(&filter(text), 7, 1);
            for topic in *yes {
                assert_eq!(matches(&index, topic), [(7, 1)], "{text} {topic}");
            }
            for topic in *no {
                assert_eq!(matches(&index, topic), [], "{text} {topic}");
            }
        }
    }

    #[test]
    fn a_subscription_is_replaced_and_leaves_nothing_behind() {
        let mut index = SubscriptionIndex::new();
        for text in ["a/b", "a/+/c", "#"] {
            assert_eq!(index.insert(&filter(text), 1, 0), None);
            assert_eq!(index.insert(&filter(text), 1, 1), Some(0));
            assert_eq!(index.insert(&filter(text), 2, 0), None);
        }
        assert_eq!(index.len(), 6);
        assert_eq!(matches(&index, "a/b"), [(1, 1), (1, 1), (2, 0), (2, 0)]);
        for text in ["a/b", "a/+/c", "#"] {
            assert_eq!(index.remove(&filter(text), &3), None);
            assert_eq!(index.remove(&filter(text), &1), Some(1));
            assert_eq!(index.remove(&filter(text), &1), None);
            assert_eq!(index.remove(&filter(text), &2), Some(0));
        }
        assert_eq!(index.remove(&filter("a/+/x"), &1), None);
        assert!(index.is_empty() && index.exact.is_empty() && index.filters.is_empty());
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$c"])
    }

    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => level(), 2 => Just("+")];
        (prop::collection::vec(part, 1..4), any::<bool>()).prop_filter_map(
            "a filter is not empty",
            |(parts, below)| {
                let mut text = parts.join("/");
                if below {
                    text.push_str("/#");
                }
                TopicFilter::try_from(text.as_str()).is_ok().then_some(text)
            },
        )
    }

    proptest! {
        #[test]
        fn the_index_finds_what_each_filter_matches(
            patterns in prop::collection::vec((pattern(), 0_u32..4), 0..24),
            gone in prop::collection::vec(any::<bool>(), 24),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..8),
        ) {
            let mut index = SubscriptionIndex::new();
            let mut model = HashMap::new();
            for (at, (text, key)) in patterns.iter().enumerate() {
                let value = u8::try_from(at).expect("few");
                prop_assert_eq!(
                    index.insert(&filter(text), *key, value),
                    model.insert((text.clone(), *key), value)
                );
            }
            for ((text, key), gone) in patterns.iter().zip(gone) {
                if gone {
                    prop_assert_eq!(
                        index.remove(&filter(text), key),
                        model.remove(&(text.clone(), *key))
                    );
                }
            }
            prop_assert_eq!(index.len(), model.len());
            for topic in topics {
                let topic = topic.join("/");
                let mut expected: Vec<_> = model
                    .iter()
                    .filter(|((text, _), _)| filter(text).matches(&topic))
                    .map(|((_, key), value)| (*key, *value))
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(matches(&index, &topic), expected, "{}", topic);
            }
            for ((text, key), _) in model {
                index.remove(&filter(&text), &key);
            }
            prop_assert!(index.is_empty() && index.filters.is_empty());
        }
    }
}
