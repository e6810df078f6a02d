//! `headgate config check` and `headgate config print` on files as people keep them.

use std::fs;

use super::cli::{headgate, text};

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/headgate.example.toml"
);

#[test]
fn the_example_is_valid_and_changes_nothing() {
    let output = headgate(&["config", "check", "--config", EXAMPLE], &[]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), "the configuration is valid\n");
    assert_eq!(output.status.code(), Some(0));

    let with = headgate(&["config", "print", "--config", EXAMPLE], &[]);
    let without = headgate(&["config", "print"], &[]);
    assert_eq!(text(&with.stdout), text(&without.stdout));
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("headgate.toml");
    fs::write(&file, "[mqtt]\nmax_connections = 500\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = headgate(
        &["config", "print", "--data-dir", "/srv/headgate"],
        &[
            ("HEADGATE_CONFIG", file),
            ("HEADGATE__HTTP__LISTEN", "0.0.0.0:80"),
            ("HEADGATE__REGISTRY__URL", "sqlite:///srv/hunter2.db"),
        ],
    );
    let printed = text(&output.stdout);
    for line in [
        "data_dir = \"/srv/headgate\" # --data-dir",
        &format!("max_connections = 500 # {file}:2"),
        "listen = \"0.0.0.0:80\" # HEADGATE__HTTP__LISTEN",
        "url = \"<redacted>\" # HEADGATE__REGISTRY__URL",
        "chunk_bytes = \"15 KiB\" # default",
    ] {
        assert!(
            printed.lines().any(|known| known == line),
            "{line}\n{printed}"
        );
    }
    assert!(!printed.contains("hunter2"));
}

#[test]
fn every_mistake_is_told_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("headgate.toml");
    fs::write(
        &file,
        "[mqtt]\nlisten = 1\nmax_conns = 2\n[blobs]\nurl = \"gs://b\"\n",
    )
    .expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = headgate(&["config", "check", "--config", file], &[]);
    assert_eq!(output.status.code(), Some(78));
    let told: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for (line, number) in told.iter().zip([2, 3, 5]) {
        assert!(line.starts_with(&format!("{file}:{number}: ")), "{line}");
    }
    assert!(told[2].contains("expected file:///"), "{}", told[2]);
}
