//! Those who subscribed to one filter: each for itself, and in groups that share it.

use std::{collections::HashMap, hash::Hash};

/// The subscriptions to one filter.
#[derive(Debug)]
pub(super) struct Subscribers<K, V> {
    own: HashMap<K, V>,
    /// No allocation where nothing is shared.
    groups: Vec<ShareGroup<K, V>>,
}

/// The members of one shared subscription: those of one share name with one filter.
#[derive(Debug)]
pub struct ShareGroup<K, V> {
    name: Box<str>,
    members: Vec<(K, V)>,
}

impl<K, V> ShareGroup<K, V> {
    /// The share name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The members in the order in which they subscribed; never empty.
    pub fn members(&self) -> &[(K, V)] {
        &self.members
    }
}

impl<K: Eq, V> ShareGroup<K, V> {
    fn insert(&mut self, subscriber: K, value: V) -> Option<V> {
        let mut members = self.members.iter_mut();
        if let Some((_, former)) = members.find(|(known, _)| *known == subscriber) {
            return Some(std::mem::replace(former, value));
        }
        self.members.push((subscriber, value));
        None
    }
}

impl<K: Eq + Hash, V> Subscribers<K, V> {
    pub(super) fn insert(&mut self, share: Option<&str>, subscriber: K, value: V) -> Option<V> {
        let Some(name) = share else {
            return self.own.insert(subscriber, value);
        };
        let group = self.groups.iter_mut().find(|group| *group.name == *name);
        if let Some(group) = group {
            return group.insert(subscriber, value);
        }
        self.groups.push(ShareGroup {
            name: name.into(),
            members: vec![(subscriber, value)],
        });
        None
    }

    pub(super) fn remove(&mut self, share: Option<&str>, subscriber: &K) -> Option<V> {
        let Some(name) = share else {
            return self.own.remove(subscriber);
        };
        let at = self.groups.iter().position(|group| *group.name == *name)?;
        let members = &mut self.groups.get_mut(at)?.members;
        let member = members.iter().position(|(known, _)| known == subscriber)?;
        let (_, removed) = members.remove(member);
        if members.is_empty() {
            self.groups.swap_remove(at);
        }
        if self.groups.is_empty() {
            self.groups = Vec::new();
        }
        Some(removed)
    }

    pub(super) fn visit(&self, visit: &mut impl FnMut(&K, &V)) {
        for (key, value) in &self.own {
            visit(key, value);
        }
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &ShareGroup<K, V>> {
        self.groups.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.groups.is_empty()
    }
}

impl<K, V> Default for Subscribers<K, V> {
    fn default() -> Self {
        Self {
            own: HashMap::new(),
            groups: Vec::new(),
        }
    }
}
