//! MQTT subscribers that acknowledge everything, and the publisher of one topic: what brokers are
//! measured with.
//!
//! Built on the protocol crate's codec. MQTT 3.1.1, QoS 1, clean sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    Connect, Decoder, Disconnect, Limits, Packet, PacketId, ProtocolVersion, PubAck, QoS,
    ReasonCode, Role, Subscribe, Subscription, encode_publish_header,
};
use smallvec::smallvec;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ClientError, Dial, FLEET_TIMEOUT, MAX_CONNECTING, Socket, first_end, read_shared, until_all,
};

/// Subscribers of one topic.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    clients: usize,
    tasks: JoinSet<Result<(), ClientError>>,
}

struct Shared {
    dial: Dial,
    connecting: Semaphore,
    subscribed: AtomicUsize,
    received_bytes: AtomicUsize,
    stop: CancellationToken,
}

impl Fleet {
    /// Connects `clients` and subscribes each to [`TOPIC`].
    ///
    /// # Errors
    /// The first client's [`ClientError`].
    pub(crate) async fn connect(dial: &Dial, clients: u32) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared {
            dial: dial.clone(),
            connecting: Semaphore::new(MAX_CONNECTING),
            subscribed: AtomicUsize::new(0),
            received_bytes: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            tasks.spawn(subscriber(Arc::clone(&shared), number));
        }
        let clients = tasks.len();
        let subscribed = || shared.subscribed.load(Ordering::Relaxed);
        let ended = || first_end(&mut tasks);
        until_all(clients, "subscribed", FLEET_TIMEOUT, subscribed, ended).await?;
        Ok(Self {
            shared,
            clients,
            tasks,
        })
    }

    /// Publishes `messages` of `size_bytes` and waits until every subscriber has all of them.
    ///
    /// # Errors
    /// The first client's [`ClientError`].
    pub(crate) async fn fan_out(
        &mut self,
        messages: usize,
        size_bytes: usize,
    ) -> Result<(), ClientError> {
        let publish = publish(&self.shared.dial, messages, size_bytes);
        timeout(FLEET_TIMEOUT, publish)
            .await
            .map_err(|_| ClientError::Answer("messages are not acknowledged".to_owned()))??;
        let received = || self.shared.received_bytes.load(Ordering::Relaxed) / size_bytes;
        let tasks = &mut self.tasks;
        let wanted = self.clients * messages;
        let ended = || first_end(tasks);
        until_all(wanted, "messages came", FLEET_TIMEOUT, received, ended).await
    }

    /// Disconnects all of them.
    pub(crate) async fn leave(mut self) {
        self.shared.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // Those that hang are aborted with the set.
        let _ = timeout(FLEET_TIMEOUT, all).await;
    }
}

async fn subscriber(shared: Arc<Shared>, number: u32) -> Result<(), ClientError> {
    let permit = shared.connecting.acquire().await;
    let mut client = Client::connect(&shared.dial, format!("subscriber-{number}")).await?;
    client.subscribe().await?;
    drop(permit);
    shared.subscribed.fetch_add(1, Ordering::Relaxed);
    loop {
        let received = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return client.disconnect().await,
            received = client.receive() => received?,
        };
        shared.received_bytes.fetch_add(received, Ordering::Relaxed);
        client.flush().await?;
    }
}

/// Publishes with at most [`PUBLISH_WINDOW`] messages unacknowledged.
async fn publish(dial: &Dial, messages: usize, size_bytes: usize) -> Result<(), ClientError> {
    let mut client = Client::connect(dial, "publisher".to_owned()).await?;
    let payload = Bytes::from(vec![0x5a; size_bytes]);
    let mut packet_id = FIRST_ID;
    for sent in 0..messages {
        while sent >= client.acknowledged + PUBLISH_WINDOW {
            client.receive().await?;
        }
        encode_publish_header(
            &mut client.unsent,
            VERSION,
            TOPIC,
            QoS::AtLeastOnce,
            Some(packet_id),
            false,
            false,
            payload.len(),
        )?;
        client.unsent.extend_from_slice(&payload);
        client.flush().await?;
        packet_id = packet_id.next();
    }
    while client.acknowledged < messages {
        client.receive().await?;
    }
    client.disconnect().await
}

/// A device that publishes one small message at a time and waits for its acknowledgement.
pub(crate) struct Prober {
    client: Client,
    next: PacketId,
}

