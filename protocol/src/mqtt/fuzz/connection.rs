//! Sequences of operations on a connection, by either side.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use crate::mqtt::{
    Accept, CloseDetails, Connect, Connection, ConnectionLimits, Decoder, Disconnect, Event, Input,
    Limits, Message, Offer, Output, Packet, PacketId, Properties, ProtocolVersion, PubAck, PubComp,
    PubRec, PubRel, Publish, QoS, ReasonCode, Resumed, Role, Subscribe, Subscription, TopicName,
    Unsubscribe,
};

/// Runs the operations that `data` stands for, and checks after each what must always hold.
///
/// `begun` is when the virtual clock starts.
///
/// # Panics
/// When the connection is wrong.
pub fn connection(begun: Instant, data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut next = move || bytes.next();
    let (Some(about), Some(room)) = (next(), next()) else {
        return;
    };
    let mut run = Run::new(begun, about, room);
    run.connect(None);
    while let (Some(operation), Some(argument)) = (next(), next()) {
        run.act(operation, argument);
        run.check();
    }
}

struct Run {
    now: Instant,
    about: u8,
    room: u8,
    limits: Arc<ConnectionLimits>,
    server: Connection<u16>,
    /// Of the client: what it reads must be what it may be sent.
    client: Decoder,
    tags: u16,
    /// Messages of the client that wait for an answer.
    unanswered: VecDeque<(PacketId, QoS)>,
    aliases: HashMap<NonZeroU16, TopicName>,
    /// Of exchanges that are not over.
    open_tags: HashSet<u16>,
    said_connack: bool,
    closed: bool,
}

impl Run {
    fn new(now: Instant, about: u8, room: u8) -> Self {
        let limits = Arc::new(ConnectionLimits {
            max_keep_alive: Duration::from_mins(1),
            server_keep_alive: None,
            allow_no_keep_alive: about & 0x80 != 0,
            outbox_messages: 4,
            outbox_bytes: 200,
            max_in_flight: 5,
            receive_maximum: 3,
            max_unreleased: 6,
            max_packet_bytes: 1_000,
            offer: Offer {
                retain_available: about & 0x40 != 0,
                shared_subscriptions: false,
                subscription_identifiers: about & 0x20 != 0,
                topic_alias_maximum: 2,
                outbound_topic_aliases: 2,
                max_qos: QoS::ExactlyOnce,
                max_session_expiry: Duration::from_hours(1),
            },
        });
        Self {
            now,
            about,
            room,
            server: Connection::new(Arc::clone(&limits), now + Duration::from_secs(10)),
            limits,
            client: Decoder::new(Role::Client, Limits::default()),
            tags: 0,
            unanswered: VecDeque::new(),
            aliases: HashMap::new(),
            open_tags: HashSet::new(),
            said_connack: false,
            closed: false,
        }
    }

    fn version(&self) -> ProtocolVersion {
        if self.about & 1 == 0 {
            ProtocolVersion::V311
        } else {
            ProtocolVersion::V5
        }
    }

    fn receive_maximum(&self) -> u16 {
        u16::from(self.room & 7) + 1
    }

    fn max_packet_bytes(&self) -> u32 {
        if self.about & 2 == 0 {
            u32::MAX
        } else {
            40 + u32::from(self.room >> 3)
        }
    }

    fn connect(&mut self, resumed: Option<Resumed<u16>>) {
        self.server = Connection::new(Arc::clone(&self.limits), self.now + Duration::from_secs(10));
        self.client = Decoder::new(Role::Client, Limits::default());
        self.client.set_version(self.version());
        self.unanswered.clear();
        self.aliases.clear();
        (self.said_connack, self.closed) = (false, false);
        if resumed.is_none() {
            self.open_tags.clear();
        }
        let mut connect = Connect::new(self.version(), "c");
        if self.version() == ProtocolVersion::V5 {
            connect.properties = Some(Box::new(Properties {
                receive_maximum: NonZeroU16::new(self.receive_maximum()),
                maximum_packet_size: NonZeroU32::new(self.max_packet_bytes()),
                topic_alias_maximum: Some(u16::from(self.about >> 2 & 3)),
                session_expiry_interval_secs: Some(60),
                request_problem_information: Some(self.about & 0x10 != 0),
                ..Properties::default()
            }));
        }
        self.input(Packet::Connect(Box::new(connect)));
        let session_expiry = Duration::from_secs(60 * u64::from(self.about & 0x10 != 0));
        let accept = Accept {
            resumed,
            session_expiry,
        };
        self.server.accept(self.now, accept);
        self.drain();
    }

