//! Writes a configuration as the file that would give it.
//!
//! `Loaded::print` is `headgate config print`; `example` is the documented file in `deploy/`.
//! Invariants: secrets are redacted; what is printed is valid TOML.

use std::fmt::Write as _;

use super::{
    Config, ListenerConfig, Loaded, MqttConfig,
    section::{Section as _, Shown},
    setting::quote,
};

impl Loaded {
    /// The effective configuration, with the origin of each value as a comment.
    pub fn print(&self) -> String {
        let origin = |key: &str| self.collected.origin(key).to_string();
        let data_dir = quote(&self.config.data_dir.to_string_lossy());
        let mut out = format!("data_dir = {data_dir} # {}\n", origin("data_dir"));
        for (section, _, keys) in self.config.show() {
            let _ = write!(out, "\n[{section}]\n");
            for Shown { key, value, .. } in keys {
                let origin = origin(&format!("{section}.{key}"));
                let _ = writeln!(out, "{key} = {value} # {origin}");
            }
        }
        for (number, listener) in self.config.listeners.iter().enumerate() {
            let list = ListenerConfig::NAME;
            let _ = write!(out, "\n[[{list}]]\n");
            for Shown { key, value, .. } in listener.show() {
                let origin = origin(&format!("{list}.{number}.{key}"));
                let _ = writeln!(out, "{key} = {value} # {origin}");
            }
        }
        out
    }
}

const EXAMPLE_HEADER: &str = "\
# Headgate's configuration: every key with its default.
#
# Read from the file that --config or HEADGATE_CONFIG names; with no file the defaults below hold.
# HEADGATE__SECTION__KEY overrides a key (HEADGATE__MQTT__LISTEN), the command line overrides both.
# A secret can stand in a file of its own: <key>_file names it.
# `headgate config check` tells every mistake at once, `headgate config print` what is in force.
# Durations: \"20ms\", \"10s\", \"30min\", \"24h\", \"1h 30min\". Sizes: bytes, or \"256 KiB\", \"1 GiB\".

# Directory of everything that is kept. Default: headgate under $XDG_STATE_HOME, else under
# ~/.local/state.
#data_dir = \"/var/lib/headgate\"
";

/// The documented file: every key commented out, at its default.
pub fn example() -> String {
    let mut out = EXAMPLE_HEADER.to_owned();
    for (section, doc, keys) in Config::embedded("").show() {
        out.push('\n');
        comment(&mut out, doc);
        let _ = writeln!(out, "[{section}]");
        for shown in keys {
            out.push('\n');
            comment(&mut out, shown.doc);
            let _ = writeln!(out, "# Range: {}.", shown.range);
            let _ = writeln!(out, "#{} = {}", shown.key, shown.value);
        }
        if section == MqttConfig::NAME {
            listener(&mut out);
        }
    }
    out
}

/// The table of a listener. There is none by default, so all of it is a comment.
fn listener(out: &mut String) {
    out.push('\n');
    comment(out, ListenerConfig::DOC);
    let _ = writeln!(out, "# [[{}]]", ListenerConfig::NAME);
    for shown in ListenerConfig::default().show() {
        out.push_str("#\n");
        comment(out, shown.doc);
        let _ = writeln!(out, "# Range: {}.", shown.range);
        let _ = writeln!(out, "# {} = {}", shown.key, shown.value);
    }
}

fn comment(out: &mut String, doc: &[&str]) {
    for line in doc {
        let _ = writeln!(out, "#{line}");
    }
}
