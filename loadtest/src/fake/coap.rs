//! The CoAP side of the fake: registrations, one resource for everybody, uploads, faults on demand.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use headgate_dtls::{self as dtls, ServerConfig, SessionId};
use headgate_protocol::coap::{
    Block, Code, Endpoint, Event, Limits, Message, OptionNumber, Output, Parameters, Response, Szx,
};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// What it does wrong, or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// One byte of the resource is changed.
    WrongByte,
    /// Every registration is forgotten after so many requests.
    Forget(u32),
    /// Every fifth request is turned away for no time at all.
    Busy,
    /// Nobody is registered.
    Refuse,
}

/// What it saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sessions that outlive a change of address.
    pub(crate) sessions: usize,
    /// Registrations.
    pub(crate) registered: usize,
    /// Requests that came from where nobody had shown to be.
    pub(crate) echoes: usize,
    /// `done` reports.
    pub(crate) done: usize,
    /// Registrations that were left.
    pub(crate) left: usize,
    /// Files that came, by registration and name; whole ones.
    pub(crate) files: Vec<Vec<u8>>,
}

/// A running gateway; dropping it ends it.
pub(crate) struct FakeCoap {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

/// Finds the key of an identity.
pub(crate) type Keys = fn(&[u8]) -> Option<Vec<u8>>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    /// Whoever is at this address.
    At(SocketAddr),
    /// The other end of a session.
    In(SessionId),
}

/// The records below the messages.
struct Secure {
    dtls: dtls::Server,
    keys: Keys,
}

struct Server {
    endpoint: Endpoint<Peer, ()>,
    bytes: Vec<u8>,
    name: String,
    digest: [u8; 32],
    fault: Fault,
    requests: u32,
    /// Where each registration was seen, and how often it asked.
    registrations: HashMap<String, (BTreeSet<Peer>, u32)>,
    uploads: HashMap<String, Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
}

impl FakeCoap {
    /// Starts with a resource of this name, plain or, with a function that knows keys by identities, over DTLS.
    pub(crate) async fn start(
        name: String,
        mut bytes: Vec<u8>,
        fault: Fault,
        keys: Option<Keys>,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let digest = Sha256::digest(&bytes).into();
        if fault == Fault::WrongByte {
            bytes[700] ^= 1;
        }
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut server = Server {
            endpoint: Endpoint::new(Parameters::default(), Limits::default(), KNOWN, 7),
            bytes,
            name,
            digest,
            fault,
            requests: 0,
            registrations: HashMap::new(),
            uploads: HashMap::new(),
            seen: Arc::clone(&seen),
        };
        let mut secure = keys.map(|keys| Secure {
            dtls: dtls::Server::new(ServerConfig::default(), Instant::now()).unwrap(),
            keys,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let datagram = &buffer[..len];
                let sent = match &mut secure {
                    Some(secure) => secure.handle(&mut server, from, datagram),
                    None => server.handle(Peer::At(from), datagram),
                };
                for (peer, datagram) in sent {
                    let Peer::At(address) = peer else {
                        panic!("a session has no socket")
                    };
                    socket.send_to(&datagram, address).await.unwrap();
                }
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    /// Looks at what it saw.
    pub(crate) fn with_seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock())
    }
}

impl Secure {
    /// Takes a datagram; gives what is to be sent.
    fn handle(
        &mut self,
        server: &mut Server,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Vec<(Peer, Bytes)> {
        let now = Instant::now();
        self.dtls.handle_timeout(now);
        self.dtls.handle_datagram(now, from, datagram);
        let mut sent = Vec::new();
        while let Some(output) = self.dtls.poll_output() {
            match output {
                dtls::Output::Transmit { peer, datagram } => {
                    sent.push((Peer::At(peer), datagram.into()));
                }
                dtls::Output::Event(dtls::Event::KeyWanted {
                    session, identity, ..
                }) => {
                    let key = (self.keys)(&identity);
                    self.dtls.provide_key(now, session, key.as_deref());
                }
                dtls::Output::Event(dtls::Event::Connected { has_cid, .. }) => {
                    server.seen.lock().sessions += usize::from(has_cid);
                }
                dtls::Output::Event(dtls::Event::Data { session, data, .. }) => {
                    for (peer, message) in server.handle(Peer::In(session), &data) {
                        let Peer::In(session) = peer else {
                            panic!("an answer goes where the request came from")
                        };
                        self.dtls.send(now, session, &message).unwrap();
                    }
                }
                dtls::Output::Event(_) => {}
            }
        }
        sent
    }
}

impl Server {
    /// Takes a message; gives what is to be sent.
    fn handle(&mut self, peer: Peer, datagram: &[u8]) -> Vec<(Peer, Bytes)> {
        let now = Instant::now();
        self.endpoint.handle_datagram(now, peer, datagram);
        let mut sent = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { peer, datagram } => sent.push((peer, datagram)),
                Output::Event(Event::Request {
                    exchange,
                    peer,
                    message,
                }) => {
                    let response = self.answer(peer, &message);
                    self.endpoint.respond(now, exchange, response);
                }
                Output::Event(_) => {}
            }
        }
        sent
    }

