//! MQTT subscribers that acknowledge everything, and the publisher that they listen to: what Headgate
//! and brokers are measured with.
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
    ClientError, Dial, FLEET_TIMEOUT, Identity, MAX_CONNECTING, Socket, first_end, read_shared,
    until_all,
};

/// Who a client says it is, and what it listens to.
#[derive(Clone)]
pub(crate) struct Login {
    /// Its ClientId.
    pub(crate) client_id: String,
    /// User name and password.
    pub(crate) secret: Option<(String, String)>,
    /// What it presents in the handshake of TLS.
    pub(crate) identity: Option<Arc<Identity>>,
    /// What it subscribes to.
    pub(crate) filter: String,
    /// It reads nothing once it has subscribed.
    pub(crate) is_stalled: bool,
}

impl Login {
    /// A client without a secret that listens to `filter`.
    pub(crate) fn anonymous(client_id: impl Into<String>, filter: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            secret: None,
            identity: None,
            filter: filter.into(),
            is_stalled: false,
        }
    }

    fn connect(&self) -> Connect {
        let mut connect = Connect::new(VERSION, self.client_id.as_str());
        if let Some((user, password)) = &self.secret {
            connect.username = Some(user.as_str().into());
            connect.password = Some(Bytes::copy_from_slice(password.as_bytes()));
        }
        connect
    }
}

/// So many clients without a secret, which all listen to [`TOPIC`].
pub(crate) fn anonymous(clients: u32) -> Vec<Login> {
    let login = |number| Login::anonymous(format!("subscriber-{number}"), TOPIC);
    (0..clients).map(login).collect()
}

/// What a publisher says: each of `messages` rounds goes to every topic once.
pub(crate) struct Publishing<'a> {
    /// Who publishes; it subscribes to nothing.
    pub(crate) login: &'a Login,
    /// Where to. Every client that reads must get one message of each round.
    pub(crate) topics: &'a [String],
    /// Rounds.
    pub(crate) messages: usize,
    /// Bytes of each payload.
    pub(crate) size_bytes: usize,
}

/// Subscribers that are connected.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    readers: usize,
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
    /// Connects every one and subscribes it.
    ///
    /// # Errors
    /// The first client's [`ClientError`].
    pub(crate) async fn connect(dial: &Dial, logins: Vec<Login>) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared {
            dial: dial.clone(),
            connecting: Semaphore::new(MAX_CONNECTING),
            subscribed: AtomicUsize::new(0),
            received_bytes: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        });
        let readers = logins.iter().filter(|login| !login.is_stalled).count();
        let mut tasks = JoinSet::new();
        for login in logins {
            tasks.spawn(subscriber(Arc::clone(&shared), login));
        }
        let clients = tasks.len();
        let subscribed = || shared.subscribed.load(Ordering::Relaxed);
        let ended = || first_end(&mut tasks);
        until_all(clients, "subscribed", FLEET_TIMEOUT, subscribed, ended).await?;
        Ok(Self {
            shared,
            readers,
            tasks,
        })
    }

    /// Publishes, and waits until everyone who reads has a message of each round.
    ///
    /// # Errors
    /// The first client's [`ClientError`].
    pub(crate) async fn take(&mut self, publishing: &Publishing<'_>) -> Result<(), ClientError> {
        let publish = publish(&self.shared.dial, publishing);
        timeout(FLEET_TIMEOUT, publish)
            .await
            .map_err(|_| ClientError::Answer("messages are not acknowledged".to_owned()))??;
        let size_bytes = publishing.size_bytes;
        let received = || self.shared.received_bytes.load(Ordering::Relaxed) / size_bytes;
        let tasks = &mut self.tasks;
        let wanted = self.readers * publishing.messages;
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

async fn subscriber(shared: Arc<Shared>, login: Login) -> Result<(), ClientError> {
    let permit = shared.connecting.acquire().await;
    let mut client = Client::open(&shared.dial, &login).await?;
    client.subscribe(&login.filter).await?;
    drop(permit);
    shared.subscribed.fetch_add(1, Ordering::Relaxed);
    if login.is_stalled {
        shared.stop.cancelled().await;
        return Ok(());
    }
    drop(login);
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
async fn publish(dial: &Dial, what: &Publishing<'_>) -> Result<(), ClientError> {
    let mut client = Client::open(dial, what.login).await?;
    let payload = Bytes::from(vec![0x5a; what.size_bytes]);
    let mut packet_id = FIRST_ID;
    let mut sent = 0;
    for topic in (0..what.messages).flat_map(|_| what.topics) {
        while sent >= client.acknowledged + PUBLISH_WINDOW {
            client.receive().await?;
        }
        encode_publish_header(
            &mut client.unsent,
            VERSION,
            topic,
            QoS::AtLeastOnce,
            Some(packet_id),
            false,
            false,
            payload.len(),
        )?;
        client.unsent.extend_from_slice(&payload);
        client.flush().await?;
        packet_id = packet_id.next();
        sent += 1;
    }
    while client.acknowledged < sent {
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
        let login = Login {
            secret: Some((device.to_owned(), secret.to_owned())),
            ..Login::anonymous(device, "")
        };
        Ok(Self {
            client: Client::open(dial, &login).await?,
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
    async fn open(dial: &Dial, login: &Login) -> Result<Self, ClientError> {
        let mut decoder = Decoder::new(Role::Client, Limits::default());
        decoder.set_version(VERSION);
        let mut client = Self {
            socket: dial.open(login.identity.as_deref()).await?,
            decoder,
            unread: BytesMut::new(),
            unsent: BytesMut::new(),
            acknowledged: 0,
        };
        let mut connect = login.connect();
        connect.keep_alive_secs = KEEP_ALIVE_SECS;
        client.send(&Packet::Connect(Box::new(connect))).await?;
        match client.answer().await? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => Ok(client),
            other => Err(ClientError::Answer(format!("{other:?}"))),
        }
    }

    async fn subscribe(&mut self, filter: &str) -> Result<(), ClientError> {
        let filter = filter
            .parse()
            .map_err(|_| ClientError::Answer(format!("no filter: {filter}")))?;
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
/// What [`anonymous`] clients listen to.
pub(crate) const TOPIC: &str = "bench/fan-out";
/// Longer than any run: no pings in the figures.
const KEEP_ALIVE_SECS: u16 = 1200;
const PUBLISH_WINDOW: usize = 32;
const PROBE: &[u8] = b"probe";
const FIRST_ID: PacketId = PacketId::new(1).expect("1 is not 0");
