//! One publishing device: connects, publishes by plan, suffers what the plan has for it, comes back.
//!
//! One task a device. Invariants: every device ends as exactly one outcome; the run's own faults
//! count apart from what the server or the network did.

use std::sync::Arc;
use std::time::Duration;

use headgate_protocol::mqtt::{Disconnect, Packet, ReasonCode};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::conn::{self, Conn};
use super::publisher::{Publisher, Publishing, RETRY_INTERVAL};
use super::trouble::Fault;
use super::{Traffic, malformed};
use crate::device::error::DeviceError;
use crate::device::identity::Identity;
use crate::device::link::Link;
use crate::rng::Rng;
use crate::stats::Timing;

/// A publishing device.
pub(crate) struct Sender {
    traffic: Arc<Traffic>,
    identity: Identity,
    publisher: Publisher,
    /// A connection that the device has left without a word, and when it is closed at last.
    ghost: Option<(Link, Instant)>,
    /// Where in the plan of faults this device stands.
    faults_from: Duration,
    ever_ready: bool,
    up: bool,
    failures: u32,
}

/// How a connection ended.
enum End {
    /// The run is over.
    Stopped,
    /// The run cut it; the device comes back after this time.
    Cut(Duration),
    /// Otherwise.
    Lost(DeviceError),
}

impl Sender {
    /// A device that has done nothing.
    pub(crate) fn new(traffic: &Arc<Traffic>, identity: Identity) -> Self {
        Self {
            publisher: Publisher::new(Arc::clone(traffic), &identity),
            traffic: Arc::clone(traffic),
            identity,
            ghost: None,
            faults_from: Duration::ZERO,
            ever_ready: false,
            up: false,
            failures: 0,
        }
    }