    fn answer(&mut self, peer: Peer, message: &Message) -> Response {
        self.requests += 1;
        if self.fault == Fault::Busy && self.requests.is_multiple_of(5) {
            return Response::new(Code::SERVICE_UNAVAILABLE).with_uint(OptionNumber::MAX_AGE, 0);
        }
        let path = message.path().unwrap();
        match (message.code, &path[..]) {
            (Code::POST, ["rd"]) => return self.register(peer, message),
            (Code::POST, ["rd", id]) => {
                let Some((places, _)) = self.registrations.get_mut(*id) else {
                    return Response::new(Code::NOT_FOUND);
                };
                places.insert(peer);
                return Response::new(Code::CHANGED);
            }
            (Code::DELETE, ["rd", _]) => {
                self.seen.lock().left += 1;
                return Response::new(Code::DELETED);
            }
            _ => {}
        }
        let rd = message.query("rd").unwrap().to_owned();
        let forgets = |asked: u32| matches!(self.fault, Fault::Forget(after) if asked > after);
        let Some((places, asked)) = self.registrations.get_mut(&rd) else {
            return Response::new(Code::UNAUTHORIZED);
        };
        *asked += 1;
        if forgets(*asked) {
            self.registrations.remove(&rd);
            return Response::new(Code::UNAUTHORIZED);
        }
        if message.first(OptionNumber::ECHO).is_some() {
            places.insert(peer);
        }
        if !places.contains(&peer) {
            self.seen.lock().echoes += 1;
            return Response::new(Code::UNAUTHORIZED).with(OptionNumber::ECHO, b"there?");
        }
        match (message.code, &path[..]) {
            (Code::GET, ["t"]) => self.told(),
            (Code::GET, ["r", "1"]) => self.block(message),
            (Code::POST, ["t", "1"]) => {
                let said = String::from_utf8_lossy(&message.payload).contains("done");
                self.seen.lock().done += usize::from(said);
                Response::new(Code::CHANGED)
            }
            (Code::GET, ["u", _]) => match self.uploads.get(&rd) {
                Some(bytes) => {
                    let body = json!({"offset": bytes.len()}).to_string();
                    Response::new(Code::CONTENT).with_payload(body.into())
                }
                None => Response::new(Code::NOT_FOUND),
            },
            (Code::PUT, ["u", _]) => self.put(&rd, message),
            _ => Response::new(Code::NOT_FOUND),
        }
    }

    fn register(&mut self, peer: Peer, message: &Message) -> Response {
        if self.fault == Fault::Refuse {
            return Response::new(Code::FORBIDDEN);
        }
        // The same number each time: what it sends goes on where it stands.
        let id = message.query("ep").unwrap().to_owned();
        self.registrations
            .insert(id.clone(), (BTreeSet::from([peer]), 0));
        self.seen.lock().registered += 1;
        Response::new(Code::CREATED)
            .with(OptionNumber::LOCATION_PATH, "rd")
            .with(OptionNumber::LOCATION_PATH, id)
    }

    fn told(&self) -> Response {
        let told = json!({
            "transfer": "1", "name": self.name, "size": self.bytes.len(),
            "sha256": hex::encode(self.digest),
        });
        Response::new(Code::CONTENT).with_payload(told.to_string().into())
    }

    fn block(&self, message: &Message) -> Response {
        let asked = Block::decode(message.first(OptionNumber::BLOCK2).unwrap()).unwrap();
        let slice = asked.slice(self.bytes.len() as u64, Szx::MAX).unwrap();
        let at = usize::try_from(slice.offset).unwrap();
        let size = u32::try_from(self.bytes.len()).unwrap();
        Response::new(Code::CONTENT)
            .with(OptionNumber::ETAG, &self.digest[..8])
            .with_uint(OptionNumber::BLOCK2, slice.block.value())
            .with_uint(OptionNumber::SIZE2, size)
            .with_payload(Bytes::copy_from_slice(&self.bytes[at..at + slice.len]))
    }

    fn put(&mut self, rd: &str, message: &Message) -> Response {
        let block = Block::decode(message.first(OptionNumber::BLOCK1).unwrap()).unwrap();
        let bytes = self.uploads.entry(rd.to_owned()).or_default();
        let at = usize::try_from(block.offset()).unwrap();
        if at > bytes.len() {
            return Response::new(Code::REQUEST_ENTITY_INCOMPLETE);
        }
        bytes.truncate(at);
        bytes.extend_from_slice(&message.payload);
        if block.more {
            return Response::new(Code::CONTINUE).with_uint(OptionNumber::BLOCK1, block.value());
        }
        let whole = self.uploads.remove(rd).unwrap();
        let digest = hex::encode(Sha256::digest(&whole));
        if message.query("sha256") != Some(&digest) {
            return Response::new(Code::BAD_REQUEST);
        }
        self.seen.lock().files.push(whole);
        Response::new(Code::CREATED)
    }
}

const KNOWN: &[OptionNumber] = &[
    OptionNumber::URI_PATH,
    OptionNumber::URI_QUERY,
    OptionNumber::BLOCK1,
    OptionNumber::BLOCK2,
];
