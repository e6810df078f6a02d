//! The server's side: a connection, and a store that survives a crash.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::super::*;
use crate::mqtt::{Decoder, Limits, Role};

#[derive(Debug)]
pub(super) struct Server {
    connection: Option<(Connection<u32>, Decoder)>,
    /// What is stored before anything that depends on it is said.
    store: Store,
    pub(super) sent: u32,
    pub(super) received: Vec<u32>,
    pub(super) acknowledged: Vec<u32>,
    /// Messages of the client that nobody has acted on yet.
    pending: VecDeque<Publish>,
    output: Vec<Bytes>,
    limits: Arc<ConnectionLimits>,
    now: Instant,
}

/// What a session is on disk.
#[derive(Debug, Default)]
struct Store {
    exists: bool,
    released: Vec<(PacketId, Message<u32>)>,
    published: Vec<(PacketId, Message<u32>)>,
    waiting: Vec<Message<u32>>,
    unreleased: Vec<PacketId>,
}

impl Store {
    fn resumed(&self) -> Resumed<u32> {
        let of = |phase: Phase| {
            move |(id, message): &(PacketId, Message<u32>)| (*id, phase, message.clone())
        };
        Resumed {
            in_flight: self
                .released
                .iter()
                .map(of(Phase::Released))
                .chain(self.published.iter().map(of(Phase::Published)))
                .collect(),
            waiting: self.waiting.clone(),
            unreleased: self.unreleased.clone(),
        }
    }

    fn note_received(&mut self, tag: u32) {
        let at = self.published.iter().position(|(_, kept)| kept.tag == tag);
        let (id, mut message) = self.published.remove(at.expect("was published"));
        message.payload = Bytes::new();
        self.released.push((id, message));
    }

    fn note_sent(&mut self, publish: &Publish) {
        // What goes again is in the store already.
        if let Some(id) = publish.packet_id.filter(|_| !publish.dup) {
            let message = self.waiting.remove(0);
            assert_eq!(message.payload, publish.payload, "in order");
            self.published.push((id, message));
        }
    }
}

impl Server {
    pub(super) fn new(now: Instant) -> Self {
        let mut limits = (*limits()).clone();
        limits.offer = Offer {
            outbound_topic_aliases: 4,
            max_session_expiry: Offer::FOR_EVER,
            ..Offer::default()
        };
        limits.outbox_messages = 1_000;
        limits.outbox_bytes = 100_000;
        limits.max_in_flight = 7;
        Self {
            connection: None,
            store: Store::default(),
            sent: 0,
            received: Vec::new(),
            acknowledged: Vec::new(),
            pending: VecDeque::new(),
            output: Vec::new(),
            limits: Arc::new(limits),
            now,
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let store = &self.store;
        store.released.is_empty()
            && store.published.is_empty()
            && store.waiting.is_empty()
            && store.unreleased.is_empty()
            && self.pending.is_empty()
    }

    pub(super) fn take_output(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.output)
    }

    pub(super) fn listen(&mut self, now: Instant) {
        let connection = Connection::new(Arc::clone(&self.limits), now + Duration::from_mins(1));
        let decoder = Decoder::new(Role::Server, Limits::default());
        self.connection = Some((connection, decoder));
    }

    /// The end of the link is noticed: what the connection gives back is what the store says.
    pub(super) fn lose_link(&mut self) {
        self.output.clear();
        self.pending.clear();
        if let Some((mut connection, _)) = self.connection.take() {
            let was_open = connection.session_expiry_secs() > 0;
            let resumed = connection.suspend();
            if was_open {
                assert_eq!(resumed, self.store.resumed());
            }
        }
    }

    pub(super) fn crash(&mut self) {
        self.output.clear();
        self.pending.clear();
        self.connection = None;
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        if let Some((connection, _)) = &mut self.connection {
            connection.handle(now, Input::Timeout);
        }
        self.drain();
    }

    /// The application gives a message.
    pub(super) fn send(&mut self, now: Instant, qos: QoS) {
        self.now = now;
        let payload = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let topic = ["even", "odd numbers"][usize::try_from(self.sent % 2).expect("fits")];
        let mut message = Message::new(topic.parse().expect("legal"), payload, self.sent);
        message.qos = qos;
        self.sent += 1;
        self.store.waiting.push(message.clone());
        if let Some((connection, _)) = &mut self.connection {
            match connection.send(message) {
                // The session's next connection has it from the store.
                Ok(()) | Err(NotSent::NotOpen) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.drain();
    }

    /// Acts on one message of the client's.
    pub(super) fn answer(&mut self) {
        let Some((connection, _)) = &mut self.connection else {
            return;
        };
        let Some(publish) = self.pending.pop_front() else {
            return;
        };
        let payload = publish.payload[..].try_into().expect("four bytes");
        self.received.push(u32::from_be_bytes(payload));
        let id = publish.packet_id.expect("above QoS 0");
        if publish.qos == QoS::ExactlyOnce {
            self.store.unreleased.push(id);
        }
        connection.acknowledge(id, publish.qos, ReasonCode::Success);
        self.drain();
    }

    pub(super) fn handle(&mut self, now: Instant, bytes: &[u8]) {
        self.now = now;
        let Some((connection, decoder)) = &mut self.connection else {
            return;
        };
        let mut buf = BytesMut::from(bytes);
        let packet = decoder.decode(&mut buf).expect("the client is right");
        assert!(buf.is_empty(), "one packet at a time");
        connection.handle(now, Input::Packet(packet.expect("whole")));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((connection, _)) = &mut self.connection {
            let version = connection.version();
            match connection.poll_output() {
                None => return,
                Some(Output::Transmit(packet)) => {
                    if let Packet::Publish(publish) = &packet {
                        self.store.note_sent(publish);
                    }
                    let mut buf = BytesMut::new();
                    packet.encode(version, &mut buf).expect("legal");
                    self.output.push(buf.freeze());
                }
                Some(Output::Event(event)) => self.handle_event(event),
                Some(Output::Close(reason)) => panic!("closed: {reason:?}"),
            }
        }
    }

    fn handle_event(&mut self, event: Event<u32>) {
        let Some((connection, _)) = &mut self.connection else {
            return;
        };
        match event {
            Event::Connect(_) => {
                let accept = Accept {
                    resumed: self.store.exists.then(|| self.store.resumed()),
                    session_expiry: Duration::from_hours(1),
                };
                let is_new = !self.store.exists;
                self.store.exists = true;
                connection.accept(self.now, accept);
                if is_new {
                    for message in self.store.waiting.clone() {
                        connection.send(message).expect("room");
                    }
                }
            }
            Event::Publish(publish) => self.pending.push_back(publish),
            Event::Released(id) => self.store.unreleased.retain(|known| *known != id),
            Event::Received(tag) => self.store.note_received(tag),
            Event::Acknowledged(tag) => {
                self.acknowledged.push(tag);
                let is_other = |(_, message): &(PacketId, Message<u32>)| message.tag != tag;
                self.store.published.retain(is_other);
                self.store.released.retain(is_other);
            }
            event => panic!("{event:?}"),
        }
    }
}
