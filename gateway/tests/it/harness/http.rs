//! One HTTP request on a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::PATIENCE;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// Asserts the status and gives the body as JSON.
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Sends a request and waits for the whole answer.
pub(crate) async fn fetch(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let asking = async {
        let tcp = TcpStream::connect(address).await.expect("it listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
            .await
            .expect("HTTP");
        let exchange = async move {
            let answer = sender.send_request(request).await.expect("an answer");
            let (head, body) = answer.into_parts();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.collect().await.expect("a whole body").to_bytes(),
            }
        };
        // The end of the connection is of no interest once the answer is there.
        let (answer, _ended) = tokio::join!(exchange, connection);
        answer
    };
    timeout(PATIENCE, asking).await.expect("an answer in time")
}
