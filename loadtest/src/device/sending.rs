//! One device's upload, without I/O: it announces, sends chunks, and hears the end.
//!
//! Driven like a delivery. It outlives connections: a new one announces again and goes on from where the
//! gateway says. Bytes are generated when they are sent, so that a device holds none of them.
//! Invariants: no more chunks are unanswered than the gateway allowed; an upload ends exactly once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Packet, PacketId, ProtocolVersion, PubAck, Publish, QoS, ReasonCode, encode_publish_header,
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::error::DeviceError;
use super::identity::{Fate, Identity};
use super::transfer::{Counts, Event};
use crate::content::Content;

/// What all uploads of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct SendPlan {
    /// Version of the packets written.
    pub(crate) version: ProtocolVersion,
    /// Product of all devices.
    pub(crate) product: String,
    /// What every device calls its file.
    pub(crate) name: String,
    /// Bytes of each file.
    pub(crate) size: u64,
    /// Seed of the run: with the device's index it makes the file.
    pub(crate) seed: u64,
    /// Bytes a chunk.
    pub(crate) chunk: u32,
}

impl SendPlan {
    /// The file of device `index`.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn content(&self, index: u32) -> std::io::Result<Content> {
        Content::generated(self.seed ^ (CONTENT_STREAM + u64::from(index)), self.size)
    }
}

/// What a gateway says about an upload; kept apart from the gateway's own types on purpose.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Down {
    CreateUploadTaskRsp {
        transfer: String,
        offset: u64,
        chunk_size: u32,
        window: usize,
    },
    UploadResult {
        transfer: String,
        report: ResultReport,
    },
    TransferError {
        code: String,
        message: String,
        retry_after: Option<u64>,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct ResultReport {
    progress: ResultProgress,
}

#[derive(Debug, Deserialize)]
struct ResultProgress {
    result_code: i64,
    result_msg: String,
}

/// The upload of one device.
#[derive(Debug)]
pub(crate) struct Sending {
    plan: Arc<SendPlan>,
    /// `{product}/{device}`.
    own: Box<str>,
    index: u32,
    /// Made, and digested, when the first connection is ready.
    content: Option<Content>,
    phase: Phase,
    transfer: String,
    chunk: u32,
    window: usize,
    /// The next byte that was never sent on this connection.
    next: u64,
    unanswered: VecDeque<(PacketId, u64, u32)>,
    /// Chunks that the gateway did not take.
    again: VecDeque<(u64, u32)>,
    stored: u64,
    drop_at: Option<u64>,
    next_id: PacketId,
    /// When to announce (again), or to go on after the gateway was busy.
    due: Option<Instant>,
    announced_at: Option<Instant>,
    counts: Counts,
    event: Option<Event>,
}

/// Where the upload stands on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No answer to the announcement yet.
    Announcing,
    /// Chunks go out.
    Sending,
    /// The gateway was busy: nothing goes out until it is due.
    Pausing,
    /// Over.
    Ended,
}

impl Sending {
    /// An upload that was not announced yet.
    pub(crate) fn new(plan: Arc<SendPlan>, identity: &Identity, fate: Fate) -> Self {
        Self {
            own: format!("{}/{}", plan.product, identity.node_id).into_boxed_str(),
            index: identity.index,
            content: None,
            phase: Phase::Announcing,
            transfer: String::new(),
            chunk: plan.chunk,
            window: 1,
            next: 0,
            unanswered: VecDeque::new(),
            again: VecDeque::new(),
            stored: 0,
            drop_at: fate.drop_at,
            next_id: PacketId::MIN,
            due: None,
            announced_at: None,
            counts: Counts::default(),
            event: None,
            plan,
        }
    }

