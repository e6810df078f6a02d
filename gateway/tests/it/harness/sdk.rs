//! Devices on other people's clients: the programs of `tests/clients`, which obey and tell.
//!
//! `make test-tools` installs what they need below the target directory, from the lists beside them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use super::PATIENCE;

/// Events that a program has told and nobody has looked at.
const EVENTS: usize = 1_024;

/// Where the programs are.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// Where their libraries are.
const LIBRARIES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/clients");

/// A program that `make test-tools` has installed; its path below the libraries.
pub(crate) fn library(path: &str) -> String {
    let path = Path::new(LIBRARIES).join(path);
    assert!(
        path.is_file(),
        "{} is missing: run `make test-tools` with the same CARGO_TARGET_DIR",
        path.display()
    );
    path.to_str().expect("UTF-8").to_owned()
}

/// The same, or the program of this machine where there is none.
pub(crate) fn library_or_path(path: &str, program: &str) -> String {
    if Path::new(LIBRARIES).join(path).is_file() {
        library(path)
    } else {
        program.to_owned()
    }
}

/// A program that is a device, run by commands; killed when dropped.
#[derive(Debug)]
pub(crate) struct Sdk {
    child: Child,
    commands: ChildStdin,
    events: mpsc::Receiver<Value>,
    /// What was told and has not been waited for.
    seen: Vec<Value>,
}

/// Which client a program stands on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Library {
    /// Tencent's SDK for Python.
    Tencent,
    /// Eclipse Paho for Python.
    Paho,
    /// The AWS IoT SDK for Python.
    Aws,
    /// gmqtt for Python.
    Gmqtt,
    /// mqtt.js.
    MqttJs,
}

impl Library {
    fn command(self) -> Command {
        let libraries = Path::new(LIBRARIES);
        let (interpreter, program) = match self {
            Self::Tencent => ("tencent/bin/python", "tencent_device.py"),
            Self::Paho => ("python/bin/python", "paho_device.py"),
            Self::Aws => ("python/bin/python", "aws_device.py"),
            Self::Gmqtt => ("python/bin/python", "gmqtt_device.py"),
            Self::MqttJs => ("", "mqttjs_device.mjs"),
        };
        let mut command = if interpreter.is_empty() {
            Command::new("node")
        } else {
            Command::new(library(interpreter))
        };
        command.arg(PathBuf::from(PROGRAMS).join(program));
        if matches!(self, Self::MqttJs) {
            command.arg(libraries);
        }
        command
    }
}

impl Sdk {
    /// Starts a device; it does nothing before it is told to.
    pub(crate) fn start(library: Library, arguments: &[&str]) -> Self {
        let mut child = library
            .command()
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the client's program runs");
        let commands = child.stdin.take().expect("piped");
        let told = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, events) = mpsc::channel(EVENTS);
        // Ends with the program's output.
        thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                // Libraries print what they like between the events.
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.blocking_send(event).is_err()
                {
                    break;
                }
            }
        });
        Self {
            child,
            commands,
            events,
            seen: Vec::new(),
        }
    }

    /// Gives a command: an object with `do`.
    pub(crate) fn tell(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").expect("the program listens");
    }

    /// Waits for an event of this kind; others stay for later.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        self.event_where(kind, |_| true).await
    }

    /// Waits for an event of this kind that is the one.
    pub(crate) async fn event_where(
        &mut self,
        kind: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Value {
        let fits = |event: &Value| event["event"] == kind && is_it(event);
        if let Some(at) = self.seen.iter().position(&fits) {
            return self.seen.remove(at);
        }
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the program goes on");
                if fits(&event) {
                    return event;
                }
                self.seen.push(event);
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(event) => event,
            Err(_elapsed) => unreachable!("no event {kind}; seen: {:?}", self.seen),
        }
    }

    /// Whether an event of this kind has come so far.
    pub(crate) fn has_told(&mut self, kind: &str) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        self.seen.iter().any(|event| event["event"] == kind)
    }

    /// The events of this kind that have come so far and were not waited for.
    pub(crate) fn take_all(&mut self, kind: &str) -> Vec<Value> {
        // Takes in what has come.
        self.has_told(kind);
        let is_it = |event: &mut Value| event["event"] == kind;
        self.seen.extract_if(.., is_it).collect()
    }

    /// Waits for the answer to CONNECT; says whether the device is in.
    pub(crate) async fn connected(&mut self) -> bool {
        self.event("connected").await["refused"] == false
    }

    /// Waits for a message on this topic; gives its payload.
    pub(crate) async fn message(&mut self, topic: &str) -> Vec<u8> {
        let event = self
            .event_where("message", |event| event["topic"] == topic)
            .await;
        let payload = event["payload_base64"].as_str().expect("a payload");
        STANDARD.decode(payload).expect("base64")
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
