//! Programs that people use: curl, and the clients of mosquitto.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

use super::PATIENCE;

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) success: bool,
}

impl Printed {
    /// Asserts success and gives what was printed.
    pub(crate) fn ok(self) -> Vec<u8> {
        assert!(self.success, "{}", self.stderr);
        self.stdout
    }
}

/// Asserts that a program is there: a test that is left out says nothing.
pub(crate) fn need(program: &str) {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join(program).is_file());
    assert!(
        found,
        "{program} is missing: apt-get install mosquitto-clients curl libcoap3-bin"
    );
}

/// Runs a program to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Printed {
    run_for(PATIENCE, program, arguments).await
}

/// Runs a program that may take so long.
pub(crate) async fn run_for(patience: Duration, program: &str, arguments: &[&str]) -> Printed {
    need(program);
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let running = spawn_blocking(move || command.output().expect("it runs"));
    let output = timeout(patience, running)
        .await
        .expect("an end in time")
        .expect("no panic");
    Printed {
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        success: output.status.success(),
    }
}
