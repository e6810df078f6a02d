//! A Redis server of a test's own: on a free port of the loopback, asking for a password, in a temporary directory.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(super) process: Mutex<Child>,
    pub(super) port: u16,
    pub(super) settings: Vec<String>,
    pub(super) dir: TempDir,
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
        let settings: Vec<_> = settings.iter().copied().map(str::to_owned).collect();
        let server = Self {
            process: Mutex::new(run(dir.path(), port, &settings)),
            port,
            settings,
            dir,
        };
        server.wait();
        server
    }

    /// Kills it and starts it again: with what it kept, or with nothing at all.
    pub(crate) fn restart(&self, keeps: bool) {
        let mut process = self.process.lock();
        let _ = process.kill();
        let _ = process.wait();
        if !keeps {
            let kept = self.dir.path().join("appendonlydir");
            let _absent = fs::remove_dir_all(kept);
        }
        *process = run(self.dir.path(), self.port, &self.settings);
        drop(process);
        self.wait();
    }

    pub(super) fn wait(&self) {
        let begun = Instant::now();
        while self.command(&["PING"]) != "PONG" {
            assert!(begun.elapsed() < Duration::from_mins(1), "no answer");
            thread::park_timeout(Duration::from_millis(20));
        }
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
        let id = self.process.lock().id();
        if let Some(id) = id.try_into().ok().and_then(Pid::from_raw) {
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
        let process = self.process.get_mut();
        let _ = process.kill();
        let _ = process.wait();
    }
}

pub(super) fn run(dir: &Path, port: u16, settings: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--requirepass", PASSWORD, "--save", ""])
        .args(settings)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is missing: apt-get install redis-server")
}

const PASSWORD: &str = "hunter2";
