//! The API's document: every command in it is run as it stands there, by curl, and answered as it says.

use std::fs;

use serde_json::json;

use super::harness::{Authority, Gateway, content, need, run};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");

/// What comes before the document's own commands: each answer's status and address go to a file, and a stream, which
/// does not end by itself, is left after a while.
const HEAD: &str = r#"set -eu -o pipefail
curl() {
    command curl --max-time 2 -w '%{stderr}%{http_code} %{method} %{url}\n' "$@" 2>> statuses || [ $? = 28 ]
}
"#;

/// The commands of the document, one block after the other.
fn commands() -> String {
    let text = fs::read_to_string(DOCUMENT).expect("a document");
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .collect()
}

/// What the document presumes, as variables.
async fn furnish(gateway: &Gateway) -> String {
    let kinds = json!({"auth_kinds": ["secret", "x509"]});
    gateway.product("demo", &kinds).await;
    let device = gateway.device("demo", "d1").await;
    let by_certificate = json!({
        "product_id": "demo", "node_id": "d2", "auth": "x509",
        "certificate": Authority::new().pem(),
    });
    gateway.post("/devices", &by_certificate).await;
    let resource = gateway.resource("demo", "log", b"content").await;
    let task = gateway.task(&resource, &[&device]).await;
    let delivery = gateway.delivery(&task, &device).await;
    let delivery = delivery["id"].as_str().expect("an id");
    format!("RESOURCE={resource} TASK={task} DELIVERY={delivery} UPLOAD=0000000000001\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_apis_document_is_understood() {
    need("jq");
    let gateway = Gateway::start().await;
    let variables = furnish(&gateway).await;
    let work = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &[u8]| {
        let path = work.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    write("firmware.bin", &content(20_000));
    write("new.pem", Authority::new().pem().as_bytes());
    write("devices.csv", b"DeviceName\nd1\n");
    let commands = commands();
    let data = format!("DATA={}", gateway.data_dir.display());
    let api = gateway.ports.http.expect("a listener").to_string();
    let placed = commands
        .replace("DATA=~/.local/state/headgate", &data)
        .replace("127.0.0.1:8080", &api);
    let cd = format!("cd {}\n", work.path().display());
    let script = write("commands.sh", (cd + HEAD + &variables + &placed).as_bytes());
    let ran = run("bash", &[&script]).await;
    assert!(ran.success, "{}", ran.stderr);

    let told = fs::read_to_string(work.path().join("statuses")).expect("answers");
    // What curl says of a stream that it left stands there, too.
    let answers = told
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let answers: Vec<_> = answers.collect();
    let asked = commands.matches("curl -").count();
    assert_eq!(answers.len(), asked, "{told}");
    for line in &answers {
        let status = line.split(' ').next().expect("a status");
        // What there is may not allow it, or may not be there: but that is all that may be wrong.
        let is_understood = status.starts_with('2') || ["404", "409", "422"].contains(&status);
        assert!(is_understood, "{line}");
    }
    let good = answers.iter().filter(|line| line.starts_with('2')).count();
    assert!(good * 3 >= asked * 2, "{told}");
    gateway.stop().await;
}
