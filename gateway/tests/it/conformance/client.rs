//! A client of plain TCP whose every packet is the test's, apart from acknowledgements.

use std::{collections::VecDeque, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    ConnAck, Connect, Decoder, Disconnect, Limits, Packet, PacketId, Properties, ProtocolVersion,
    PubAck, PubComp, PubRec, PubRel, Publish, QoS, ReasonCode, Role, Subscribe, Subscription,
    TopicName, Unsubscribe, Will,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::harness::PATIENCE;

pub(super) struct Raw {
    stream: TcpStream,
    decoder: Decoder,
    version: ProtocolVersion,
    buffer: BytesMut,
    kept: VecDeque<Publish>,
    next_id: PacketId,
    /// Whether what comes is acknowledged at once.
    pub(super) answers: bool,
}

/// A CONNECT with a clean start and a keep-alive of 0, as the suites say it.
pub(super) fn hello(version: ProtocolVersion, client_id: &str) -> Connect {
    Connect::new(version, client_id)
}

/// The same with properties.
pub(super) fn hello_with(client_id: &str, properties: Properties) -> Connect {
    Connect {
        properties: Some(Box::new(properties)),
        ..hello(ProtocolVersion::V5, client_id)
    }
}

/// A session that goes on where it was and outlives its connection.
pub(super) fn lasting(version: ProtocolVersion, client_id: &str) -> Connect {
    let session_expiry_interval_secs = Some(600);
    Connect {
        clean_start: false,
        properties: (version == ProtocolVersion::V5).then(|| {
            Box::new(Properties {
                session_expiry_interval_secs,
                ..Properties::default()
            })
        }),
        ..hello(version, client_id)
    }
}

/// A will of QoS 2.
pub(super) fn will(topic: &str, properties: Option<Properties>) -> Will {
    Will {
        topic: topic.parse().expect("a topic"),
        payload: Bytes::from_static(b"will"),
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: properties.map(Box::new),
    }
}

pub(super) fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits).expect("a QoS")
}

impl Raw {
    pub(super) async fn connect(server: SocketAddr, connect: Connect) -> (Self, ConnAck) {
        let mut client = Self::open(server, connect.version).await;
        client.send(&Packet::Connect(Box::new(connect))).await;
        let packet = client.recv().await;
        let Some(Packet::ConnAck(connack)) = packet else {
            unreachable!("CONNACK expected: {packet:?}")
        };
        (client, connack)
    }

    pub(super) async fn open(server: SocketAddr, version: ProtocolVersion) -> Self {
        let stream = TcpStream::connect(server).await.expect("a listener");
        stream.set_nodelay(true).expect("an option");
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        decoder.set_version(version);
        Self {
            stream,
            decoder,
            version,
            buffer: BytesMut::new(),
            kept: VecDeque::new(),
            next_id: PacketId::MIN,
            answers: true,
        }
    }

