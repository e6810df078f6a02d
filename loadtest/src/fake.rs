//! A gateway for tests: MQTT on loopback, with or without TLS, one resource for everybody, faults on
//! demand.
//!
//! Built on the codec alone. It serves `get_chunks` by window or count and checks that devices keep
//! to what they asked for.

pub(crate) mod api;
pub(crate) mod coap;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    ConnAck, Decoder, Limits, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Role, SubAck,
    encode_publish_header,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::device::link::Socket;

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// One byte of every delivery is changed.
    WrongByte,
    /// One chunk of every delivery is left out.
    MissingChunk,
    /// Every login is refused.
    RefuseLogin,
    /// Each device's first connection is closed after so many chunks.
    CloseAfter(usize),
    /// Every `done` is refused.
    RefuseDone,
    /// Requests for chunks are not answered.
    Mute,
}

/// What it saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// Connections that logged in, by user name.
    pub(crate) logins: HashMap<String, usize>,
    /// Offsets that `get_chunks` began at.
    pub(crate) offsets: Vec<u64>,
    /// PUBACKs of chunks.
    pub(crate) acks: usize,
    /// `done` reports.
    pub(crate) done: usize,
    /// DISCONNECT packets.
    pub(crate) goodbyes: usize,
}

/// A running fake; dropping it ends it.
pub(crate) struct Fake {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    /// Serves `content` under the name `res`.
    pub(crate) async fn start(content: Vec<u8>, fault: Fault, tls: Option<TlsAcceptor>) -> Self {
        Self::named("res".to_owned(), content, fault, tls).await
    }

    /// Serves `content` under `name`.
    pub(crate) async fn named(
        name: String,
        content: Vec<u8>,
        fault: Fault,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        let template = Template {
            name: name.into(),
            content: content.into(),
            fault,
            seen: Arc::clone(&seen),
        };
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (template, tls) = (template.clone(), tls.clone());
                connections.spawn(async move {
                    let socket: Box<dyn Socket> = match tls {
                        // A client that does not trust the fake is a test's business.
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => Box::new(socket),
                            Err(_) => return,
                        },
                        None => Box::new(socket),
                    };
                    Peer::new(socket, template).run().await;
                });
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    /// What it saw so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}

/// What all connections have in common.
#[derive(Clone)]
struct Template {
    name: Arc<str>,
    content: Bytes,
    fault: Fault,
    seen: Arc<Mutex<Seen>>,
}

struct Peer {
    name: Arc<str>,
    socket: Box<dyn Socket>,
    content: Bytes,
    fault: Fault,
    seen: Arc<Mutex<Seen>>,
    /// `{product}/{device}`.
    device: String,
    out: BytesMut,
    next_id: PacketId,
    /// Offsets and lengths asked for.
    pending: VecDeque<(u64, usize)>,
    in_flight: usize,
    window: usize,
    sent: usize,
}

impl Peer {
    fn new(socket: Box<dyn Socket>, template: Template) -> Self {
        let Template {
            name,
            content,
            fault,
            seen,
        } = template;
        Self {
            name,
            socket,
            content,
            fault,
            seen,
            device: String::new(),
            out: BytesMut::new(),
            next_id: PacketId::MIN,
            pending: VecDeque::new(),
            in_flight: 0,
            window: 0,
            sent: 0,
        }
    }

