//! Servers on loopback and runs of `swarm` against them.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A process that ends with its owner.
pub(crate) struct Server {
    child: Child,
    pub(crate) directory: TempDir,
}

impl Server {
    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory as text.
    pub(crate) fn path(&self) -> &str {
        self.directory.path().to_str().expect("UTF-8")
    }
}

impl Server {
    /// Has it look at its certificates.
    pub(crate) fn signal_reload(&self) {
        let id = self.pid().try_into().expect("a process id");
        kill_process(Pid::from_raw(id).expect("a process id"), Signal::HUP).expect("it runs");
    }

    /// The sum of a metric's values over all its labels that begin with `name`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let ports = fs::read_to_string(self.directory.path().join("ports.json")).expect("ports");
        let ports: Value = serde_json::from_str(&ports).expect("JSON");
        let at = ports["metrics"].as_str().expect("an address");
        let mut socket = TcpStream::connect(at).expect("it listens");
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        socket.write_all(request.as_bytes()).expect("sent");
        let mut page = String::new();
        socket.read_to_string(&mut page).expect("answered");
        let lines = page.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// mosquitto, as shipped: plain on the first port, in a WebSocket on the second.
pub(crate) fn mosquitto() -> (Server, u16, u16) {
    let directory = TempDir::new().expect("a directory");
    let (plain, web) = (free_port(), free_port());
    let config = directory.path().join("mosquitto.conf");
    let text = format!(
        "listener {plain} 127.0.0.1\nallow_anonymous true\nlistener {web} 127.0.0.1\nprotocol websockets\n\
         allow_anonymous true\nmax_queued_messages 0\n"
    );
    fs::write(&config, text).expect("written");
    let mut command = Command::new(program("mosquitto"));
    let child = quiet(command.arg("-c").arg(&config));
    let server = Server { child, directory };
    for port in [plain, web] {
        until("mosquitto listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .ok()
                .map(drop)
        });
    }
    (server, plain, web)
}

/// The gateway of this build, with a WebSocket on a port of its own.
pub(crate) fn gateway() -> (Server, u16) {
    gateway_with(&[])
}

/// The same with settings from the environment.
pub(crate) fn gateway_with(settings: &[(&str, &str)]) -> (Server, u16) {
    let program = Path::new(env!("CARGO_BIN_EXE_swarm")).with_file_name("headgate");
    assert!(
        program.exists(),
        "{} is not there: `cargo build -p headgate` makes it",
        program.display()
    );
    let directory = TempDir::new().expect("a directory");
    let web = free_port();
    let mut command = Command::new(program);
    command.arg("serve").arg("--data-dir").arg(directory.path());
    command.env_clear();
    for section in ["MQTT", "HTTP", "FILES", "METRICS"] {
        command.env(format!("HEADGATE__{section}__LISTEN"), "127.0.0.1:0");
    }
    command.env(
        "HEADGATE__MQTT__LISTENER__0__ADDRESS",
        format!("127.0.0.1:{web}"),
    );
    command.env("HEADGATE__MQTT__LISTENER__0__TRANSPORT", "websocket");
    command.envs(settings.iter().copied());
    let child = quiet(&mut command);
    let ports = directory.path().join("ports.json");
    let server = Server { child, directory };
    until("the gateway is ready", || fs::metadata(&ports).ok());
    (server, web)
}

/// What a run printed.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) words: String,
}

impl Run {
    /// A number of the report.
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        let value = self.report.pointer(pointer).and_then(Value::as_u64);
        assert!(value.is_some(), "{pointer}: {}", self.words);
        value.unwrap_or_default()
    }

    /// Fails with the report's words unless it is a success.
    pub(crate) fn ok(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.words);
        self
    }
}

/// Runs `swarm` with these arguments, and reads its report.
pub(crate) fn swarm(arguments: &str) -> Run {
    let output = swarm_with(
        arguments
            .split_ascii_whitespace()
            .chain(["--report", "json"]),
    );
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).ok();
    assert!(report.is_some(), "no report: {words}");
    Run {
        code: output.status.code(),
        report: report.unwrap_or_default(),
        words,
    }
}

/// Runs `swarm` with these arguments.
pub(crate) fn swarm_with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
    command.args(arguments).stdin(Stdio::null());
    command.env_remove("HEADGATE__DATA_DIR");
    command.output().expect("it runs")
}

fn quiet(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().expect("it starts")
}

/// A program of the system, also where only root's PATH leads.
fn program(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { name.into() }
}

fn free_port() -> u16 {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = TcpListener::bind(address).expect("a port");
    listener.local_addr().expect("bound").port()
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        park_timeout(Duration::from_millis(20));
    }
}
