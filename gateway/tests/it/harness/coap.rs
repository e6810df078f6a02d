//! A device that speaks CoAP on a socket of its own, plain or over DTLS.

#[cfg(feature = "coaps")]
mod secure;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use headgate_protocol::coap::{
    Block, Code, Endpoint, Event, Failure, Limits, Message, OptionNumber, Output, Parameters,
    Request, Szx, Token,
};
use serde_json::{Value, json};
use tokio::{net::UdpSocket, time::timeout};

use super::{Gateway, PATIENCE};

/// What lies between a device and its socket: a session of DTLS.
trait Layer: fmt::Debug + Send {
    /// Whether messages can be sent.
    fn is_ready(&self) -> bool;

    fn receive(&mut self, datagram: &[u8]);

    fn send(&mut self, message: &[u8]);

    fn poll(&mut self) -> Option<Passed>;

    fn timeout(&mut self) -> Option<Instant>;

    fn handle_timeout(&mut self);
}

/// What a layer lets through.
enum Passed {
    Datagram(Vec<u8>),
    Message(Vec<u8>),
}

/// A device's end.
#[derive(Debug)]
pub(crate) struct Coap {
    socket: UdpSocket,
    gateway: SocketAddr,
    /// Over DTLS.
    session: Option<Box<dyn Layer>>,
    endpoint: Endpoint<(), u32>,
    requests: u32,
    /// Responses and failures that nobody has asked for yet.
    come: VecDeque<(u32, Result<Message, Failure>)>,
    /// What it was given when it registered.
    pub(crate) rd: String,
    /// Says nothing, and hears nothing, while it is set.
    pub(crate) is_deaf: bool,
}

const KNOWN: &[OptionNumber] = &[OptionNumber::BLOCK1, OptionNumber::BLOCK2];

impl Gateway {
    /// A gateway with CoAP on any port.
    pub(crate) async fn with_coap(change: impl FnOnce(&mut headgate::config::CoapConfig)) -> Self {
        Self::with(|config| {
            config.coap.listen = Some(([127, 0, 0, 1], 0).into());
            change(&mut config.coap);
        })
        .await
    }

    /// Makes the product `N` of devices that prove nothing, and one of them.
    pub(crate) async fn unsecured(&self, node: &str, more: &Value) -> super::Device {
        let mut product = json!({
            "id": "N", "name": "NB", "transports": {"mqtt": false, "coap": true},
            "auth_kinds": ["none"],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            product[key] = value.clone();
        }
        self.post("/products", &product).await;
        self.unsecured_of("N", node).await
    }

    /// Makes a device that proves nothing.
    pub(crate) async fn unsecured_of(&self, product: &str, node: &str) -> super::Device {
        let body = json!({"product_id": product, "node_id": node, "auth": "none"});
        let made = self.post("/devices", &body).await;
        super::Device {
            id: made["device_id"].as_str().expect("an id").to_owned(),
            node: node.to_owned(),
            product: product.to_owned(),
            secret: String::new(),
        }
    }

    /// Makes the product `W` of devices that may come by MQTT and by CoAP, and its device `w1`, whose secret is a key of
    /// DTLS, too.
    pub(crate) async fn two_wired(&self) -> super::Device {
        let secret = "00112233445566778899aabbccddeeff";
        let product = json!({"transports": {"mqtt": true, "coap": true}});
        self.product("W", &product).await;
        let body = json!({
            "product_id": "W", "node_id": "w1", "secret": secret, "psk_encoding": "hex",
        });
        self.post("/devices", &body).await;
        super::Device {
            id: "W_w1".to_owned(),
            node: "w1".to_owned(),
            product: "W".to_owned(),
            secret: secret.to_owned(),
        }
    }
}

impl Coap {
    /// A device that the gateway has not heard of.
    pub(crate) async fn new(gateway: &Gateway) -> Self {
        Self::at(gateway.ports.coap.expect("a CoAP listener")).await
    }

