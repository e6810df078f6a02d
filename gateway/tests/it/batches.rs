//! Batches of devices against the program itself: a kill in the middle loses and repeats nothing.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{Gateway, until};

const ROWS: usize = 6_000;

async fn batch(gateway: &Gateway, path: &str) -> Value {
    gateway.get(path).await
}

async fn send(gateway: &Gateway, text: &str) -> (u16, Value) {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let answer = gateway
        .ask(Method::POST, "/device-batches", "text/csv", body)
        .await;
    let json = serde_json::from_slice(&answer.body).expect("JSON");
    (answer.status, json)
}

#[tokio::test]
async fn a_batch_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::process(dir, &[]).await;
    gateway.product("meter", &json!({})).await;
    let rows: Vec<_> = (0..ROWS).map(|at| format!("n{at},meter")).collect();
    let (status, made) = send(
        &gateway,
        &format!("node_id,product_id\n{}\n", rows.join("\n")),
    )
    .await;
    assert_eq!(status, 201, "{made}");
    let path = format!("/device-batches/{}", made["id"].as_str().expect("an id"));
    let done = until("a block of rows", async || {
        let done = batch(&gateway, &path).await["done"]
            .as_u64()
            .expect("a count");
        (done > 0).then_some(done)
    })
    .await;
    let dir = gateway.kill().await;
    assert!(done < ROWS as u64, "killed too late to show anything");

    let gateway = Gateway::process(dir, &[]).await;
    let ended = until("the end of the batch", async || {
        let now = batch(&gateway, &path).await;
        (now["state"] == "finished").then_some(now)
    })
    .await;
    assert_eq!(
        ended["counts"],
        json!({"created": ROWS, "unchanged": 0, "failed": 0})
    );
    let last = gateway.get(&format!("/devices/meter_n{}", ROWS - 1)).await;
    assert_eq!(last["auth"], "secret");
    let first = gateway.get(&format!("{path}/rows?limit=1")).await;
    let secret = first["items"][0]["secret"].as_str().expect("shown");
    assert_eq!(secret.len(), 32);
    let result = gateway
        .api(Method::GET, &format!("{path}/result.csv"), None)
        .await;
    assert_eq!(result.text().lines().count(), ROWS + 1);
    gateway.kill().await;
}
