//! The command line as a script sees it: exit codes, standard output, standard error.

use std::process::{Command, Output};

/// Runs `headgate` with an environment that holds nothing but `HOME` and `more`.
pub(crate) fn headgate(arguments: &[&str], more: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headgate"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/home/someone")
        .envs(more.iter().copied())
        .output()
        .expect("the program runs")
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn tells_its_version() {
    let output = headgate(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let expected = format!("headgate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn explains_itself() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["config", "--help"]] {
        let output = headgate(arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("Usage: headgate"));
        assert!(output.stderr.is_empty());
    }
    let help = headgate(&["serve", "--help"], &[]);
    for word in [
        "--config",
        "--data-dir",
        "HEADGATE_CONFIG",
        "HEADGATE__DATA_DIR",
    ] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
}

#[test]
fn a_command_line_that_cannot_be_understood_ends_with_64() {
    for arguments in [
        &[][..],
        &["sevre"],
        &["serve", "--dat-dir", "/x"],
        &["serve", "--data-dir"],
        &["serve", "--data-dir", ""],
        &["config"],
        &["config", "chekc"],
    ] {
        let output = headgate(arguments, &[]);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let output = headgate(&["sevre"], &[]);
    assert!(
        text(&output.stderr).contains("serve"),
        "the nearest command is named"
    );
}

#[test]
fn a_configuration_that_is_refused_ends_with_78() {
    let wrong = [("HEADGATE__MQTT__LISTEN", "nowhere")];
    let missing = ["--config", "/nowhere/headgate.toml"];
    for command in [&["serve"][..], &["config", "check"], &["config", "print"]] {
        let output = headgate(command, &wrong);
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        assert!(text(&output.stderr).starts_with("HEADGATE__MQTT__LISTEN: mqtt.listen: expected"));
        assert!(output.stdout.is_empty(), "{command:?}");

        let output = headgate(&[command, &missing].concat(), &[]);
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        assert!(text(&output.stderr).starts_with("/nowhere/headgate.toml: "));
    }
}
