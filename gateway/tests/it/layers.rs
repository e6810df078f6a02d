//! The direction of the layers, read from the sources.
//!
//! `edge -> session -> service -> store`, every layer on the leaves, nothing upward; only services
//! touch stores. SQL stays under `store`, HTTP under `edge`, TLS in three places, and the protocol
//! crate knows neither sockets nor clocks.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A layer and what it may name besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("edge", &["session", "service"]),
    ("session", &["service"]),
    ("service", &["store"]),
    ("store", &[]),
    ("model", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("shutdown", &[]),
    ("cli", &["app"]),
    ("app", &["edge", "session", "service", "store"]),
    ("main", &["app", "cli"]),
];
const LEAVES: [&str; 4] = ["model", "config", "telemetry", "shutdown"];
/// What lower layers a test may use to set the stage.
const STAGE: [&str; 3] = ["session", "service", "store"];

/// What may be named only in some places: the text, and where it is at home.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx::", &["store"]),
    ("redis::", &["store"]),
    ("object_store::", &["store"]),
    ("axum::", &["edge"]),
    ("hyper::", &["edge", "cli/client"]),
    ("hyper_util::", &["edge", "cli/client"]),
    ("http_body_util::", &["edge", "cli/client"]),
    ("tower::", &["edge"]),
    ("tower_http::", &["edge"]),
    // The command line is a client of the API as others are: it has TLS of its own.
    ("rustls::", &["edge/tls", "edge/dev_cert", "cli/client/tls"]),
    (
        "tokio_rustls::",
        &["edge/tls", "edge/dev_cert", "cli/client/tls"],
    ),
    ("rcgen::", &["edge/dev_cert"]),
    ("headgate_dtls::", &["edge/coap"]),
    ("tokio::spawn", &["shutdown"]),
    ("task::spawn(", &["shutdown"]),
];

/// What the protocol crate never names.
const NOT_IN_PROTOCOL: &[&str] = &[
    "tokio",
    "std::net",
    "std::thread",
    "std::fs",
    "Instant::now",
    "SystemTime::now",
    "getrandom",
    "rand::",
    "tracing::",
    "log::",
];

#[test]
fn the_gateway_keeps_its_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let breaches = breaches_in_gateway(&src);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_protocol_knows_no_sockets_and_no_clock() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src");
    let breaches = breaches_in_protocol(&src);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_breach_is_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let plant = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    };
    plant("app.rs", "use crate::{edge::mqtt, store::registry};");
    plant(
        "edge/mqtt.rs",
        "use crate::{\n    session::Session,\n    store::{Registry, Row},\n};",
    );
    plant("edge/tls.rs", "use rustls::ServerConfig;");
    plant(
        "edge/http/mod_tests.rs",
        "#[cfg(test)]\nmod tests { use crate::store::Registry; }",
    );
    plant(
        "session.rs",
        "fn f() { crate::edge::close(); }\nuse hyper::Request;",
    );
    plant(
        "service/auth.rs",
        "// use crate::edge::Comment;\nuse crate::{model, session::Session};",
    );
    plant(
        "service/deep/er.rs",
        "use super::super::super::edge::http;\nuse super::auth;",
    );
    plant(
        "store/registry.rs",
        "use sqlx::Row;\nuse crate::service::auth::Token;",
    );
    plant(
        "store/registry/tests.rs",
        "use crate::service::auth::Token;",
    );
    plant(
        "model.rs",
        "use crate::store::Id; fn f() { tokio::spawn(async {}); }",
    );
    plant(
        "telemetry/log.rs",
        "use crate::config::LogConfig; let _ = \"sqlx::\";",
    );
    plant(
        "service/registry.rs",
        "use tokio_rustls::TlsAcceptor; use crate::r#edge::x;",
    );
    plant("lib.rs", "pub mod edge;");
    assert_eq!(
        breaches_in_gateway(dir.path()),
        [
            "edge/mqtt.rs:3: edge -> store",
            "model.rs:1: model -> store",
            "model.rs:1: tokio::spawn belongs to shutdown",
            "service/auth.rs:2: service -> session",
            "service/deep/er.rs:1: service -> edge",
            "service/registry.rs:1: service -> edge",
            "service/registry.rs:1: tokio_rustls:: belongs to edge/tls, edge/dev_cert, cli/client/tls",
            "session.rs:1: session -> edge",
            "session.rs:2: hyper:: belongs to edge, cli/client",
            "store/registry.rs:2: store -> service",
            "store/registry/tests.rs:1: store -> service",
        ]
    );

    let protocol = dir.path().join("protocol");
    plant(
        "protocol/mqtt.rs",
        "use std::net::IpAddr;\nlet now = Instant::now(); // tokio",
    );
    assert_eq!(
        breaches_in_protocol(&protocol),
        ["mqtt.rs:1: names std::net", "mqtt.rs:2: names Instant::now"]
    );
}

