//! One device's delivery, without I/O: what it asks for, checks, acknowledges and reports.
//!
//! Driven by [`super::session::Session`]: publishes and times go in, packets are appended to the
//! caller's buffer, and [`Transfer::take_event`] says what the driver has to do. It outlives
//! connections: the bytes verified so far are where the next connection resumes.
//! Invariants: bytes are acknowledged only after they were checked; a transfer ends exactly once.

mod say;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{PacketId, ProtocolVersion, Publish, QoS};
use tokio::time::Instant;

use super::error::DeviceError;
use super::identity::{Fate, Identity};
use super::message::{self, Announced, Down};
use crate::cli::Mode;
use crate::verify::{Expected, Verifier, Verify};
use say::REPORT_STEP_PERCENT;

/// What all deliveries of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Version of the packets written.
    pub(crate) version: ProtocolVersion,
    /// Product of all devices.
    pub(crate) product: String,
    /// Name of the resource that is delivered; another one is declined. `None`: any is it.
    pub(crate) resource_name: Option<String>,
    /// Its bytes.
    pub(crate) expected: Arc<Expected>,
    /// How they are checked.
    pub(crate) verify: Verify,
    /// How they are taken.
    pub(crate) mode: Mode,
    /// Chunks unacknowledged, or asked for at once.
    pub(crate) window: u8,
    /// Bytes a chunk.
    pub(crate) chunk: u32,
    /// How much later acknowledgements leave.
    pub(crate) rtt: Duration,
}

impl Plan {
    /// Whether a resource of this name is the one.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.resource_name
            .as_deref()
            .is_none_or(|wanted| name == wanted)
    }
}

/// What the driver has to do.
#[derive(Debug)]
pub(crate) enum Event {
    /// The delivery ended; the connection may stay.
    Ended(Result<(), DeviceError>),
    /// The drop schedule wants the link cut now.
    Drop,
    /// Fetch the rest from this URL with the verifier of [`Transfer::take_verifier`].
    Fetch(String),
}

/// Numbers since the last [`Transfer::take_counts`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bytes seen for the first time.
    pub(crate) bytes: u64,
    /// Bytes seen again.
    pub(crate) duplicate_bytes: u64,
    /// Chunks.
    pub(crate) chunks: u64,
    /// Requests repeated because nothing came.
    pub(crate) stalls: u64,
}

/// The delivery of one device.
#[derive(Debug)]
pub(crate) struct Transfer {
    plan: Arc<Plan>,
    /// `{product}/{device}`.
    own: Box<str>,
    /// Absent while a fetch has it.
    verifier: Option<Verifier>,
    phase: Phase,
    announced: Option<Box<Announced>>,
    drop_at: Option<u64>,
    stall_after: Duration,
    next_id: PacketId,
    /// Acknowledgements on their way over the simulated link.
    acks: VecDeque<(Instant, PacketId)>,
    /// When to ask (again); moved by every chunk.
    ask_at: Option<Instant>,
    /// End of what was asked for in count mode.
    asked_until: u64,
    next_report_percent: u64,
    /// Not before; `None`: no chunk has come yet.
    report_at: Option<Instant>,
    /// Reports of this connection that were not answered yet.
    unanswered: u32,
    /// `done` was written on some connection.
    said_done: bool,
    announced_at: Option<Instant>,
    asked_at: Option<Instant>,
    first_byte: Option<Duration>,
    counts: Counts,
    event: Option<Event>,
}

/// Where the delivery stands on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was announced on this connection.
    Waiting,
    /// Chunks are coming.
    Receiving,
    /// The bytes come by HTTPS.
    Fetching,
    /// The end was reported and not yet answered.
    Reporting,
    /// Over.
    Ended,
}

impl Transfer {
    /// A delivery that was not announced yet.
    pub(crate) fn new(plan: Arc<Plan>, identity: &Identity, fate: Fate) -> Self {
        let own = format!("{}/{}", plan.product, identity.node_id).into_boxed_str();
        let verifier = Verifier::new(Arc::clone(&plan.expected), plan.verify);
        let in_flight = u64::from(plan.window) * u64::from(plan.chunk);
        let slow = fate.read_bps.map_or(0, |bps| 4 * in_flight / bps.max(1));
        let stall_after = STALL_TIMEOUT.max(Duration::from_secs(slow)) + 2 * plan.rtt;
        Self {
            plan,
            own,
            verifier: Some(verifier),
            phase: Phase::Waiting,
            announced: None,
            drop_at: fate.drop_at,
            stall_after,
            next_id: PacketId::MIN,
            acks: VecDeque::new(),
            ask_at: None,
            asked_until: 0,
            next_report_percent: REPORT_STEP_PERCENT,
            report_at: None,
            unanswered: 0,
            said_done: false,
            announced_at: None,
            asked_at: None,
            first_byte: None,
            counts: Counts::default(),
            event: None,
        }
    }

