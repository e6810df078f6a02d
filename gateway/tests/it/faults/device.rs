//! A device that takes a resource and says things meanwhile, whatever becomes of its connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use headgate::shutdown::Shutdown;
use headgate_protocol::mqtt::{Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::SIZE;
use crate::harness::{Client, Device, Login, Site, chunk_of, connect, publish, subscribe};

/// What a device waits for anything before it looks for another node.
pub(super) const DEVICE_PATIENCE: Duration = Duration::from_secs(4);
/// How often it says something.
const TELLS_EVERY: Duration = Duration::from_millis(400);
/// How often it looks whether something else is to be done.
const TURN: Duration = Duration::from_millis(200);

/// What a device knows, whatever becomes of its connections.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) have: Mutex<Vec<u8>>,
    /// The gateway said that it knows that the device is done.
    is_done: AtomicBool,
    /// What must not happen, and did.
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) connections: AtomicUsize,
    /// Numbers of its own messages that were acknowledged, and the next number.
    pub(super) acknowledged: Mutex<Vec<usize>>,
    pub(super) said: AtomicUsize,
    /// What happened between it and the gateway, and when.
    pub(super) events: Mutex<Vec<(Instant, String)>>,
}

impl Memory {
    /// Keeps bytes that came, which are those that it has where it has some; says whether it has all.
    fn take(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut have = self.have.lock();
        let at = usize::try_from(offset).expect("small");
        let Some(before) = have.get(at..) else {
            let gap = format!("{at} after {}", have.len());
            self.is_wrong(gap);
            return false;
        };
        let known = before.len().min(bytes.len());
        if before[..known] != bytes[..known] {
            self.is_wrong(format!("other bytes at {at}"));
            return false;
        }
        have.extend_from_slice(&bytes[known..]);
        have.len() == SIZE
    }

    fn is_wrong(&self, what: String) {
        self.note(&what);
        self.wrong.lock().push(what);
    }

    /// Keeps what happened, for whoever has to find out why something went wrong.
    fn note(&self, what: &str) {
        let connection = self.connections.load(Ordering::Relaxed);
        let now = Instant::now();
        self.events
            .lock()
            .push((now, format!("{connection}: {what}")));
    }
}

/// The device, and what is done with it until it is told to stop.
pub(super) struct Living {
    pub(super) site: Arc<Site>,
    pub(super) device: Device,
    pub(super) memory: Arc<Memory>,
    pub(super) stop: Arc<AtomicBool>,
}

/// What belongs to one connection.
struct Talk {
    client: Client,
    transfer: String,
    /// Its own message that is not acknowledged, and since when.
    unanswered: Option<(PacketId, usize, Instant)>,
    /// When it is to say something again.
    tells_at: Instant,
}

impl Living {
    /// Comes again, wherever it is let in, until it is told to stop.
    pub(super) fn spawn(self) -> JoinHandle<()> {
        Shutdown::new().spawn(async move {
            while !self.stop.load(Ordering::Relaxed) {
                self.memory.connections.fetch_add(1, Ordering::Relaxed);
                let _broken = self.connected().await;
                sleep(Duration::from_millis(100)).await;
            }
        })
    }

    /// One connection, to its end: nothing where it broke.
    async fn connected(&self) -> Option<()> {
        let client = timeout(DEVICE_PATIENCE, self.open()).await.ok()??;
        self.memory.note("is let in");
        let mut talk = Talk {
            client,
            transfer: String::new(),
            unanswered: None,
            tells_at: Instant::now(),
        };
        let topics = [self.device.down(), self.device.chunks()];
        let filters = [topics[0].as_str(), topics[1].as_str()];
        let packet_id = talk.client.packet_id();
        talk.send(&subscribe(packet_id, &filters, QoS::AtLeastOnce))
            .await?;
        while !self.stop.load(Ordering::Relaxed) {
            self.tell_something(&mut talk).await?;
            // Nothing is lost where this is given up: what comes is acknowledged below.
            if let Ok(packet) = timeout(TURN, talk.client.recv()).await {
                self.handle(&mut talk, packet?).await?;
            }
        }
        Some(())
    }