fn breaches_in_gateway(src: &Path) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in sources(src) {
        let modules = module_path(&file.name);
        let layer = modules.first().map_or("lib", String::as_str);
        let whole_is_test = modules.iter().any(|module| module == "tests");
        let tests_from = file.text.find("#[cfg(test)]").unwrap_or(file.text.len());
        for (offset, used) in uses(&file.text, modules.len()) {
            let is_test = whole_is_test || offset > tests_from;
            if !may_use(layer, &used, is_test) {
                breaches.push(file.at(offset, &format!("{layer} -> {used}")));
            }
        }
        if whole_is_test {
            continue;
        }
        let home = modules.join("/");
        for (text, homes) in HOMES {
            let at_home = homes
                .iter()
                .any(|known| home == *known || home.starts_with(&format!("{known}/")));
            let found = occurrences(&file.text, text).find(|offset| *offset < tests_from);
            if let Some(offset) = found.filter(|_| !at_home) {
                let message = format!("{text} belongs to {}", homes.join(", "));
                breaches.push(file.at(offset, &message));
            }
        }
    }
    breaches.sort();
    breaches.dedup();
    breaches
}

fn breaches_in_protocol(src: &Path) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in sources(src) {
        let modules = module_path(&file.name);
        let tests_from = if modules.iter().any(|module| module == "tests") {
            0
        } else {
            file.text.find("#[cfg(test)]").unwrap_or(file.text.len())
        };
        for text in NOT_IN_PROTOCOL {
            for offset in occurrences(&file.text, text) {
                // A test has no other way to a first instant.
                if *text == "Instant::now" && offset >= tests_from {
                    continue;
                }
                breaches.push(file.at(offset, &format!("names {text}")));
            }
        }
    }
    breaches.sort();
    breaches
}

fn may_use(layer: &str, used: &str, is_test: bool) -> bool {
    let known = |name: &str| LAYERS.iter().find(|(layer, _)| *layer == name);
    let (Some((_, below)), Some(_)) = (known(layer), known(used)) else {
        // lib.rs, and names that are no layer: macros, re-exports, modules of tests.
        return true;
    };
    layer == used
        || below.contains(&used)
        || LEAVES.contains(&used)
        || (is_test && layer == "edge" && STAGE.contains(&used))
        || (is_test && layer == "session" && used == "store")
}

struct Source {
    /// Path below the root, with `/`.
    name: String,
    /// The text, comments and the contents of strings blanked.
    text: String,
}

impl Source {
    fn at(&self, offset: usize, message: &str) -> String {
        let line = self.text.split_at(offset).0.matches('\n').count() + 1;
        format!("{}:{line}: {message}", self.name)
    }
}

fn sources(root: &Path) -> Vec<Source> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no sources under {}", root.display());
    let source = |path: &PathBuf| Source {
        name: path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .replace('\\', "/"),
        text: blank(&fs::read_to_string(path).expect("UTF-8")),
    };
    found.iter().map(source).collect()
}

/// `edge/http/tasks.rs` is the module `edge::http::tasks`; `lib.rs` is the root.
fn module_path(name: &str) -> Vec<String> {
    let name = name.trim_end_matches(".rs");
    if name == "lib" {
        return Vec::new();
    }
    name.split('/').map(str::to_owned).collect()
}

/// Replaces line comments and the contents of plain strings by blanks; lines keep their numbers.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut in_string = false;
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '\\' if in_string => {
                    out.push_str("  ");
                    characters.next();
                }
                '"' => {
                    in_string = !in_string;
                    out.push('"');
                }
                // A quote as a character is no string.
                '\'' if !in_string && characters.peek() == Some(&'"') => {
                    out.push_str("' ");
                    characters.next();
                }
                '/' if !in_string && characters.peek() == Some(&'/') => {
                    if line.ends_with('\n') {
                        out.push('\n');
                    }
                    break;
                }
                '\n' => out.push('\n'),
                _ if in_string => out.push(' '),
                c => out.push(c),
            }
        }
    }
    out
}

/// Where `text` stands as a name of its own, not as the end of a longer path.
fn occurrences<'a>(source: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    source
        .match_indices(text)
        .map(|(offset, _)| offset)
        .filter(|offset| {
            let before = source.split_at(*offset).0.chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                || text.starts_with("task::")
        })
}

/// Every top-level module that is named, with the offset of its name.
fn uses(source: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (offset, _) in source.match_indices("crate::") {
        heads(source, offset + "crate::".len(), &mut found);
    }
    let climb = "super::".repeat(depth);
    for offset in occurrences(source, &climb).filter(|_| depth > 0) {
        heads(source, offset + climb.len(), &mut found);
    }
    found
}

/// The first name of a path, or of each path of a group.
fn heads(source: &str, start: usize, found: &mut Vec<(usize, String)>) {
    let rest = source.split_at(start).1;
    if !rest.starts_with('{') {
        let name = name_at(rest);
        found.push((start, name));
        return;
    }
    let mut depth = 0_usize;
    let mut expecting = false;
    for (offset, c) in rest.char_indices() {
        match c {
            '{' => {
                depth += 1;
                expecting = depth == 1;
            }
            '}' => depth -= 1,
            ',' => expecting = depth == 1,
            c if expecting && !c.is_whitespace() => {
                expecting = false;
                found.push((start + offset, name_at(rest.split_at(offset).1)));
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

fn name_at(text: &str) -> String {
    text.trim_start_matches("r#")
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}
