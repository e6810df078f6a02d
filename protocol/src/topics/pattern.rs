//! Topic filters with placeholders, and whether one allows all that another asks for.
//!
//! `{product}` is filled in when a pattern is compiled, `{device}` and `{device_id}` each time it
//! is looked at: one pattern serves every device of its product and nothing is allocated for it.
//! Spec: MQTT 5.0 s4.7.

use super::DeviceNames;
use crate::identity::ProductId;

/// One filter of a topic policy, compiled for a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Box<[Level]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    /// `+`
    Any,
    /// `#`
    Rest,
    Text(Box<str>),
    /// Text with placeholders between.
    Pieces(Box<[Piece]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Device,
    DeviceId,
}

impl Pattern {
    /// Compiles a filter whose grammar has been checked.
    pub(super) fn compile(template: &str, product: &ProductId) -> Self {
        let template = template.replace("{product}", product.as_str());
        Self {
            levels: template.split('/').map(Level::compile).collect(),
        }
    }

    /// Whether every topic that `filter` matches is matched by this pattern of `device`; a topic
    /// name is a filter that matches just itself.
    pub(super) fn covers(&self, device: DeviceNames<'_>, filter: &str) -> bool {
        let mut asked = filter.split('/');
        for (at, level) in self.levels.iter().enumerate() {
            let ask = asked.next();
            match (level, ask) {
                // Wildcards in front do not see `$...` topics. [MQTT-4.7.2-1]
                (Level::Any | Level::Rest, Some(ask)) if at == 0 && ask.starts_with('$') => {
                    return false;
                }
                // Also the parent itself: `sport/#` matches `sport`.
                (Level::Rest, _) => return true,
                (Level::Any, Some("#")) => return self.is_everything(),
                (Level::Any, Some(_)) => {}
                (Level::Text(text), Some(ask)) if **text == *ask => {}
                (Level::Pieces(pieces), Some(ask)) if is_made_of(pieces, device, ask) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }

    /// Whether this is `+/#`, which matches what `#` does: a topic has at least one level.
    fn is_everything(&self) -> bool {
        matches!(&*self.levels, [Level::Any, Level::Rest])
    }
}

impl Level {
    fn compile(text: &str) -> Self {
        match text {
            "+" => Self::Any,
            "#" => Self::Rest,
            _ if text.contains('{') => Self::Pieces(pieces(text)),
            _ => Self::Text(text.into()),
        }
    }
}

fn pieces(mut text: &str) -> Box<[Piece]> {
    const PLACEHOLDERS: [(&str, Piece); 2] = [
        ("{device}", Piece::Device),
        ("{device_id}", Piece::DeviceId),
    ];
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let next = PLACEHOLDERS
            .iter()
            .filter_map(|(name, piece)| Some((text.find(name)?, *name, piece)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, piece)) = next else {
            break;
        };
        let (before, rest) = text.split_at(at);
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        pieces.push(piece.clone());
        text = rest.strip_prefix(name).unwrap_or_default();
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    pieces.into()
}

fn is_made_of(pieces: &[Piece], device: DeviceNames<'_>, mut level: &str) -> bool {
    for piece in pieces {
        let text = match piece {
            Piece::Text(text) => text,
            Piece::Device => device.node.as_str(),
            Piece::DeviceId => device.device.as_str(),
        };
        match level.strip_prefix(text) {
            Some(rest) => level = rest,
            None => return false,
        }
    }
    level.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        identity::{DeviceId, NodeId},
        mqtt::TopicFilter,
        topics::DeviceNames,
    };

    fn covers(pattern: &str, filter: &str) -> bool {
        let product = ProductId::new("P").expect("legal");
        let (node, device) = (
            NodeId::new("d1").expect("legal"),
            DeviceId::new("P_d1").expect("legal"),
        );
        Pattern::compile(pattern, &product).covers(
            DeviceNames {
                product: &product,
                node: &node,
                device: &device,
            },
            filter,
        )
    }

    #[test]
    fn placeholders_stand_anywhere_in_a_level() {
        for (pattern, filter, allowed) in [
            ("{product}/{device}/#", "P/d1/a", true),
            ("{product}/{device}/#", "P/d1", true),
            ("{product}/{device}/#", "P/d10/a", false),
            ("x-{product}-{device}-y/+", "x-P-d1-y/z", true),
            ("x-{product}-{device}-y/+", "x-P-d1-/z", false),
            ("{device}{device}", "d1d1", true),
            ("{device}{device}", "d1", false),
            ("$oc/devices/{device_id}/#", "$oc/devices/P_d1/sys", true),
            ("$oc/devices/{device_id}/#", "$oc/devices/+/sys", false),
            ("fleet/{device}", "fleet/+", false),
        ] {
            assert_eq!(covers(pattern, filter), allowed, "{pattern} {filter}");
        }
    }

    #[test]
    fn a_filter_is_covered_only_as_a_whole() {
        for (pattern, filter, allowed) in [
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "a/+/b/#", true),
            ("a/#", "#", false),
            ("#", "#", true),
            ("#", "+/a", true),
            ("#", "$SYS/a", false),
            ("+/#", "#", true),
            ("+/#", "$SYS/#", false),
            ("a/+/#", "a/#", false),
            ("a/b", "a/+", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(covers(pattern, filter), allowed, "{pattern} {filter}");
        }
    }

    /// Filters over so small an alphabet that they often match.
    fn filters() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+"), Just(""), Just("$c")];
        (proptest::collection::vec(level, 0..4), any::<bool>()).prop_filter_map(
            "not empty",
            |(mut levels, rest)| {
                if rest {
                    levels.push("#");
                }
                let text = levels.join("/");
                (!text.is_empty()).then_some(text)
            },
        )
    }

