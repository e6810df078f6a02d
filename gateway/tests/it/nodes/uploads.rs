//! Uploads whose devices go from node to node.

use bytes::Bytes;
use headgate_protocol::coap::{Block, Code, OptionNumber, Szx};
use hyper::Method;
use serde_json::{Value, json};

use super::{Cluster, lists};
use crate::harness::{Client, Coap, Gateway, announcement, content, json_of, sha256, until};

const SIZE: usize = 300_000;
/// A third of it, in whole chunks.
const THIRD: usize = 7 * 15_360;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_gone_on_with_where_its_device_comes_when_its_node_is_killed() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [device] = a.devices(["d"]).await;
    let bytes = content(SIZE);
    let mut client = Client::listening(&a, &device).await;
    let begun = client.announce(&device, &announcement("log", &bytes)).await;
    client.send_until(&device, &begun, &bytes, THIRD).await;
    // Nobody has it in memory but the node that it came to.
    assert!(b.metric("headgate_uploads_open").await.abs() < 0.5);
    let first = a.kill().await;
    let mut client = Client::listening(&b, &device).await;
    let state = client.upload_state(&device, &begun.transfer).await;
    assert_eq!(state["type"], "upload_state", "{state}");
    let again = client.announce(&device, &announcement("log", &bytes)).await;
    assert_eq!(again.transfer, begun.transfer, "the same one");
    assert_eq!(state["offset"], json!(again.offset));
    client.send_until(&device, &again, &bytes, SIZE).await;
    let told = client.told().await;
    assert_eq!(told["report"]["progress"]["result_code"], 0, "{told}");
    b.has_uploaded(&begun.transfer, &bytes).await;
    // The node that died comes back, and does not touch what is over.
    let settings = cluster.settings("a");
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let a = Gateway::process(first, &settings).await;
    lists(&a, &[("a", "ready"), ("b", "ready")]).await;
    assert!(a.metric("headgate_uploads_open").await.abs() < 0.5);
    let spool = a.data_dir.join("spool");
    assert_eq!(std::fs::read_dir(spool).expect("a directory").count(), 0);
    a.has_uploaded(&begun.transfer, &bytes).await;
    assert_eq!(a.uploads("").await.len(), 1);
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_there_and_back_and_is_stored_once() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [device] = a.devices(["d"]).await;
    let bytes = content(SIZE);
    let mut client = Client::listening(&a, &device).await;
    let begun = client.announce(&device, &announcement("log", &bytes)).await;
    client.send_until(&device, &begun, &bytes, THIRD).await;
    let mut client = Client::listening(&b, &device).await;
    let there = client.announce(&device, &announcement("log", &bytes)).await;
    assert_eq!(there.transfer, begun.transfer);
    client.send_until(&device, &there, &bytes, 15_360).await;
    // Its first node has let go of it, and what it has waits on the disk.
    a.metric_is("headgate_uploads_total{result=\"moved\"}", 1.0)
        .await;
    // How far it is can be seen from every node.
    until("what it has there", || async {
        let shown = a.get(&format!("/uploads/{}", begun.transfer)).await;
        (shown["received"] == 15_360).then_some(())
    })
    .await;
    let mut client = Client::listening(&a, &device).await;
    let back = client.announce(&device, &announcement("log", &bytes)).await;
    assert_eq!((&*back.transfer, back.offset), (&*begun.transfer, THIRD));
    client.send_until(&device, &back, &bytes, SIZE).await;
    let told = client.told().await;
    assert_eq!(told["report"]["progress"]["result_code"], 0, "{told}");
    for node in [&a, &b] {
        node.has_uploaded(&begun.transfer, &bytes).await;
        node.metric_is("headgate_uploads_open", 0.0).await;
    }
    // What is left of it on the other one is told so, if anybody asks.
    let mut client = Client::listening(&b, &device).await;
    let state = client.upload_state(&device, &begun.transfer).await;
    assert_eq!(state["offset"], json!(SIZE), "{state}");
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_deleted_at_one_node_ends_at_the_other() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let [device] = a.devices(["d"]).await;
    let bytes = content(SIZE);
    let mut client = Client::listening(&a, &device).await;
    let begun = client.announce(&device, &announcement("log", &bytes)).await;
    client.send_until(&device, &begun, &bytes, THIRD).await;
    let path = format!("/uploads/{}", begun.transfer);
    b.api(Method::DELETE, &path, None).await.ok(204);
    let told = client.told().await;
    assert_eq!(told["type"], "upload_result", "{told}");
    assert_ne!(told["report"]["progress"]["result_code"], 0);
    a.metric_is("headgate_uploads_open", 0.0).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coap_device_learns_at_another_node_where_its_upload_stands() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    a.unsecured("n1", &Value::Null).await;
    let bytes = content(40 * 1_024);
    let mut coap = Coap::registered(&a, "n1").await;
    assert_eq!(
        put(&mut coap, &bytes, (0, 20 * 1_024)).await,
        Code::CONTINUE
    );
    let mut coap = Coap::registered(&b, "n1").await;
    let standing = json_of(&coap.get("u/log").await);
    assert_eq!(standing["size"], 40 * 1_024, "{standing}");
    let at = standing["offset"].as_u64().expect("an offset");
    let at = usize::try_from(at).expect("small");
    let code = put(&mut coap, &bytes, (at, bytes.len())).await;
    assert_eq!(code, Code::CREATED);
    let uploads = b.uploads("").await;
    assert_eq!(uploads.len(), 1, "one, wherever it was begun");
    let transfer = uploads[0]["id"].as_str().expect("an id");
    a.has_uploaded(transfer, &bytes).await;
    b.stop().await;
    a.stop().await;
}

/// Sends blocks from an offset to another one; gives what the last one was answered with.
async fn put(coap: &mut Coap, bytes: &[u8], (from, to): (usize, usize)) -> Code {
    let mut code = Code::CONTINUE;
    for at in (from..to).step_by(1_024) {
        assert_eq!(code, Code::CONTINUE);
        let end = at + 1_024;
        let block = Block {
            more: end < bytes.len(),
            ..Block::at(at as u64, Szx::MAX).expect("a block")
        };
        let request = coap
            .request(Code::PUT, "u/log")
            .with_query("sha256", &sha256(bytes))
            .with_uint(OptionNumber::BLOCK1, block.value())
            .with_uint(OptionNumber::SIZE1, 40 * 1_024)
            .with_payload(Bytes::copy_from_slice(&bytes[at..end]));
        code = coap.exchange(request).await.code;
    }
    code
}
