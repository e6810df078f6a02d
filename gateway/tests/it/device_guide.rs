//! The programs of docs/device-guide.md, as they stand there: each takes a delivery and hears a message.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, time::Duration};

use hyper::Method;
use serde_json::json;

use super::{
    coap_clients::free_port,
    harness::{Device, Gateway, content, library, run, run_for},
};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/device-guide.md");
const SECRET: &str = "correct-horse-1";
/// Compilers share this machine with all other tests.
const COMPILING: Duration = Duration::from_mins(2);

/// The programs, by the name in the comment of their first line.
fn programs() -> BTreeMap<String, String> {
    let guide = fs::read_to_string(GUIDE).expect("the guide");
    let mut programs = BTreeMap::new();
    for block in guide.split("\n```").skip(1).step_by(2) {
        let (_, program) = block.split_once('\n').expect("a line");
        let first = program.lines().next().unwrap_or_default();
        let name = first.trim_start_matches(['#', '/', ' ']);
        if name.contains('.') && !name.contains(' ') {
            programs.insert(name.to_owned(), format!("{program}\n"));
        }
    }
    programs
}

/// Compiles what is written in C, with what the guide says; gives the command that runs a program.
async fn made(name: &str, text: &str, work: &Path) -> Vec<String> {
    let path = work.join(name);
    fs::write(&path, text).expect("written");
    let source = path.to_str().expect("UTF-8").to_owned();
    match name {
        "mqtt.py" => vec![library("python/bin/python"), source],
        "coap.py" => vec![library("coaps/bin/python"), source],
        "mqtt.mjs" | "coap.mjs" => {
            let modules = Path::new(&library("made")).with_file_name("node_modules");
            let here = work.join("node_modules");
            if !here.exists() {
                symlink(modules, here).expect("a link");
            }
            vec!["node".to_owned(), source]
        }
        "mqtt.c" | "coap.c" => {
            let program = work.join(name.replace('.', "-"));
            let program = program.to_str().expect("UTF-8").to_owned();
            let line = text_after("cc -o device ", name);
            let mut arguments = vec!["-Wall", "-Wextra", "-Werror", "-o", &program];
            arguments.extend(line.split(' ').map(|word| match word {
                word if word == name => source.as_str(),
                library => library,
            }));
            run_for(COMPILING, "cc", &arguments).await.ok();
            vec![program]
        }
        other => unreachable!("a program that nobody knows how to run: {other}"),
    }
}

/// The guide's line for the compiler, behind `start`, that names this source.
fn text_after(start: &str, name: &str) -> String {
    let guide = fs::read_to_string(GUIDE).expect("the guide");
    let mut lines = guide.split(start).skip(1);
    let line = lines.find(|rest| rest.starts_with(name)).expect("a line");
    line.split('`').next().expect("an end").to_owned()
}

async fn takes_a_delivery(name: &str) {
    let text = programs().remove(name).expect(name);
    let gateway = Gateway::with(|config| {
        let any = Some(([127, 0, 0, 1], 0).into());
        (config.coap.listen, config.coaps.listen) = (any, any);
    })
    .await;
    let unproven = name == "coap.mjs";
    let product = json!({
        "auth_kinds": ["secret", "none"], "transports": {"mqtt": true, "coap": true},
    });
    gateway.product("P", &product).await;
    let device = if unproven {
        json!({"product_id": "P", "node_id": "dev1", "auth": "none"})
    } else {
        json!({"product_id": "P", "node_id": "dev1", "secret": SECRET, "psk_encoding": "text"})
    };
    gateway.post("/devices", &device).await;
    let bytes = content(100_000);
    let resource = gateway.resource("P", "firmware", &bytes).await;
    let device = Device {
        id: "P_dev1".to_owned(),
        node: "dev1".to_owned(),
        product: "P".to_owned(),
        secret: SECRET.to_owned(),
    };
    let task = gateway.task(&resource, &[&device]).await;
    let message = json!({"topic": "P/dev1/cmd", "payload": "restart", "qos": 1});
    let messages = "/devices/P_dev1/messages";
    let queued = gateway.api(Method::POST, messages, Some(&message)).await;
    queued.ok(202);

    let work = tempfile::tempdir().expect("a directory");
    let text = text.replace("61616", &free_port().to_string());
    let command = made(name, &text, work.path()).await;
    let port = match name {
        "coap.mjs" => gateway.ports.coap,
        "coap.py" | "coap.c" => gateway.ports.coaps,
        _ => gateway.ports.mqtts,
    };
    let port = port.expect("a listener").port().to_string();
    let ca = gateway.data_dir.join("tls/ca.pem").display().to_string();
    let file = work.path().join("firmware").display().to_string();
    let words = ["127.0.0.1", &port, &ca, "P", "dev1", SECRET, &file];
    let arguments: Vec<&str> = command[1..]
        .iter()
        .map(String::as_str)
        .chain(words)
        .collect();
    let printed = run(&command[0], &arguments).await;
    let (stdout, stderr) = (&printed.stdout, &printed.stderr);
    assert!(
        printed.success,
        "{}{stderr}",
        String::from_utf8_lossy(stdout)
    );
    assert_eq!(stdout.trim_ascii(), b"heard restart");
    assert!(fs::read(&file).expect("written") == bytes, "other bytes");
    gateway.delivery_in("delivered", &task, &device).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_in_python_takes_a_delivery_by_mqtt() {
    takes_a_delivery("mqtt.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_in_javascript_takes_a_delivery_by_mqtt() {
    takes_a_delivery("mqtt.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_in_c_takes_a_delivery_by_mqtt() {
    takes_a_delivery("mqtt.c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_in_python_takes_a_delivery_by_coap() {
    takes_a_delivery("coap.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_in_javascript_takes_a_delivery_by_coap() {
    takes_a_delivery("coap.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_in_c_takes_a_delivery_by_coap() {
    takes_a_delivery("coap.c").await;
}

#[test]
fn every_program_of_the_guide_is_run_here() {
    let names: Vec<_> = programs().into_keys().collect();
    let run = [
        "coap.c", "coap.mjs", "coap.py", "mqtt.c", "mqtt.mjs", "mqtt.py",
    ];
    assert_eq!(names, run);
}
