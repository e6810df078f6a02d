//! MQTT for devices: sockets and framing around a session, no rules.
//!
//! One task for each connection: handshake, CONNECT, then a loop that reads what has come, lets
//! the session act on it, and writes what the session fills into a batch. The phases before the
//! loop are boxed and gone when it starts; buffers belong to the thread.

mod buffers;
mod listener;
mod open;

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use bytes::BytesMut;
use headgate_protocol::mqtt::{Decoder, Packet, PacketType};
use tokio::{net::TcpListener, time::Sleep};

use self::buffers::{buffer_behind, give_back, pool};
pub use self::listener::ListenerSetup;
use super::{
    accept::{Accepted, Gate},
    tls::{DeviceStream, ReadOutcome},
};
use crate::{
    session::{Batch, Ends, Node, Session, Signals},
    shutdown::Shutdown,
    telemetry::metrics::DisconnectReason,
};

/// Packets that are acted on before the thread looks after other connections.
const PACKETS_PER_TURN: usize = 64;

/// Accepts devices until the node drains.
pub async fn serve(
    listener: TcpListener,
    setup: ListenerSetup,
    node: Arc<Node>,
    gate: Gate,
    shutdown: Shutdown,
) {
    let setup = Arc::new(setup);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => return,
            accepted = gate.accept(&listener, &setup.proxies) => accepted,
        };
        shutdown.spawn(run(accepted, Arc::clone(&setup), Arc::clone(&node)));
    }
}

/// A connection from its beginning to its end.
///
/// No `async fn`: its future would keep room for every argument as long as the connection lives.
fn run(
    accepted: Accepted,
    setup: Arc<ListenerSetup>,
    node: Arc<Node>,
) -> impl Future<Output = ()> + Send {
    let Accepted {
        tcp,
        address,
        is_proxy,
        connection,
        handshake,
    } = accepted;
    // Boxed: what the handshake and CONNECT need is gone when the session runs.
    let opening = Box::pin(open::open(tcp, address, is_proxy, setup, node, handshake));
    async move {
        if let Some(mut live) = opening.await {
            let reason = live.run().await;
            live.stream.close();
            live.set_backlog(0);
            live.session.end(reason);
        }
        drop(connection);
    }
}

/// A connection whose session runs.
struct Live {
    node: Arc<Node>,
    stream: DeviceStream,
    decoder: Decoder,
    session: Session,
    /// The beginning of a packet whose rest has not come; empty and without memory at rest.
    tail: BytesMut,
    /// `tail` may hold whole packets: they wait until the session takes input again.
    held: bool,
    /// When the socket last took something, while bytes wait for it.
    stalled_since: Option<Instant>,
    /// What this connection adds to the node's sum of bytes that sockets have not taken.
    backlog_bytes: usize,
    timer: Pin<Box<Sleep>>,
    /// The client's address, where a load balancer passes the connection on.
    proxied: Option<Box<SocketAddr>>,
}

/// What woke the loop.
enum Wakeup {
    /// Nothing did: something has come already.
    Held,
    Readable(io::Result<()>),
    Flushed(io::Result<usize>),
    Signals(Signals),
    Time,
}

