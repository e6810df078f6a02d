//! The API over a real socket: what only shows there.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{listener::Plain, serve},
    stage::{Stage, form},
};
use crate::config::HttpConfig;

async fn start(stage: &Stage, config: HttpConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (router, owner) = (stage.router.clone(), stage.shutdown.clone());
    let serving = async move { serve(listener, Plain, router, &config, owner).await };
    stage.shutdown.spawn(serving);
    address
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    read.expect("closed").expect("in order");
    String::from_utf8(bytes).expect("text")
}

fn problem_in(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("json")
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_upload_is_read_on_so_that_its_sender_hears_why() {
    let stage = Stage::furnished().await;
    stage.upload("taken", b"x").await;
    let address = start(&stage, HttpConfig::default()).await;
    let body = form(
        &[("product", "p"), ("name", "taken")],
        &vec![b'x'; 2_500_000],
    );
    let head = format!(
        "POST /api/v1/resources HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: multipart/form-data; boundary=\"==B\"\r\nContent-Length: {}\r\n\r\n",
        stage.token,
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("sent");
    // A plain client: it sends everything before it looks at the answer.
    stream
        .write_all(&body)
        .await
        .expect("nobody resets the connection");
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    assert_eq!(problem_in(&answer)["field"], "name");
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_stored_while_it_comes() {
    let stage = Stage::furnished().await;
    let address = start(&stage, HttpConfig::default()).await;
    let content = vec![b'y'; 2_000_000];
    let body = form(&[("product", "p"), ("name", "slow")], &content);
    let head = format!(
        "POST /api/v1/resources HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Idempotency-Key: one\r\nTransfer-Encoding: chunked\r\n\
         Content-Type: multipart/form-data; boundary=\"==B\"\r\n\r\n",
        stage.token,
    );
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("sent");
    for slice in body.chunks(99_999) {
        let size = format!("{:x}\r\n", slice.len());
        stream.write_all(size.as_bytes()).await.expect("sent");
        stream.write_all(slice).await.expect("sent");
        stream.write_all(b"\r\n").await.expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sent");
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(problem_in(&answer)["size"], json!(2_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_heads_are_closed() {
    let stage = Stage::new().await;
    let config = HttpConfig {
        header_timeout: Duration::from_millis(300),
        body_idle_timeout: Duration::from_millis(300),
        ..HttpConfig::default()
    };
    let address = start(&stage, config).await;
    for start in ["", "GET /api/v1/products HTTP/1.1\r\nHost: h\r\n"] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(start.as_bytes()).await.expect("sent");
        let answer = read_all(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    }
}
