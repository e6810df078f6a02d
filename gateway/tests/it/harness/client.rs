//! A device on the wire: the codec's own packets, or any bytes at all.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    ConnAck, Connect, Decoder, Limits, Packet, PacketId, ProtocolVersion, PubAck, Publish, QoS,
    ReasonCode, Role, Subscribe, Subscription, Unsubscribe,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::{ClientConfig, HandshakeKind, pki_types::ServerName};
use serde_json::Value;
use sha2::Sha256;
use smallvec::SmallVec;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{App, Device, PATIENCE, Site};

/// A connection over TLS whose packets are the test's.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
    version: ProtocolVersion,
    buffer: BytesMut,
    /// Publishes that came while something else was waited for.
    kept: VecDeque<Publish>,
    next_id: PacketId,
    /// Whether QoS 1 messages are acknowledged as they come.
    pub(crate) acknowledges: bool,
}

/// How a client introduces itself.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) version: ProtocolVersion,
    pub(crate) keep_alive_secs: u16,
    pub(crate) client_id: String,
    pub(crate) username: String,
    pub(crate) password: String,
    /// For how many seconds the session is to be kept, if it is; without a clean start.
    pub(crate) keeps_secs: Option<u32>,
}

impl Login {
    /// The device's own credentials over 3.1.1.
    pub(crate) fn of(device: &Device) -> Self {
        Self {
            version: ProtocolVersion::V311,
            keep_alive_secs: 60,
            client_id: device.id.clone(),
            username: device.id.clone(),
            password: device.secret.clone(),
            keeps_secs: None,
        }
    }

    /// The device in Huawei's form with sign type 0, which leaves the hour unchecked.
    pub(crate) fn huawei(device: &Device) -> Self {
        const HOUR: &str = "2026112105";
        let mut mac = Hmac::<Sha256>::new_from_slice(HOUR.as_bytes()).expect("any key");
        mac.update(device.secret.as_bytes());
        Self {
            client_id: format!("{}_0_0_{HOUR}", device.id),
            password: hex::encode(mac.finalize().into_bytes()),
            ..Self::of(device)
        }
    }

    /// An application over MQTT 5, with a ClientId of its own.
    pub(crate) fn application(app: &App, client_id: &str) -> Self {
        Self {
            version: ProtocolVersion::V5,
            keep_alive_secs: 60,
            client_id: client_id.to_owned(),
            username: app.id.clone(),
            password: app.secret.clone(),
            keeps_secs: None,
        }
    }

    /// The same with a session that goes on, and outlives the connection for so long.
    pub(crate) fn keeping(self, secs: u32) -> Self {
        Self {
            keeps_secs: Some(secs),
            ..self
        }
    }

    /// The same over another version.
    pub(crate) fn over(self, version: ProtocolVersion) -> Self {
        Self { version, ..self }
    }
}

/// The CONNECT of a login.
pub(crate) fn connect(login: &Login) -> Packet {
    let mut connect = Connect::new(login.version, login.client_id.as_str());
    connect.keep_alive_secs = login.keep_alive_secs;
    connect.username = Some(login.username.as_str().into());
    connect.password = Some(Bytes::copy_from_slice(login.password.as_bytes()));
    if let Some(secs) = login.keeps_secs {
        connect.clean_start = false;
        if login.version == ProtocolVersion::V5 {
            let properties = connect.properties.get_or_insert_default();
            properties.session_expiry_interval_secs = Some(secs);
        }
    }
    Packet::Connect(Box::new(connect))
}

/// A SUBSCRIBE with one QoS for all filters.
pub(crate) fn subscribe(packet_id: PacketId, filters: &[&str], qos: QoS) -> Packet {
    let filters: SmallVec<[Subscription; 1]> = filters
        .iter()
        .map(|filter| Subscription::new(filter.parse().expect("a filter"), qos))
        .collect();
    Packet::Subscribe(Box::new(Subscribe {
        packet_id,
        filters,
        properties: None,
    }))
}

/// A PUBLISH, at QoS 1 where it has an identifier.
pub(crate) fn publish(topic: &str, payload: &[u8], packet_id: Option<PacketId>) -> Packet {
    let payload = Bytes::copy_from_slice(payload);
    let mut publish = Publish::new(topic.parse().expect("a topic"), payload);
    publish.packet_id = packet_id;
    if packet_id.is_some() {
        publish.qos = QoS::AtLeastOnce;
    }
    Packet::Publish(publish)
}

