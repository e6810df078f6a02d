//! The program itself, as a process that can be killed.

use std::{
    fs,
    future::ready,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::until;

/// So much of what it logged is shown where a test fails.
const SHOWN_LINES: usize = 100;

/// `headgate serve` on free ports of the loopback; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it on a data directory, with settings from the environment.
    pub(crate) fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.env_clear();
        for section in ["MQTT", "HTTP", "FILES", "METRICS"] {
            command.env(format!("HEADGATE__{section}__LISTEN"), "127.0.0.1:0");
        }
        let log = log_of(data_dir);
        let file = fs::File::options().create(true).append(true).open(&log);
        let stderr = file.map_or_else(|_| Stdio::null(), Stdio::from);
        let child = command
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn();
        Self {
            child: child.expect("the program runs"),
            log,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().try_into().expect("a process id");
        let id = Pid::from_raw(id).expect("a process id");
        kill_process(id, signal).expect("it runs");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("the end of the process", || ready(self.has_ended())).await
    }
}

impl Drop for Daemon {
    #[expect(
        clippy::print_stderr,
        reason = "who reads of a failed test wants to know what the gateway said"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("{}:\n{}\n", self.log.display(), last.join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program on a data directory logs: beside it.
pub(crate) fn log_of(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("log")
}
