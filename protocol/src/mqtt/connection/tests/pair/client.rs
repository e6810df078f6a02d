//! The client's side of a session: what MQTT asks of clients, in its plainest form.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};

use super::super::*;
use crate::mqtt::{Decoder, Limits, PubComp, PubRec, Role, TopicName};

/// The session, and the connection while there is one.
#[derive(Debug)]
pub(super) struct Client {
    version: ProtocolVersion,
    qos: QoS,
    /// Messages that the application gave so far.
    pub(super) sent: u32,
    /// What arrived, in order, with its duplicates.
    pub(super) received: Vec<u32>,
    next_id: PacketId,
    /// Messages that were given and not acknowledged to the end, oldest first.
    in_flight: VecDeque<(PacketId, Phase, u32)>,
    /// Identifiers that may have gone out before: they carry DUP from then on.
    tried: HashSet<PacketId>,
    /// QoS 2 packets of the server that it did not release.
    unreleased: HashSet<PacketId>,
    had_session: bool,
    connection: Option<Wire>,
    output: Vec<Bytes>,
}

#[derive(Debug)]
struct Wire {
    decoder: Decoder,
    receive_maximum: u16,
    server_receive_maximum: usize,
    is_open: bool,
    /// Those of `in_flight` that were sent on this connection.
    begun: HashSet<PacketId>,
    /// Packets of the server whose exchange is not over on this connection.
    under_way: HashSet<PacketId>,
    answers: VecDeque<Packet>,
    aliases: HashMap<NonZeroU16, TopicName>,
}

impl Client {
    pub(super) fn new(version: ProtocolVersion, qos: QoS) -> Self {
        Self {
            version,
            qos,
            sent: 0,
            received: Vec::new(),
            next_id: PacketId::MIN,
            in_flight: VecDeque::new(),
            tried: HashSet::new(),
            unreleased: HashSet::new(),
            had_session: false,
            connection: None,
            output: Vec::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let answers = self.connection.as_ref().map(|wire| wire.answers.len());
        self.in_flight.is_empty() && self.unreleased.is_empty() && answers == Some(0)
    }

    pub(super) fn take_output(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.output)
    }

    pub(super) fn connect(&mut self, receive_maximum: u16) {
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        decoder.set_version(self.version);
        self.connection = Some(Wire {
            decoder,
            receive_maximum,
            server_receive_maximum: usize::from(u16::MAX),
            is_open: false,
            begun: HashSet::new(),
            under_way: HashSet::new(),
            answers: VecDeque::new(),
            aliases: HashMap::new(),
        });
        let mut connect = Connect::new(self.version, "c");
        connect.clean_start = false;
        connect.keep_alive_secs = 60;
        if self.version == ProtocolVersion::V5 {
            connect.properties = Some(Box::new(Properties {
                receive_maximum: NonZeroU16::new(receive_maximum),
                session_expiry_interval_secs: Some(3_600),
                topic_alias_maximum: Some(1),
                ..Properties::default()
            }));
        }
        self.put(&Packet::Connect(Box::new(connect)));
    }

    pub(super) fn lose_link(&mut self) {
        self.connection = None;
        self.output.clear();
    }

    /// The application gives a message.
    pub(super) fn send(&mut self) {
        let id = loop {
            let id = self.next_id;
            self.next_id = id.next();
            if self.in_flight.iter().all(|(used, ..)| *used != id) {
                break id;
            }
        };
        self.in_flight.push_back((id, Phase::Published, self.sent));
        self.sent += 1;
        self.begin();
    }

    /// Sends one of the answers that wait.
    pub(super) fn answer(&mut self) {
        let wire = self.connection.as_mut();
        if let Some(packet) = wire.and_then(|wire| wire.answers.pop_front()) {
            if let (
                Packet::PubAck(PubAck { packet_id, .. })
                | Packet::PubComp(PubComp { packet_id, .. }),
                Some(wire),
            ) = (&packet, &mut self.connection)
            {
                wire.under_way.remove(packet_id);
            }
            self.put(&packet);
        }
    }

    pub(super) fn handle(&mut self, bytes: &[u8]) {
        let Some(wire) = &mut self.connection else {
            return;
        };
        let mut buf = BytesMut::from(bytes);
        let packet = wire.decoder.decode(&mut buf).expect("the server is right");
        assert!(buf.is_empty(), "one packet at a time");
        match packet.expect("whole") {
            Packet::ConnAck(connack) => self.handle_connack(&connack),
            Packet::Publish(publish) => self.handle_publish(&publish),
            Packet::PubAck(ack) => {
                assert!(!ack.reason.is_error());
                self.in_flight.retain(|(id, ..)| *id != ack.packet_id);
                self.note_end(ack.packet_id);
            }
            Packet::PubRec(rec) => self.handle_pubrec(&rec),
            Packet::PubComp(comp) => {
                self.in_flight.retain(|(id, ..)| *id != comp.packet_id);
                self.note_end(comp.packet_id);
            }
            Packet::PubRel(rel) => {
                self.unreleased.remove(&rel.packet_id);
                wire.answers
                    .push_back(Packet::PubComp(PubComp::new(rel.packet_id)));
            }
            packet => panic!("{packet:?}"),
        }
    }

