//! Collects what the file, the environment and the command line say, before it has types.
//!
//! `Collected` maps `section.key` to the winning value and its origin; `Keys` hands one section's
//! values out, typed. Invariants: flag over environment over file; every key that was given is
//! known or is a problem; reading never stops at the first problem.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use super::{
    listener::MAX_LISTENERS,
    problem::{ConfigError, Origin, Problem},
    setting::{Kind, Raw},
};

/// Prefix of the environment variables that override keys.
pub(super) const PREFIX: &str = "HEADGATE__";
/// Largest configuration file and largest secret file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that was named, if any; it must exist.
    pub file: Option<PathBuf>,
    /// The environment: `HEADGATE__*` overrides keys, `XDG_STATE_HOME` and `HOME` give the default
    /// data directory; everything else is ignored.
    pub environment: Vec<(String, String)>,
    /// The data directory of the command line.
    pub data_dir: Option<PathBuf>,
}

impl Sources {
    /// The process's environment; what is not UTF-8 is kept with replacement characters.
    pub fn from_process(file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| (lossy(&name), lossy(&value)))
            .collect();
        Self {
            file,
            environment,
            data_dir,
        }
    }

    /// The value of an environment variable, unless it is absent or empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

fn lossy(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The keys that exist.
pub(super) struct Known {
    /// `section.key`, or `key` at the top; secrets' `_file` twins included.
    pub(super) keys: Vec<String>,
    /// Names of sections.
    pub(super) sections: Vec<&'static str>,
    /// `section.key` of what is a list of tables, whose keys stand in `keys` without a number.
    pub(super) lists: Vec<&'static str>,
}

impl Known {
    /// Whether a key exists, be it one of a table in a list: `mqtt.listener.0.address`.
    fn has(&self, key: &str) -> bool {
        let plain = self.without_number(key);
        self.keys.contains(&plain)
    }

    fn without_number(&self, key: &str) -> String {
        self.lists
            .iter()
            .find_map(|list| {
                let rest = key.strip_prefix(list)?.strip_prefix('.')?;
                let (number, name) = rest.split_once('.')?;
                let number: usize = number.parse().ok()?;
                (number < MAX_LISTENERS).then(|| format!("{list}.{name}"))
            })
            .unwrap_or_else(|| key.to_owned())
    }
}

/// Everything that was given, and everything wrong with it so far.
#[derive(Debug, Default)]
pub(super) struct Collected {
    values: BTreeMap<String, (Raw, Origin)>,
    /// Problems found so far.
    pub(super) problems: Vec<Problem>,
}

impl Collected {
    /// Reads the sources, lowest first.
    pub(super) fn read(sources: &Sources, known: &Known) -> Result<Self, ConfigError> {
        let mut collected = Self::default();
        if let Some(path) = &sources.file {
            let text = read_text(path).map_err(|source| ConfigError::Unreadable {
                path: path.clone(),
                source,
            })?;
            collected.add_file(path, &text, known);
        }
        collected.add_environment(&sources.environment, known);
        if let Some(path) = &sources.data_dir {
            let raw = Raw::Untyped(path.to_string_lossy().into_owned());
            collected
                .values
                .insert("data_dir".to_owned(), (raw, Origin::Flag("--data-dir")));
        }
        Ok(collected)
    }

    /// Notes a problem.
    pub(super) fn problem(&mut self, origin: Origin, message: String) {
        self.problems.push(Problem { origin, message });
    }

    /// Where a key's value came from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.values
            .get(key)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    fn add_file(&mut self, path: &Path, text: &str, known: &Known) {
        let path: Arc<Path> = Arc::from(path);
        let at = |start: usize| Origin::File(Arc::clone(&path), line_of(text, start));
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            self.problem(at(start), error.message().to_owned());
        }
        for (name, value) in table.get_ref() {
            let origin = at(name.span().start);
            let section = name.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(keys) if known.sections.contains(&section) => {
                    for (key, value) in keys {
                        let origin = at(key.span().start);
                        let key = format!("{section}.{}", key.get_ref());
                        if known.lists.contains(&key.as_str()) {
                            self.add_list(known, &key, value.get_ref(), origin, &at);
                        } else {
                            self.add(known, &key, raw_of(value.get_ref()), origin);
                        }
                    }
                }
                DeValue::Table(_) => {
                    let near = nearest(section, known.sections.iter().copied());
                    self.problem(origin, format!("unknown section [{section}]{near}"));
                }
                _ if known.sections.contains(&section) => self.problem(
                    origin,
                    format!("{section} is a section: write [{section}] and its keys below"),
                ),
                value => self.add(known, section, raw_of(value), origin),
            }
        }
    }

    /// Adds the tables of a list, their keys numbered from 0.
    fn add_list(
        &mut self,
        known: &Known,
        list: &str,
        value: &DeValue<'_>,
        origin: Origin,
        at: &dyn Fn(usize) -> Origin,
    ) {
        let expected = || format!("{list}: expected tables, each below its own [[{list}]]");
        let DeValue::Array(tables) = value else {
            return self.problem(origin, expected());
        };
        if tables.len() > MAX_LISTENERS {
            return self.problem(origin, format!("{list}: more than {MAX_LISTENERS} tables"));
        }
        for (number, table) in tables.iter().enumerate() {
            let origin = at(table.span().start);
            let DeValue::Table(keys) = table.get_ref() else {
                self.problem(origin, expected());
                continue;
            };
            // The table itself, for what is wrong with it as a whole.
            self.values
                .insert(format!("{list}.{number}"), (Raw::Other("a table"), origin));
            for (key, value) in keys {
                let origin = at(key.span().start);
                let key = format!("{list}.{number}.{}", key.get_ref());
                self.add(known, &key, raw_of(value.get_ref()), origin);
            }
        }
    }

    /// How many tables of a list were given.
    pub(super) fn tables(&self, list: &str) -> usize {
        let numbers = self.values.keys().filter_map(|key| {
            let rest = key.strip_prefix(list)?.strip_prefix('.')?;
            let number = rest.split_once('.').map_or(rest, |(number, _)| number);
            number.parse::<usize>().ok()
        });
        numbers.max().map_or(0, |last| last + 1)
    }

    fn add_environment(&mut self, environment: &[(String, String)], known: &Known) {
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let origin = Origin::Environment(name.clone());
            if known.has(&key) {
                self.add(known, &key, Raw::Untyped(value.clone()), origin);
                continue;
            }
            let near = nearest(&key, known.keys.iter().map(String::as_str));
            let message = match near.as_str() {
                "" => "names no key".to_owned(),
                near => format!("names no key{}", variables_in(near)),
            };
            self.problem(origin, message);
        }
    }

    fn add(&mut self, known: &Known, key: &str, raw: Raw, origin: Origin) {
        if known.has(key) {
            self.values.insert(key.to_owned(), (raw, origin));
        } else {
            let plain = known.without_number(key);
            let near = nearest(&plain, known.keys.iter().map(String::as_str));
            self.problem(origin, format!("unknown key {plain}{near}"));
        }
    }
}

