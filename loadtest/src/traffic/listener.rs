//! A listener: hears what all devices publish, and counts what it hears.
//!
//! Invariants: a message counts once for each listener, however often it came.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{Packet, PubComp, TopicFilter};
use tokio::time::{Instant, sleep, sleep_until};

use super::Traffic;
use super::conn::{self, Conn};
use super::payload::Head;
use super::publisher::acknowledge;
use super::seen::Seen;
use crate::device::error::DeviceError;
use crate::device::link::{Handler, Link};
use crate::device::login::Login;
use crate::stats::Timing;

/// One listener.
pub(crate) struct Listener {
    traffic: Arc<Traffic>,
    name: String,
    login: Login,
    filter: TopicFilter,
    seen: Vec<Seen>,
}

impl Listener {
    /// Listener `number`, who hears `devices` devices; `None` where the run has no listeners.
    pub(crate) fn new(traffic: &Arc<Traffic>, number: u32, devices: u32) -> Option<Self> {
        let mut login = traffic.listener.clone()?;
        login.client_id = format!("{}{number}", login.client_id);
        let filter = format!("{}/+/{}", traffic.swarm.product, traffic.plan.topic);
        Some(Self {
            name: format!("listener {number}"),
            login,
            filter: TopicFilter::try_from(filter).ok()?,
            seen: vec![Seen::default(); usize::try_from(devices).ok()?],
            traffic: Arc::clone(traffic),
        })
    }

    /// Hears until the run stops.
    pub(crate) async fn run(mut self) {
        let traffic = Arc::clone(&self.traffic);
        let swarm = &traffic.swarm;
        let mut was_ready = false;
        let mut failures = 0;
        loop {
            let connected = tokio::select! {
                biased;
                () = swarm.stop.cancelled() => return,
                opened = Box::pin(self.open()) => opened,
            };
            let error = match connected {
                Ok((link, conn)) => {
                    failures = 0;
                    if !std::mem::replace(&mut was_ready, true) {
                        swarm.stats.listening.add(1);
                    }
                    match self.stay(link, conn).await {
                        None => return,
                        Some(error) => error,
                    }
                }
                Err(error) => error,
            };
            swarm.stats.error(&self.name, &error);
            failures += 1;
            if !error.is_transient() || failures >= swarm.attempts {
                // The run waits for it no longer; what it did not hear is missing in the report.
                if !was_ready {
                    swarm.stats.listeners_lost.add(1);
                }
                return;
            }
            swarm.stats.listener_losses.add(1);
            tokio::select! {
                biased;
                () = swarm.stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn open(&self) -> Result<(Link, Conn), DeviceError> {
        let filter = Some((self.filter.clone(), self.traffic.plan.qos));
        conn::open(&self.traffic, None, &self.login, filter, None).await
    }

    /// Hears until the run stops (`None`) or the connection ends.
    async fn stay(&mut self, mut link: Link, mut conn: Conn) -> Option<DeviceError> {
        let stop = self.traffic.swarm.stop.clone();
        loop {
            let due = conn.deadline();
            let mut hearing = Hearing {
                conn: &mut conn,
                listener: self,
            };
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                turn = link.turn(&mut hearing) => turn,
                () = sleep_until(due) => link.send(|out| conn.on_timer(Instant::now(), out)).await,
            };
            if let Err(error) = step {
                return Some(error);
            }
        }
    }

    fn hear(&mut self, payload: &[u8]) {
        let traffic = &self.traffic;
        let Some(head) = Head::read(payload, traffic.plan.run) else {
            return;
        };
        let device = usize::try_from(head.device).unwrap_or(usize::MAX);
        let stats = &traffic.swarm.stats;
        if self
            .seen
            .get_mut(device)
            .is_some_and(|seen| seen.note(head.seq))
        {
            stats.received.add(1);
            let now = traffic.unix_micros(Instant::now());
            let took = Duration::from_micros(now.saturating_sub(head.due_micros));
            stats.record(Timing::EndToEnd, took);
        } else {
            stats.duplicates.add(1);
        }
    }
}

struct Hearing<'a> {
    conn: &'a mut Conn,
    listener: &'a mut Listener,
}

impl Handler for Hearing<'_> {
    fn handle(&mut self, packet: Packet, out: &mut BytesMut) -> Result<bool, DeviceError> {
        let version = self.conn.version();
        match self.conn.take(packet, out)? {
            Some(Packet::Publish(publish)) => {
                self.listener.hear(&publish.payload);
                acknowledge(publish.qos, publish.packet_id, version, out)?;
            }
            Some(Packet::PubRel(rel)) => {
                Packet::PubComp(PubComp::new(rel.packet_id)).encode(version, out)?;
            }
            Some(other) => {
                let text = format!("{:?} to a listener", other.packet_type());
                return Err(DeviceError::Unexpected(text));
            }
            None => {}
        }
        Ok(true)
    }
}

/// Between two connections.
const PAUSE: Duration = Duration::from_millis(500);