/// The payload of a message as JSON.
pub(crate) fn payload_json(message: &Publish) -> Value {
    serde_json::from_slice(&message.payload).expect("JSON")
}

impl Client {
    /// Goes through the TLS handshake and says nothing.
    pub(crate) async fn open(site: &Site) -> Self {
        Self::open_on(site, TcpSocket::new_v4().expect("a socket")).await
    }

    /// The same on a socket whose buffer for what comes is as small as the system allows.
    pub(crate) async fn open_narrow(site: &Site) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        Self::open_on(site, socket).await
    }

    /// The same from another address of the loopback.
    pub(crate) async fn open_from(site: &Site, source: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("a loopback address");
        Self::open_on(site, socket).await
    }

    /// The same with TLS of the test's own.
    pub(crate) async fn open_with(site: &Site, tls: Arc<ClientConfig>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let opened = Self::try_open(site, socket, tls).await;
        opened.expect("TLS")
    }

    /// The same with a gateway that may refuse the connection.
    pub(crate) async fn may_open(site: &Site, tls: Arc<ClientConfig>) -> Option<Self> {
        let socket = TcpSocket::new_v4().expect("a socket");
        Self::try_open(site, socket, tls).await.ok()
    }

    async fn open_on(site: &Site, socket: TcpSocket) -> Self {
        let opened = Self::try_open(site, socket, Arc::clone(&site.tls)).await;
        opened.expect("TLS")
    }

    async fn try_open(
        site: &Site,
        socket: TcpSocket,
        tls: Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let address: SocketAddr = site.ports.mqtts.expect("an MQTT listener");
        let opening = async {
            let tcp = socket.connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").expect("a name");
            TlsConnector::from(tls).connect(name, tcp).await
        };
        Ok(Self {
            stream: timeout(PATIENCE, opening).await.expect("TLS in time")?,
            decoder: Decoder::new(Role::Client, Limits::default()),
            version: ProtocolVersion::V311,
            buffer: BytesMut::new(),
            kept: VecDeque::new(),
            next_id: PacketId::MIN,
            acknowledges: true,
        })
    }

    /// Whether TLS went on with an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        let (_, tls) = self.stream.get_ref();
        tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the gateway presented.
    pub(crate) fn server_certificate(&self) -> Vec<u8> {
        let (_, tls) = self.stream.get_ref();
        let chain = tls.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    }

    /// Introduces itself and gives the answer.
    pub(crate) async fn introduce(&mut self, login: &Login) -> ConnAck {
        self.speak(login.version);
        self.send(&connect(login)).await;
        self.connack().await
    }

    /// Encodes and decodes this version from now on.
    pub(crate) fn speak(&mut self, version: ProtocolVersion) {
        self.version = version;
        self.decoder.set_version(version);
    }

    /// The answer to CONNECT.
    pub(crate) async fn connack(&mut self) -> ConnAck {
        let packet = self.recv().await;
        let Some(Packet::ConnAck(connack)) = packet else {
            unreachable!("CONNACK expected: {packet:?}")
        };
        connack
    }

    /// A device that is let in.
    pub(crate) async fn log_in(site: &Site, login: &Login) -> Self {
        let mut client = Self::open(site).await;
        let connack = client.introduce(login).await;
        assert_eq!(connack.reason, ReasonCode::Success);
        client
    }

    /// A device that is let in and listens for transfers at QoS 1.
    pub(crate) async fn listening(site: &Site, device: &Device) -> Self {
        let mut client = Self::log_in(site, &Login::of(device)).await;
        let topics = [device.down(), device.chunks()];
        let granted = client
            .subscribe(&[&topics[0], &topics[1]], QoS::AtLeastOnce)
            .await;
        assert_eq!(granted, [ReasonCode::GrantedQoS1; 2]);
        client
    }

    /// An identifier that this client has not used for long.
    pub(crate) fn packet_id(&mut self) -> PacketId {
        self.next_id = self.next_id.next();
        self.next_id
    }

    pub(crate) async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet
            .encode(self.version, &mut bytes)
            .expect("a good packet");
        self.send_bytes(&bytes).await;
    }

    /// Sends a packet to a gateway that may have closed.
    pub(crate) async fn try_send(&mut self, packet: &Packet) -> std::io::Result<()> {
        let mut bytes = BytesMut::new();
        packet
            .encode(self.version, &mut bytes)
            .expect("a good packet");
        self.try_send_bytes(&bytes).await
    }

    /// Sends packets in one write, which makes one TLS record of them.
    pub(crate) async fn send_together(&mut self, packets: &[Packet]) {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet
                .encode(self.version, &mut bytes)
                .expect("a good packet");
        }
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes, given in hexadecimal digits with blanks anywhere.
    pub(crate) async fn send_hex(&mut self, digits: &str) {
        let digits: String = digits.split_whitespace().collect();
        self.send_bytes(&hex::decode(digits).expect("digits")).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.expect("it is open");
    }

    /// Sends bytes to a gateway that may have closed.
    pub(crate) async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, sending).await.expect("sent in time")
    }

    /// The next packet; `None` once the gateway has closed.
    pub(crate) async fn recv(&mut self) -> Option<Packet> {
        let receiving = async {
            loop {
                if let Some(packet) = self.decoder.decode(&mut self.buffer).expect("MQTT") {
                    return Some(packet);
                }
                // A reset is an end, too.
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        let packet = timeout(PATIENCE, receiving).await.expect("in time")?;
        if let Packet::Publish(Publish {
            packet_id: Some(packet_id),
            ..
        }) = packet
            && self.acknowledges
        {
            self.acknowledge(packet_id).await;
        }
        Some(packet)
    }

    pub(crate) async fn acknowledge(&mut self, packet_id: PacketId) {
        self.acknowledge_all([packet_id]).await;
    }

    /// Acknowledges messages in one write.
    pub(crate) async fn acknowledge_all(&mut self, packet_ids: impl IntoIterator<Item = PacketId>) {
        let mut bytes = BytesMut::new();
        for packet_id in packet_ids {
            let ack = Packet::PubAck(PubAck::new(packet_id));
            ack.encode(self.version, &mut bytes).expect("a good packet");
        }
        // The gateway may have closed behind the message.
        let _closed = self.try_send_bytes(&bytes).await;
    }

    /// The next packet that is no message; messages are kept for [`Client::message`].
    pub(crate) async fn answer(&mut self) -> Option<Packet> {
        loop {
            match self.recv().await? {
                Packet::Publish(publish) => self.kept.push_back(publish),
                packet => return Some(packet),
            }
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Publish {
        if let Some(kept) = self.kept.pop_front() {
            return kept;
        }
        loop {
            let packet = self.recv().await.expect("an open connection");
            if let Packet::Publish(publish) = packet {
                return publish;
            }
        }
    }

    /// Waits until the gateway has acted on everything before; gives the messages that came.
    pub(crate) async fn ping(&mut self) -> Vec<Publish> {
        self.send(&Packet::PingReq).await;
        loop {
            let packet = self.answer().await.expect("an open connection");
            if packet == Packet::PingResp {
                return self.kept.drain(..).collect();
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, filters: &[&str], qos: QoS) -> Vec<ReasonCode> {
        let packet_id = self.packet_id();
        self.send(&subscribe(packet_id, filters, qos)).await;
        loop {
            if let Packet::SubAck(suback) = self.answer().await.expect("an open connection") {
                assert_eq!(suback.packet_id, packet_id);
                return suback.reasons.to_vec();
            }
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<ReasonCode> {
        let packet_id = self.packet_id();
        let filters = filters
            .iter()
            .map(|filter| filter.parse().expect("a filter"));
        let unsubscribe = Unsubscribe {
            packet_id,
            filters: filters.collect(),
            properties: None,
        };
        self.send(&Packet::Unsubscribe(Box::new(unsubscribe))).await;
        loop {
            if let Packet::UnsubAck(unsuback) = self.answer().await.expect("an open connection") {
                return unsuback.reasons.to_vec();
            }
        }
    }

    /// Publishes at QoS 1 and gives the reason in the acknowledgement.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) -> ReasonCode {
        let packet_id = self.packet_id();
        self.send(&publish(topic, payload, Some(packet_id))).await;
        loop {
            // That of a message before it may come late.
            if let Packet::PubAck(ack) = self.answer().await.expect("an open connection")
                && ack.packet_id == packet_id
            {
                return ack.reason;
            }
        }
    }

    /// Waits for the close; gives the reason of a DISCONNECT that came before it.
    pub(crate) async fn closed(&mut self) -> Option<ReasonCode> {
        let mut said = None;
        while let Some(packet) = self.recv().await {
            if let Packet::Disconnect(disconnect) = packet {
                said = Some(disconnect.reason);
            }
        }
        said
    }
}
