//! Options: their numbers and how long and how often each may be.
//!
//! Spec: RFC 7252 s5.4 and s5.10, RFC 7641 s2, RFC 7959 s2.1, RFC 7967 s2, RFC 9175 s2 and s3.

/// The number of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionNumber(pub u16);

impl OptionNumber {
    /// If-Match
    pub const IF_MATCH: Self = Self(1);
    /// Uri-Host
    pub const URI_HOST: Self = Self(3);
    /// `ETag`
    pub const ETAG: Self = Self(4);
    /// If-None-Match
    pub const IF_NONE_MATCH: Self = Self(5);
    /// Observe
    pub const OBSERVE: Self = Self(6);
    /// Uri-Port
    pub const URI_PORT: Self = Self(7);
    /// Location-Path
    pub const LOCATION_PATH: Self = Self(8);
    /// Uri-Path
    pub const URI_PATH: Self = Self(11);
    /// Content-Format
    pub const CONTENT_FORMAT: Self = Self(12);
    /// Max-Age
    pub const MAX_AGE: Self = Self(14);
    /// Uri-Query
    pub const URI_QUERY: Self = Self(15);
    /// Accept
    pub const ACCEPT: Self = Self(17);
    /// Location-Query
    pub const LOCATION_QUERY: Self = Self(20);
    /// Block2
    pub const BLOCK2: Self = Self(23);
    /// Block1
    pub const BLOCK1: Self = Self(27);
    /// Size2
    pub const SIZE2: Self = Self(28);
    /// Proxy-Uri
    pub const PROXY_URI: Self = Self(35);
    /// Proxy-Scheme
    pub const PROXY_SCHEME: Self = Self(39);
    /// Size1
    pub const SIZE1: Self = Self(60);
    /// Echo
    pub const ECHO: Self = Self(252);
    /// No-Response
    pub const NO_RESPONSE: Self = Self(258);
    /// Request-Tag
    pub const REQUEST_TAG: Self = Self(292);

    /// Whether a receiver that does not know it must not act on the message. [RFC 7252 s5.4.1]
    pub const fn is_critical(self) -> bool {
        self.0 & 1 == 1
    }

    /// The rule for it, where it is known here.
    pub(super) fn rule(self) -> Option<Rule> {
        let at = RULES.binary_search_by_key(&self, |(number, _)| *number);
        at.ok().and_then(|at| RULES.get(at)).map(|(_, rule)| *rule)
    }
}

/// How long an option's value may be and whether there may be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) min_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) is_repeatable: bool,
}

const fn once(min_bytes: usize, max_bytes: usize) -> Rule {
    Rule {
        min_bytes,
        max_bytes,
        is_repeatable: false,
    }
}

const fn repeatable(min_bytes: usize, max_bytes: usize) -> Rule {
    Rule {
        is_repeatable: true,
        ..once(min_bytes, max_bytes)
    }
}

/// In the order of their numbers.
const RULES: [(OptionNumber, Rule); 22] = [
    (OptionNumber::IF_MATCH, repeatable(0, 8)),
    (OptionNumber::URI_HOST, once(1, 255)),
    (OptionNumber::ETAG, repeatable(1, 8)),
    (OptionNumber::IF_NONE_MATCH, once(0, 0)),
    (OptionNumber::OBSERVE, once(0, 3)),
    (OptionNumber::URI_PORT, once(0, 2)),
    (OptionNumber::LOCATION_PATH, repeatable(0, 255)),
    (OptionNumber::URI_PATH, repeatable(0, 255)),
    (OptionNumber::CONTENT_FORMAT, once(0, 2)),
    (OptionNumber::MAX_AGE, once(0, 4)),
    (OptionNumber::URI_QUERY, repeatable(0, 255)),
    (OptionNumber::ACCEPT, once(0, 2)),
    (OptionNumber::LOCATION_QUERY, repeatable(0, 255)),
    (OptionNumber::BLOCK2, once(0, 3)),
    (OptionNumber::BLOCK1, once(0, 3)),
    (OptionNumber::SIZE2, once(0, 4)),
    (OptionNumber::PROXY_URI, once(1, 1034)),
    (OptionNumber::PROXY_SCHEME, once(1, 255)),
    (OptionNumber::SIZE1, once(0, 4)),
    (OptionNumber::ECHO, once(1, 40)),
    (OptionNumber::NO_RESPONSE, once(0, 1)),
    (OptionNumber::REQUEST_TAG, repeatable(0, 8)),
];

/// The number of a content format.  Spec: RFC 7252 s12.3, RFC 8949.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentFormat(pub u16);

impl ContentFormat {
    /// text/plain; charset=utf-8
    pub const TEXT: Self = Self(0);
    /// application/link-format
    pub const LINKS: Self = Self(40);
    /// application/octet-stream
    pub const OCTETS: Self = Self(42);
    /// application/json
    pub const JSON: Self = Self(50);
    /// application/cbor
    pub const CBOR: Self = Self(60);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_in_order_and_are_found() {
        assert!(RULES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (number, rule) in RULES {
            assert_eq!(number.rule(), Some(rule));
        }
        assert_eq!(OptionNumber(9).rule(), None);
        assert!(OptionNumber::BLOCK1.is_critical() && !OptionNumber::SIZE1.is_critical());
    }
}