    async fn run(mut self) {
        let limits = Limits {
            max_packet_bytes: 1 << 18,
            max_connect_bytes: 8192,
            max_topic_bytes: 255,
            max_topic_levels: 10,
            max_client_id_bytes: 256,
            max_filters_per_packet: 8,
        };
        let mut decoder = Decoder::new(Role::Server, limits);
        let mut buffer = BytesMut::new();
        loop {
            while let Some(packet) = decoder.decode(&mut buffer).unwrap() {
                if !self.handle(packet) {
                    return;
                }
            }
            if self.fault != Fault::Mute {
                self.pump();
            }
            if self.socket.write_all(&self.out).await.is_err()
                || self.socket.flush().await.is_err()
                || self.must_close()
            {
                return;
            }
            self.out.clear();
            if !matches!(self.socket.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
    }

    fn must_close(&self) -> bool {
        matches!(self.fault, Fault::CloseAfter(chunks) if self.sent >= chunks)
            && self.seen.lock().logins.values().all(|&logins| logins == 1)
    }

    fn handle(&mut self, packet: Packet) -> bool {
        match packet {
            Packet::Connect(connect) => {
                let user = connect.username.clone().unwrap();
                assert_eq!(connect.client_id, user);
                assert_eq!(connect.password.as_ref().map(Bytes::len), Some(32));
                *self.seen.lock().logins.entry(user.into()).or_default() += 1;
                let answer = match self.fault {
                    Fault::RefuseLogin => ConnAck::refused(ReasonCode::BadUserNameOrPassword),
                    _ => ConnAck::accepted(false),
                };
                self.put(&Packet::ConnAck(answer));
            }
            Packet::Subscribe(subscribe) => {
                let filter = subscribe.filters[0].filter.to_string();
                self.device = filter
                    .strip_prefix("$resource/down/service/")
                    .unwrap()
                    .to_owned();
                let reasons = subscribe
                    .filters
                    .iter()
                    .map(|_| ReasonCode::GrantedQoS1)
                    .collect();
                let packet_id = subscribe.packet_id;
                self.put(&Packet::SubAck(SubAck {
                    packet_id,
                    reasons,
                    properties: None,
                }));
                self.announce("download");
            }
            Packet::Publish(publish) => {
                let message: Value = serde_json::from_slice(&publish.payload).unwrap();
                self.on_message(&message);
            }
            Packet::PubAck(_) if self.in_flight > 0 => {
                self.in_flight -= 1;
                self.seen.lock().acks += 1;
            }
            Packet::PubAck(_) => {}
            Packet::PingReq => self.put(&Packet::PingResp),
            Packet::Disconnect(_) => {
                self.seen.lock().goodbyes += 1;
                return false;
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn announce(&mut self, kind: &str) {
        self.say(&json!({
            "type": kind, "size": self.content.len(), "name": *self.name, "md5sum": "m", "url": "",
            "transfer": "t1", "sha256": hex::encode(Sha256::digest(&self.content)),
            "chunk_size": 15_360, "chunks": 1, "version": 1, "acked": 0,
        }));
    }

    fn on_message(&mut self, message: &Value) {
        match message["type"].as_str().unwrap() {
            "get_download_task" => self.announce("get_download_task_rsp"),
            "get_chunks" => self.on_get_chunks(message),
            "report_download_progress" => {
                let done = message["progress"]["state"] == "done";
                self.seen.lock().done += usize::from(done);
                let code = if done && self.fault == Fault::RefuseDone {
                    3
                } else {
                    0
                };
                self.say(&json!({"type": "report_download_progress_rsp", "result_code": code, "result_msg": "ok"}));
            }
            other => panic!("{other}"),
        }
    }

    fn on_get_chunks(&mut self, message: &Value) {
        let offset = message["offset"].as_u64().unwrap();
        let chunk = usize::try_from(message["chunk_size"].as_u64().unwrap()).unwrap();
        self.seen.lock().offsets.push(offset);
        let from = usize::try_from(offset).unwrap();
        let starts = (from..self.content.len()).step_by(chunk);
        let all = starts.map(|at| (at as u64, chunk.min(self.content.len() - at)));
        let count = message["count"]
            .as_u64()
            .map(|count| usize::try_from(count).unwrap());
        self.pending = all.take(count.unwrap_or(usize::MAX)).collect();
        self.window = message["window"]
            .as_u64()
            .map_or(64, |w| usize::try_from(w).unwrap());
        self.in_flight = 0;
    }

    /// Sends as many chunks as the window allows.
    fn pump(&mut self) {
        while self.in_flight < self.window {
            let Some((offset, len)) = self.pending.pop_front() else {
                return;
            };
            self.sent += 1;
            if self.fault == Fault::MissingChunk && self.sent == 2 {
                continue;
            }
            let at = usize::try_from(offset).unwrap();
            let mut bytes = self.content[at..at + len].to_vec();
            if self.fault == Fault::WrongByte && self.sent == 2 {
                bytes[0] ^= 1;
            }
            self.in_flight += 1;
            let topic = format!("$resource/down/chunk/{}/t1/{offset}", self.device);
            self.publish(&topic, &bytes);
        }
    }

    fn say(&mut self, message: &Value) {
        let topic = format!("$resource/down/service/{}", self.device);
        self.publish(&topic, message.to_string().as_bytes());
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.next_id = self.next_id.next();
        let id = Some(self.next_id);
        let (version, qos, len) = (ProtocolVersion::V311, QoS::AtLeastOnce, payload.len());
        encode_publish_header(&mut self.out, version, topic, qos, id, false, false, len).unwrap();
        self.out.extend_from_slice(payload);
    }

    fn put(&mut self, packet: &Packet) {
        packet.encode(ProtocolVersion::V311, &mut self.out).unwrap();
    }
}
