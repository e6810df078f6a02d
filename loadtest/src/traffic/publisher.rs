//! What one device publishes, over all of its connections, without I/O.
//!
//! Knows which message is due when, and which wait for an acknowledgement. What a lost connection
//! left unacknowledged goes again on the next one.
//! Invariants: at most the plan's window waits; a message's time counts from when it was due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, QoS, ReasonCode,
    encode_publish_header,
};
use tokio::time::Instant;

use super::Traffic;
use super::conn::Conn;
use super::payload::Head;
use crate::device::error::DeviceError;
use crate::device::identity::Identity;
use crate::device::link::Handler;
use crate::rng::Rng;
use crate::stats::Timing;

/// The messages of one device.
pub(crate) struct Publisher {
    traffic: Arc<Traffic>,
    index: u32,
    topic: String,
    /// Where in an interval this device's messages lie.
    phase: f64,
    next_seq: u64,
    next_id: PacketId,
    unacked: VecDeque<Sent>,
}

/// A message that waits for its acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    due: Instant,
    id: PacketId,
}

impl Publisher {
    /// Nothing published yet.
    pub(crate) fn new(traffic: Arc<Traffic>, identity: &Identity) -> Self {
        let mut rng = Rng::new(traffic.swarm.seed, PHASE_STREAM + u64::from(identity.index));
        let thousandths = u32::try_from(rng.below(1_000)).unwrap_or_default();
        let topic = format!(
            "{}/{}/{}",
            traffic.swarm.product, identity.node_id, traffic.plan.topic
        );
        Self {
            index: identity.index,
            topic,
            phase: f64::from(thousandths) / 1e3,
            next_seq: 0,
            next_id: PacketId::MIN,
            unacked: VecDeque::new(),
            traffic,
        }
    }

    /// When the next message is due; `None`: none is, or no more may wait.
    pub(crate) fn next_due(&self, window: usize) -> Option<Instant> {
        let began = self.traffic.began()?;
        if self.traffic.quiet.is_cancelled() || self.unacked.len() >= window {
            return None;
        }
        Some(began + self.traffic.plan.schedule.due(self.next_seq, self.phase))
    }

    /// Whether nothing waits.
    pub(crate) fn is_settled(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Gives up on what waits.
    pub(crate) fn abandon(&mut self) {
        let left = std::mem::take(&mut self.unacked);
        let stats = &self.traffic.swarm.stats;
        stats.outstanding.sub(left.len() as u64);
    }

    /// Publishes what is due, as far as the window goes.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn publish_due(
        &mut self,
        now: Instant,
        window: usize,
        version: ProtocolVersion,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let qos = self.traffic.plan.qos;
        while let Some(due) = self.next_due(window).filter(|due| *due <= now) {
            if out.len() > MAX_BURST_BYTES {
                break;
            }
            let seq = self.next_seq;
            let id = (qos != QoS::AtMostOnce).then(|| self.free_id());
            self.write(seq, due, id, version, out)?;
            self.next_seq += 1;
            let stats = &self.traffic.swarm.stats;
            stats.sent.add(1);
            if let Some(id) = id {
                stats.outstanding.add(1);
                self.unacked.push_back(Sent { seq, due, id });
            }
        }
        Ok(())
    }

