//! A device that sends files: what it announces, its chunks, what it is told.

use bytes::BytesMut;
use headgate_protocol::mqtt::{Packet, PacketId, ReasonCode};
use md5::{Digest as _, Md5};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Client, Device, PATIENCE, Site, publish, sha256};

/// MD5 in hexadecimal digits.
pub(crate) fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

/// The announcement of these bytes, to come by chunks.
pub(crate) fn announcement(name: &str, bytes: &[u8]) -> Value {
    json!({
        "type": "create_upload_task", "size": bytes.len(), "name": name,
        "md5sum": md5(bytes), "mode": "chunk",
    })
}

/// What a device was told about its announcement.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) message: Value,
    pub(crate) transfer: String,
    pub(crate) offset: usize,
    pub(crate) chunk: usize,
    pub(crate) window: usize,
}

impl Device {
    /// Where a chunk of an upload goes.
    pub(crate) fn up_chunk(&self, transfer: &str, offset: u64) -> String {
        let (product, node) = (&self.product, &self.node);
        format!("$resource/up/chunk/{product}/{node}/{transfer}/{offset}")
    }
}

impl Client {
    /// Announces and gives the answer, which must be one.
    pub(crate) async fn announce(&mut self, device: &Device, announcement: &Value) -> Sending {
        let message = self.exchange(device, announcement).await;
        assert_eq!(message["type"], "create_upload_task_rsp", "{message}");
        let number = |field: &str| {
            let number = message[field].as_u64().expect(field);
            usize::try_from(number).expect("small")
        };
        Sending {
            transfer: message["transfer"].as_str().expect("an id").to_owned(),
            offset: number("offset"),
            chunk: number("chunk_size"),
            window: number("window"),
            message,
        }
    }

    /// Sends one chunk and gives the reason in its acknowledgement.
    pub(crate) async fn send_chunk(
        &mut self,
        device: &Device,
        transfer: &str,
        offset: usize,
        bytes: &[u8],
    ) -> ReasonCode {
        let answers = self.send_chunks(device, transfer, &[(offset, bytes)]).await;
        answers[0].1
    }

    /// Sends chunks in one write, and gives the acknowledgements in the order in which they came.
    pub(crate) async fn send_chunks(
        &mut self,
        device: &Device,
        transfer: &str,
        chunks: &[(usize, &[u8])],
    ) -> Vec<(PacketId, ReasonCode)> {
        let (mut packets, mut ids) = (Vec::new(), Vec::new());
        for (offset, bytes) in chunks {
            let packet_id = self.packet_id();
            ids.push(packet_id);
            let topic = device.up_chunk(transfer, *offset as u64);
            packets.push(publish(&topic, bytes, Some(packet_id)));
        }
        self.send_together(&packets).await;
        let mut answers = Vec::new();
        while answers.len() < packets.len() {
            // That of a message before them may come late.
            if let Packet::PubAck(ack) = self.answer().await.expect("an open connection")
                && ids.contains(&ack.packet_id)
            {
                answers.push((ack.packet_id, ack.reason));
            }
        }
        answers
    }

    /// Sends everything from where the gateway said, up to `end`, window by window.
    pub(crate) async fn send_until(
        &mut self,
        device: &Device,
        sending: &Sending,
        bytes: &[u8],
        end: usize,
    ) {
        let mut chunks: Vec<(usize, &[u8])> = Vec::new();
        let mut at = sending.offset;
        while at < end {
            let next = end.min(at + sending.chunk);
            chunks.push((at, &bytes[at..next]));
            at = next;
        }
        for window in chunks.chunks(sending.window) {
            for (_, reason) in self.send_chunks(device, &sending.transfer, window).await {
                assert_eq!(reason, ReasonCode::Success);
            }
        }
    }

    /// Announces, sends everything and gives the result that the device is told.
    pub(crate) async fn upload(&mut self, device: &Device, name: &str, bytes: &[u8]) -> Value {
        let sending = self.announce(device, &announcement(name, bytes)).await;
        self.send_until(device, &sending, bytes, bytes.len()).await;
        self.told().await
    }

    /// What the gateway says it has.
    pub(crate) async fn upload_state(&mut self, device: &Device, transfer: &str) -> Value {
        let ask = json!({"type": "get_upload_state", "transfer": transfer});
        self.exchange(device, &ask).await
    }
}

impl Site {
    /// The uploads that the API lists.
    pub(crate) async fn uploads(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/uploads{query}")).await;
        page["items"].as_array().expect("items").clone()
    }

    /// The bytes of an upload, from the API.
    pub(crate) async fn uploaded(&self, transfer: &str) -> Vec<u8> {
        let path = format!("/uploads/{transfer}/content");
        let answer = self.api(hyper::Method::GET, &path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.body.to_vec()
    }

    /// Asserts that the API gives these bytes.
    pub(crate) async fn has_uploaded(&self, transfer: &str, bytes: &[u8]) {
        let stored = self.uploaded(transfer).await;
        assert_eq!(sha256(&stored), sha256(bytes), "the bytes differ");
    }

    /// Sends bytes to the files listener over TLS and gives all that it answers until it closes.
    pub(crate) async fn files_exchange(&self, request: &[u8]) -> Vec<u8> {
        self.files_request(request, false).await
    }

    /// The same, and closes once everything is sent.
    pub(crate) async fn files_exchange_and_leave(&self, request: &[u8]) -> Vec<u8> {
        self.files_request(request, true).await
    }

    async fn files_request(&self, request: &[u8], leave: bool) -> Vec<u8> {
        let address = self.ports.files.expect("a files listener");
        let exchange = async {
            let tcp = TcpStream::connect(address).await.expect("it listens");
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let mut stream = connector.connect(name, tcp).await.expect("TLS");
            stream.write_all(request).await.expect("sent");
            stream.flush().await.expect("sent");
            if leave {
                stream.shutdown().await.expect("sent");
                return Vec::new();
            }
            let mut answer = BytesMut::new();
            while stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
            answer.to_vec()
        };
        timeout(PATIENCE, exchange).await.expect("in time")
    }
}