impl Prober {
    /// Connects as a device, by its secret.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn connect(
        dial: &Dial,
        device: &str,
        secret: &str,
    ) -> Result<Self, ClientError> {
        let mut connect = Connect::new(VERSION, device);
        connect.username = Some(device.into());
        connect.password = Some(Bytes::copy_from_slice(secret.as_bytes()));
        Ok(Self {
            client: Client::open(dial, connect).await?,
            next: FIRST_ID,
        })
    }

    /// Publishes, and gives the time until the acknowledgement.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn publish(&mut self, topic: &str) -> Result<Duration, ClientError> {
        encode_publish_header(
            &mut self.client.unsent,
            VERSION,
            topic,
            QoS::AtLeastOnce,
            Some(self.next),
            false,
            false,
            PROBE.len(),
        )?;
        self.client.unsent.extend_from_slice(PROBE);
        self.next = self.next.next();
        let wanted = self.client.acknowledged + 1;
        let sent = Instant::now();
        self.client.flush().await?;
        while self.client.acknowledged < wanted {
            self.client.receive().await?;
        }
        Ok(sent.elapsed())
    }
}

/// One connection.
struct Client {
    socket: Box<dyn Socket>,
    decoder: Decoder,
    unread: BytesMut,
    unsent: BytesMut,
    acknowledged: usize,
}

impl Client {
    async fn connect(dial: &Dial, client_id: String) -> Result<Self, ClientError> {
        Self::open(dial, Connect::new(VERSION, client_id)).await
    }

    async fn open(dial: &Dial, mut connect: Connect) -> Result<Self, ClientError> {
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        decoder.set_version(VERSION);
        let mut client = Self {
            socket: dial.open().await?,
            decoder,
            unread: BytesMut::new(),
            unsent: BytesMut::new(),
            acknowledged: 0,
        };
        connect.keep_alive_secs = KEEP_ALIVE_SECS;
        client.send(&Packet::Connect(Box::new(connect))).await?;
        match client.answer().await? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => Ok(client),
            other => Err(ClientError::Answer(format!("{other:?}"))),
        }
    }

    async fn subscribe(&mut self) -> Result<(), ClientError> {
        let filter = TOPIC
            .parse()
            .map_err(|_| ClientError::Answer(format!("no filter: {TOPIC}")))?;
        let subscribe = Subscribe {
            packet_id: FIRST_ID,
            filters: smallvec![Subscription::new(filter, QoS::AtLeastOnce)],
            properties: None,
        };
        self.send(&Packet::Subscribe(Box::new(subscribe))).await?;
        match self.answer().await? {
            Packet::SubAck(ack) if !ack.reasons.iter().any(|reason| reason.is_error()) => Ok(()),
            other => Err(ClientError::Answer(format!("{other:?}"))),
        }
    }

    async fn disconnect(mut self) -> Result<(), ClientError> {
        let disconnect = Disconnect {
            reason: ReasonCode::Success,
            properties: None,
        };
        self.send(&Packet::Disconnect(disconnect)).await?;
        Ok(self.socket.shutdown().await?)
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), ClientError> {
        packet.encode(VERSION, &mut self.unsent)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        if !self.unsent.is_empty() {
            self.socket.write_all(&self.unsent).await?;
            self.socket.flush().await?;
            // A connection at rest keeps no buffer.
            self.unsent = BytesMut::new();
        }
        Ok(())
    }

    /// The next packet, whatever it is.
    async fn answer(&mut self) -> Result<Packet, ClientError> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.unread)? {
                return Ok(packet);
            }
            self.read().await?;
        }
    }

    /// Reads once; gives the bytes of the messages that it completed, whose acknowledgements are
    /// left for [`Client::flush`].
    ///
    /// # Cancel safety
    /// Safe: nothing is awaited once bytes were taken.
    async fn receive(&mut self) -> Result<usize, ClientError> {
        self.read().await?;
        let mut received = 0;
        while let Some(packet) = self.decoder.decode(&mut self.unread)? {
            match packet {
                Packet::Publish(publish) => {
                    received += publish.payload.len();
                    if let Some(packet_id) = publish.packet_id {
                        let ack = Packet::PubAck(PubAck::new(packet_id));
                        ack.encode(VERSION, &mut self.unsent)?;
                    }
                }
                Packet::PubAck(_) => self.acknowledged += 1,
                other => return Err(ClientError::Answer(format!("{other:?}"))),
            }
        }
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        Ok(received)
    }

    async fn read(&mut self) -> Result<(), ClientError> {
        let unread = &mut self.unread;
        let take = |bytes: &[u8]| {
            unread.extend_from_slice(bytes);
            bytes.len()
        };
        match read_shared(&mut self.socket, take).await? {
            0 => Err(ClientError::Answer("the connection was closed".to_owned())),
            _ => Ok(()),
        }
    }
}

const VERSION: ProtocolVersion = ProtocolVersion::V311;
const TOPIC: &str = "bench/fan-out";
/// Longer than any run: no pings in the figures.
const KEEP_ALIVE_SECS: u16 = 1200;
const PUBLISH_WINDOW: usize = 32;
const PROBE: &[u8] = b"probe";
const FIRST_ID: PacketId = PacketId::new(1).expect("1 is not 0");