    fn act(&mut self, operation: u8, argument: u8) {
        let id = PacketId::new(u16::from(argument & 7) + 1).unwrap_or(PacketId::MIN);
        match operation % 20 {
            0 => self.publish(argument),
            1 => self.input(Packet::PubAck(PubAck::new(id))),
            2 => self.input(Packet::PubRec(PubRec {
                packet_id: id,
                reason: if argument & 0x80 == 0 {
                    ReasonCode::Success
                } else {
                    ReasonCode::QuotaExceeded
                },
                properties: None,
            })),
            3 => self.input(Packet::PubRel(PubRel::new(id))),
            4 => self.input(Packet::PubComp(PubComp::new(id))),
            5 => self.input(subscribe(id, argument)),
            6 => self.input(Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id: id,
                filters: ["a".parse().expect("legal")].into_iter().collect(),
                properties: None,
            }))),
            7 => self.input(Packet::PingReq),
            8 => self.disconnect(argument),
            9..=11 => self.send(operation, argument),
            12 => {
                let tag = self.next_tag();
                if self.server.reserve(tag).is_some() {
                    self.open_tags.insert(tag);
                }
            }
            13 | 14 => self.answer(argument),
            15 => {
                let reasons = vec![ReasonCode::Success; usize::from(argument & 63) + 1];
                self.server.grant(id, reasons.into_iter().collect());
            }
            16 => {
                self.now += Duration::from_secs(u64::from(argument));
                self.server.handle(self.now, Input::Timeout);
            }
            17 => {
                let resumed = self.server.suspend();
                self.check_resumed(&resumed);
                self.connect(Some(resumed));
            }
            18 if argument & 0xC0 == 0 => {
                let details = CloseDetails {
                    server_reference: Some("x".into()),
                    reason_string: Some("y".repeat(usize::from(argument)).into()),
                };
                self.server.close_with(ReasonCode::ServerMoved, details);
            }
            _ => self.server.release_memory(),
        }
        self.drain();
        if self.closed && argument & 1 == 0 {
            let resumed = self.server.suspend();
            self.check_resumed(&resumed);
            self.connect(Some(resumed));
        }
    }

    fn publish(&mut self, argument: u8) {
        let topic = match argument & 3 {
            0 => TopicName::aliased(),
            1 => "a/b/c".parse().expect("legal"),
            _ => "d".parse().expect("legal"),
        };
        let mut publish = Publish::new(topic, Bytes::from_static(b"payload"));
        publish.qos = QoS::from_bits(argument >> 2 & 3).unwrap_or(QoS::AtMostOnce);
        publish.retain = argument & 0x80 != 0;
        if publish.qos != QoS::AtMostOnce {
            publish.packet_id = PacketId::new(u16::from(argument >> 4 & 7) + 1);
        }
        if self.version() == ProtocolVersion::V5 && argument & 1 == 0 {
            publish.properties = Some(Box::new(Properties {
                topic_alias: NonZeroU16::new(u16::from(argument >> 4 & 3) + 1),
                ..Properties::default()
            }));
        }
        if !publish.topic.is_empty() || self.version() == ProtocolVersion::V5 {
            self.input(Packet::Publish(publish));
        }
    }

    fn disconnect(&mut self, argument: u8) {
        let mut disconnect = Disconnect::new(ReasonCode::Success);
        if argument & 1 == 0 && self.version() == ProtocolVersion::V5 {
            disconnect.properties = Some(Box::new(Properties {
                session_expiry_interval_secs: Some(u32::from(argument)),
                ..Properties::default()
            }));
        }
        self.input(Packet::Disconnect(disconnect));
    }

    fn send(&mut self, operation: u8, argument: u8) {
        let topic = ["a/topic", "b/topic", "c/topic"][usize::from(argument % 3)];
        let payload = Bytes::from(vec![0; usize::from(argument >> 2)]);
        let tag = self.next_tag();
        let mut message = Message::new(topic.parse().expect("legal"), payload, tag);
        message.qos = QoS::from_bits(argument & 3).unwrap_or(QoS::ExactlyOnce);
        message.retain = argument & 0x80 != 0;
        message.subscription_ids = NonZeroU32::new(u32::from(argument >> 6))
            .into_iter()
            .collect();
        let is_above_0 = message.qos != QoS::AtMostOnce;
        let taken = if operation % 20 == 11 {
            self.server
                .prepare(message)
                .map(|publish| self.read(&Packet::Publish(publish)))
        } else {
            self.server.send(message)
        };
        if taken.is_ok() && is_above_0 {
            self.open_tags.insert(tag);
        }
    }

    fn answer(&mut self, argument: u8) {
        let Some((id, qos)) = self.unanswered.pop_front() else {
            return;
        };
        let reason = if argument.is_multiple_of(4) {
            ReasonCode::NotAuthorized
        } else {
            ReasonCode::Success
        };
        let why = (argument & 4 == 0).then(|| "z".repeat(usize::from(argument)).into());
        self.server.acknowledge_with(id, qos, reason, why);
    }

    fn next_tag(&mut self) -> u16 {
        self.tags = self.tags.wrapping_add(1);
        self.tags
    }

    fn input(&mut self, packet: Packet) {
        self.server.handle(self.now, Input::Packet(packet));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            assert!(!self.closed, "something after the close: {output:?}");
            match output {
                Output::Transmit(packet) => self.read(&packet),
                Output::Event(event) => self.note(event),
                Output::Close(_) => self.closed = true,
            }
        }
    }

    fn note(&mut self, event: Event<u16>) {
        match event {
            Event::Publish(publish) => {
                assert!(!publish.topic.is_empty(), "an alias was not resolved");
                if let Some(id) = publish.packet_id {
                    self.unanswered.push_back((id, publish.qos));
                }
            }
            Event::Acknowledged(tag) => {
                assert!(self.open_tags.remove(&tag), "acknowledged twice");
            }
            Event::Received(tag) => {
                assert!(self.open_tags.contains(&tag), "received after the end");
            }
            Event::Connect(_)
            | Event::Released(_)
            | Event::Subscribe(_)
            | Event::Unsubscribe(_)
            | Event::Disconnected { .. } => {}
        }
    }

    /// What the client makes of a packet.
    fn read(&mut self, packet: &Packet) {
        let mut buf = BytesMut::new();
        packet.encode(self.version(), &mut buf).expect("legal");
        let is_v5 = self.version() == ProtocolVersion::V5;
        let len = u32::try_from(buf.len()).expect("small");
        assert!(!is_v5 || len <= self.max_packet_bytes(), "{packet:?}");
        let read = self.client.decode(&mut buf).expect("legal");
        let read = read.expect("whole");
        assert_eq!(read.packet_type(), packet.packet_type());
        // Before MQTT 5.0 some of it is left out.
        assert!(!is_v5 || read == *packet, "{packet:?}");
        assert!(buf.is_empty());
        match packet {
            Packet::ConnAck(_) => self.said_connack = true,
            Packet::Publish(publish) => self.read_publish(publish),
            _ => {}
        }
        assert!(self.said_connack, "before CONNACK: {packet:?}");
    }

    fn read_publish(&mut self, publish: &Publish) {
        let alias = publish.properties.as_ref().and_then(|all| all.topic_alias);
        if let Some(alias) = alias {
            assert!(alias.get() <= u16::from(self.about >> 2 & 3), "{alias}");
            if publish.topic.is_empty() {
                assert!(self.aliases.contains_key(&alias), "of nothing");
            } else {
                self.aliases.insert(alias, publish.topic.clone());
            }
        }
    }

    fn check(&self) {
        let (max, is_v5) = (
            self.limits.max_in_flight,
            self.version() == ProtocolVersion::V5,
        );
        assert!(self.server.send_quota() <= max);
        if is_v5 {
            assert!(self.server.send_quota() <= self.receive_maximum());
            assert!(self.unanswered.len() <= usize::from(self.limits.receive_maximum));
        }
        // What an earlier connection had under way may wait beside a full outbox.
        assert!(self.server.waiting_messages() <= self.limits.outbox_messages + usize::from(max));
        assert!(self.server.waiting_bytes() <= self.limits.outbox_bytes);
        let _due = self.server.timeout();
    }

    fn check_resumed(&self, resumed: &Resumed<u16>) {
        let mut ids = HashSet::new();
        for (id, _, message) in &resumed.in_flight {
            assert!(ids.insert(*id), "an identifier twice");
            assert!(self.open_tags.contains(&message.tag), "over already");
            assert_ne!(message.qos, QoS::AtMostOnce);
        }
        let mut ids = HashSet::new();
        assert!(resumed.unreleased.iter().all(|id| ids.insert(*id)));
    }
}

fn subscribe(packet_id: PacketId, argument: u8) -> Packet {
    let subscription = Subscription::new("a/+".parse().expect("legal"), QoS::AtLeastOnce);
    let identifier = NonZeroU32::new(u32::from(argument >> 7));
    let properties = identifier.map(|identifier| {
        Box::new(Properties {
            subscription_identifiers: vec![identifier],
            ..Properties::default()
        })
    });
    Packet::Subscribe(Box::new(Subscribe {
        packet_id,
        filters: [subscription].into_iter().collect(),
        properties,
    }))
}