    /// Publishes again what the lost connection left; `own_fault`: the run cut it, so that the time
    /// without one is nobody's and messages are due anew.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn resume(
        &mut self,
        now: Instant,
        own_fault: bool,
        version: ProtocolVersion,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        if own_fault && let Some(began) = self.traffic.began() {
            let from = now.saturating_duration_since(began);
            let first = self.traffic.plan.schedule.first_from(from, self.phase);
            self.next_seq = self.next_seq.max(first);
        }
        for mut sent in std::mem::take(&mut self.unacked) {
            sent.id = self.free_id();
            if own_fault {
                sent.due = now;
            }
            self.write(sent.seq, sent.due, Some(sent.id), version, out)?;
            self.unacked.push_back(sent);
        }
        Ok(())
    }

    fn free_id(&mut self) -> PacketId {
        // The window is far below the number of ids: one of the next is free.
        loop {
            let id = self.next_id;
            self.next_id = id.next();
            if self.unacked.iter().all(|sent| sent.id != id) {
                return id;
            }
        }
    }

    fn write(
        &self,
        seq: u64,
        due: Instant,
        id: Option<PacketId>,
        version: ProtocolVersion,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let plan = &self.traffic.plan;
        let size = plan.size.max(Head::BYTES);
        encode_publish_header(out, version, &self.topic, plan.qos, id, false, false, size)?;
        let head = Head {
            run: plan.run,
            device: self.index,
            seq,
            due_micros: self.traffic.unix_micros(due),
        };
        head.write(size, out);
        Ok(())
    }

    /// Takes an acknowledgement.
    fn on_ack(&mut self, id: PacketId, reason: ReasonCode) {
        let Some(at) = self.unacked.iter().position(|sent| sent.id == id) else {
            return;
        };
        let Some(sent) = self.unacked.remove(at) else {
            return;
        };
        let stats = &self.traffic.swarm.stats;
        stats.outstanding.sub(1);
        if reason.is_error() {
            let device = self.index;
            stats.problem("publish_refused", || format!("device {device}: {reason:?}"));
            stats.refused.add(1);
        } else {
            stats.acked.add(1);
            stats.record(Timing::PubAck, sent.due.elapsed());
        }
    }

    fn take(
        &mut self,
        packet: Packet,
        version: ProtocolVersion,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        match packet {
            Packet::PubAck(PubAck {
                packet_id, reason, ..
            })
            | Packet::PubComp(PubComp {
                packet_id, reason, ..
            }) => self.on_ack(packet_id, reason),
            Packet::PubRec(PubRec {
                packet_id, reason, ..
            }) => {
                if reason.is_error() {
                    self.on_ack(packet_id, reason);
                } else {
                    Packet::PubRel(PubRel::new(packet_id)).encode(version, out)?;
                }
            }
            // A gateway may have something for its devices: it is not what is measured.
            Packet::Publish(publish) => acknowledge(publish.qos, publish.packet_id, version, out)?,
            Packet::PubRel(rel) => {
                Packet::PubComp(PubComp::new(rel.packet_id)).encode(version, out)?;
            }
            other => {
                let text = format!("{:?} from the server", other.packet_type());
                return Err(DeviceError::Unexpected(text));
            }
        }
        Ok(())
    }
}

/// Answers a message as its QoS wants.
///
/// # Errors
/// [`DeviceError::Encode`].
pub(crate) fn acknowledge(
    qos: QoS,
    id: Option<PacketId>,
    version: ProtocolVersion,
    out: &mut BytesMut,
) -> Result<(), DeviceError> {
    match (qos, id) {
        (QoS::AtLeastOnce, Some(id)) => Packet::PubAck(PubAck::new(id)).encode(version, out)?,
        (QoS::ExactlyOnce, Some(id)) => Packet::PubRec(PubRec::new(id)).encode(version, out)?,
        _ => {}
    }
    Ok(())
}

/// A device's connection with what it publishes, as a link drives them.
pub(crate) struct Publishing<'a> {
    /// The connection.
    pub(crate) conn: &'a mut Conn,
    /// The messages.
    pub(crate) publisher: &'a mut Publisher,
}

impl Handler for Publishing<'_> {
    fn handle(&mut self, packet: Packet, out: &mut BytesMut) -> Result<bool, DeviceError> {
        let was_full = self.publisher.unacked.len();
        if let Some(packet) = self.conn.take(packet, out)? {
            self.publisher.take(packet, self.conn.version(), out)?;
        }
        // Room in the window may be what the next message waits for.
        Ok(self.publisher.unacked.len() == was_full)
    }
}

/// Written at once at most, so that a device that was away long does not fill its memory.
const MAX_BURST_BYTES: usize = 64 * 1024;
/// Keeps phases apart from other uses of the seed.
const PHASE_STREAM: u64 = 1 << 44;
/// How often a device looks whether its socket takes more.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(20);
