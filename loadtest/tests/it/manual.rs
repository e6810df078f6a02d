//! Every command of docs/swarm.md is one that the program takes, and some of them are run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::harness::{gateway, swarm, swarm_with};

/// The lines of the manual that begin with `swarm`, with what is continued.
fn commands() -> Vec<String> {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/swarm.md");
    let manual = fs::read_to_string(manual).expect("the manual");
    let joined = manual.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with("swarm "))
        .map(str::to_owned)
        .collect()
}

/// Everything in `text` that looks like a long option.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let long = words.filter(|word| word.starts_with("--") && !word.ends_with('-'));
    long.map(str::to_owned).collect()
}

#[test]
fn every_option_of_the_manual_exists() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/swarm.md");
    let manual = fs::read_to_string(manual).expect("the manual");
    // Those of cargo, by which the program is built.
    let mut known = options("--release --locked");
    for scenario in ["connect", "deliver", "upload", "telemetry", "soak", "chaos"] {
        let help = swarm_with([scenario, "--help"]);
        known.extend(options(&String::from_utf8_lossy(&help.stdout)));
    }
    let named = options(&manual);
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "no such options: {unknown:?}");
}

#[test]
fn the_commands_of_the_manual_run() {
    let (server, _) = gateway();
    let commands = commands();
    assert!(commands.len() >= 6, "{commands:?}");
    let directory = tempfile::tempdir().expect("a directory");
    let mut run = 0;
    for command in commands
        .iter()
        .filter(|line| line.contains("--data-dir $DATA"))
        // For these somebody else has to deliver.
        .filter(|line| !line.contains("--wait"))
    {
        // As it stands, but smaller and shorter: the last of two options holds.
        let mut line = command.replace(" /tmp/", &format!(" {}/", directory.path().display()));
        line = line.replace("$DATA", server.path());
        line = line.replace("$(pidof headgate)", &server.pid().to_string());
        line = line.replace('\'', "");
        let words = line.split_ascii_whitespace().skip(1);
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        smaller(&mut words);
        swarm(&words.join(" ")).ok();
        run += 1;
    }
    assert!(run >= 5, "{commands:?}");
}

/// Fewer devices for a shorter time.
fn smaller(words: &mut [String]) {
    for index in 1..words.len() {
        let (before, value) = words.split_at_mut(index);
        let option = before.last().map(String::as_str).unwrap_or_default();
        let small = match option {
            "-c" | "--devices" => "5",
            "--for" => "3s",
            "--hold" => "0s",
            "--size" if words_are_bytes(&value[0]) => "100KiB",
            "-I" | "--interval" => "200",
            "--ramp" => "1s",
            "--every" => "500ms",
            _ => continue,
        };
        small.clone_into(&mut value[0]);
    }
}

/// A resource, rather than a message.
fn words_are_bytes(value: &str) -> bool {
    value.contains("MiB")
}
