//! The program itself, as a process that can be killed.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::until;

/// `headgate serve` on free ports of the loopback; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts it on a data directory, with settings from the environment.
    pub(crate) fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.env_clear();
        for section in ["MQTT", "HTTP", "FILES", "METRICS"] {
            command.env(format!("HEADGATE__{section}__LISTEN"), "127.0.0.1:0");
        }
        let child = command
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the program runs"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.0.id().try_into().expect("a process id");
        let id = Pid::from_raw(id).expect("a process id");
        kill_process(id, signal).expect("it runs");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("the end of the process", || {
            std::future::ready(self.0.try_wait().expect("our own child"))
        })
        .await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