    fn handle_connack(&mut self, connack: &ConnAck) {
        assert_eq!(connack.reason, ReasonCode::Success);
        // A session whose first CONNACK was lost is known to the server alone.
        assert!(connack.session_present || !self.had_session);
        self.had_session = true;
        let told = connack.properties.as_ref();
        let told = told.and_then(|properties| properties.receive_maximum);
        let Some(wire) = &mut self.connection else {
            return;
        };
        wire.is_open = true;
        wire.server_receive_maximum = usize::from(told.map_or(u16::MAX, NonZeroU16::get));
        // [MQTT-4.4.0-1]: releases go again at once.
        let released: Vec<PacketId> = self
            .in_flight
            .iter()
            .filter(|(_, phase, _)| *phase == Phase::Released)
            .map(|(id, ..)| *id)
            .collect();
        for id in released {
            if let Some(wire) = &mut self.connection {
                wire.begun.insert(id);
            }
            self.put(&Packet::PubRel(PubRel::new(id)));
        }
        self.begin();
    }

    fn handle_publish(&mut self, publish: &Publish) {
        let Some(wire) = &mut self.connection else {
            return;
        };
        let number = u32::from_be_bytes(publish.payload[..].try_into().expect("four bytes"));
        let alias = publish.properties.as_ref().and_then(|all| all.topic_alias);
        let topic = match alias {
            Some(alias) if publish.topic.is_empty() => wire.aliases[&alias].clone(),
            Some(alias) => {
                wire.aliases.insert(alias, publish.topic.clone());
                publish.topic.clone()
            }
            None => publish.topic.clone(),
        };
        assert_eq!(
            &*topic,
            if number % 2 == 0 {
                "even"
            } else {
                "odd numbers"
            }
        );
        let id = publish.packet_id.expect("above QoS 0");
        assert!(wire.under_way.insert(id), "sent twice on one connection");
        assert!(
            self.version != ProtocolVersion::V5
                || wire.under_way.len() <= usize::from(wire.receive_maximum),
            "above the Receive Maximum"
        );
        if publish.qos == QoS::AtLeastOnce {
            self.received.push(number);
            wire.answers.push_back(Packet::PubAck(PubAck::new(id)));
            return;
        }
        if self.unreleased.insert(id) {
            self.received.push(number);
        } else {
            assert!(publish.dup, "an identifier in use was given again");
        }
        wire.answers.push_back(Packet::PubRec(PubRec::new(id)));
    }

    fn handle_pubrec(&mut self, rec: &PubRec) {
        assert!(!rec.reason.is_error());
        let entry = self
            .in_flight
            .iter_mut()
            .find(|(id, ..)| *id == rec.packet_id);
        if let Some((_, phase, _)) = entry {
            *phase = Phase::Released;
        }
        self.put(&Packet::PubRel(PubRel::new(rec.packet_id)));
    }

    fn note_end(&mut self, id: PacketId) {
        self.tried.remove(&id);
        if let Some(wire) = &mut self.connection {
            wire.begun.remove(&id);
        }
        self.begin();
    }

    /// Sends what was not sent on this connection, as far as the server takes it. What may have been sent
    /// before carries DUP.
    fn begin(&mut self) {
        let Some(wire) = &mut self.connection else {
            return;
        };
        if !wire.is_open {
            return;
        }
        let mut packets = Vec::new();
        for (id, phase, number) in &self.in_flight {
            if wire.begun.len() >= wire.server_receive_maximum.min(4) {
                break;
            }
            if *phase == Phase::Published && wire.begun.insert(*id) {
                let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                let mut publish = Publish::new("t".parse().expect("legal"), payload);
                publish.qos = self.qos;
                publish.packet_id = Some(*id);
                publish.dup = !self.tried.insert(*id);
                packets.push(Packet::Publish(publish));
            }
        }
        for packet in packets {
            self.put(&packet);
        }
    }

    fn put(&mut self, packet: &Packet) {
        let mut buf = BytesMut::new();
        packet.encode(self.version, &mut buf).expect("legal");
        self.output.push(buf.freeze());
    }
}
