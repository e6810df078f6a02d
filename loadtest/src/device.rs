//! One simulated device: connects, stays, takes its delivery, reconnects when its link is lost.
//!
//! One task a device. It owns its connection and drives the two state machines without I/O, the
//! [`session::Session`] of a connection and the [`Work`] that outlives it.
//! Invariants: every device ends as exactly one outcome; a task ends soon after the swarm stops.

pub(crate) mod coap;
pub(crate) mod error;
pub(crate) mod identity;
pub(crate) mod link;
pub(crate) mod login;
pub(crate) mod message;
pub(crate) mod pulse;
pub(crate) mod sending;
pub(crate) mod session;
pub(crate) mod transfer;
pub(crate) mod work;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use headgate_protocol::mqtt::{Disconnect, Packet, ProtocolVersion, ReasonCode};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};

use crate::fetch;
use crate::rng::Rng;
use crate::stats::Timing;
use crate::swarm::Swarm;
use crate::target::source_address;
use crate::verify::Verifier;
use coap::Errand;
use error::DeviceError;
use identity::{Fate, Identity};
use link::Link;
use session::{Credential, Driven, Session, Stage};
use transfer::Event;
use work::Work;

/// A device and what became of it.
pub(crate) struct Device {
    swarm: Arc<Swarm>,
    identity: Identity,
    fate: Fate,
    work: Option<Work>,
    fetch: Option<Fetch>,
    /// By CoAP, in place of `work`.
    errand: Box<Errand>,
    /// By CoAP: how often it was made to register.
    registrations: u32,
    /// The outcome was counted.
    ended: bool,
    ever_ready: bool,
    /// Connected and subscribed now.
    up: bool,
    /// Failures since the last connection that became ready.
    failures: u32,
}

/// A download by HTTPS under way.
type Fetch = Pin<Box<dyn Future<Output = (Verifier, Result<(), DeviceError>)> + Send>>;

/// How a connection came to its end.
enum End {
    /// The swarm stops.
    Stopped,
    /// By the drop schedule.
    Dropped,
    /// Otherwise.
    Lost(DeviceError),
}

impl Device {
    /// A device that has done nothing.
    pub(crate) fn new(swarm: Arc<Swarm>, identity: Identity, fate: Fate) -> Self {
        let job = swarm.job.as_ref();
        let (work, errand) = match &swarm.coap {
            Some(plan) => (None, Errand::new(job, plan, &identity, fate)),
            None => (job.map(|job| Work::new(job, &identity, fate)), Errand::Stay),
        };
        Self {
            swarm,
            identity,
            fate,
            work,
            fetch: None,
            errand: Box::new(errand),
            registrations: 0,
            ended: false,
            ever_ready: false,
            up: false,
            failures: 0,
        }
    }

    /// Lives until the swarm stops; latencies count from `start`, or from the first attempt.
    pub(crate) async fn run(mut self, start: Option<Instant>) {
        let stop = self.swarm.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => return self.on_stop(),
            () = async { if let Some(start) = start { sleep_until(start).await } } => {}
        }
        let mut start = start;
        loop {
            let coap = self.swarm.coap.clone();
            let end = match coap {
                Some(plan) => Box::pin(self.registration(plan, start.take())).await,
                None => self.connection(start.take()).await,
            };
            let pause = match end {
                End::Stopped => break,
                End::Dropped => {
                    self.swarm.stats.planned_drops.add(1);
                    self.jitter(DROP_PAUSE)
                }
                End::Lost(error) => match self.on_lost(&error) {
                    Some(pause) => pause,
                    None => break,
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

    /// One connection from its first packet to its end.
    async fn connection(&mut self, start: Option<Instant>) -> End {
        let swarm = Arc::clone(&self.swarm);
        let permit = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            permit = swarm.connecting.acquire() => permit,
        };
        let start = start.unwrap_or_else(Instant::now);
        let deadline = Instant::now() + swarm.connect_timeout;
        if swarm.handshake_only {
            let shaken = Box::pin(self.shake_hands(start, deadline)).await;
            drop(permit);
            return match shaken {
                Ok(()) => {
                    swarm.stop.cancelled().await;
                    swarm.stats.connected.sub(1);
                    End::Stopped
                }
                Err(error) => End::Lost(error),
            };
        }
        // Boxed, so that a device at rest does not carry the handshake's state.
        let opened = Box::pin(self.establish(start, deadline));
        let opened = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            opened = opened => opened,
        };
        drop(permit);
        let (link, session) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Lost(error),
        };
        self.failures = 0;
        if !std::mem::replace(&mut self.ever_ready, true) {
            swarm.stats.ever_connected.add(1);
        }
        swarm.stats.connected.add(1);
        self.up = true;
        let end = self.stay(link, session).await;
        swarm.stats.connected.sub(1);
        end
    }

