//! The log of the real program at its most talkative: every line an object, and no secret in any.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

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

#[tokio::test]
async fn no_secret_is_in_the_log_whatever_way_it_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, log) = (directory.path().join("data"), directory.path().join("log"));
    let (gateway, ports) = Talkative::start(&data, &log).await;
    let port = |name: &str| {
        let address = ports[name].as_str().expect("an address");
        address.rsplit(':').next().expect("a port").to_owned()
    };
    let read = |name: &str| {
        fs::read_to_string(data.join(name))
            .expect(name)
            .trim()
            .to_owned()
    };
    let (token, password) = (read("api.token"), read("admin.password"));
    let base = format!("http://127.0.0.1:{}", port("http"));
    let caller = Caller {
        base: base.clone(),
        token: token.clone(),
    };
    let mut canaries = vec![token.clone(), password.clone()];
    let mut canary = |name: &str| {
        let text = format!("canary{name}0123456789abcdef");
        canaries.push(text.clone());
        text
    };
    // Devices: registered one by one and by a list, reset, and logging in, rightly and wrongly.
    caller
        .post("/api/v1/products", JSON, r#"{"id":"p","name":"P"}"#)
        .await;
    let device = json!({"product_id": "p", "node_id": "d", "secret": canary("device")});
    caller
        .post("/api/v1/devices", JSON, &device.to_string())
        .await;
    let rows = format!("node_id,product_id,secret\ne,p,{}\n", canary("batch"));
    caller
        .post("/api/v1/device-batches", "text/csv", &rows)
        .await;
    let reset = json!({"which": "secondary", "secret": canary("reset")});
    caller
        .post("/api/v1/devices/p_d/secret", JSON, &reset.to_string())
        .await;
    let wrong = canary("wrong");
    let secret = format!("canarydevice{}", "0123456789abcdef");
    for password in [secret.as_str(), wrong.as_str()] {
        let port = port("mqtt");
        let line = [
            "-p", &port, "-i", "p_d", "-u", "p_d", "-P", password, "-t", "p/d/x", "-m", "hello",
        ];
        let printed = run("mosquitto_pub", &line).await;
        assert_eq!(printed.success, password == secret, "{}", printed.stderr);
    }
    // Operators and programs: tokens that are wrong or made, passwords given and taken.
    let nobody = canary("token");
    caller
        .post_as(&nobody, "/api/v1/products", JSON, "{}")
        .await;
    let made = caller
        .post("/api/v1/tokens", JSON, r#"{"name":"t","role":"viewer"}"#)
        .await;
    let operator = json!({"name": "eve", "role": "viewer", "password": canary("operator")});
    caller
        .post("/api/v1/operators", JSON, &operator.to_string())
        .await;
    let sign_in = format!("{base}/sign-in");
    for password in [password.as_str(), &canary("console")] {
        let form = format!("name=admin&password={password}");
        run("curl", &["-sS", "-o", "/dev/null", "-d", &form, &sign_in])
            .await
            .ok();
    }
    let app = caller
        .post("/api/v1/apps", JSON, r#"{"id":"a","name":"A"}"#)
        .await;
    for secret in [made["secret"].as_str(), app["secret"].as_str()] {
        canaries.push(secret.expect("a secret that is shown once").to_owned());
    }
    // An address that is signed: what signs it is in its path.
    let signed = "canarysigned0123456789abcdef".to_owned();
    let file = format!("https://127.0.0.1:{}/files/{signed}", port("files"));
    run("curl", &["-sk", "-o", "/dev/null", &file]).await.ok();
    canaries.push(signed);
    gateway.end().await;

    let text = fs::read_to_string(&log).expect("the log");
    assert!(text.lines().count() > 10, "{text}");
    for line in text.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target", "message"] {
            let there =
                object[field].is_string() || (field == "message" && object[field].is_null());
            assert!(there, "{field}: {line}");
        }
        assert!(!line.chars().any(char::is_control), "{line:?}");
        for canary in &canaries {
            assert!(!line.contains(canary.as_str()), "{canary}: {line}");
        }
    }
    let key = fs::read(data.join("keys/sealing.key")).expect("the key");
    let shown = String::from_utf8_lossy(&key).trim().to_owned();
    assert!(shown.is_empty() || !text.contains(&shown));
}
