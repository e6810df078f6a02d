//! What a transfer says: requests, reports and acknowledgements, appended to the caller's buffer.

use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Packet, PacketId, PubAck, Publish, QoS, ReasonCode, encode_publish_header,
};
use tokio::time::Instant;

use super::{Plan, Transfer};
use crate::device::error::DeviceError;
use crate::device::message;

impl Transfer {
    pub(super) fn ask(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        let (Some(verifier), Some(announced)) = (&self.verifier, &self.announced) else {
            return Ok(());
        };
        let Plan {
            mode,
            window,
            chunk,
            ..
        } = *self.plan;
        let offset = verifier.offset();
        self.asked_until =
            (offset + u64::from(window) * u64::from(chunk)).min(self.plan.expected.size);
        if offset == 0 {
            self.asked_at.get_or_insert(now);
        }
        self.ask_at = Some(now + self.stall_after);
        let request = message::get_chunks(&announced.transfer, offset, mode, window, chunk);
        self.say(&request, QoS::AtLeastOnce, out)
    }

    /// Reports progress at every quarter, and not more often than devices do: once a second.
    pub(super) fn report_progress(
        &mut self,
        now: Instant,
        at: u64,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let percent = at * 100 / self.plan.expected.size.max(1);
        if percent < self.next_report_percent || self.next_report_percent >= 100 {
            return Ok(());
        }
        let due = *self.report_at.get_or_insert(now + REPORT_INTERVAL);
        let Some(announced) = self.announced.as_ref().filter(|_| now >= due) else {
            return Ok(());
        };
        let report = message::report_downloading(announced, percent);
        self.report_at = Some(now + REPORT_INTERVAL);
        self.next_report_percent = (percent / REPORT_STEP_PERCENT + 1) * REPORT_STEP_PERCENT;
        self.unanswered += 1;
        self.say(&report, QoS::AtMostOnce, out)
    }

    pub(super) fn report_end(
        &mut self,
        now: Instant,
        fault: Option<&str>,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let Some(announced) = &self.announced else {
            return Ok(());
        };
        let report = message::report_end(announced, fault);
        self.unanswered += 1;
        self.said_done |= fault.is_none();
        self.ask_at = Some(now + self.stall_after);
        self.say(&report, QoS::AtLeastOnce, out)
    }

    /// Acknowledges a message, after the round trip of the simulated link.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        publish: &Publish,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let Some(id) = publish.packet_id else {
            return Ok(());
        };
        if self.plan.rtt.is_zero() {
            return self.puback(id, out);
        }
        self.acks.push_back((now + self.plan.rtt, id));
        Ok(())
    }

    pub(super) fn puback(&self, id: PacketId, out: &mut BytesMut) -> Result<(), DeviceError> {
        let ack = PubAck {
            packet_id: id,
            reason: ReasonCode::Success,
            properties: None,
        };
        Ok(Packet::PubAck(ack).encode(self.plan.version, out)?)
    }

    pub(super) fn say(
        &mut self,
        text: &str,
        qos: QoS,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        let id = (qos != QoS::AtMostOnce).then(|| {
            self.next_id = self.next_id.next();
            self.next_id
        });
        let topic = format!("$resource/up/service/{}", self.own);
        let len = text.len();
        encode_publish_header(out, self.plan.version, &topic, qos, id, false, false, len)?;
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A device reports each time it has this much more.
pub(super) const REPORT_STEP_PERCENT: u64 = 25;
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
