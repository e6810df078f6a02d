//! Topic names and topic filters: grammar and matching.
//!
//! Both are checked once, when made, and shared cheaply afterwards. `$share/{name}/{filter}` is a
//! shared subscription in every version, as brokers have it.  Spec: MQTT 5.0 s4.7, s4.8.2.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

use super::Violation;

/// What a message is published under: no wildcards, no U+0000, at most 65,535 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The empty name of an MQTT 5.0 PUBLISH whose topic alias stands for the topic.
    pub fn aliased() -> Self {
        Self(Arc::default())
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn into_inner(self) -> Arc<str> {
        self.0
    }

    /// Checks a name that may not be empty.
    pub(super) fn check(name: &str) -> Result<(), Violation> {
        // [MQTT-4.7.3-1]
        if name.is_empty() {
            return Err(Violation::EmptyTopicName);
        }
        check_characters(name)?;
        // [MQTT-3.3.2-2]
        if name.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Err(Violation::WildcardInTopicName);
        }
        Ok(())
    }
}

/// What a subscription asks for: a topic name with wildcards, perhaps shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Whether a message published under `topic` belongs to this filter.
    ///
    /// For a shared subscription the part after the share name counts.
    pub fn matches(&self, topic: &str) -> bool {
        let pattern = self.pattern();
        // [MQTT-4.7.2-1]
        if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for part in pattern.split('/') {
            // Also the parent itself: `sport/#` matches `sport`.
            if part == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if part == "+" || part == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// The whole filter as a string, `$share/{name}/` included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter as a string that topics are matched with: without `$share/{name}/`.
    pub fn pattern(&self) -> &str {
        self.share().map_or(&*self.0, |(_, pattern)| pattern)
    }

    /// The share name of a shared subscription.
    pub fn share_name(&self) -> Option<&str> {
        self.share().map(|(name, _)| name)
    }

    /// Whether this is a shared subscription.
    pub fn is_shared(&self) -> bool {
        self.0.starts_with(SHARE_PREFIX)
    }

    /// Whether the filter can match more than one topic.
    pub fn has_wildcard(&self) -> bool {
        self.pattern().contains(['+', '#'])
    }

    /// The filter, shared.
    pub fn into_inner(self) -> Arc<str> {
        self.0
    }

    fn share(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix(SHARE_PREFIX)?.split_once('/')
    }

    pub(super) fn check(filter: &str) -> Result<(), Violation> {
        // [MQTT-4.7.3-1]
        if filter.is_empty() {
            return Err(Violation::EmptyTopicFilter);
        }
        check_characters(filter)?;
        match filter.strip_prefix(SHARE_PREFIX) {
            Some(rest) => check_pattern(check_share_name(rest)?),
            None => check_pattern(filter),
        }
    }
}

/// The number of levels of a topic name or pattern.
pub(super) fn level_count(topic: &str) -> usize {
    topic.bytes().filter(|byte| *byte == b'/').count() + 1
}

fn check_characters(topic: &str) -> Result<(), Violation> {
    // [MQTT-4.7.3-3]
    if topic.len() > usize::from(u16::MAX) {
        return Err(Violation::TopicTooLong);
    }
    // [MQTT-4.7.3-2]
    if topic.as_bytes().contains(&0) {
        return Err(Violation::NullCharacter);
    }
    Ok(())
}

/// Checks the share name and gives the filter after it.
fn check_share_name(rest: &str) -> Result<&str, Violation> {
    let (name, pattern) = rest.split_once('/').unwrap_or((rest, ""));
    // [MQTT-4.8.2-1]
    if name.is_empty() {
        return Err(Violation::ShareNameEmpty);
    }
    // [MQTT-4.8.2-2]
    if name.contains(['+', '#']) || pattern.is_empty() {
        return Err(Violation::ShareNameInvalid);
    }
    Ok(pattern)
}

fn check_pattern(pattern: &str) -> Result<(), Violation> {
    let mut levels = pattern.split('/');
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            // [MQTT-4.7.1-1]
            "#" if levels.next().is_some() => return Err(Violation::MultiLevelWildcardMisplaced),
            "#" => return Ok(()),
            _ if level.contains('#') => return Err(Violation::MultiLevelWildcardMisplaced),
            // [MQTT-4.7.1-2]
            _ if level.contains('+') => return Err(Violation::SingleLevelWildcardMisplaced),
            _ => {}
        }
    }
    Ok(())
}

macro_rules! checked_string {
    ($name:ident) => {
        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Violation;

            fn from_str(text: &str) -> Result<Self, Violation> {
                Self::try_from(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Violation;

            fn try_from(text: &str) -> Result<Self, Violation> {
                Self::check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Violation;

            fn try_from(text: String) -> Result<Self, Violation> {
                Self::check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<Arc<str>> for $name {
            type Error = Violation;

            fn try_from(text: Arc<str>) -> Result<Self, Violation> {
                Self::check(&text)?;
                Ok(Self(text))
            }
        }
    };
}

checked_string!(TopicName);
checked_string!(TopicFilter);

const SHARE_PREFIX: &str = "$share/";

#[cfg(test)]
mod tests;