    fn topics() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("z"), Just(""), Just("$c")];
        proptest::collection::vec(level, 1..6)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not empty", |text| !text.is_empty())
    }

    /// Topics that the filter matches, with levels that no pattern names.
    fn witnesses(filter: &str) -> Vec<String> {
        let filled: Vec<_> = filter
            .split('/')
            .map(|level| if level == "+" { "z" } else { level })
            .collect();
        match filled.split_last() {
            Some((&"#", front)) => [&[][..], &["z"], &["z", "z"], &["z", "z", "z", "z", "z"]]
                .iter()
                .map(|tail| [front, tail].concat().join("/"))
                .filter(|topic| !topic.is_empty())
                .collect(),
            _ => vec![filled.join("/")],
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_matches_nothing_else(
            pattern in filters(), filter in filters(), topic in topics(),
        ) {
            let (allowed, asked): (TopicFilter, TopicFilter) =
                (pattern.parse().expect("legal"), filter.parse().expect("legal"));
            if covers(&pattern, &filter) && asked.matches(&topic) {
                prop_assert!(allowed.matches(&topic));
            }
        }

        #[test]
        fn what_is_not_covered_matches_something_else(
            pattern in filters(), filter in filters(),
        ) {
            // Its parent would be the empty topic, which there is not.
            prop_assume!(filter != "/#");
            let (allowed, asked): (TopicFilter, TopicFilter) =
                (pattern.parse().expect("legal"), filter.parse().expect("legal"));
            let outside = witnesses(&filter)
                .into_iter()
                .any(|topic| asked.matches(&topic) && !allowed.matches(&topic));
            prop_assert_eq!(outside, !covers(&pattern, &filter));
        }

        #[test]
        fn a_topic_is_covered_exactly_when_it_matches(pattern in filters(), topic in topics()) {
            let allowed: TopicFilter = pattern.parse().expect("legal");
            prop_assert_eq!(covers(&pattern, &topic), allowed.matches(&topic));
        }
    }
}