    async fn open(&self) -> Option<Client> {
        let tls = Arc::clone(&self.site.tls);
        let mut client = Client::may_open(&self.site, tls).await?;
        client.acknowledges = false;
        let login = Login::of(&self.device).over(ProtocolVersion::V5);
        client.speak(login.version);
        client.try_send(&connect(&login)).await.ok()?;
        match client.recv().await? {
            Packet::ConnAck(connack) => (!connack.reason.is_error()).then_some(client),
            _ => None,
        }
    }

    /// Says its next number when it is time; gives up on a gateway that does not answer.
    async fn tell_something(&self, talk: &mut Talk) -> Option<()> {
        if let Some((_, _, since)) = talk.unanswered {
            return (since.elapsed() < DEVICE_PATIENCE).then_some(());
        }
        if talk.tells_at > Instant::now() {
            return Some(());
        }
        let number = self.memory.said.fetch_add(1, Ordering::Relaxed);
        let topic = format!("{}/{}/data", self.device.product, self.device.node);
        let packet_id = talk.client.packet_id();
        talk.unanswered = Some((packet_id, number, Instant::now()));
        talk.tells_at = Instant::now() + TELLS_EVERY;
        let payload = number.to_string();
        self.memory.note(&format!("says {number}"));
        talk.send(&publish(&topic, payload.as_bytes(), Some(packet_id)))
            .await
    }

    async fn handle(&self, talk: &mut Talk, packet: Packet) -> Option<()> {
        match packet {
            Packet::Publish(message) => {
                self.hear(talk, &message).await?;
                let packet_id = message.packet_id?;
                let acknowledging = talk.client.acknowledge(packet_id);
                timeout(DEVICE_PATIENCE, acknowledging).await.ok()
            }
            Packet::PubAck(ack) => {
                if let Some((packet_id, number, _)) = talk.unanswered
                    && packet_id == ack.packet_id
                {
                    talk.unanswered = None;
                    let answer = format!("is answered {number}: {:?}", ack.reason);
                    self.memory.note(&answer);
                    match ack.reason {
                        ReasonCode::Success => self.memory.acknowledged.lock().push(number),
                        ReasonCode::NoMatchingSubscribers => {
                            self.memory.is_wrong(format!("nobody hears {number}"));
                        }
                        _ => {}
                    }
                }
                Some(())
            }
            Packet::Disconnect(_) => None,
            _ => Some(()),
        }
    }

    async fn hear(&self, talk: &mut Talk, message: &Publish) -> Option<()> {
        if let Some((offset, bytes)) = chunk_of(message) {
            if self.memory.take(offset, bytes) {
                self.report_done(talk).await?;
            }
            return Some(());
        }
        let told: Value = serde_json::from_slice(&message.payload).expect("JSON");
        self.memory.note(&format!("is told {told}"));
        match told["type"].as_str() {
            Some("download") => {
                if self.memory.is_done.load(Ordering::Relaxed) {
                    let again = "told again of what it had said to be done".to_owned();
                    self.memory.is_wrong(again);
                }
                talk.transfer = told["transfer"].as_str().expect("an id").to_owned();
                let at = self.memory.have.lock().len();
                if at == SIZE {
                    return self.report_done(talk).await;
                }
                let ask = json!({
                    "type": "get_chunks", "transfer": talk.transfer, "offset": at, "window": 8,
                });
                self.ask(talk, &ask).await
            }
            Some("report_download_progress_rsp") if told["result_code"] == 0 => {
                self.memory.is_done.store(true, Ordering::Relaxed);
                Some(())
            }
            Some("transfer_error") => {
                sleep(Duration::from_millis(300)).await;
                None
            }
            _ => Some(()),
        }
    }

    async fn report_done(&self, talk: &mut Talk) -> Option<()> {
        self.memory.note("says that it is done");
        let report = json!({
            "type": "report_download_progress", "transfer": talk.transfer,
            "progress": {"state": "done", "percent": 100, "result_code": 0, "result_msg": ""},
        });
        self.ask(talk, &report).await
    }

    async fn ask(&self, talk: &mut Talk, message: &Value) -> Option<()> {
        let packet_id = talk.client.packet_id();
        let payload = message.to_string();
        let packet = publish(&self.device.up(), payload.as_bytes(), Some(packet_id));
        talk.send(&packet).await
    }
}

impl Talk {
    async fn send(&mut self, packet: &Packet) -> Option<()> {
        let sending = self.client.try_send(packet);
        timeout(DEVICE_PATIENCE, sending).await.ok()?.ok()
    }
}
