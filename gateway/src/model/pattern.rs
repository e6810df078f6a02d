//! A pattern of names: `*` stands for any characters, `?` for one.
//!
//! Matching takes time proportional to the product of both lengths at worst, whatever the pattern.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A pattern that a whole name matches or not; upper and lower case differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Box<str>);

/// The longest pattern, in characters.
const MAX_CHARS: usize = 128;

/// A text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 128 characters, none of them a control character")]
pub struct InvalidPattern;

impl NamePattern {
    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        let (mut rest, mut name) = (self.0.chars(), name.chars());
        // Where to go on when what followed the last `*` did not match: one character later.
        let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let at = (rest.clone(), name.clone());
            match (rest.next(), name.next()) {
                (Some('*'), _) => {
                    retry = Some((rest.clone(), at.1.clone()));
                    name = at.1;
                }
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
                _ => {
                    let Some((after, from)) = &mut retry else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    rest = after.clone();
                    name = from.clone();
                }
            }
        }
    }
}

impl FromStr for NamePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let chars = text.chars().count();
        if !(1..=MAX_CHARS).contains(&chars) || text.chars().any(char::is_control) {
            return Err(InvalidPattern);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for NamePattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match() {
        for (pattern, name, matches) in [
            ("meter-1", "meter-1", true),
            ("meter-1", "meter-12", false),
            ("*", "", true),
            ("*", "anything", true),
            ("meter-*", "meter-", true),
            ("meter-*", "ameter-", false),
            ("*-7", "a-7-7", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "é", true),
            ("??", "x", false),
            ("**?", "", false),
            ("A", "a", false),
        ] {
            let parsed: NamePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length_allows() {
        let pattern: NamePattern = "*a".repeat(64).parse().unwrap();
        let name = format!("{}b", "a".repeat(64));
        assert!(!pattern.matches(&name));
    }

    #[test]
    fn patterns_have_a_length() {
        for wrong in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(wrong.parse::<NamePattern>(), Err(InvalidPattern));
        }
    }
}
