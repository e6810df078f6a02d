//! The commands of docs/backup.md, as they stand there: a backup while the gateway works, and its restoring.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::{Daemon, run, until};

/// The shell blocks of the page, by the word in their first line's comment.
fn script(named: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/backup.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut blocks = page
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("an end"));
    let block = blocks.find(|block| block.starts_with(&format!("# {named}")));
    assert!(block.is_some(), "no block `# {named}`");
    block.unwrap_or_default().to_owned()
}

async fn shell(script: &str, data: &Path, backup: &Path) {
    let script = format!(
        "set -eu\nDATA={}\nBACKUP={}\n{script}",
        data.display(),
        backup.display()
    );
    run("bash", &["-c", &script]).await.ok();
}

/// The API of the gateway on `data`, when it is there.
async fn api(data: &Path) -> (String, String) {
    let file = data.join("ports.json");
    let ports: Value = until("the ports", || {
        let text = fs::read_to_string(&file).ok();
        std::future::ready(text.and_then(|text| serde_json::from_str(&text).ok()))
    })
    .await;
    let token = fs::read_to_string(data.join("api.token")).expect("a token");
    let base = format!(
        "http://{}/api/v1",
        ports["http"].as_str().expect("an address")
    );
    (base, format!("Authorization: Bearer {}", token.trim()))
}

async fn post(data: &Path, path: &str, body: &Value) -> Value {
    let (base, token) = api(data).await;
    let (url, body) = (format!("{base}{path}"), body.to_string());
    let line = [
        "-sS",
        "-H",
        &token,
        "-H",
        "Content-Type: application/json",
        "-d",
        &body,
        &url,
    ];
    serde_json::from_slice(&run("curl", &line).await.ok()).expect("JSON")
}

async fn get(data: &Path, path: &str) -> Vec<u8> {
    let (base, token) = api(data).await;
    let url = format!("{base}{path}");
    run("curl", &["-sSf", "-H", &token, &url]).await.ok()
}

#[tokio::test]
async fn a_gateway_comes_back_from_the_backup_that_the_page_makes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, backup) = (
        directory.path().join("data"),
        directory.path().join("backup"),
    );
    let mut gateway = Daemon::start(&data, &[]);
    post(&data, "/products", &json!({"id": "p", "name": "P"})).await;
    post(
        &data,
        "/devices",
        &json!({"product_id": "p", "node_id": "d", "secret": "correct-horse"}),
    )
    .await;
    let (base, token) = api(&data).await;
    let file = directory.path().join("firmware.bin");
    fs::write(&file, vec![7; 100_000]).expect("written");
    let (form, url) = (
        format!("file=@{}", file.display()),
        format!("{base}/resources"),
    );
    let line = [
        "-sS",
        "-H",
        &token,
        "-F",
        "product=p",
        "-F",
        "name=fw",
        "-F",
        &form,
        &url,
    ];
    let made: Value = serde_json::from_slice(&run("curl", &line).await.ok()).expect("JSON");
    let resource = made["id"].as_str().expect("an id").to_owned();

    shell(&script("backup"), &data, &backup).await;
    // What happens after the backup is not in it.
    post(
        &data,
        "/devices",
        &json!({"product_id": "p", "node_id": "later"}),
    )
    .await;
    gateway.signal(Signal::KILL);
    gateway.ended().await;
    fs::remove_dir_all(&data).expect("lost");
    shell(&script("restore"), &data, &backup).await;
    let mode = fs::metadata(data.join("keys/sealing.key"))
        .expect("the key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let _gateway = Daemon::start(&data, &[]);
    let bytes = get(&data, &format!("/resources/{resource}/content")).await;
    assert_eq!(bytes, vec![7; 100_000]);
    let devices: Value = serde_json::from_slice(&get(&data, "/devices").await).expect("JSON");
    assert_eq!(
        devices["items"].as_array().map(Vec::len),
        Some(1),
        "{devices}"
    );
}