    /// TCP and TLS and nothing else; from then on the device counts as connected.
    async fn shake_hands(&mut self, start: Instant, deadline: Instant) -> Result<(), DeviceError> {
        let swarm = &self.swarm;
        let source = source_address(swarm.dial.address, self.identity.index, swarm.salt);
        let connector = swarm.connector(&self.identity)?;
        let opened = swarm
            .dial
            .open_as(connector.as_ref(), source, self.fate.read_bps);
        let socket = timeout_at(deadline, opened).await;
        drop(socket.map_err(|_| DeviceError::ConnectTimeout("tcp and tls"))??);
        swarm.stats.record(Timing::Tls, start.elapsed());
        swarm.stats.ever_connected.add(1);
        swarm.stats.connected.add(1);
        swarm.note_ready();
        (self.ever_ready, self.up) = (true, true);
        Ok(())
    }

    /// TCP, TLS, login and subscription.
    async fn establish(
        &mut self,
        start: Instant,
        deadline: Instant,
    ) -> Result<(Link, Session), DeviceError> {
        let swarm = Arc::clone(&self.swarm);
        let source = source_address(swarm.dial.address, self.identity.index, swarm.salt);
        let connector = swarm.connector(&self.identity)?;
        let opened = swarm
            .dial
            .open_as(connector.as_ref(), source, self.fate.read_bps);
        let socket = timeout_at(deadline, opened).await;
        let socket = socket.map_err(|_| DeviceError::ConnectTimeout("tcp and tls"))??;
        let first = !self.ever_ready;
        if first {
            swarm.stats.record(Timing::Tls, start.elapsed());
        }
        let credential = Credential {
            login: swarm.login(&self.identity),
            own: format!("{}/{}", swarm.product, self.identity.node_id),
        };
        let mut link = Link::new(socket, swarm.version);
        let mut started = None;
        link.send(|out| {
            let now = Instant::now();
            started = Some(Session::start(
                swarm.version,
                &credential,
                swarm.keep_alive,
                now,
                out,
            )?);
            Ok(())
        })
        .await?;
        let Some(mut session) = started else {
            return Err(DeviceError::Unexpected("no session".into()));
        };
        while session.stage() != Stage::Ready {
            let mut driven = Driven {
                session: &mut session,
                work: self.work.as_mut(),
            };
            let turn = timeout_at(deadline, link.turn(&mut driven)).await;
            turn.map_err(|_| DeviceError::ConnectTimeout("login and subscribe"))??;
        }
        if first {
            if let Some(at) = session.logged_in_at() {
                swarm
                    .stats
                    .record(Timing::Login, at.saturating_duration_since(start));
            }
            swarm.stats.record(Timing::Ready, start.elapsed());
            swarm.note_ready();
        }
        Ok((link, session))
    }

    /// Stays connected: packets, timers and the delivery's events, until something ends it.
    async fn stay(&mut self, mut link: Link, mut session: Session) -> End {
        let stop = self.swarm.stop.clone();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut timer = std::pin::pin!(sleep_until(session.deadline()));
        loop {
            if !self.on_event() {
                return End::Dropped;
            }
            self.aim(timer.as_mut(), &session);
            let mut driven = Driven {
                session: &mut session,
                work: self.work.as_mut(),
            };
            let step = tokio::select! {
                biased;
                () = &mut stopped => {
                    let _ = say_goodbye(&mut link, self.swarm.version).await;
                    return End::Stopped;
                }
                fetched = poll_fetch(&mut self.fetch) => self.on_fetched(&mut link, fetched).await,
                turn = link.turn(&mut driven) => turn,
                () = &mut timer => self.on_timer(&mut link, &mut session).await,
            };
            self.count();
            if let Err(error) = step {
                return End::Lost(error);
            }
        }
    }

    /// Does what the delivery wants done; false: the link is to be cut.
    fn on_event(&mut self) -> bool {
        let Some(work) = &mut self.work else {
            return true;
        };
        match work.take_event() {
            None => {}
            Some(Event::Drop) => return false,
            Some(Event::Fetch(url)) => {
                if let Some(verifier) = work.take_verifier() {
                    let swarm = Arc::clone(&self.swarm);
                    let index = self.identity.index;
                    self.fetch = Some(Box::pin(fetch::run(swarm, index, self.fate, url, verifier)));
                }
            }
            Some(Event::Ended(result)) => self.on_work_ended(result),
        }
        true
    }

    async fn on_fetched(
        &mut self,
        link: &mut Link,
        (verifier, result): (Verifier, Result<(), DeviceError>),
    ) -> Result<(), DeviceError> {
        self.fetch = None;
        let Some(work) = &mut self.work else {
            return Ok(());
        };
        link.send(|out| work.on_fetched(Instant::now(), verifier, result, out))
            .await
    }

