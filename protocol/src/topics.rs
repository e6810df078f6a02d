//! The topics that a device may use, and what a message on one of them is for.
//!
//! Every device has its own: `{product}/{device}/#` for its data and `$resource/up|down/...` for
//! resources. Everything else is refused, so no device can see or name another.

use crate::identity::{NodeId, ProductId};

const UP_SERVICE: &str = "$resource/up/service/";
const DOWN_SERVICE: &str = "$resource/down/service/";
const DOWN_CHUNK: &str = "$resource/down/chunk/";

/// The topics of one device, spelled out once when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTopics {
    /// `{product}/{device}`; every topic of the device ends in it or goes on after it.
    own: Box<str>,
}

/// What a PUBLISH of a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpTopic<'a> {
    /// `$resource/up/service/{product}/{device}`: a transfer message.
    Service,
    /// `{product}/{device}/{rest}`: the device's own data.
    Data(&'a str),
}

impl DeviceTopics {
    /// The topics of `device` in `product`.
    pub fn new(product: &ProductId, device: &NodeId) -> Self {
        Self {
            own: format!("{product}/{device}").into_boxed_str(),
        }
    }

    /// Where transfer messages to the device go.
    pub fn down_service(&self) -> String {
        format!("{DOWN_SERVICE}{}", self.own)
    }

    /// Where the bytes of a transfer go: `$resource/down/chunk/{product}/{device}/{transfer}/`,
    /// to be followed by the offset in decimal.
    pub fn chunk_prefix(&self, transfer: &str) -> String {
        format!("{DOWN_CHUNK}{}/{transfer}/", self.own)
    }

    /// What a message that the device published on `topic` is for; `None`: it may not use it.
    pub fn classify_publish<'a>(&self, topic: &'a str) -> Option<UpTopic<'a>> {
        if let Some(owner) = topic.strip_prefix(UP_SERVICE) {
            return (owner == &*self.own).then_some(UpTopic::Service);
        }
        self.below_own(topic).map(UpTopic::Data)
    }

    /// Whether the device may subscribe to `filter`.
    ///
    /// Every topic that the filter can match must be one of the device's own, so wildcards are
    /// taken only behind `{product}/{device}/` and `$resource/down/.../{product}/{device}`.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        if let Some(owner) = filter.strip_prefix(DOWN_SERVICE) {
            return owner == &*self.own;
        }
        if let Some(rest) = filter.strip_prefix(DOWN_CHUNK) {
            return self.below_own(rest).is_some();
        }
        filter == &*self.own || self.below_own(filter).is_some()
    }

    /// What follows `{product}/{device}/` in `topic`, if it begins with that.
    fn below_own<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&*self.own)?.strip_prefix('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> DeviceTopics {
        DeviceTopics::new(
            &ProductId::new("P").expect("legal"),
            &NodeId::new("d1").expect("legal"),
        )
    }

    #[test]
    fn a_device_publishes_only_on_its_own_topics() {
        let cases = [
            ("$resource/up/service/P/d1", Some(UpTopic::Service)),
            ("P/d1/data", Some(UpTopic::Data("data"))),
            ("P/d1/a/b", Some(UpTopic::Data("a/b"))),
            ("$resource/up/service/P/d2", None),
            ("$resource/up/service/P/d1/x", None),
            ("$resource/down/service/P/d1", None),
            ("P/d1", None),
            ("P/d10/data", None),
            ("P/d2/data", None),
            ("é/1", None),
            ("", None),
        ];
        for (topic, expected) in cases {
            assert_eq!(topics().classify_publish(topic), expected, "{topic}");
        }
    }

    #[test]
    fn a_filter_that_could_match_another_device_is_refused() {
        for own in [
            "P/d1/#",
            "P/d1/+/x",
            "P/d1",
            "$resource/down/service/P/d1",
            "$resource/down/chunk/P/d1/#",
            "$resource/down/chunk/P/d1/+/+",
        ] {
            assert!(topics().may_subscribe(own), "{own}");
        }
        for other in [
            "#",
            "+/d1/#",
            "P/+/#",
            "P/d2/#",
            "P/d10/#",
            "$resource/down/service/P/+",
            "$resource/down/service/P/d1/#",
            "$resource/down/chunk/P/d1",
            "$resource/down/chunk/+/d1/#",
            "$resource/#",
            "$SYS/#",
            "$share/g/P/d1/#",
        ] {
            assert!(!topics().may_subscribe(other), "{other}");
        }
    }

    #[test]
    fn chunk_topics_end_in_the_offset() {
        assert_eq!(
            topics().chunk_prefix("0abc"),
            "$resource/down/chunk/P/d1/0abc/"
        );
    }
}