    /// Lives until the run stops; latencies count from `start`, or from the first attempt.
    pub(crate) async fn run(mut self, start: Option<Instant>) {
        let stop = self.traffic.swarm.stop.clone();
        let mut start = start;
        if let Some(start) = start {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.on_stop(),
                () = sleep_until(start) => {}
            }
        }
        let mut cut_at = None;
        loop {
            let pause = match self.connection(start.take(), cut_at.take()).await {
                End::Stopped => break,
                End::Cut(pause) => {
                    self.traffic.swarm.stats.planned_drops.add(1);
                    cut_at = Some(Instant::now() + pause);
                    pause
                }
                End::Lost(error) => match self.on_lost(&error) {
                    Some(pause) => pause,
                    None => return,
                },
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        self.on_stop();
    }

    /// One connection from its first packet to its end; `cut_at`: the run ended the last one, and
    /// wanted it back from then on.
    async fn connection(&mut self, start: Option<Instant>, cut_at: Option<Instant>) -> End {
        let traffic = Arc::clone(&self.traffic);
        let swarm = &traffic.swarm;
        let opened = async {
            let _permit = swarm.connecting.acquire().await;
            let start = start.unwrap_or_else(Instant::now);
            let login = swarm.login(&self.identity);
            let start = (!self.ever_ready).then_some(start);
            Box::pin(conn::open(
                &traffic,
                Some(&self.identity),
                &login,
                None,
                start,
            ))
            .await
        };
        let opened = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            opened = opened => opened,
        };
        let (link, conn) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Lost(error),
        };
        self.failures = 0;
        if !std::mem::replace(&mut self.ever_ready, true) {
            swarm.stats.ever_connected.add(1);
            swarm.note_ready();
        }
        if let Some(cut_at) = cut_at {
            swarm.stats.record(Timing::Reconnect, cut_at.elapsed());
        }
        swarm.stats.connected.add(1);
        self.up = true;
        let end = Box::pin(self.stay(link, conn, cut_at.is_some())).await;
        self.up = matches!(end, End::Stopped);
        swarm.stats.connected.sub(1);
        end
    }

    async fn stay(&mut self, mut link: Link, mut conn: Conn, own_fault: bool) -> End {
        let traffic = Arc::clone(&self.traffic);
        let version = conn.version();
        let window = traffic.plan.window.min(usize::from(conn.receive_maximum()));
        let publisher = &mut self.publisher;
        let resumed = link.send(|out| publisher.resume(Instant::now(), own_fault, version, out));
        if let Err(error) = resumed.await {
            return End::Lost(error);
        }
        let mut deaf_until: Option<Instant> = None;
        loop {
            let began = traffic.began();
            let fault = began.and_then(|began| {
                let (at, fault) = traffic
                    .plan
                    .trouble
                    .next(self.identity.index, self.faults_from)?;
                Some((began + at, at, fault))
            });
            let fault = fault.filter(|_| !traffic.quiet.is_cancelled());
            let due = self.next_due(&link, &conn, window, deaf_until, fault.map(|(at, ..)| at));
            let mut publishing = Publishing {
                conn: &mut conn,
                publisher: &mut self.publisher,
            };
            let step = tokio::select! {
                biased;
                () = traffic.swarm.stop.cancelled() => {
                    let bye = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
                    let _ = link.send(|out| Ok(bye.encode(version, out)?)).await;
                    return End::Stopped;
                }
                () = traffic.go.cancelled(), if began.is_none() => Ok(()),
                turn = link.turn(&mut publishing), if deaf_until.is_none() => turn,
                () = sleep_until(due) => Ok(()),
            };
            if let Err(error) = step {
                return End::Lost(error);
            }
            let now = Instant::now();
            deaf_until = deaf_until.filter(|until| *until > now);
            if self.ghost.as_ref().is_some_and(|(_, until)| *until <= now) {
                self.ghost = None;
            }
            if let Some((at, offset, fault)) = fault
                && at <= now
            {
                self.faults_from = offset;
                match self.suffer(fault, link, conn).await {
                    Ok((back, same, until)) => (link, conn, deaf_until) = (back, same, until),
                    Err(end) => return end,
                }
            }
            if let Err(error) = self.say(&mut link, &mut conn, window).await {
                return End::Lost(error);
            }
        }
    }

    /// Publishes what is due and keeps the connection alive.
    async fn say(
        &mut self,
        link: &mut Link,
        conn: &mut Conn,
        window: usize,
    ) -> Result<(), DeviceError> {
        let room = link.backlog() < MAX_BACKLOG_BYTES;
        let publisher = &mut self.publisher;
        link.send(|out| {
            let now = Instant::now();
            conn.on_timer(now, out)?;
            if room {
                publisher.publish_due(now, window, conn.version(), out)?;
            }
            Ok(())
        })
        .await
    }

    /// When the device has to do something next.
    fn next_due(
        &self,
        link: &Link,
        conn: &Conn,
        window: usize,
        deaf_until: Option<Instant>,
        fault: Option<Instant>,
    ) -> Instant {
        let mut message = self.publisher.next_due(window);
        if link.backlog() >= MAX_BACKLOG_BYTES {
            message = Some(Instant::now() + RETRY_INTERVAL);
        }
        let ghost = self.ghost.as_ref().map(|(_, until)| *until);
        let times = [message, deaf_until, fault, ghost];
        let first = times.into_iter().flatten().min();
        first.map_or_else(|| conn.deadline(), |first| first.min(conn.deadline()))
    }

    /// Does what the plan has for this device; gives the connection back where it outlives that.
    async fn suffer(
        &mut self,
        fault: Fault,
        mut link: Link,
        mut conn: Conn,
    ) -> Result<(Link, Conn, Option<Instant>), End> {
        let stats = &self.traffic.swarm.stats;
        match fault {
            Fault::Flap => {
                stats.flaps.add(1);
                Err(End::Cut(self.jitter(FLAP_PAUSE)))
            }
            Fault::Storm => {
                stats.storms.add(1);
                Err(End::Cut(Duration::ZERO))
            }
            Fault::HalfOpen => {
                stats.half_open.add(1);
                self.ghost = Some((link, Instant::now() + GHOST_LIFE));
                Err(End::Cut(self.jitter(FLAP_PAUSE)))
            }
            Fault::Deaf(length) => {
                stats.deaf.add(1);
                Ok((link, conn, Some(Instant::now() + length)))
            }
            Fault::Malformed(which) => {
                stats.malformed.add(1);
                if self.is_refused(which, &mut link, &mut conn).await {
                    self.traffic.swarm.stats.malformed_refused.add(1);
                }
                Err(End::Cut(self.jitter(FLAP_PAUSE)))
            }
        }
    }

    /// Sends what MQTT forbids; whether the server closed the connection for it.
    async fn is_refused(&mut self, which: u32, link: &mut Link, conn: &mut Conn) -> bool {
        let version = conn.version();
        let sent = link.send(|out| {
            malformed::write(which, version, out);
            Ok(())
        });
        if sent.await.is_err() {
            return true;
        }
        let deadline = Instant::now() + REFUSAL_TIMEOUT;
        loop {
            let mut publishing = Publishing {
                conn,
                publisher: &mut self.publisher,
            };
            match timeout_at(deadline, link.turn(&mut publishing)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return true,
                Err(_) => {
                    let name = &self.identity.device_id;
                    let stats = &self.traffic.swarm.stats;
                    stats.problem("malformed_packet_tolerated", || {
                        format!("{name}: kind {which}")
                    });
                    return false;
                }
            }
        }
    }

    /// Notes a lost connection; how long to wait before the next, or `None` to give up.
    fn on_lost(&mut self, error: &DeviceError) -> Option<Duration> {
        let stats = &self.traffic.swarm.stats;
        stats.error(&self.identity.device_id, error);
        self.failures += 1;
        if !error.is_transient() || self.failures >= self.traffic.swarm.attempts {
            stats.failed.add(1);
            self.publisher.abandon();
            return None;
        }
        stats.reconnects.add(1);
        let doubled = FIRST_PAUSE * 2_u32.saturating_pow(self.failures - 1);
        Some(self.jitter(doubled.min(LONGEST_PAUSE)))
    }

    fn on_stop(&self) {
        let stats = &self.traffic.swarm.stats;
        if self.up && self.publisher.is_settled() {
            stats.done.add(1);
        } else {
            stats.error(&self.identity.device_id, &DeviceError::Unfinished);
            stats.failed.add(1);
        }
    }

    /// `pause` and up to as much again, different for each device and time.
    fn jitter(&self, pause: Duration) -> Duration {
        let turn = u64::from(self.failures) + self.traffic.swarm.stats.planned_drops.get();
        let stream = JITTER_STREAM + (u64::from(self.identity.index) << 20) + turn;
        let mut rng = Rng::new(self.traffic.swarm.seed, stream);
        let extra = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        pause + Duration::from_millis(rng.below(extra))
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a link is away that was cut, without its jitter.
const FLAP_PAUSE: Duration = Duration::from_millis(300);
/// After this time even a forgotten connection is closed, as by a NAT's or a kernel's own timer.
const GHOST_LIFE: Duration = Duration::from_secs(30);
/// For a server to close a connection that broke the protocol.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// What may wait for a socket before a device publishes no more.
const MAX_BACKLOG_BYTES: usize = 64 * 1024;
/// Keeps jitter apart from other uses of the seed.
const JITTER_STREAM: u64 = 1 << 49;