    async fn at(gateway: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let seed = u64::from(socket.local_addr().expect("bound").port());
        let limits = Limits {
            max_waiting: 64,
            ..Limits::default()
        };
        Self {
            gateway,
            session: None,
            endpoint: Endpoint::new(Parameters::default(), limits, KNOWN, seed),
            socket,
            requests: 0,
            come: VecDeque::new(),
            rd: String::new(),
            is_deaf: false,
        }
    }

    /// A registered device.
    pub(crate) async fn registered(gateway: &Gateway, node: &str) -> Self {
        let mut device = Self::new(gateway).await;
        device.register(node).await;
        device
    }

    pub(crate) async fn register(&mut self, node: &str) {
        let request = Request::new(Code::POST, "rd").with_query("ep", node);
        let response = self.exchange(request).await;
        assert_eq!(response.code, Code::CREATED);
        let location: Vec<_> = response.all(OptionNumber::LOCATION_PATH).collect();
        assert_eq!((location.len(), location[0]), (2, &b"rd"[..]));
        self.rd = String::from_utf8(location[1].to_vec()).expect("digits");
    }

    /// Goes on from another port, as behind a network that forgets.
    pub(crate) async fn rebind(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    }

    /// A request that names the registration.
    pub(crate) fn request(&self, method: Code, path: &str) -> Request {
        Request::new(method, path).with_query("rd", &self.rd)
    }

    /// Asks, and waits for the response.
    pub(crate) async fn exchange(&mut self, request: Request) -> Message {
        let (tag, _) = self.ask(request);
        self.answer(tag).await.expect("an answer")
    }

    pub(crate) async fn get(&mut self, path: &str) -> Message {
        let request = self.request(Code::GET, path);
        self.exchange(request).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Message {
        let body = Bytes::from(body.to_string());
        let request = self.request(Code::POST, path).with_payload(body);
        self.exchange(request).await
    }

    /// Begins to ask; gives what the response is waited for by.
    pub(crate) fn ask(&mut self, request: Request) -> (u32, Token) {
        self.requests += 1;
        let asked = self
            .endpoint
            .request(Instant::now(), (), request, self.requests);
        (self.requests, asked.expect("taken"))
    }

    /// Waits for a response, or for the next notification.
    pub(crate) async fn answer(&mut self, tag: u32) -> Result<Message, Failure> {
        timeout(PATIENCE, self.answer_patiently(tag))
            .await
            .expect("an answer in time")
    }

    async fn answer_patiently(&mut self, tag: u32) -> Result<Message, Failure> {
        loop {
            if let Some(at) = self.come.iter().position(|(known, _)| *known == tag) {
                let (_, come) = self.come.remove(at).expect("it is there");
                return come;
            }
            self.turn().await;
        }
    }

    /// Acknowledges and takes in what comes for a while.
    pub(crate) async fn listen(&mut self, time: Duration) -> usize {
        let _elapsed = timeout(time, async {
            loop {
                self.turn().await;
            }
        })
        .await;
        self.come.len()
    }

    /// Knows nothing any more of an observation: what comes of it is rejected.
    pub(crate) fn forget(&mut self, token: Token) {
        self.endpoint.cancel((), token);
    }

    /// Responses and notifications that nobody has asked for yet.
    pub(crate) fn heard(&self) -> usize {
        self.come.len()
    }

    /// Messages of the gateway that were rejected.
    pub(crate) fn resets(&self) -> u64 {
        self.endpoint.counters().rejected
    }

    /// Takes in what comes until something is rejected.
    pub(crate) async fn until_reset(&mut self) {
        let rejected = async {
            while self.resets() == 0 {
                self.turn().await;
            }
            // It goes out with the next turn.
            self.turn_output().await;
        };
        timeout(PATIENCE, rejected).await.expect("a Reset in time");
    }

    async fn turn(&mut self) {
        let before = self.come.len();
        self.turn_output().await;
        if self.come.len() > before {
            return;
        }
        let session = self.session.as_mut().and_then(|layer| layer.timeout());
        let due = [self.endpoint.timeout(), session];
        let due = due.into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_mins(1));
        let mut datagram = [0; 2_048];
        tokio::select! {
            received = self.socket.recv_from(&mut datagram) => {
                let (bytes, from) = received.expect("received");
                assert_eq!(from, self.gateway);
                if !self.is_deaf {
                    self.take(&datagram[..bytes]).await;
                }
            }
            () = tokio::time::sleep_until(due.into()) => {
                self.endpoint.handle_timeout(Instant::now());
                if let Some(session) = &mut self.session {
                    session.handle_timeout();
                }
            }
        }
    }

