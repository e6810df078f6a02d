//! The log: one event a line, on standard error.
//!
//! JSON for machines, or lines for people when standard error is a terminal. `main.rs` starts it
//! once. Invariants: what a peer sent can neither begin a line of its own nor reach a terminal as a
//! control sequence; what repeats does not fill a disk.

mod escape;
mod repeats;

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
    str::FromStr as _,
    sync::OnceLock,
};

use tracing::{Subscriber, field::Field, subscriber::SetGlobalDefaultError};
use tracing_subscriber::{
    Layer as _,
    filter::{FilterExt as _, Targets},
    fmt::MakeWriter,
    fmt::format,
    layer::SubscriberExt as _,
    registry::Registry,
    reload,
};

use self::{escape::Escaping, repeats::Repeats};

use crate::config::{LogConfig, LogFormat};

/// The level of this process's log, once it has been started.
static LEVELS: OnceLock<Levels> = OnceLock::new();

type Levels = reload::Handle<Targets, Registry>;

/// Starts the log of this process.
///
/// # Errors
/// When it was started before.
pub fn start(config: &LogConfig) -> Result<(), SetGlobalDefaultError> {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let (subscriber, levels) = subscriber(&config.level, json, colour, io::stderr);
    tracing::subscriber::set_global_default(subscriber)?;
    // Nobody has started it before: the line above would have failed.
    let _ = LEVELS.set(levels);
    Ok(())
}

/// Writes from here on what is at `level` or above, in the words of the configuration; nothing where no log was started.
pub fn set_level(level: &str) {
    if let Some(levels) = LEVELS.get() {
        change(levels, level);
    }
}

fn change(levels: &Levels, level: &str) {
    // The handle and what it leads to live as long as the process.
    let _ = levels.reload(Targets::from_str(level).unwrap_or_default());
}

fn subscriber<W>(
    level: &str,
    json: bool,
    colour: bool,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, Levels)
where
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    // The configuration is checked: a level that cannot be read never gets here.
    let (filter, levels) = reload::Layer::new(Targets::from_str(level).unwrap_or_default());
    let filter = filter.and(Repeats::new(writer.clone(), json));
    let lines = tracing_subscriber::fmt::layer();
    if json {
        let lines = lines.with_writer(Escaping(writer)).json();
        let layer = lines.flatten_event(true).with_filter(filter);
        return (Box::new(Registry::default().with(layer)), levels);
    }
    let fields = format::debug_fn(write_field);
    let layer = lines
        .with_writer(writer)
        .with_ansi(colour)
        .fmt_fields(tracing_subscriber::field::MakeExt::delimited(fields, " "))
        .with_filter(filter);
    (Box::new(Registry::default().with(layer)), levels)
}

/// Writes a field for people, control characters escaped.
fn write_field(
    writer: &mut format::Writer<'_>,
    field: &Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    let mut escaped = Escaped(writer);
    if field.name() != "message" {
        write!(escaped, "{field}=")?;
    }
    write!(escaped, "{value:?}")
}

/// Escapes control characters, line ends included.
struct Escaped<'a, 'w>(&'a mut format::Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(level: &str, json: bool, event: impl FnOnce()) -> String {
        lines_and_levels(level, json, |_| event())
    }

    fn lines_and_levels(level: &str, json: bool, event: impl FnOnce(&Levels)) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (subscriber, levels) = subscriber(level, json, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || event(&levels));
        let bytes = buffer.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn hostile() {
        let client_id = "a\nERROR forged \u{1b}[31m";
        tracing::info!(client_id, "connected\r");
        tracing::debug!("not written");
    }

    #[test]
    fn lines_for_people_cannot_be_forged() {
        let text = lines_of("info", false, hostile);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.ends_with("connected\\r client_id=\"a\\nERROR forged \\u{1b}[31m\"\n"),
            "{text}"
        );
    }

    #[test]
    fn machines_get_one_object_a_line() {
        let text = lines_of("info", true, hostile);
        assert_eq!(text.lines().count(), 1, "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["message"], "connected\r");
        assert_eq!(value["client_id"], "a\nERROR forged \u{1b}[31m");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_repeats_is_told_in_part() {
        let repeat = || {
            for device in 0..1_000 {
                tracing::warn!(device, "the registry does not answer");
            }
            tracing::warn!("something else");
            tracing::info!("and all is well");
        };
        for json in [true, false] {
            let text = lines_of("info", json, repeat);
            let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
            // A second may end meanwhile.
            let told = count("does not answer");
            assert!((20..=100).contains(&told), "{told}");
            assert_eq!((count("something else"), count("all is well")), (1, 1));
        }
    }

    #[test]
    fn another_level_holds_from_when_it_is_set() {
        let text = lines_and_levels("info", true, |levels| {
            for (level, word) in [("info", "one"), ("debug", "two"), ("warn", "three")] {
                change(levels, level);
                tracing::debug!("debug {word}");
                tracing::info!("info {word}");
            }
        });
        let has = |words: &str| text.contains(words);
        assert!(has("info one") && !has("debug one"), "{text}");
        assert!(has("info two") && has("debug two"), "{text}");
        assert!(!has("info three") && !has("debug three"), "{text}");
    }

    #[test]
    fn a_level_can_be_given_per_module() {
        let event = || {
            tracing::debug!(target: "headgate::session", "kept");
            tracing::debug!(target: "headgate::edge", "left out");
        };
        let text = lines_of("info,headgate::session=debug", false, event);
        assert!(
            text.contains("kept") && !text.contains("left out"),
            "{text}"
        );
    }
}