    /// The filters that the device subscribes to, at `QoS` 1.
    pub(crate) fn filters(own: &str) -> [String; 2] {
        [
            format!("$resource/down/service/{own}"),
            format!("$resource/down/chunk/{own}/+/+"),
        ]
    }

    /// A new connection was logged in and subscribed: goes on where the last one ended.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn on_ready(&mut self, out: &mut BytesMut) -> Result<(), DeviceError> {
        self.acks.clear();
        self.unanswered = 0;
        self.ask_at = None;
        if self.phase == Phase::Ended || self.phase == Phase::Fetching {
            return Ok(());
        }
        self.phase = Phase::Waiting;
        // A fresh device is told; one that was interrupted asks, as the SDKs do.
        if self.announced.is_some() {
            self.say(&message::get_download_task(), QoS::AtLeastOnce, out)?;
        }
        Ok(())
    }

    /// Takes a message of the gateway.
    ///
    /// # Errors
    /// Errors that end the delivery or the connection; wrong bytes among them.
    pub(crate) fn on_publish(
        &mut self,
        now: Instant,
        publish: &Publish,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let topic: &str = &publish.topic;
        if let Some(rest) = topic.strip_prefix(CHUNK_PREFIX) {
            let (transfer, offset) = self.chunk_of(rest)?;
            self.on_chunk(now, transfer, offset, &publish.payload, out)?;
        } else if topic.strip_prefix(SERVICE_PREFIX) == Some(&*self.own) {
            let down = serde_json::from_slice(&publish.payload)
                .map_err(|error| DeviceError::Unexpected(format!("message: {error}")))?;
            self.on_message(now, down, out)?;
        } else {
            return Err(DeviceError::Unexpected(format!("topic {topic}")));
        }
        self.acknowledge(now, publish, out)
    }

    /// When [`Self::on_timer`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ack = self.acks.front().map(|(due, _)| *due);
        [ack, self.ask_at].into_iter().flatten().min()
    }

    /// Sends what is due: acknowledgements, and a request where nothing came for too long.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn on_timer(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        while let Some((_, id)) = self.acks.pop_front_if(|(due, _)| *due <= now) {
            self.puback(id, out)?;
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.counts.stalls += 1;
            match self.phase {
                Phase::Receiving => self.ask(now, out)?,
                Phase::Reporting => {
                    // Only the answer to this one counts.
                    self.unanswered = 0;
                    self.report_end(now, None, out)?;
                }
                _ => self.ask_at = None,
            }
        }
        Ok(())
    }

    /// The fetch of [`Event::Fetch`] came to its end.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn on_fetched(
        &mut self,
        now: Instant,
        verifier: Verifier,
        result: Result<(), DeviceError>,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        self.verifier = Some(verifier);
        match result {
            Ok(()) => self.on_complete(now, out),
            Err(error) => {
                self.end(Err(error));
                Ok(())
            }
        }
    }

    /// Ends the delivery with an error that its driver met.
    pub(crate) fn end(&mut self, result: Result<(), DeviceError>) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.ask_at = None;
            self.event = Some(Event::Ended(result));
        }
    }

    /// What the driver has to do, once.
    pub(crate) const fn take_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// The verifier, for a fetch.
    pub(crate) const fn take_verifier(&mut self) -> Option<Verifier> {
        self.verifier.take()
    }

    /// Numbers since the last call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// First request to first byte, once it is known.
    pub(crate) const fn take_first_byte(&mut self) -> Option<Duration> {
        self.first_byte.take()
    }

    /// When the delivery was announced for the first time.
    pub(crate) const fn announced_at(&self) -> Option<Instant> {
        self.announced_at
    }

    /// Whether there is something for the driver that should not wait for more packets.
    pub(crate) const fn has_event(&self) -> bool {
        self.event.is_some()
    }

    fn on_message(
        &mut self,
        now: Instant,
        down: Down,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        match down {
            Down::Download(announced) => self.on_announced(now, announced, out),
            Down::GetDownloadTaskRsp(told) => {
                if let Some(announced) = told.into_announced() {
                    return self.on_announced(now, announced, out);
                }
                self.on_nothing_waits();
                Ok(())
            }
            Down::ReportDownloadProgressRsp {
                result_code,
                result_msg,
            } => {
                self.on_report_answered(result_code, &result_msg);
                Ok(())
            }
            Down::TransferError {
                transfer,
                code,
                message,
                retry_after,
            } => {
                if self.is_current(&transfer) {
                    self.on_transfer_error(now, code, message, retry_after, out)
                } else {
                    Ok(())
                }
            }
            Down::CancelDownload { transfer } => {
                if self.is_current(&transfer) {
                    self.end(Err(DeviceError::Canceled));
                }
                Ok(())
            }
            Down::Other => Ok(()),
        }
    }

    fn on_announced(
        &mut self,
        now: Instant,
        announced: Announced,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        if !self.plan.wants(&announced.name) {
            // What an earlier run left behind must not keep this one waiting.
            let declined = message::report_end(&announced, Some("not wanted"));
            self.unanswered += 1;
            return self.say(&declined, QoS::AtLeastOnce, out);
        }
        let again = self.is_current(&announced.transfer);
        if self.phase == Phase::Ended && self.said_done && again {
            // What was said on a connection that ended was not heard, or not yet where this one leads.
            self.unanswered += 1;
            let done = message::report_end(&announced, None);
            return self.say(&done, QoS::AtLeastOnce, out);
        }
        if self.phase == Phase::Ended || (again && self.phase != Phase::Waiting) {
            return Ok(());
        }
        let expected = &self.plan.expected;
        if announced.size != expected.size || announced.sha256 != hex::encode(expected.sha256) {
            let text = format!("{} bytes, sha256 {}", announced.size, announced.sha256);
            return Err(DeviceError::Announcement(text));
        }
        self.announced_at.get_or_insert(now);
        let url = announced.url.clone();
        self.announced = Some(Box::new(announced));
        match (&self.verifier, self.plan.mode) {
            (Some(verifier), _) if verifier.is_complete() => self.on_complete(now, out),
            (Some(_), Mode::Https) => {
                self.phase = Phase::Fetching;
                self.event = Some(Event::Fetch(url));
                Ok(())
            }
            (Some(_), _) => {
                self.phase = Phase::Receiving;
                self.ask(now, out)
            }
            (None, _) => Ok(()),
        }
    }

    fn on_nothing_waits(&mut self) {
        // `done` was written on a connection that ended before the answer: as far as is known here the gateway has it.
        if self.said_done {
            self.end(Ok(()));
        }
    }

    fn on_report_answered(&mut self, result_code: i64, result_msg: &str) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if result_code != 0 {
            self.end(Err(DeviceError::ReportRefused(format!(
                "{result_code} {result_msg}"
            ))));
        } else if self.phase == Phase::Reporting && self.unanswered == 0 {
            self.end(Ok(()));
        }
    }

    fn on_transfer_error(
        &mut self,
        now: Instant,
        code: String,
        message: String,
        retry_after: Option<u64>,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        match code.as_str() {
            "busy" => {
                self.ask_at = Some(now + Duration::from_secs(retry_after.unwrap_or(1)));
                Ok(())
            }
            "unknown_transfer" | "stale_version" if self.phase == Phase::Receiving => {
                self.phase = Phase::Waiting;
                self.ask_at = None;
                self.say(&message::get_download_task(), QoS::AtLeastOnce, out)
            }
            "canceled" => {
                self.end(Err(DeviceError::Canceled));
                Ok(())
            }
            _ => Err(DeviceError::TransferError { code, message }),
        }
    }

    fn on_chunk(
        &mut self,
        now: Instant,
        current: bool,
        offset: u64,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        // Chunks of a request before the last one may still be under way.
        if !current || self.phase != Phase::Receiving {
            self.counts.duplicate_bytes += payload.len() as u64;
            return Ok(());
        }
        let Some(verifier) = &mut self.verifier else {
            return Ok(());
        };
        let fresh = verifier.accept(offset, payload)?;
        let (at, complete) = (verifier.offset(), verifier.is_complete());
        self.counts.chunks += 1;
        self.counts.bytes += fresh;
        self.counts.duplicate_bytes += payload.len() as u64 - fresh;
        if let Some(asked_at) = self.asked_at.take() {
            self.first_byte = Some(now - asked_at);
        }
        self.ask_at = Some(now + self.stall_after);
        if self.drop_at.is_some_and(|drop_at| at >= drop_at) {
            self.drop_at = None;
            self.event = Some(Event::Drop);
            return Ok(());
        }
        if complete {
            return self.on_complete(now, out);
        }
        if self.plan.mode == Mode::Count && at >= self.asked_until {
            self.ask(now, out)?;
        }
        self.report_progress(now, at, out)
    }

    /// All bytes came: checks them and reports the end.
    fn on_complete(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        let Some(verifier) = &self.verifier else {
            return Ok(());
        };
        if let Err(wrong) = verifier.finish() {
            self.report_end(now, Some("digest not matched"), out)?;
            return Err(wrong.into());
        }
        self.phase = Phase::Reporting;
        self.report_end(now, None, out)
    }

    /// Whether it belongs to the current transfer, and the offset, of `{own}/{transfer}/{offset}`.
    fn chunk_of(&self, rest: &str) -> Result<(bool, u64), DeviceError> {
        let parsed = rest
            .strip_prefix(&*self.own)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(transfer, offset)| Some((transfer, offset.parse().ok()?)));
        let (transfer, offset) =
            parsed.ok_or_else(|| DeviceError::Unexpected(format!("chunk topic {rest}")))?;
        Ok((self.is_current(transfer), offset))
    }

    fn is_current(&self, transfer: &str) -> bool {
        self.announced
            .as_ref()
            .is_some_and(|announced| announced.transfer == transfer)
    }
}

const CHUNK_PREFIX: &str = "$resource/down/chunk/";
const SERVICE_PREFIX: &str = "$resource/down/service/";
/// After this long without a chunk a device asks again.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