    async fn take(&mut self, datagram: &[u8]) {
        let Some(session) = &mut self.session else {
            return self.endpoint.handle_datagram(Instant::now(), (), datagram);
        };
        session.receive(datagram);
        self.turn_session().await;
    }

    /// Sends the records that are to be sent, and takes in what came in others.
    async fn turn_session(&mut self) {
        while let Some(passed) = self.session.as_mut().and_then(|layer| layer.poll()) {
            match passed {
                Passed::Datagram(record) => {
                    let sent = self.socket.send_to(&record, self.gateway).await;
                    assert_eq!(sent.expect("sent"), record.len());
                }
                Passed::Message(message) => {
                    self.endpoint.handle_datagram(Instant::now(), (), &message);
                }
            }
        }
    }

    /// Sends what is to be sent, and keeps what has come.
    async fn turn_output(&mut self) {
        self.turn_session().await;
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { datagram, .. } if !self.is_deaf => match &mut self.session {
                    Some(session) => {
                        session.send(&datagram);
                        self.turn_session().await;
                    }
                    None => self.send(&datagram).await,
                },
                Output::Event(Event::Response { tag, message }) => {
                    self.come.push_back((tag, Ok(*message)));
                }
                Output::Event(Event::Failed { tag, failure }) => {
                    self.come.push_back((tag, Err(failure)));
                }
                Output::Transmit { .. } | Output::Event(_) => {}
            }
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&self, datagram: &[u8]) {
        assert!(self.session.is_none(), "bytes would be no record");
        let sent = self.socket.send_to(datagram, self.gateway).await;
        assert_eq!(sent.expect("sent"), datagram.len());
    }

    /// The next datagram as it is.
    pub(crate) async fn receive(&self) -> Vec<u8> {
        let mut datagram = [0; 2_048];
        let received = timeout(PATIENCE, self.socket.recv(&mut datagram)).await;
        let bytes = received.expect("a datagram in time").expect("received");
        datagram[..bytes].to_vec()
    }

    /// Takes what is behind `have` of a transfer, compares all of it with `whole`, and says that it is done.
    pub(crate) async fn take_rest(&mut self, transfer: &str, mut have: Vec<u8>, whole: &[u8]) {
        let rest = self
            .fetch(transfer, (have.len() as u64, u64::MAX), Szx::MAX)
            .await;
        have.extend(rest);
        assert!(have == whole, "other bytes");
        let path = format!("t/{transfer}");
        let done = self.post(&path, &json!({"state": "done"})).await;
        assert_eq!(done.code, Code::CHANGED);
    }

    /// Fetches a transfer from `offset` on, up to `end`, in blocks of this size.
    pub(crate) async fn fetch(&mut self, transfer: &str, range: (u64, u64), size: Szx) -> Vec<u8> {
        let (mut at, mut got) = (range.0, Vec::new());
        loop {
            let block = Block::at(at, size).expect("a block begins there");
            let request = self
                .request(Code::GET, &format!("r/{transfer}"))
                .with_uint(OptionNumber::BLOCK2, block.value());
            let response = self.exchange(request).await;
            assert_eq!(response.code, Code::CONTENT, "{:?}", response.payload);
            got.extend_from_slice(&response.payload);
            at += response.payload.len() as u64;
            let value = response.first(OptionNumber::BLOCK2).expect("a block");
            let block = Block::decode(value).expect("legal");
            if !block.more || at >= range.1 {
                return got;
            }
        }
    }
}

/// The payload as JSON.
pub(crate) fn json_of(message: &Message) -> Value {
    let read = serde_json::from_slice(&message.payload);
    assert!(read.is_ok(), "no JSON: {message:?}");
    read.expect("JSON")
}