impl Live {
    fn new(
        node: Arc<Node>,
        stream: DeviceStream,
        decoder: Decoder,
        session: Session,
        tail: BytesMut,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(far(&node).into()));
        Self {
            node,
            stream,
            decoder,
            session,
            tail,
            held: false,
            stalled_since: None,
            backlog_bytes: 0,
            timer,
            proxied: None,
        }
    }

    async fn run(&mut self) -> DisconnectReason {
        // What came in the same segment as CONNECT is waiting already.
        let mut wakeup = Wakeup::Held;
        loop {
            // Boxed while it lasts: what reading, acting and writing need is not at rest's expense.
            if let Err(reason) = Box::pin(self.turn(wakeup)).await {
                return reason;
            }
            wakeup = self.wait().await;
        }
    }

    /// Acts on what woke the loop, and writes until nothing is left to be done now.
    async fn turn(&mut self, wakeup: Wakeup) -> Result<(), DisconnectReason> {
        // When something was read that is acknowledged with what is written next.
        let mut read_at = Some(Instant::now());
        let has_published = match wakeup {
            Wakeup::Held => {
                let held = std::mem::take(&mut self.tail);
                self.take_packets(held).await?
            }
            Wakeup::Readable(Ok(())) => self.read().await?,
            Wakeup::Signals(signals) => {
                let now = Instant::now();
                self.take_signals(now, signals);
                self.session.act(now).await;
                false
            }
            Wakeup::Flushed(Ok(taken)) => {
                self.note_backlog(taken > 0);
                false
            }
            Wakeup::Time => {
                self.handle_time().await?;
                false
            }
            Wakeup::Readable(Err(_)) | Wakeup::Flushed(Err(_)) => {
                return Err(DisconnectReason::ConnectionLost);
            }
        };
        read_at.take_if(|_| !has_published);
        loop {
            self.write().await?;
            self.note_acknowledged(read_at.take());
            if let Some(reason) = self.session.closing() {
                return Err(self.linger(reason).await);
            }
            if !(self.held && self.session.wants_input()) {
                return Ok(());
            }
            self.held = false;
            let held = std::mem::take(&mut self.tail);
            let now = Instant::now();
            if self.take_packets(held).await? {
                read_at = Some(now);
            }
        }
    }

    /// Waits for the first of what can happen.
    async fn wait(&mut self) -> Wakeup {
        self.arm_timer();
        let wants_input = self.session.wants_input();
        let Self {
            stream,
            session,
            timer,
            ..
        } = self;
        poll_fn(move |cx| {
            if let Poll::Ready(signals) = session.poll_signals(cx) {
                return Poll::Ready(Wakeup::Signals(signals));
            }
            if stream.has_backlog()
                && let Poll::Ready(flushed) = stream.poll_flush(cx)
            {
                return Poll::Ready(Wakeup::Flushed(flushed));
            }
            if wants_input && let Poll::Ready(ready) = stream.poll_read_ready(cx) {
                return Poll::Ready(Wakeup::Readable(ready));
            }
            timer.as_mut().poll(cx).map(|()| Wakeup::Time)
        })
        .await
    }

    fn take_signals(&mut self, now: Instant, signals: Signals) {
        let ends = if signals.asks_for_address() {
            let socket = self.stream.socket();
            Ends {
                client: match &self.proxied {
                    Some(client) => Some(**client),
                    None => socket.peer_addr().ok(),
                },
                listener: socket.local_addr().ok(),
            }
        } else {
            Ends::default()
        };
        self.session.handle_signals(now, signals, ends);
    }

    /// Has the timer fire no later than it must; firing too early costs a look at the clock.
    fn arm_timer(&mut self) {
        let session = self.session.timeout();
        let stalled = self
            .stalled_since
            .map(|since| since + self.node.mqtt.stalled_timeout);
        let due = [session, stalled]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| far(&self.node));
        let armed = self.timer.deadline().into_std();
        if due < armed || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due.into());
        }
    }

    async fn handle_time(&mut self) -> Result<(), DisconnectReason> {
        let now = Instant::now();
        let stalled = self
            .stalled_since
            .is_some_and(|since| now >= since + self.node.mqtt.stalled_timeout);
        if stalled {
            return Err(DisconnectReason::Stalled);
        }
        self.session.handle_timeout(now);
        self.session.act(now).await;
        Ok(())
    }

    /// Says whether something was read that is to be acknowledged.
    async fn read(&mut self) -> Result<bool, DisconnectReason> {
        let mut buffer = buffer_behind(std::mem::take(&mut self.tail));
        match self.stream.read(&mut buffer) {
            Ok(ReadOutcome::Data(received)) => {
                self.node
                    .metrics
                    .bytes
                    .in_mqtt
                    .inc_by(u64::try_from(received).unwrap_or(u64::MAX));
                self.take_packets(buffer).await
            }
            Ok(ReadOutcome::Blocked) => {
                self.keep_or_pool(buffer);
                Ok(false)
            }
            Ok(ReadOutcome::Closed) => Err(DisconnectReason::ConnectionLost),
            Err(error) => {
                tracing::debug!(%error, "a device's connection broke");
                // An alert that explains why is waiting.
                let _unsent = self.stream.flush();
                Err(DisconnectReason::ConnectionLost)
            }
        }
    }

    /// Acts on every whole packet in the buffer; says whether there was a message that is to be acknowledged.
    async fn take_packets(&mut self, mut buffer: BytesMut) -> Result<bool, DisconnectReason> {
        let mut has_published = false;
        let mut taken = 0_usize;
        // Devices acknowledge a whole batch at once, and every core counts in the same place.
        let mut acknowledgements = 0;
        loop {
            if !self.session.wants_input() {
                // As much as may be is owed to the device: the rest waits until it has taken some.
                self.held = true;
                break;
            }
            match self.decoder.decode(&mut buffer) {
                Ok(Some(mut packet)) => {
                    buffer = give_back(buffer, &mut packet);
                    match packet.packet_type() {
                        PacketType::PubAck => acknowledgements += 1,
                        kind => self.node.metrics.packets_in(kind.number()).inc(),
                    }
                    has_published |=
                        matches!(&packet, Packet::Publish(publish) if publish.packet_id.is_some());
                    let now = Instant::now();
                    self.session.take_packet(now, packet);
                    self.session.act(now).await;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::info!(client = %self.session, %error, "a client broke the protocol");
                    self.session
                        .close_on_violation(error.reason_code(), &error.to_string());
                    break;
                }
            }
            taken += 1;
            if taken.is_multiple_of(PACKETS_PER_TURN) {
                self.count_acknowledgements(std::mem::take(&mut acknowledgements));
                // What the device is owed goes out before more of it is taken.
                self.write().await?;
                tokio::task::yield_now().await;
            }
        }
        self.count_acknowledgements(acknowledgements);
        self.keep_or_pool(buffer);
        Ok(has_published)
    }

    fn count_acknowledgements(&self, count: u64) {
        if count > 0 {
            let kind = PacketType::PubAck.number();
            self.node.metrics.packets_in(kind).inc_by(count);
        }
    }

    /// Takes note that everything is written that answers what was read at `read_at`.
    fn note_acknowledged(&self, read_at: Option<Instant>) {
        if let Some(read_at) = read_at
            && !self.session.acknowledges_later()
        {
            self.node
                .metrics
                .publish_seconds
                .observe(read_at.elapsed().as_secs_f64());
        }
    }

    /// Keeps the beginning of a packet; gives the buffer back to the thread.
    fn keep_or_pool(&mut self, buffer: BytesMut) {
        if !buffer.is_empty() {
            if buffer.capacity() <= 2 * buffer.len() {
                self.tail = buffer;
                return;
            }
            // A copy of its own size: the pooled buffer is much larger than a tail.
            self.tail = BytesMut::from(&buffer[..]);
        }
        pool(buffer);
    }

    /// Writes batches until the session has nothing more or the socket takes no more.
    async fn write(&mut self) -> Result<(), DisconnectReason> {
        while !self.stream.has_backlog() {
            let mut batch = Batch::take();
            self.session.fill(&mut batch).await;
            let len = batch.len();
            let written = if len == 0 {
                Ok(())
            } else {
                self.stream.write(&batch)
            };
            batch.give_back();
            if len == 0 {
                break;
            }
            if written.is_err() {
                return Err(DisconnectReason::ConnectionLost);
            }
            self.node
                .metrics
                .bytes
                .out_mqtt
                .inc_by(u64::try_from(len).unwrap_or(u64::MAX));
            self.set_backlog(if self.stream.has_backlog() { len } else { 0 });
            self.note_backlog(true);
        }
        Ok(())
    }

    /// Takes note that the socket took something, or that nothing waits any more.
    fn note_backlog(&mut self, progress: bool) {
        if self.stream.has_backlog() {
            if progress || self.stalled_since.is_none() {
                self.stalled_since = Some(Instant::now());
            }
            self.session.on_written(false);
        } else {
            self.stalled_since = None;
            self.set_backlog(0);
            self.session.on_written(true);
        }
    }

    fn set_backlog(&mut self, bytes: usize) {
        if bytes != self.backlog_bytes {
            match (self.backlog_bytes, bytes) {
                (0, _) => self.node.metrics.paused_connections.inc(),
                (_, 0) => self.node.metrics.paused_connections.dec(),
                _ => {}
            }
            self.node.move_backlog(self.backlog_bytes, bytes);
            self.backlog_bytes = bytes;
        }
    }

    /// Gives the last packets a moment to go out.
    async fn linger(&mut self, reason: DisconnectReason) -> DisconnectReason {
        let flush = async {
            while self.stream.has_backlog() {
                if poll_fn(|cx| self.stream.poll_flush(cx)).await.is_err() {
                    break;
                }
            }
        };
        // A peer that takes nothing is not waited for.
        let _too_slow = tokio::time::timeout(std::time::Duration::from_secs(1), flush).await;
        reason
    }
}

/// A time that is later than any deadline of a connection.
fn far(node: &Node) -> Instant {
    Instant::now() + 2 * node.mqtt.max_keep_alive + node.mqtt.stalled_timeout
}
