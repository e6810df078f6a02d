//! A gateway whose registry is a PostgreSQL database.

use std::process::{Command, Output};

use headgate::config::Secret;
use rustix::process::Signal;
use serde_json::json;

use super::{
    harness::{Client, Gateway, Postgres, content, until},
    transfer::Scene,
};

async fn gateway(url: &str) -> Gateway {
    let url = Secret::new(url.to_owned());
    Gateway::with(|config| config.registry.url = Some(url)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_recorded_there_and_found_again_after_a_restart() {
    let server = Postgres::start();
    let url = server.database();
    let bytes = content(200_000);
    let mut scene = Scene::in_gateway(gateway(&url).await, &bytes).await;
    let got = scene.client.take_all(&scene.device, &scene.announced).await;
    assert!(got == bytes, "the bytes differ");
    let dir = scene.gateway.stop().await;
    assert!(!dir.path().join("data/registry.db").exists());
    let state = "SELECT state FROM delivery";
    assert_eq!(server.query(&url, state), "2");

    let again = Secret::new(url.clone());
    let gateway = Gateway::start_in(dir, |config| config.registry.url = Some(again)).await;
    let mut client = Client::listening(&gateway, &scene.device).await;
    let announced = client.announced().await;
    assert_eq!(announced.message["acked"], 200_000);
    let receipt = client
        .report(&scene.device, &announced.transfer, "done")
        .await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    assert_eq!(server.query(&url, state), "3");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_told_and_a_delivery_goes_on_when_it_is_back() {
    let server = Postgres::start();
    let url = server.database();
    let bytes = content(400_000);
    let mut scene = Scene::in_gateway(gateway(&url).await, &bytes).await;
    let gateway = &scene.gateway;
    server.signal(Signal::STOP);
    // What the device holds it goes on with: bytes need no registry.
    let got = scene.client.take_all(&scene.device, &scene.announced).await;
    assert!(got == bytes, "the bytes differ");
    until("not ready", || async {
        (gateway.ops("/readyz").await.status == 503).then_some(())
    })
    .await;
    gateway
        .metric_is(r#"headgate_store_up{store="registry"}"#, 0.0)
        .await;
    assert_eq!(gateway.ops("/livez").await.status, 200);
    server.signal(Signal::CONT);
    until("ready", || async {
        (gateway.ops("/readyz").await.status == 200).then_some(())
    })
    .await;
    let transfer = scene.announced.transfer.clone();
    let receipt = scene.client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    assert_eq!(server.query(&url, "SELECT state FROM delivery"), "3");
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_ends_the_start_with_one_sentence_and_78() {
    let server = Postgres::start();
    let url = server.database();
    let dir = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str], url: &str| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.args(arguments).arg("--data-dir").arg(dir.path());
        command.env_clear().env("HEADGATE__REGISTRY__URL", url);
        for section in ["MQTT", "HTTP", "FILES", "METRICS"] {
            command.env(format!("HEADGATE__{section}__LISTEN"), "127.0.0.1:0");
        }
        command.output().expect("it runs")
    };
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let wrong = server.url("headgate", "hunter3", "registry0");
    let refused = run(&["serve"], &wrong);
    assert_eq!(refused.status.code(), Some(78), "{}", told(&refused));
    assert!(told(&refused).contains("password authentication failed"));
    assert!(!told(&refused).contains("hunter3"));

    // Tables of an older release, as far as the record of them goes.
    let made = run(&["registry", "migrate"], &url);
    assert!(made.status.success(), "{}", told(&made));
    let again = run(&["registry", "migrate"], &url);
    assert!(String::from_utf8_lossy(&again.stdout).contains("already"));
    let newer = "INSERT INTO _sqlx_migrations SELECT 99, description, installed_on, success, checksum, \
                 execution_time FROM _sqlx_migrations WHERE version = 1";
    server.query(&url, newer);
    for arguments in [&["serve"][..], &["registry", "migrate"]] {
        let refused = run(arguments, &url);
        assert_eq!(refused.status.code(), Some(78), "{}", told(&refused));
        assert!(
            told(&refused).contains("of version 99"),
            "{}",
            told(&refused)
        );
    }
    server.query(&url, "DELETE FROM _sqlx_migrations WHERE version > 1");
    let refused = run(&["serve"], &url);
    assert_eq!(refused.status.code(), Some(78), "{}", told(&refused));
    assert!(told(&refused).contains("headgate registry migrate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_the_same_database_is_refused() {
    let server = Postgres::start();
    let url = server.database();
    let first = gateway(&url).await;
    first
        .post("/products", &json!({"id": "P", "name": "P"}))
        .await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.arg("serve").arg("--data-dir").arg(dir.path());
    let output = command
        .env_clear()
        .env("HEADGATE__REGISTRY__URL", &url)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("another gateway is at work"), "{told}");
    first.stop().await;
}
