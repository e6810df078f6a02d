//! The log of the real program at its most talkative: every line an object, and no secret in any.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::harness::{run, until};

/// A gateway whose log goes to a file; killed when dropped.
struct Talkative(Child);

impl Talkative {
    async fn start(data: &Path, log: &Path) -> (Self, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.arg("serve").arg("--data-dir").arg(data).env_clear();
        for section in ["MQTT", "HTTP", "FILES", "METRICS"] {
            command.env(format!("HEADGATE__{section}__LISTEN"), "127.0.0.1:0");
        }
        command.env("HEADGATE__LOG__LEVEL", "trace");
        command.env("HEADGATE__MQTT__PLAIN_LISTEN", "127.0.0.1:0");
        command.env("HEADGATE__COAPS__LISTEN", "127.0.0.1:0");
        let log = fs::File::create(log).expect("a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let started = Self(child.spawn().expect("it starts"));
        let file = data.join("ports.json");
        let ports = until("the ports", || {
            let text = fs::read_to_string(&file).ok();
            std::future::ready(text.and_then(|text| serde_json::from_str(&text).ok()))
        });
        let ports = ports.await;
        (started, ports)
    }

    /// Asks it to end, and waits for that.
    async fn end(mut self) {
        let id = self.0.id().try_into().expect("a process id");
        kill_process(Pid::from_raw(id).expect("a process id"), Signal::TERM).expect("it runs");
        until("the end", || {
            std::future::ready(self.0.try_wait().expect("our own child"))
        })
        .await;
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A caller of the API, by curl.
struct Caller {
    base: String,
    token: String,
}

impl Caller {
    async fn post(&self, path: &str, kind: &str, body: &str) -> Value {
        self.post_as(&self.token, path, kind, body).await
    }

    async fn post_as(&self, token: &str, path: &str, kind: &str, body: &str) -> Value {
        let (url, bearer) = (
            format!("{}{path}", self.base),
            format!("Authorization: Bearer {token}"),
        );
        let kind = format!("Content-Type: {kind}");
        let line = ["-sS", "-H", &bearer, "-H", &kind, "-d", body, &url];
        let printed = run("curl", &line).await.ok();
        serde_json::from_slice(&printed).unwrap_or(Value::Null)
    }
}

const JSON: &str = "application/json";

/// A gateway, a caller of its API, and every secret that it was shown.
struct Canaries {
    data: PathBuf,
    ports: Value,
    caller: Caller,
    secrets: Vec<String>,
}

impl Canaries {
    fn new(data: &Path, ports: Value) -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(data.join(name)).expect(name);
            text.trim().to_owned()
        };
        let token = read("api.token");
        let base = format!("http://{}", ports["http"].as_str().expect("an address"));
        Self {
            data: data.to_owned(),
            ports,
            secrets: vec![token.clone(), read("admin.password")],
            caller: Caller { base, token },
        }
    }

    /// A secret that is nowhere else.
    fn canary(&mut self, name: &str) -> String {
        let text = format!("canary{name}0123456789abcdef");
        self.secrets.push(text.clone());
        text
    }

    fn port(&self, name: &str) -> String {
        let address = self.ports[name].as_str().expect("an address");
        address.rsplit(':').next().expect("a port").to_owned()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.caller.post(path, JSON, &body.to_string()).await
    }

    /// Publishes one message as a client who logs in so; says whether that went.
    async fn publishes(&self, id: &str, user: &str, password: &str, topic: &str) -> bool {
        let port = self.port("mqtt");
        let line = [
            "-p", &port, "-i", id, "-u", user, "-P", password, "-t", topic, "-m", "hello",
        ];
        run("mosquitto_pub", &line).await.success
    }

    /// Devices: registered one by one and by a list, reset, and logging in, rightly and wrongly, by MQTT and by DTLS.
    async fn devices(&mut self) {
        let product = json!({"id": "p", "name": "P", "transports": {"mqtt": true, "coap": true}});
        self.post("/api/v1/products", &product).await;
        let secret = self.canary("device");
        let device =
            json!({"product_id": "p", "node_id": "d", "secret": secret, "psk_encoding": "text"});
        self.post("/api/v1/devices", &device).await;
        let rows = format!("node_id,product_id,secret\ne,p,{}\n", self.canary("batch"));
        let batches = "/api/v1/device-batches";
        self.caller.post(batches, "text/csv", &rows).await;
        let reset = json!({"which": "secondary", "secret": self.canary("reset")});
        self.post("/api/v1/devices/p_d/secret", &reset).await;
        let wrong = self.canary("wrong");
        assert!(self.publishes("p_d", "p_d", &secret, "p/d/x").await);
        assert!(!self.publishes("p_d", "p_d", &wrong, "p/d/x").await);
        let uri = format!("coaps://127.0.0.1:{}/t", self.port("coaps"));
        for key in [&secret, &wrong] {
            let line = ["-B", "3", "-u", "d", "-k", key, &uri];
            let printed = run("coap-client-openssl", &line).await;
            assert_eq!(
                printed.stdout.trim_ascii() == b"{}",
                *key == secret,
                "{printed:?}"
            );
        }
    }

    /// Operators and programs: tokens that are wrong or made, passwords given and taken.
    async fn operators(&mut self) {
        let nobody = self.canary("token");
        let products = "/api/v1/products";
        self.caller.post_as(&nobody, products, JSON, "{}").await;
        let token = json!({"name": "t", "role": "viewer"});
        let made = self.post("/api/v1/tokens", &token).await;
        let operator =
            json!({"name": "eve", "role": "viewer", "password": self.canary("operator")});
        self.post("/api/v1/operators", &operator).await;
        let sign_in = format!("{}/sign-in", self.caller.base);
        for password in [self.secrets[1].clone(), self.canary("console")] {
            let form = format!("name=admin&password={password}");
            let line = ["-sS", "-o", "/dev/null", "-d", &form, &sign_in];
            run("curl", &line).await.ok();
        }
        let app = json!({"id": "a", "name": "A"});
        let app = self.post("/api/v1/apps", &app).await;
        for secret in [&made["secret"], &app["secret"]] {
            let secret = secret.as_str().expect("a secret that is shown once");
            self.secrets.push(secret.to_owned());
        }
        let secret = app["secret"].as_str().expect("text");
        let wrong = self.canary("app");
        assert!(self.publishes("app:a:1", "a", secret, "p/d/cmd").await);
        assert!(!self.publishes("app:a:1", "a", &wrong, "p/d/cmd").await);
    }

    /// An address that is signed: what signs it is in its path.
    async fn files(&mut self) {
        let signed = self.canary("signed");
        let file = format!("https://127.0.0.1:{}/files/{signed}", self.port("files"));
        let line = ["-sk", "-o", "/dev/null", &file];
        run("curl", &line).await.ok();
    }

    /// The key that seals secrets is shown nowhere in any form.
    fn sealing_key(&self) -> [String; 3] {
        let key = fs::read(self.data.join("keys/sealing.key")).expect("the key");
        let text = String::from_utf8_lossy(&key).trim().to_owned();
        [text, hex::encode(&key), STANDARD.encode(&key)]
    }
}

/// What of each way a secret takes is in the log: else nothing is said by what is not there.
const SEEN: [(&str, &str); 17] = [
    ("answered", r#""path":"/api/v1/devices""#),
    ("answered", r#""path":"/api/v1/device-batches""#),
    ("answered", r#""path":"/api/v1/devices/p_d/secret""#),
    ("answered", r#""path":"/api/v1/tokens""#),
    ("answered", r#""path":"/api/v1/operators""#),
    ("answered", r#""path":"/api/v1/apps""#),
    ("answered", r#""status":422"#),
    ("a batch of devices was registered", ""),
    ("a device connected", r#""device_id":"p_d""#),
    ("a client was refused", r#""client_id":"p_d""#),
    ("a device is here by CoAP over DTLS", r#""device_id":"p_d""#),
    ("an API token is in use", "first-token"),
    ("an API token that nobody has was refused", ""),
    ("an operator signed in", "admin"),
    ("an application connected", r#""app_id":"a""#),
    ("a client was refused", r#""client_id":"app:a:1""#),
    ("a request for a file was answered", r#""status":403"#),
];

#[tokio::test]
async fn no_secret_is_in_the_log_whatever_way_it_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, log) = (directory.path().join("data"), directory.path().join("log"));
    let (gateway, ports) = Talkative::start(&data, &log).await;
    let mut canaries = Canaries::new(&data, ports);
    canaries.devices().await;
    canaries.operators().await;
    canaries.files().await;
    let sealing = canaries.sealing_key();
    gateway.end().await;

    let text = fs::read_to_string(&log).expect("the log");
    for (message, more) in SEEN {
        let said = format!(r#""message":"{message}""#);
        let is_it = |line: &str| line.contains(&said) && line.contains(more);
        assert!(text.lines().any(is_it), "{message} {more}: {text}");
    }
    for line in text.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(object[field].is_string(), "{field}: {line}");
        }
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let secrets = canaries.secrets.iter().chain(&sealing);
        for secret in secrets.filter(|secret| !secret.is_empty()) {
            assert!(!line.contains(secret.as_str()), "{secret}: {line}");
        }
    }
}
