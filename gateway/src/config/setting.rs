//! The kinds of value a configuration key can hold: how each is read, limited and written.
//!
//! A kind is named beside each key in its section's file. It turns what stands in the file or in
//! an environment variable into the checked type, or into a sentence that says what was expected.
//! Invariants: what `print` writes, `parse` reads back as the same value.

use std::{
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::network::Network;
use super::units::{parse_duration, parse_size, print_duration, print_size};

/// One value as it was written, before it has a type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    /// A string of the file.
    Text(String),
    /// An integer of the file.
    Integer(i64),
    /// A boolean of the file.
    Boolean(bool),
    /// A list of strings of the file.
    List(Vec<String>),
    /// A value from outside the file: a string whose type the key decides.
    Untyped(String),
    /// Anything else of the file, by the name of its type.
    Other(&'static str),
}

impl Raw {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            Self::Integer(_) | Self::Boolean(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Untyped(text) => text.trim().replace('_', "").parse().ok(),
            Self::Text(_) | Self::Boolean(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Text(text) | Self::Untyped(text) => format!("{text:?}"),
            Self::Integer(value) => value.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }
}

/// How a key's value is read and written.
pub(crate) trait Kind<T> {
    /// Whether the value must never be shown.
    const SECRET: bool = false;

    /// Reads and checks a value; the error is a sentence's end: "expected ..., not ...".
    fn parse(&self, raw: &Raw) -> Result<T, String>;

    /// Writes a value the way the file spells it.
    fn print(&self, value: &T) -> String;

    /// Says what may be written, for the documented file.
    fn range(&self) -> String;
}

pub(super) fn expected(what: &str, raw: &Raw) -> String {
    format!("expected {what}, not {}", raw.describe())
}

/// A whole number within limits.
pub(crate) struct Count<T>(pub(crate) RangeInclusive<T>);

impl<T: TryFrom<i64> + PartialOrd + Copy + fmt::Display> Kind<T> for Count<T> {
    fn parse(&self, raw: &Raw) -> Result<T, String> {
        raw.integer()
            .and_then(|value| T::try_from(value).ok())
            .filter(|value| self.0.contains(value))
            .ok_or_else(|| expected(&format!("a whole number, {}", self.range()), raw))
    }

    fn print(&self, value: &T) -> String {
        value.to_string()
    }

    fn range(&self) -> String {
        format!("{} to {}", self.0.start(), self.0.end())
    }
}

/// A number of bytes within limits: `262144` or `"256 KiB"`.
pub(crate) struct Size<T>(pub(crate) RangeInclusive<T>);

impl<T: TryFrom<u64> + TryInto<u64> + PartialOrd + Copy> Kind<T> for Size<T> {
    fn parse(&self, raw: &Raw) -> Result<T, String> {
        let bytes = match (raw.integer(), raw.text()) {
            (Some(value), _) => u64::try_from(value).ok(),
            (None, Some(text)) => parse_size(text),
            (None, None) => None,
        };
        bytes
            .and_then(|bytes| T::try_from(bytes).ok())
            .filter(|value| self.0.contains(value))
            .ok_or_else(|| {
                expected(
                    &format!("a size such as \"256 KiB\", {}", self.range()),
                    raw,
                )
            })
    }

    fn print(&self, value: &T) -> String {
        format!("\"{}\"", print_bytes(*value))
    }

    fn range(&self) -> String {
        format!(
            "{} to {}",
            print_bytes(*self.0.start()),
            print_bytes(*self.0.end())
        )
    }
}

fn print_bytes<T: TryInto<u64>>(value: T) -> String {
    print_size(value.try_into().unwrap_or(u64::MAX))
}

/// A length of time within limits: `"10s"`, `"20ms"`, `"1h 30min"`.
pub(crate) struct Span(pub(crate) RangeInclusive<Duration>);

impl Kind<Duration> for Span {
    fn parse(&self, raw: &Raw) -> Result<Duration, String> {
        raw.text()
            .and_then(parse_duration)
            .filter(|value| self.0.contains(value))
            .ok_or_else(|| {
                expected(
                    &format!("a duration such as \"10s\", {}", self.range()),
                    raw,
                )
            })
    }

    fn print(&self, value: &Duration) -> String {
        format!("\"{}\"", print_duration(*value))
    }

    fn range(&self) -> String {
        format!(
            "{} to {}",
            print_duration(*self.0.start()),
            print_duration(*self.0.end())
        )
    }
}

/// An IP address with a port; port 0 lets the system choose one.
pub(crate) struct Address;

impl Kind<SocketAddr> for Address {
    fn parse(&self, raw: &Raw) -> Result<SocketAddr, String> {
        raw.text()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| expected("an address with a port such as \"127.0.0.1:8080\"", raw))
    }

    fn print(&self, value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }

    fn range(&self) -> String {
        "an IP address with a port; port 0 lets the system choose".to_owned()
    }
}

/// A list of networks, at most so many; outside the file they stand in one text, with commas.
pub(crate) struct Networks(pub(crate) usize);

impl Kind<Vec<Network>> for Networks {
    fn parse(&self, raw: &Raw) -> Result<Vec<Network>, String> {
        let networks: Result<Vec<Network>, ()> = match raw {
            Raw::List(items) => items.iter().map(|item| item.trim().parse()).collect(),
            raw => raw.text().ok_or(()).and_then(|text| {
                let items = text.split(',').map(str::trim);
                let items = items.filter(|item| !item.is_empty());
                items.map(str::parse).collect()
            }),
        };
        networks
            .ok()
            .filter(|networks| networks.len() <= self.0)
            .ok_or_else(|| expected("networks such as [\"10.0.0.0/8\", \"192.0.2.7\"]", raw))
    }

    fn print(&self, value: &Vec<Network>) -> String {
        let items: Vec<_> = value.iter().map(|item| quote(&item.to_string())).collect();
        format!("[{}]", items.join(", "))
    }

    fn range(&self) -> String {
        format!("a list of networks, at most {}; [] for none", self.0)
    }
}

/// A path; a relative one is taken from the working directory.
pub(crate) struct FilePath;

impl Kind<PathBuf> for FilePath {
    fn parse(&self, raw: &Raw) -> Result<PathBuf, String> {
        raw.text()
            .filter(|text| !text.is_empty() && !text.contains('\0'))
            .map(PathBuf::from)
            .ok_or_else(|| expected("a path", raw))
    }

    fn print(&self, value: &PathBuf) -> String {
        quote(&Path::display(value).to_string())
    }

    fn range(&self) -> String {
        "a path".to_owned()
    }
}

/// A text without control characters, of a limited number of characters.
pub(crate) struct Text(pub(crate) usize);

impl Kind<String> for Text {
    fn parse(&self, raw: &Raw) -> Result<String, String> {
        raw.text()
            .filter(|text| !text.is_empty() && text.chars().count() <= self.0)
            .filter(|text| !text.chars().any(char::is_control))
            .map(str::to_owned)
            .ok_or_else(|| expected(&self.range(), raw))
    }

    fn print(&self, value: &String) -> String {
        quote(value)
    }

    fn range(&self) -> String {
        format!("a text of 1 to {} characters", self.0)
    }
}

/// True or false.
pub(crate) struct Flag;

impl Kind<bool> for Flag {
    fn parse(&self, raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Boolean(value) => Some(*value),
            Raw::Untyped(text) => text.trim().parse().ok(),
            Raw::Text(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => None,
        }
        .ok_or_else(|| expected(&self.range(), raw))
    }

    fn print(&self, value: &bool) -> String {
        value.to_string()
    }

    fn range(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of a few words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind<T> for Choice<T> {
    fn parse(&self, raw: &Raw) -> Result<T, String> {
        let word = raw.text().map(str::trim);
        self.0
            .iter()
            .find(|(name, _)| Some(*name) == word)
            .map(|(_, value)| *value)
            .ok_or_else(|| expected(&self.range(), raw))
    }

    fn print(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, known)| known == value);
        format!("\"{}\"", word.map_or("", |(name, _)| name))
    }

    fn range(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        format!("one of {}", words.join(", "))
    }
}

/// A value that may be absent, and the word that says so.
pub(crate) struct Optional<K>(pub(crate) K, pub(crate) &'static str);

impl<T, K: Kind<T>> Kind<Option<T>> for Optional<K> {
    const SECRET: bool = K::SECRET;

    fn parse(&self, raw: &Raw) -> Result<Option<T>, String> {
        if raw.text().map(str::trim) == Some(self.1) {
            return Ok(None);
        }
        self.0.parse(raw).map(Some)
    }

    fn print(&self, value: &Option<T>) -> String {
        value
            .as_ref()
            .map_or_else(|| format!("\"{}\"", self.1), |value| self.0.print(value))
    }

    fn range(&self) -> String {
        format!("{}; \"{}\" for none", self.0.range(), self.1)
    }
}

/// A text that is never shown: not by `Debug`, not by `config print`, not in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Shows the text to the code that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A secret text; each key of this kind has a twin `<key>_file` that names a file holding it.
pub(crate) struct Hidden;

impl Kind<Secret> for Hidden {
    const SECRET: bool = true;

    fn parse(&self, raw: &Raw) -> Result<Secret, String> {
        raw.text()
            .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
            .map(|text| Secret::new(text.to_owned()))
            .ok_or_else(|| "expected a text without control characters".to_owned())
    }

    fn print(&self, _: &Secret) -> String {
        "\"<redacted>\"".to_owned()
    }

    fn range(&self) -> String {
        "a secret text".to_owned()
    }
}

/// Writes a text as a TOML basic string.
pub(crate) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
