//! `headgate serve` as an operator lives with it: first start, second start, signals.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{interval, timeout};

const PATIENCE: Duration = Duration::from_mins(1);

/// A daemon on free ports of the loopback; it is killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(data_dir: &Path, more: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.env_clear();
        for section in ["MQTT", "HTTP", "FILES", "METRICS"] {
            command.env(format!("HEADGATE__{section}__LISTEN"), "127.0.0.1:0");
        }
        let child = command
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("the program runs"))
    }

    fn signal(&self) {
        let id = self.0.id().try_into().expect("a process id");
        let id = Pid::from_raw(id).expect("a process id");
        kill_process(id, Signal::TERM).expect("it runs");
    }

    async fn ended(&mut self) -> ExitStatus {
        until("the end", || self.0.try_wait().expect("our own child")).await
    }

    /// What it printed, once it has ended.
    fn printed(&mut self) -> String {
        let mut text = String::new();
        let stdout = self.0.stdout.as_mut().expect("piped");
        stdout.read_to_string(&mut text).expect("UTF-8");
        text
    }

    fn complaints(&mut self) -> String {
        let mut text = String::new();
        let stderr = self.0.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut text).expect("UTF-8");
        text
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks again and again until there is something.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        let mut turn = interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    timeout(PATIENCE, looking).await.expect(what)
}

/// The addresses, once the daemon is ready.
async fn ports(data_dir: &Path) -> Value {
    let file = data_dir.join("ports.json");
    let text = until("ports.json", || fs::read(&file).ok()).await;
    serde_json::from_slice(&text).expect("JSON")
}

fn get(ports: &Value, path: &str) -> Option<String> {
    let address: SocketAddr = ports["metrics"].as_str()?.parse().ok()?;
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn assert_private(path: &Path) {
    let metadata = fs::metadata(path).expect("it is there");
    let mode = metadata.permissions().mode() & 0o077;
    assert_eq!(mode, 0, "{} is open to others", path.display());
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            assert_private(&entry.expect("an entry").path());
        }
    }
}

#[tokio::test]
async fn starts_with_nothing_and_stops_at_a_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut daemon = Daemon::start(&data_dir, &[]);
    let ports = ports(&data_dir).await;
    for listener in ["mqtts", "http", "files", "metrics"] {
        let address: SocketAddr = ports[listener]
            .as_str()
            .and_then(|address| address.parse().ok())
            .expect(listener);
        assert_ne!(address.port(), 0, "{listener}");
    }
    let ready = || get(&ports, "/readyz").filter(|answer| answer.starts_with("HTTP/1.1 200"));
    until("readiness", ready).await;
    for file in ["tls/ca.pem", "tls/server.pem", "registry.db", "sessions.db"] {
        assert!(data_dir.join(file).exists(), "{file}");
    }
    assert_private(&data_dir);

    let mut second = Daemon::start(&data_dir, &[]);
    assert_eq!(second.ended().await.code(), Some(1));
    let complaints = second.complaints();
    assert!(
        complaints.contains("in use by another headgate"),
        "{complaints}"
    );
    assert!(data_dir.join("ports.json").exists());

    daemon.signal();
    let status = daemon.ended().await;
    let complaints = daemon.complaints();
    assert_eq!(status.code(), Some(0), "{complaints}");
    assert!(!data_dir.join("ports.json").exists());
    let printed = daemon.printed();
    let console = format!(
        "console    http://{}/\n",
        ports["http"].as_str().expect("one")
    );
    assert!(printed.contains(&console), "{printed}");
    for file in ["admin.password", "api.token"] {
        let secret = fs::read_to_string(data_dir.join(file)).expect(file);
        let path = data_dir.join(file);
        assert!(printed.contains(&format!("in {}\n", path.display())));
        // A service manager keeps what is printed as it keeps the log.
        assert!(!printed.contains(secret.trim()), "{file} is printed");
        assert!(!complaints.contains(secret.trim()), "{file} is in the log");
    }

    let mut again = Daemon::start(&data_dir, &[]);
    self::ports(&data_dir).await;
    again.signal();
    assert_eq!(again.ended().await.code(), Some(0));
    assert_eq!(again.printed(), "");
}

#[tokio::test]
async fn drains_first_and_ends_at_once_at_the_second_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start(dir.path(), &[("HEADGATE__SHUTDOWN__DRAIN_DELAY", "10min")]);
    let ports = ports(dir.path()).await;
    daemon.signal();
    let draining = || get(&ports, "/readyz").filter(|answer| answer.contains("draining"));
    let answer = until("draining", draining).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    daemon.signal();
    assert_eq!(daemon.ended().await.code(), Some(1));
}