    pub(super) async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.encode(self.version, &mut bytes).expect("legal");
        self.send_bytes(&bytes).await;
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed.
        let _closed = self.stream.write_all(bytes).await;
    }

    /// The next packet; `None` once the server has closed.
    pub(super) async fn recv(&mut self) -> Option<Packet> {
        let receiving = async {
            loop {
                if let Some(packet) = self.decoder.decode(&mut self.buffer).expect("MQTT") {
                    return Some(packet);
                }
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        let packet = timeout(PATIENCE, receiving).await.expect("in time")?;
        if self.answers {
            self.answer(&packet).await;
        }
        Some(packet)
    }

    async fn answer(&mut self, packet: &Packet) {
        let answer = match packet {
            Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => Packet::PubAck(PubAck::new(id)),
                (QoS::ExactlyOnce, Some(id)) => Packet::PubRec(PubRec::new(id)),
                _ => return,
            },
            Packet::PubRel(rel) => Packet::PubComp(PubComp::new(rel.packet_id)),
            Packet::PubRec(rec) if !rec.reason.is_error() => {
                Packet::PubRel(PubRel::new(rec.packet_id))
            }
            _ => return,
        };
        self.send(&answer).await;
    }

    /// The next packet that satisfies `is_it`; messages that come before are kept.
    pub(super) async fn wait<T>(&mut self, mut is_it: impl FnMut(&Packet) -> Option<T>) -> T {
        loop {
            let packet = self.recv().await.expect("an open connection");
            if let Some(found) = is_it(&packet) {
                return found;
            }
            if let Packet::Publish(publish) = packet {
                self.kept.push_back(publish);
            }
        }
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Publish {
        if let Some(kept) = self.kept.pop_front() {
            return kept;
        }
        self.wait(|packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
        .await
    }

    /// The next `count` messages, in order, as their payloads.
    pub(super) async fn messages(&mut self, count: usize) -> Vec<Publish> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.message().await);
        }
        messages
    }

    /// Everything that waits for this client.
    pub(super) async fn rest(&mut self) -> Vec<Publish> {
        // An answer goes before messages that wait: those come before the next one.
        for _ in 0..3 {
            self.send(&Packet::PingReq).await;
            self.wait(|packet| (*packet == Packet::PingResp).then_some(()))
                .await;
        }
        self.kept.drain(..).collect()
    }

    pub(super) fn id(&mut self) -> PacketId {
        self.next_id = self.next_id.next();
        self.next_id
    }

    pub(super) async fn subscribe(&mut self, filter: &str, bits: u8) -> ReasonCode {
        let subscription = Subscription::new(filter.parse().expect("a filter"), qos(bits));
        self.subscribe_with(subscription, None).await
    }

    pub(super) async fn subscribe_with(
        &mut self,
        subscription: Subscription,
        properties: Option<Properties>,
    ) -> ReasonCode {
        let packet_id = self.id();
        let subscribe = Subscribe {
            packet_id,
            filters: [subscription].into_iter().collect(),
            properties: properties.map(Box::new),
        };
        self.send(&Packet::Subscribe(Box::new(subscribe))).await;
        self.wait(|packet| match packet {
            Packet::SubAck(ack) => {
                assert_eq!(ack.packet_id, packet_id);
                Some(ack.reasons[0])
            }
            _ => None,
        })
        .await
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) -> Vec<ReasonCode> {
        let packet_id = self.id();
        let unsubscribe = Unsubscribe {
            packet_id,
            filters: [filter.parse().expect("a filter")].into_iter().collect(),
            properties: None,
        };
        self.send(&Packet::Unsubscribe(Box::new(unsubscribe))).await;
        self.wait(|packet| match packet {
            Packet::UnsubAck(ack) => Some(ack.reasons.to_vec()),
            _ => None,
        })
        .await
    }

    /// Publishes and waits until the server has it.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8], bits: u8) {
        let topic: TopicName = topic.parse().expect("a topic");
        let publish = Publish::new(topic, Bytes::copy_from_slice(payload));
        self.hand_over(publish, bits).await;
    }

    /// The same to be retained.
    pub(super) async fn retain(&mut self, topic: &str, payload: &[u8], bits: u8) {
        let topic: TopicName = topic.parse().expect("a topic");
        let mut publish = Publish::new(topic, Bytes::copy_from_slice(payload));
        publish.retain = true;
        self.hand_over(publish, bits).await;
    }

    /// The same with properties.
    pub(super) async fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        bits: u8,
        properties: Properties,
    ) {
        let topic = match topic {
            "" => TopicName::aliased(),
            topic => topic.parse().expect("a topic"),
        };
        let mut publish = Publish::new(topic, Bytes::copy_from_slice(payload));
        publish.properties = Some(Box::new(properties));
        self.hand_over(publish, bits).await;
    }

    pub(super) async fn hand_over(&mut self, mut publish: Publish, bits: u8) {
        publish.qos = qos(bits);
        publish.packet_id = (bits > 0).then(|| self.id());
        let id = publish.packet_id;
        self.send(&Packet::Publish(publish)).await;
        if bits == 0 {
            // The next answer says that it was taken.
            self.send(&Packet::PingReq).await;
        }
        self.wait(|packet| {
            let is_end = match packet {
                Packet::PubAck(ack) => Some(ack.packet_id) == id,
                Packet::PubComp(comp) => Some(comp.packet_id) == id,
                Packet::PingResp => bits == 0,
                _ => false,
            };
            is_end.then_some(())
        })
        .await;
    }

    /// Publishes, and sees its own part of the exchange through with a client that answers nothing.
    pub(super) async fn publish_without_end(&mut self, topic: &str, payload: &[u8], bits: u8) {
        let payload = Bytes::copy_from_slice(payload);
        let mut publish = Publish::new(topic.parse().expect("a topic"), payload);
        publish.qos = qos(bits);
        publish.packet_id = (bits > 0).then(|| self.id());
        self.send(&Packet::Publish(publish)).await;
    }

    /// Takes its leave.
    pub(super) async fn disconnect(self) {
        self.disconnect_with(Disconnect::new(ReasonCode::Success))
            .await;
    }

    pub(super) async fn disconnect_with(mut self, disconnect: Disconnect) {
        self.answers = false;
        self.send(&Packet::Disconnect(disconnect)).await;
        while self.recv().await.is_some() {}
    }

    /// Waits for the close; gives the reason of a DISCONNECT before it.
    pub(super) async fn closed(&mut self) -> Option<ReasonCode> {
        let mut said = None;
        while let Some(packet) = self.recv().await {
            if let Packet::Disconnect(disconnect) = packet {
                said = Some(disconnect.reason);
            }
        }
        said
    }
}