    /// A new connection was logged in and subscribed: announces.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn on_ready(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        self.unanswered.clear();
        self.again.clear();
        if self.phase == Phase::Ended {
            return Ok(());
        }
        self.announced_at.get_or_insert(now);
        self.announce(now, out)
    }

    /// Takes a message of the gateway.
    ///
    /// # Errors
    /// Errors that end the connection.
    pub(crate) fn on_publish(
        &mut self,
        now: Instant,
        publish: &Publish,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let down = serde_json::from_slice(&publish.payload)
            .map_err(|error| DeviceError::Unexpected(format!("message: {error}")))?;
        if let Some(id) = publish.packet_id {
            Packet::PubAck(PubAck::new(id)).encode(self.plan.version, out)?;
        }
        match down {
            Down::CreateUploadTaskRsp {
                transfer,
                offset,
                chunk_size,
                window,
            } if self.phase == Phase::Announcing => {
                self.transfer = transfer;
                self.chunk = chunk_size.max(1);
                self.window = window.max(1);
                self.next = offset;
                // What a lost connection left unanswered may be stored all the same.
                self.note_stored(offset.saturating_sub(self.stored));
                self.phase = Phase::Sending;
                self.due = Some(now + STALL_TIMEOUT);
                self.fill(now, out)
            }
            Down::UploadResult { transfer, report } if transfer == self.transfer => {
                let progress = report.progress;
                let outcome = if progress.result_code == 0 {
                    Ok(())
                } else {
                    Err(DeviceError::UploadRefused(progress.result_msg))
                };
                self.end(outcome);
                Ok(())
            }
            Down::TransferError {
                code,
                message,
                retry_after,
            } => {
                match retry_after {
                    Some(secs) => self.pause(now, Duration::from_secs(secs)),
                    None => self.end(Err(DeviceError::TransferError { code, message })),
                }
                Ok(())
            }
            Down::CreateUploadTaskRsp { .. } | Down::UploadResult { .. } | Down::Other => Ok(()),
        }
    }

    /// Takes an acknowledgement, and sends what it makes room for.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn on_puback(
        &mut self,
        now: Instant,
        ack: &PubAck,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let answered = self
            .unanswered
            .iter()
            .position(|(id, ..)| *id == ack.packet_id);
        let Some((_, offset, len)) = answered.and_then(|at| self.unanswered.remove(at)) else {
            return Ok(());
        };
        match ack.reason {
            ReasonCode::Success => self.note_stored(u64::from(len)),
            ReasonCode::QuotaExceeded => {
                self.again.push_back((offset, len));
                self.counts.stalls += 1;
                self.pause(now, BUSY_PAUSE);
            }
            reason => {
                let text = format!("chunk at {offset}: {reason:?}");
                self.end(Err(DeviceError::UploadRefused(text)));
            }
        }
        if self.drop_at.is_some_and(|at| self.stored >= at) {
            self.drop_at = None;
            self.event.get_or_insert(Event::Drop);
            return Ok(());
        }
        self.fill(now, out)
    }

    /// When [`Self::on_timer`] has something to do.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Goes on after a pause, or announces again where nothing came for too long.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn on_timer(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        if self.due.is_none_or(|due| now < due) {
            return Ok(());
        }
        match self.phase {
            Phase::Ended => {
                self.due = None;
                Ok(())
            }
            Phase::Pausing if !self.again.is_empty() => {
                self.phase = Phase::Sending;
                self.due = Some(now + STALL_TIMEOUT);
                self.fill(now, out)
            }
            Phase::Announcing | Phase::Sending | Phase::Pausing => {
                self.counts.stalls += 1;
                self.unanswered.clear();
                self.again.clear();
                self.announce(now, out)
            }
        }
    }

    /// What the driver has to do, once.
    pub(crate) const fn take_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Whether there is something for the driver that should not wait for more packets.
    pub(crate) const fn has_event(&self) -> bool {
        self.event.is_some()
    }

    /// Numbers since the last call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// When it was announced for the first time.
    pub(crate) const fn announced_at(&self) -> Option<Instant> {
        self.announced_at
    }

    fn announce(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        let sha256 = *self.content()?.sha256();
        self.phase = Phase::Announcing;
        self.due = Some(now + STALL_TIMEOUT);
        let text = json!({
            "type": "create_upload_task", "size": self.plan.size, "name": self.plan.name,
            "sha256": hex::encode(sha256), "mode": "chunk", "chunk_size": self.plan.chunk,
        })
        .to_string();
        let topic = format!("$resource/up/service/{}", self.own);
        self.publish(&topic, text.as_bytes(), out).map(drop)
    }

    /// Sends as many chunks as may be unanswered.
    fn fill(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        while self.phase == Phase::Sending && self.unanswered.len() < self.window {
            let (offset, len) = match self.again.pop_front() {
                Some(refused) => refused,
                None if self.next < self.plan.size => {
                    let left = self.plan.size - self.next;
                    let len = u32::try_from(left).unwrap_or(u32::MAX).min(self.chunk);
                    let offset = self.next;
                    self.next += u64::from(len);
                    (offset, len)
                }
                None => break,
            };
            let bytes = self
                .content()?
                .part(offset, usize::try_from(len).unwrap_or(usize::MAX))
                .map_err(DeviceError::Io)?;
            let topic = format!("$resource/up/chunk/{}/{}/{offset}", self.own, self.transfer);
            let id = self.publish(&topic, &bytes, out)?;
            self.unanswered.push_back((id, offset, len));
            self.counts.chunks += 1;
            self.due = Some(now + STALL_TIMEOUT);
        }
        Ok(())
    }

    fn content(&mut self) -> Result<&Content, DeviceError> {
        if self.content.is_none() {
            let made = self.plan.content(self.index).map_err(DeviceError::Io)?;
            self.content = Some(made);
        }
        self.content
            .as_ref()
            .ok_or_else(|| DeviceError::Unexpected("no content".into()))
    }

    fn note_stored(&mut self, bytes: u64) {
        self.stored += bytes;
        self.counts.bytes += bytes;
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Pausing;
            self.due = Some(now + pause);
        }
    }

    fn end(&mut self, result: Result<(), DeviceError>) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.due = None;
            self.content = None;
            self.event = Some(Event::Ended(result));
        }
    }

    fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<PacketId, DeviceError> {
        self.next_id = self.next_id.next();
        let (id, qos) = (self.next_id, QoS::AtLeastOnce);
        let len = payload.len();
        encode_publish_header(
            out,
            self.plan.version,
            topic,
            qos,
            Some(id),
            false,
            false,
            len,
        )?;
        out.extend_from_slice(payload);
        Ok(id)
    }
}

/// Nothing came for so long: the device announces again.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// After a chunk that the gateway could not take.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Keeps files apart from other content of the same seed.
const CONTENT_STREAM: u64 = 1 << 44;

#[cfg(test)]
mod tests;
