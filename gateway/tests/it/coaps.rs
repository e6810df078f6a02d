//! CoAP over DTLS: a device of our own that moves, sleeps and is refused.

use std::{net::UdpSocket, time::Duration};

use hyper::Method;
use serde_json::{Value, json};

use super::harness::{Device, Gateway};

pub(crate) const KEY: &str = "0123456789abcdef";

impl Gateway {
    /// A gateway with CoAP over DTLS on any port.
    pub(crate) async fn with_coaps(
        change: impl FnOnce(&mut headgate::config::CoapsConfig),
    ) -> Self {
        Self::with(|config| {
            config.coaps.listen = Some(([127, 0, 0, 1], 0).into());
            change(&mut config.coaps);
        })
        .await
    }

    /// Makes the product `S` of devices that show a secret by either wire, and `s1` with [`KEY`].
    pub(crate) async fn secured(&self) -> Device {
        self.secured_by(&json!({"secret": KEY, "psk_encoding": "text"}), "secret")
            .await
    }

    pub(crate) async fn secured_by(&self, more: &Value, auth: &str) -> Device {
        let product = json!({
            "id": "S", "name": "NB", "transports": {"mqtt": true, "coap": true},
            "auth_kinds": [auth],
        });
        self.post("/products", &product).await;
        let mut body = json!({"product_id": "S", "node_id": "s1", "auth": auth});
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let made = self.post("/devices", &body).await;
        Device {
            id: made["device_id"].as_str().expect("an id").to_owned(),
            node: "s1".to_owned(),
            product: "S".to_owned(),
            secret: made["secret"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_are_good_and_the_one_that_works_is_remembered() {
    let gateway = Gateway::with_coaps(|_| {}).await;
    let device = gateway.secured().await;
    let path = format!("/devices/{}/secret", device.id);
    let body = json!({"which": "secondary", "secret": "fedcba9876543210"});
    let set = gateway.api(Method::POST, &path, Some(&body)).await;
    assert!(set.status < 300, "{}", set.text());
    let mut device = Secured::new(&gateway, "s1", b"fedcba9876543210");
    assert!(!device.connect(), "the first is tried first");
    for _ in 0..2 {
        let mut device = Secured::new(&gateway, "s1", b"fedcba9876543210");
        assert!(device.connect(), "then the second, from now on");
        assert_eq!(device.get("t"), Some((0x45, b"{}".to_vec())));
    }
    let mut device = Secured::new(&gateway, "s1", KEY.as_bytes());
    assert!(!device.connect());
    let mut device = Secured::new(&gateway, "s1", KEY.as_bytes());
    assert!(device.connect());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_and_an_unknown_identity_get_the_same_answer_about_as_late() {
    let gateway = Gateway::with_coaps(|_| {}).await;
    gateway.secured().await;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..9 {
        for (identity, times) in ["s1", "nobody"].into_iter().zip(&mut times) {
            let mut device = Secured::new(&gateway, identity, b"another key");
            let began = std::time::Instant::now();
            assert!(!device.connect());
            assert_eq!(device.alerts, [20], "{identity}: bad_record_mac");
            times.push(began.elapsed());
        }
    }
    let [wrong, unknown] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let ratio = wrong.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "{wrong:?} and {unknown:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_rests_and_outlives_a_clean_restart() {
    let gateway = Gateway::with_coaps(|config| config.freeze_after = Duration::from_secs(1)).await;
    gateway.secured().await;
    let mut device = Secured::new(&gateway, "s1", KEY.as_bytes());
    assert!(device.connect());
    let empty = Some((0x45, b"{}".to_vec()));
    assert_eq!(device.get("t"), empty);
    let connections = r#"headgate_connections{auth="secret",protocol="coaps"}"#;
    gateway.metric_is(connections, 1.0).await;
    gateway
        .metric_is(r#"headgate_dtls_sessions{state="frozen"}"#, 1.0)
        .await;
    device.rebind();
    assert_eq!(device.get("t"), empty, "from another address, after a rest");
    gateway
        .metric_is(r#"headgate_dtls_events_total{event="moved"}"#, 1.0)
        .await;

    let dir = gateway.stop().await;
    let kept = dir.path().join("data/dtls-sessions.sealed");
    assert!(kept.is_file(), "it is kept");
    let gateway = Gateway::start_in(dir, |config| {
        config.coaps.listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    assert!(!kept.exists(), "used up");
    device.gateway = gateway.ports.coaps.expect("a listener");
    device.rebind();
    assert_eq!(device.get("t"), empty, "without a new handshake");

    // A device that is frozen in the registry ends with its session.
    gateway.act("/devices/S_s1/freeze").await;
    // Whoever froze it may be answered before its session is told.
    let answer = (0..100)
        .map(|_| device.get("t"))
        .find(|answer| *answer != empty);
    let answer = answer.expect("it is refused");
    assert!(answer.is_none_or(|(code, _)| code == 0x83), "let in");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_hellos_costs_nothing_and_keeps_nobody_out() {
    let gateway = Gateway::with_coaps(|_| {}).await;
    gateway.secured().await;
    let mut flood = Secured::new(&gateway, "s1", KEY.as_bytes());
    let hello = flood.first_datagram();
    let mut client = Secured::new(&gateway, "s1", KEY.as_bytes());
    let first = client.first_datagram();
    client.send(&first);
    for _ in 0..200 {
        // Other ports, as many as are cheap to have.
        flood.rebind();
        for _ in 0..50 {
            flood.send(&hello);
        }
    }
    assert!(client.connect(), "its cookie still holds");
    gateway.metric_is("headgate_dtls_handshakes", 0.0).await;
    gateway
        .metric_is(r#"headgate_dtls_sessions{state="live"}"#, 1.0)
        .await;
    gateway.stop().await;
}

/// A device on a socket of its own.
pub(crate) struct Secured {
    socket: UdpSocket,
    gateway: std::net::SocketAddr,
    client: headgate_dtls::Client,
    received: Vec<Vec<u8>>,
    alerts: Vec<u8>,
    message: u16,
}

impl Secured {
    pub(crate) fn new(gateway: &Gateway, identity: &str, key: &[u8]) -> Self {
        let credential = headgate_dtls::Credential::Psk {
            identity: identity.into(),
            key: key.to_vec().into(),
        };
        let now = std::time::Instant::now();
        let config = headgate_dtls::ClientConfig::default();
        let client = headgate_dtls::Client::connect(&config, &credential, now).expect("made");
        Self {
            socket: socket(),
            gateway: gateway.ports.coaps.expect("a listener"),
            client,
            received: Vec::new(),
            alerts: Vec::new(),
            message: 0,
        }
    }

    fn rebind(&mut self) {
        self.socket = socket();
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway).expect("sent");
    }

    fn first_datagram(&mut self) -> Vec<u8> {
        let first = self.client.poll_output().map(|output| match output {
            headgate_dtls::ClientOutput::Transmit(datagram) => datagram,
            headgate_dtls::ClientOutput::Event(_) => Vec::new(),
        });
        first.expect("a hello")
    }

    /// Carries the handshake to its end; whether it succeeds.
    pub(crate) fn connect(&mut self) -> bool {
        while !self.client.is_connected() {
            if self.turn().is_none() {
                return false;
            }
        }
        // What is said at its end.
        self.flush();
        true
    }

    /// Asks, and gives the code and the payload of the answer; `None`: there is none.
    pub(crate) fn get(&mut self, path: &str) -> Option<(u8, Vec<u8>)> {
        self.message += 1;
        let [high, low] = self.message.to_be_bytes();
        let option = 0xb0 | u8::try_from(path.len()).expect("short");
        let request = [&[0x40, 1, high, low, option], path.as_bytes()].concat();
        let now = std::time::Instant::now();
        self.client.send(now, &request).ok()?;
        loop {
            self.flush();
            if let Some(answer) = self.received.pop() {
                let at = answer.iter().position(|byte| *byte == 0xff);
                let payload = at.map_or_else(Vec::new, |at| answer[at + 1..].to_vec());
                return Some((answer[1], payload));
            }
            self.turn()?;
        }
    }

    /// Sends what is to be sent and waits for a datagram.
    fn turn(&mut self) -> Option<()> {
        if !self.flush() {
            return None;
        }
        let mut datagram = [0; 2_048];
        let mut tries = 0;
        let bytes = loop {
            if let Ok((bytes, _)) = self.socket.recv_from(&mut datagram) {
                break bytes;
            }
            tries += 1;
            self.client.handle_timeout(std::time::Instant::now());
            if tries == 20 || !self.flush() {
                return None;
            }
        };
        let datagram = &datagram[..bytes];
        // An alert in the clear: type 21, epoch 0.
        if datagram[0] == 21 && datagram[3..5] == [0, 0] {
            self.alerts.push(datagram[14]);
        }
        let now = std::time::Instant::now();
        self.client.handle_datagram(now, datagram);
        Some(())
    }

    /// Whether it goes on.
    fn flush(&mut self) -> bool {
        use headgate_dtls::{ClientEvent, ClientOutput};
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Transmit(datagram) => self.send(&datagram),
                ClientOutput::Event(ClientEvent::Data(data)) => self.received.push(data),
                ClientOutput::Event(ClientEvent::Failed(_) | ClientEvent::Closed(_)) => {
                    return false;
                }
                ClientOutput::Event(ClientEvent::Connected { .. }) => {}
            }
        }
        true
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let patience = Some(Duration::from_millis(250));
    socket.set_read_timeout(patience).expect("set");
    socket
}
