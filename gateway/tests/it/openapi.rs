//! The description of the API, held against the real program by schemathesis: no answer that is not described, and no
//! failure of the gateway, whatever it is asked.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::{task::spawn_blocking, time::timeout};

use super::harness::{Gateway, library};

/// How long it may take where everything else runs at the same time.
const LIMIT: Duration = Duration::from_mins(4);

/// What is looked at in every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth";

/// What would end the gateway or take the token away, so that nothing more could be asked; and streams, which do not end.
const LEFT_OUT: &str = "^nodes_drain$|^access_revoke_token$|^tasks_watch$|^messages_subscribe$";

/// Things to be found, so that not every answer is 404.
async fn furnish(gateway: &Gateway) {
    gateway.product("sensor", &json!({})).await;
    let device = gateway.device("sensor", "d1").await;
    gateway.app("billing", &[&device]).await;
    let resource = gateway.resource("sensor", "firmware", &[7; 1_000]).await;
    gateway.task(&resource, &[&device]).await;
    let operator = json!({"name": "ann", "role": "viewer"});
    gateway.post("/operators", &operator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_described_and_none_is_a_failure() {
    let schemathesis = library("openapi/bin/st");
    let dir = tempfile::tempdir().expect("a directory");
    let work = tempfile::tempdir().expect("a directory");
    // It asks as fast as it can, and with wrong tokens.
    let settings = [
        ("HEADGATE__HTTP__REQUESTS_PER_SEC", "1000000"),
        ("HEADGATE__HTTP__REQUEST_BURST", "1000000"),
        ("HEADGATE__AUTH__DEVICE_FAILURES", "1000"),
        ("HEADGATE__APPLICATIONS__STREAM_KEEP_ALIVE", "1s"),
    ];
    let gateway = Gateway::process(dir, &settings).await;
    furnish(&gateway).await;
    let address = gateway.ports.http.expect("a listener");
    let arguments = [
        "run".to_owned(),
        format!("http://{address}/api/openapi.json"),
        format!("--header=Authorization: Bearer {}", gateway.token),
        format!("--checks={CHECKS}"),
        format!("--exclude-operation-id-regex={LEFT_OUT}"),
        "--phases=examples,coverage,fuzzing,stateful".to_owned(),
        "--max-examples=5".to_owned(),
        "--seed=1".to_owned(),
        "--generation-deterministic".to_owned(),
        "--request-timeout=10".to_owned(),
        "--warnings=off".to_owned(),
        "--no-color".to_owned(),
    ];
    let asking = run(schemathesis, arguments, work.path());
    let (is_good, report) = timeout(LIMIT, asking).await.expect("an end in time");
    assert!(is_good, "{report}");
    // It is as it was, and no panic was caught on the way.
    assert_eq!(gateway.ops("/readyz").await.status, 200);
    gateway.stop().await;
}

async fn run<const N: usize>(
    program: String,
    arguments: [String; N],
    directory: &Path,
) -> (bool, String) {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    spawn_blocking(move || {
        let output = command.output().expect("it runs");
        let report = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), report)
    })
    .await
    .expect("no panic")
}
