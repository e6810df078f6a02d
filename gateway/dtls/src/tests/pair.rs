//! A server, its clients, and the wire between them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use crate::{
    Certificate, Client, ClientConfig, ClientEvent, ClientOutput, Credential, Event, Output,
    Server, ServerConfig, SessionId,
};

/// The key of everybody who is named `device-...`.
pub(super) const KEY: &[u8; 16] = b"0123456789abcdef";

pub(super) fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], n))
}

pub(super) fn psk(identity: &str, key: &[u8]) -> Credential {
    Credential::Psk {
        identity: identity.into(),
        key: Zeroizing::new(key.to_vec()),
    }
}

/// A certificate that its own key signed.
pub(super) fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    Certificate::from_pem(made.cert.pem().as_bytes(), key.as_bytes())
}

/// A server and the clients that it talks to.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) now: Instant,
    pub(super) clients: HashMap<u16, Client>,
    /// What happened at the server, but for the questions for keys.
    pub(super) events: Vec<Event>,
    pub(super) client_events: Vec<(u16, ClientEvent)>,
    /// Every datagram to the server so far, and where it came from.
    pub(super) seen: Vec<(u16, Vec<u8>)>,
    /// Whether the next datagram is lost.
    pub(super) loses: fn(usize) -> bool,
    sent: usize,
}

impl World {
    pub(super) fn new(config: ServerConfig) -> Self {
        let now = Instant::now();
        Self {
            server: Server::new(config, now).unwrap(),
            now,
            clients: HashMap::new(),
            events: Vec::new(),
            client_events: Vec::new(),
            seen: Vec::new(),
            loses: |_| false,
            sent: 0,
        }
    }

    /// A client at this port, and everything that follows from that.
    pub(super) fn connect(&mut self, port: u16, config: &ClientConfig, credential: &Credential) {
        let client = Client::connect(config, credential, self.now).unwrap();
        self.clients.insert(port, client);
        self.run();
    }

    /// A device with the right key; its session.
    pub(super) fn device(&mut self, port: u16) -> SessionId {
        self.device_with(port, &ClientConfig::default())
    }

    pub(super) fn device_with(&mut self, port: u16, config: &ClientConfig) -> SessionId {
        self.connect(port, config, &psk(&format!("device-{port}"), KEY));
        self.connected()
    }

    /// The session that was made last.
    pub(super) fn connected(&self) -> SessionId {
        let connected = self.events.iter().rev().find_map(|event| match event {
            Event::Connected { session, .. } => Some(*session),
            _ => None,
        });
        connected.unwrap_or_else(|| panic!("nobody connected: {:?}", self.events))
    }

    /// Carries datagrams until nobody sends any.
    pub(super) fn run(&mut self) {
        loop {
            let mut is_quiet = true;
            let ports: Vec<u16> = self.clients.keys().copied().collect();
            for port in ports {
                while let Some(output) = self.clients.get_mut(&port).unwrap().poll_output() {
                    is_quiet = false;
                    match output {
                        ClientOutput::Transmit(datagram) => {
                            self.seen.push((port, datagram.clone()));
                            if !self.is_lost() {
                                self.deliver(port, &datagram);
                            }
                        }
                        ClientOutput::Event(event) => self.client_events.push((port, event)),
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Hands the server a datagram from this port and does what it says.
    pub(super) fn deliver(&mut self, port: u16, datagram: &[u8]) {
        self.server
            .handle_datagram(self.now, address(port), datagram);
        self.settle();
    }

    /// Does what the server says.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Transmit { peer, datagram } => {
                    let is_lost = self.is_lost();
                    if let Some(client) = self.clients.get_mut(&peer.port())
                        && !is_lost
                    {
                        client.handle_datagram(self.now, &datagram);
                    }
                }
                Output::Event(Event::KeyWanted {
                    session, identity, ..
                }) => {
                    let key = identity.starts_with(b"device-").then_some(&KEY[..]);
                    self.server.provide_key(self.now, session, key);
                }
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Lets the time pass in steps of a second.
    pub(super) fn pass(&mut self, secs: u64) {
        for _ in 0..secs {
            self.now += Duration::from_secs(1);
            for client in self.clients.values_mut() {
                client.handle_timeout(self.now);
            }
            if self.server.timeout().is_some_and(|at| at <= self.now) {
                self.server.handle_timeout(self.now);
            }
            self.settle();
            self.run();
        }
    }

    /// A message from a client, and what the server got of it.
    pub(super) fn say(&mut self, port: u16, text: &str) -> Vec<(SessionId, Vec<u8>)> {
        let before = self.events.len();
        let client = self.clients.get_mut(&port).unwrap();
        client.send(self.now, text.as_bytes()).unwrap();
        self.run();
        let new = self.events[before..].iter();
        new.filter_map(|event| match event {
            Event::Data { session, data, .. } => Some((*session, data.clone())),
            _ => None,
        })
        .collect()
    }

    /// A message to a client, and what it got.
    pub(super) fn tell(&mut self, session: SessionId, text: &str) -> Vec<(u16, Vec<u8>)> {
        let before = self.client_events.len();
        self.server
            .send(self.now, session, text.as_bytes())
            .unwrap();
        self.settle();
        self.run();
        let new = self.client_events[before..].iter();
        new.filter_map(|(port, event)| match event {
            ClientEvent::Data(data) => Some((*port, data.clone())),
            _ => None,
        })
        .collect()
    }

    /// The client goes on from another port.
    pub(super) fn rebind(&mut self, from: u16, to: u16) {
        let client = self.clients.remove(&from).unwrap();
        self.clients.insert(to, client);
    }

    fn is_lost(&mut self) -> bool {
        self.sent += 1;
        (self.loses)(self.sent)
    }
}
