//! A device that takes resources: what it says, what it is told, the bytes it gets.

use headgate_protocol::mqtt::Publish;
use serde_json::{Value, json};

use super::{Client, Device, payload_json, publish};

/// What a device was told waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) message: Value,
    pub(crate) transfer: String,
}

/// The offset of a chunk, from its topic, and its bytes.
pub(crate) fn chunk_of(message: &Publish) -> Option<(u64, &[u8])> {
    let topic = message.topic.as_str();
    let (prefix, offset) = topic.rsplit_once('/')?;
    prefix
        .starts_with("$resource/down/chunk/")
        .then(|| (offset.parse().expect("an offset"), &message.payload[..]))
}

impl Client {
    /// Sends a transfer message at QoS 1 and does not wait.
    pub(crate) async fn tell(&mut self, device: &Device, message: &Value) {
        let packet_id = self.packet_id();
        let payload = message.to_string();
        self.send(&publish(&device.up(), payload.as_bytes(), Some(packet_id)))
            .await;
    }

    /// The next message on the service topic; chunks before it are dropped.
    pub(crate) async fn told(&mut self) -> Value {
        loop {
            let message = self.message().await;
            if chunk_of(&message).is_none() {
                return payload_json(&message);
            }
        }
    }

    /// Sends a transfer message and gives what it is answered with.
    pub(crate) async fn exchange(&mut self, device: &Device, message: &Value) -> Value {
        self.tell(device, message).await;
        self.told().await
    }

    /// Waits for the announcement.
    pub(crate) async fn announced(&mut self) -> Announced {
        let message = self.told().await;
        assert_eq!(message["type"], "download", "{message}");
        Announced {
            transfer: message["transfer"].as_str().expect("an id").to_owned(),
            message,
        }
    }

    /// Asks for everything from an offset on.
    pub(crate) async fn want(&mut self, device: &Device, transfer: &str, offset: u64, window: u8) {
        let ask = json!({
            "type": "get_chunks", "transfer": transfer, "offset": offset, "window": window,
        });
        self.tell(device, &ask).await;
    }

    /// The next chunk: its offset and its bytes.
    pub(crate) async fn chunk(&mut self) -> (u64, Vec<u8>) {
        let message = self.message().await;
        let chunk = chunk_of(&message);
        assert!(chunk.is_some(), "no chunk: {}", payload_json(&message));
        let (offset, bytes) = chunk.expect("a chunk");
        (offset, bytes.to_vec())
    }

    /// Takes chunks, each where the one before ended, until `have` holds `size` bytes.
    pub(crate) async fn take_until(&mut self, have: &mut Vec<u8>, size: usize) {
        while have.len() < size {
            let (offset, bytes) = self.chunk().await;
            let at = usize::try_from(offset).expect("small");
            assert_eq!(at, have.len(), "chunks come in order, once");
            have.extend_from_slice(&bytes);
        }
    }

    /// Takes the whole resource in windows of 8.
    pub(crate) async fn take_all(&mut self, device: &Device, announced: &Announced) -> Vec<u8> {
        let size = announced.message["size"].as_u64().expect("a size");
        let size = usize::try_from(size).expect("small");
        let mut have = Vec::with_capacity(size);
        self.want(device, &announced.transfer, 0, 8).await;
        self.take_until(&mut have, size).await;
        have
    }

    /// Reports a state and gives the receipt.
    pub(crate) async fn report(&mut self, device: &Device, transfer: &str, state: &str) -> Value {
        let report = json!({
            "type": "report_download_progress", "transfer": transfer,
            "progress": {"state": state, "percent": 100, "result_code": 0, "result_msg": ""},
        });
        let receipt = self.exchange(device, &report).await;
        assert_eq!(receipt["type"], "report_download_progress_rsp", "{receipt}");
        receipt
    }
}