/// Reads a text file of a limited size.
fn read_text(path: &Path) -> std::io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!(
            "larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    fs::read_to_string(path)
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|byte| *byte == b'\n').count()
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => {
            let digits = integer.as_str();
            i64::from_str_radix(digits, integer.radix())
                .map_or(Raw::Other("an integer too large"), Raw::Integer)
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.clone().into_owned()),
                _ => None,
            });
            let texts: Option<Vec<_>> = texts.collect();
            texts.map_or(Raw::Other("a list"), Raw::List)
        }
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// `, did you mean X?` for the known name that is nearest, or nothing when none is near.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let parts = |name: &str| match name.rsplit_once('.') {
        Some((section, key)) => (section.to_owned(), key.to_owned()),
        None => (String::new(), name.to_owned()),
    };
    let (section, key) = parts(given);
    // The key counts most: one that stands in the wrong section is the commonest slip.
    let near = |name: &str| {
        let (known_section, known_key) = parts(name);
        let same_section = strsim::jaro(&section, &known_section);
        strsim::jaro_winkler(&key, &known_key) * 0.9 + same_section * 0.1
    };
    known
        .map(|name| (near(name), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| format!(", did you mean {name}?"))
        .unwrap_or_default()
}

/// Spells the key in a hint as an environment variable.
fn variables_in(near: &str) -> String {
    let Some(key) = near
        .strip_prefix(", did you mean ")
        .and_then(|near| near.strip_suffix('?'))
    else {
        return String::new();
    };
    format!(", did you mean {}?", variable(key))
}

/// The environment variable that overrides a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Hands out one section's values.
pub(crate) struct Keys<'a> {
    section: Cow<'static, str>,
    collected: &'a mut Collected,
}

impl<'a> Keys<'a> {
    /// The keys of `section`; the empty name is the top of the file.
    pub(super) fn of(section: impl Into<Cow<'static, str>>, collected: &'a mut Collected) -> Self {
        let section = section.into();
        Self { section, collected }
    }

    /// Takes a key's value, checked; the default when it is absent or wrong.
    pub(crate) fn take<T, K: Kind<T>>(
        &mut self,
        key: &'static str,
        kind: &K,
        default: impl FnOnce() -> T,
    ) -> T {
        let key = match self.section.as_ref() {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        };
        if K::SECRET {
            self.settle_secret(&key);
        }
        let Some((raw, origin)) = self.collected.values.get(&key) else {
            return default();
        };
        match kind.parse(raw) {
            Ok(value) => value,
            Err(reason) => {
                let problem = (origin.clone(), format!("{key}: {reason}"));
                self.collected.problem(problem.0, problem.1);
                default()
            }
        }
    }

    /// Puts what stands in the file that `<key>_file` names in the place of `key`.
    fn settle_secret(&mut self, key: &str) {
        let twin = format!("{key}_file");
        let Some((raw, origin)) = self.collected.values.remove(&twin) else {
            return;
        };
        match self.collected.origin(key).rank().cmp(&origin.rank()) {
            std::cmp::Ordering::Greater => return,
            std::cmp::Ordering::Equal => {
                let message = format!("{twin}: give either {key} or {twin}, not both");
                return self.collected.problem(origin, message);
            }
            std::cmp::Ordering::Less => {}
        }
        let (Raw::Text(path) | Raw::Untyped(path)) = raw else {
            return self
                .collected
                .problem(origin, format!("{twin}: expected a path"));
        };
        match read_text(Path::new(&path)) {
            Ok(text) => {
                let secret = Raw::Untyped(text.trim_end_matches(['\r', '\n']).to_owned());
                self.collected
                    .values
                    .insert(key.to_owned(), (secret, origin));
            }
            Err(error) => self
                .collected
                .problem(origin, format!("{twin}: {path}: {error}")),
        }
    }
}