    async fn on_timer(
        &mut self,
        link: &mut Link,
        session: &mut Session,
    ) -> Result<(), DeviceError> {
        let work = &mut self.work;
        link.send(|out| {
            let now = Instant::now();
            session.on_timer(now, out)?;
            work.as_mut().map_or(Ok(()), |work| work.on_timer(now, out))
        })
        .await
    }

    /// Sets `timer` to what is due next.
    fn aim(&self, timer: Pin<&mut Sleep>, session: &Session) {
        let due = self.work.as_ref().and_then(Work::deadline);
        let due = due.map_or_else(|| session.deadline(), |due| due.min(session.deadline()));
        if timer.deadline() != due {
            timer.reset(due);
        }
    }

    /// Adds what the delivery counted to the run's counters.
    fn count(&mut self) {
        let Some(work) = &mut self.work else {
            return;
        };
        let counts = work.take_counts();
        let stats = &self.swarm.stats;
        stats.bytes.add(counts.bytes);
        stats.duplicate_bytes.add(counts.duplicate_bytes);
        stats.chunks.add(counts.chunks);
        stats.stalls.add(counts.stalls);
        if let Some(time) = work.take_first_byte() {
            stats.record(Timing::FirstByte, time);
        }
    }

    fn on_work_ended(&mut self, result: Result<(), DeviceError>) {
        match result {
            Ok(()) => {
                let by_mqtt = self.work.as_ref().and_then(Work::announced_at);
                let announced = by_mqtt.or_else(|| self.errand.announced_at());
                let timing = if self.fate.read_bps.is_some() {
                    Timing::SlowDuration
                } else {
                    Timing::Duration
                };
                if let Some(at) = announced {
                    self.swarm.stats.record(timing, at.elapsed());
                }
                self.end(Outcome::Done);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Notes a lost connection; how long to wait before the next, or `None` to give up.
    fn on_lost(&mut self, error: &DeviceError) -> Option<Duration> {
        self.up = false;
        let stats = &self.swarm.stats;
        if self.ended {
            stats.error(&self.identity.device_id, error);
            return None;
        }
        self.failures += 1;
        if !error.is_transient() || self.failures >= self.swarm.attempts {
            self.fail(error);
            return None;
        }
        stats.error(&self.identity.device_id, error);
        stats.reconnects.add(1);
        let doubled = FIRST_PAUSE * 2_u32.saturating_pow(self.failures - 1);
        Some(self.jitter(doubled.min(LONGEST_PAUSE)))
    }

    fn fail(&mut self, error: &DeviceError) {
        if self.swarm.cancels && matches!(error, DeviceError::Canceled) {
            self.end(Outcome::Left);
            return;
        }
        self.swarm.stats.error(&self.identity.device_id, error);
        self.end(if error.is_wrong() {
            Outcome::Wrong
        } else {
            Outcome::Failed
        });
    }

    fn on_stop(&mut self) {
        if self.ended {
            return;
        }
        if self.swarm.job.is_none() && self.up {
            self.end(Outcome::Done);
        } else if self.swarm.cancels || (self.swarm.leave_slow && self.fate.read_bps.is_some()) {
            self.end(Outcome::Left);
        } else {
            self.fail(&DeviceError::Unfinished);
        }
    }

    /// Counts the outcome, once.
    fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let stats = &self.swarm.stats;
        self.swarm.note_end();
        if self.fate.read_bps.is_none() {
            stats.fast_ended.add(1);
        }
        match outcome {
            Outcome::Done => stats.done.add(1),
            Outcome::Wrong => stats.wrong.add(1),
            Outcome::Failed => stats.failed.add(1),
            Outcome::Left => stats.left.add(1),
        }
    }

    /// `pause` and up to as much again, different for each device.
    fn jitter(&self, pause: Duration) -> Duration {
        let stream =
            JITTER_STREAM + (u64::from(self.identity.index) << 8) + u64::from(self.failures);
        let mut rng = Rng::new(self.swarm.seed, stream);
        let extra = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        pause + Duration::from_millis(rng.below(extra))
    }
}

/// What became of a device.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// Right to the end.
    Done,
    /// Got other bytes.
    Wrong,
    /// Did not come to an end.
    Failed,
    /// Slow, and not waited for.
    Left,
}

/// Waits for the fetch; for ever when there is none.
async fn poll_fetch(fetch: &mut Option<Fetch>) -> (Verifier, Result<(), DeviceError>) {
    match fetch {
        Some(fetch) => fetch.await,
        None => std::future::pending().await,
    }
}

async fn say_goodbye(link: &mut Link, version: ProtocolVersion) -> Result<(), DeviceError> {
    let goodbye = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    link.send(|out| Ok(goodbye.encode(version, out)?)).await
}

/// Before the first new attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Before any new attempt, without its jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a link of the drop schedule is away, without its jitter.
const DROP_PAUSE: Duration = Duration::from_millis(300);
/// Keeps jitter apart from content and fates, which use the same seed.
const JITTER_STREAM: u64 = 1 << 48;

#[cfg(test)]
mod tests;
