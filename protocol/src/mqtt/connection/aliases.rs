//! Topic aliases, each way.  Spec: MQTT 5.0 s3.3.2.3.4.

use std::num::NonZeroU16;

use crate::mqtt::{ReasonCode, TopicName};

/// What the client's aliases stand for.
#[derive(Debug, Default)]
pub(super) struct InboundAliases(Vec<Option<TopicName>>);

/// The topics that have an alias towards the client; the first has alias 1.
///
/// The first topics of a connection get the aliases there are and keep them: a topic that never comes
/// again is sent past this table.
#[derive(Debug, Default)]
pub(super) struct OutboundAliases(Vec<TopicName>);

impl InboundAliases {
    /// The topic of a PUBLISH that has this alias, at most `max`.
    pub(super) fn resolve(
        &mut self,
        alias: NonZeroU16,
        topic: TopicName,
        max: u16,
    ) -> Result<TopicName, ReasonCode> {
        // [MQTT-3.3.2-9]
        if alias.get() > max {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let at = usize::from(alias.get() - 1);
        if topic.is_empty() {
            let known = self.0.get(at).and_then(Option::clone);
            return known.ok_or(ReasonCode::ProtocolError);
        }
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        if let Some(entry) = self.0.get_mut(at) {
            *entry = Some(topic.clone());
        }
        Ok(topic)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl OutboundAliases {
    /// The alias of a topic, and whether the client knows it; `None` where all `max` are given to others.
    pub(super) fn find(&self, topic: &TopicName, max: u16) -> Option<(NonZeroU16, bool)> {
        let known = self.0.iter().position(|known| known == topic);
        let at = known.unwrap_or(self.0.len());
        let alias = u16::try_from(at + 1).ok().filter(|alias| *alias <= max)?;
        Some((NonZeroU16::new(alias)?, known.is_some()))
    }

    /// Gives the next alias to a topic.
    pub(super) fn push(&mut self, topic: TopicName) {
        self.0.push(topic);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
