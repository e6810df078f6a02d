//! What operators do to a gateway that works: the commands of `make bench-rolling` and `make bench-certificates`, at a small size.

use std::path::Path;
use std::process::{Command, Stdio, id};

/// Runs a script of `benches` with the programs of this build, and `sizes` in its environment.
fn script(name: &str, sizes: &[(&str, &str)], more: &[&Path]) {
    let swarm = Path::new(env!("CARGO_BIN_EXE_swarm"));
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches");
    let mut command = Command::new("sh");
    command.arg(benches.join(name));
    command.arg(swarm.with_file_name("headgate")).arg(swarm);
    command.args(more).envs(sizes.iter().copied());
    let printed = command.stdin(Stdio::null()).output().expect("it runs");
    let words = [printed.stdout, printed.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(printed.status.success(), "{words}");
    assert!(words.contains(" met\n"), "{words}");
}

#[test]
fn nodes_are_restarted_one_by_one_and_nothing_is_lost() {
    let moto = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients/s3/bin/moto_server");
    assert!(moto.is_file(), "no moto_server: run `make test-tools`");
    // Below the ports that systems give, and apart from another run's.
    let base = (10_000 + id() % 50 * 400).to_string();
    let sizes = [
        ("BASE", base.as_str()),
        ("DEVICES", "30"),
        ("TALKERS", "20"),
        ("SIZE", "64KiB"),
        ("LENGTH", "15"),
    ];
    script("rolling.sh", &sizes, &[&moto]);
}

#[test]
fn certificates_change_under_load_and_no_connection_ends() {
    let sizes = [("DEVICES", "50"), ("LENGTH", "6"), ("EVERY", "1")];
    script("certificates.sh", &sizes, &[]);
}
