//! The command line as a client of a running gateway.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{
    cli::{headgate, text},
    harness::{Authority, Client, Gateway, Site, content, need, run, until},
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");

/// Runs `headgate` against the gateway of a data directory.
async fn ask(site: &Site, arguments: &[&str]) -> Output {
    let directory = site.data_dir.to_str().expect("UTF-8");
    let all = [arguments, &["--data-dir", directory]].concat();
    program(&all, &[]).await
}

async fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let arguments: Vec<String> = own(arguments);
    let environment: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        headgate(&arguments, &environment)
    })
    .await
    .expect("no panic")
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The commands of a document, one block after the other.
fn commands(document: &str) -> String {
    let text = fs::read_to_string(document).expect("a document");
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_document_shows_runs_as_it_stands_there() {
    need("jq");
    let gateway = Gateway::start().await;
    let work = tempfile::tempdir().expect("a directory");
    let binary = Path::new(env!("CARGO_BIN_EXE_headgate"));
    let programs = binary.parent().expect("a directory").display();
    let head = format!(
        "set -eu -o pipefail\ncd {}\nexport PATH={programs}:$PATH HOME=$PWD\n\
         export HEADGATE__DATA_DIR={}\nunset XDG_CONFIG_HOME HEADGATE_SERVER HEADGATE_TOKEN HEADGATE_TOKEN_FILE\n",
        work.path().display(),
        gateway.data_dir.display()
    );
    let script = work.path().join("commands.sh");
    fs::write(&script, head + &commands(DOCUMENT)).expect("written");
    let ran = run("bash", &["-x", script.to_str().expect("UTF-8")]).await;
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.success, "{printed}\n{}", ran.stderr);

    let read = |name: &str| fs::read(work.path().join(name)).expect(name);
    assert!(read("copy.bin") == read("firmware.bin"), "other bytes");
    let made = String::from_utf8(read("made.csv")).expect("UTF-8");
    assert_eq!(made.lines().count(), 3, "{made}");
    assert!(String::from_utf8_lossy(&read("headgate.bash")).contains("complete"));
    assert!(printed.contains("every history is in order"), "{printed}");
    let bound = gateway.get("/apps/billing/devices").await;
    assert_eq!(bound["items"].as_array().map(Vec::len), Some(1));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_out_is_watched_to_its_end() {
    let gateway = Gateway::start().await;
    let [device] = gateway.devices(["d1"]).await;
    let bytes = content(40_000);
    let resource = gateway.resource("P", "fw", &bytes).await;
    let create = [
        "task", "create", &resource, "--device", &device.id, "--json",
    ];
    let made = json(&ask(&gateway, &create).await);
    let task = made["id"].as_str().expect("an id").to_owned();

    let watch = ["task", "watch", &task];
    let (watched, ()) = tokio::join!(ask(&gateway, &watch), async {
        let mut client = Client::listening(&gateway, &device).await;
        let announced = client.announced().await;
        client.want(&device, &announced.transfer, 0, 4).await;
        let mut got = Vec::new();
        client.take_until(&mut got, bytes.len()).await;
        let done = json!({
            "type": "report_download_progress", "transfer": announced.transfer,
            "progress": {"state": "done", "percent": 100, "result_code": 0},
        });
        client.exchange(&device, &done).await;
    });
    assert_eq!(watched.status.code(), Some(0), "{watched:?}");
    let lines = text(&watched.stdout);
    assert!(
        lines.ends_with("finished: 0 pending, 0 pushed, 0 delivering, 1 delivered, 0 failed\n"),
        "{lines}"
    );
    assert!(
        lines.lines().count() >= 2,
        "nothing was seen under way: {lines}"
    );

    // What failed is a failure of whoever waits for it.
    let second = json(&ask(&gateway, &create).await);
    let second = second["id"].as_str().expect("an id");
    let canceled = ask(&gateway, &["task", "cancel", second]).await;
    assert!(
        text(&canceled.stdout).starts_with("canceled: "),
        "{canceled:?}"
    );
    let watched = ask(&gateway, &["task", "watch", second, "--json"]).await;
    assert_eq!(watched.status.code(), Some(1), "{watched:?}");
    let first = text(&watched.stdout).lines().next().expect("an event");
    let event: Value = serde_json::from_str(first).expect("JSON on one line");
    assert_eq!(event["task"]["id"], second);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_told_and_has_an_exit_code_of_its_own() {
    let gateway = Gateway::start().await;
    gateway.product("P", &Value::Null).await;
    let refused = |output: &Output, code: i32, words: &str| {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(text(&output.stderr).contains(words), "{output:?}");
    };
    let missing = ask(&gateway, &["device", "show", "P_nobody"]).await;
    refused(&missing, 1, "no such device");
    let illegal = ask(&gateway, &["device", "add", "P", "no spaces"]).await;
    refused(&illegal, 1, "node_id");
    let twice = ["product", "add", "P"];
    refused(&ask(&gateway, &twice).await, 1, "taken by product P");

    let address = gateway.ports.http.expect("a listener");
    let server = format!("http://{address}");
    let list = ["device", "list", "--server", &server];
    let wrong = [("HEADGATE_TOKEN", "hgt_wrong")];
    refused(&program(&list, &wrong).await, 77, "not valid");
    let body = json!({"name": "reader", "role": "viewer"});
    let reader = gateway.post("/tokens", &body).await;
    let reader = [(
        "HEADGATE_TOKEN",
        reader["secret"].as_str().expect("a secret"),
    )];
    let seen = program(&list, &reader).await;
    assert_eq!(seen.status.code(), Some(0), "{seen:?}");
    let add = ["device", "add", "P", "d1", "--server", &server];
    refused(&program(&add, &reader).await, 77, "operator is needed");

    let nobody = ["device", "list", "--server", "http://127.0.0.1:1"];
    refused(&program(&nobody, &reader).await, 69, "127.0.0.1:1");
    let ftp = ["device", "list", "--server", "ftp://x"];
    refused(&program(&ftp, &reader).await, 64, "http://");
    refused(
        &ask(&gateway, &["task", "create", "x"]).await,
        64,
        "--device",
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_needs_an_authority_that_is_trusted() {
    let authority = Authority::new();
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name);
    let [certificate, key] = authority.server();
    fs::write(path("certificate.pem"), certificate).expect("written");
    fs::write(path("key.pem"), key).expect("written");
    fs::write(path("ca.pem"), authority.pem()).expect("written");
    fs::write(path("other.pem"), Authority::new().pem()).expect("written");
    // The harness speaks plain HTTP; this one asks by the command line alone.
    let gateway = Gateway::with(|config| {
        config.http.certificate = Some(path("certificate.pem"));
        config.http.key = Some(path("key.pem"));
    })
    .await;
    let port = gateway.ports.http.expect("a listener").port();
    let server = format!("https://localhost:{port}");
    let token = [("HEADGATE_TOKEN", gateway.token.as_str())];
    let trusted = path("ca.pem").display().to_string();
    let health = ["health", "--server", &server, "--ca"];
    let well = until("a ready node", || async {
        let asked = program(&[&health[..], &[&trusted]].concat(), &token).await;
        (asked.status.code() == Some(0)).then_some(asked)
    })
    .await;
    assert!(text(&well.stdout).contains(": ready"), "{well:?}");
    let other = path("other.pem").display().to_string();
    let refused = program(&[&health[..], &[&other]].concat(), &token).await;
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(text(&refused.stderr).contains("TLS"), "{refused:?}");

    // The same out of a file.
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("headgate");
    fs::create_dir(&directory).expect("made");
    fs::write(path("token"), &gateway.token).expect("written");
    let settings = format!(
        "server = \"{server}\"\nca = \"{trusted}\"\ntoken_file = \"{}\"\n",
        path("token").display()
    );
    fs::write(directory.join("cli.toml"), &settings).expect("written");
    let home = home.path().to_str().expect("UTF-8");
    let by_file = program(&["node", "list"], &[("XDG_CONFIG_HOME", home)]).await;
    assert_eq!(by_file.status.code(), Some(0), "{by_file:?}");
    fs::write(directory.join("cli.toml"), settings + "tokn = \"x\"\n").expect("written");
    let wrong = program(&["node", "list"], &[("XDG_CONFIG_HOME", home)]).await;
    assert_eq!(wrong.status.code(), Some(78), "{wrong:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_from_the_command_line() {
    let gateway = Gateway::process(tempfile::tempdir().expect("a directory"), &[]).await;
    let nodes = json(&ask(&gateway, &["node", "list", "--json"]).await);
    let node = nodes[0]["id"].as_str().expect("an id");
    let reload = ask(&gateway, &["node", "reload", node]).await;
    assert_eq!(text(&reload.stdout), "0 certificates had changed\n");
    let drain = ask(&gateway, &["node", "drain", node]).await;
    assert_eq!(drain.status.code(), Some(0), "{drain:?}");
    // Ends by itself: a signal to a process that drains would end it with a failure.
    gateway.ended().await;
}
