//! A Redis server of a test's own: on a free port of the loopback, asking for a password, in a temporary directory.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Redis {
    /// Starts one that keeps everything.
    pub(crate) fn start() -> Self {
        Self::with(&["--appendonly", "yes"])
    }

    /// Starts one with settings of the test's own.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--requirepass", PASSWORD, "--save", ""])
            .args(settings)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: apt-get install redis-server");
        let server = Self {
            process,
            port,
            _dir: dir,
        };
        let begun = Instant::now();
        while server.command(&["PING"]) != "PONG" {
            assert!(begun.elapsed() < Duration::from_mins(1), "no answer");
            thread::park_timeout(Duration::from_millis(20));
        }
        server
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    /// Its address with a password of the test's own.
    pub(crate) fn url_with(&self, password: &str) -> String {
        format!("redis://:{password}@127.0.0.1:{}", self.port)
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(id) = self.process.id().try_into().ok().and_then(Pid::from_raw) {
            let _gone = kill_process(id, signal);
        }
    }

    /// Runs a command; gives its answer as `redis-cli` prints it.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .env("REDISCLI_AUTH", PASSWORD)
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const PASSWORD: &str = "hunter2";
