//! What the device uploads over this connection: chunks gathered for the spool, and answered in order.
//!
//! Chunks that one read of the socket brought are handed over together, and the next ones when the disk has taken
//! those; meanwhile everything that the device publishes is answered behind them, since acknowledgements go in the
//! order of what they acknowledge. [MQTT-4.6.0-2]
//! Invariants: a chunk is acknowledged when it is in the spool; what is gathered is bounded by the window, beyond
//! which the device is not read from; a session without uploads keeps nothing for them.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use headgate_protocol::{
    mqtt::{PacketId, ProtocolVersion, Publish, QoS, ReasonCode},
    topics::up_chunk,
    transfer::message::{
        CreateUploadTask, DownMessage, TransferErrorCode, UploadReport, UploadResult,
    },
};

use super::{DeviceSession, Sent};
use crate::{
    service::upload::{Ended, PendingChunk, Refusal, Uploader},
    telemetry::metrics::UploadChunk,
};

/// The uploads of one connection, while chunks of them are on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct UploadLane {
    /// Packets that are answered in this order.
    answers: VecDeque<Answer>,
    /// Chunks that have not been handed over.
    gathered: Vec<PendingChunk>,
    gathered_bytes: usize,
    /// Chunks have been handed over, and what became of them is not known.
    is_writing: bool,
}

#[derive(Debug)]
struct Answer {
    /// `None` at QoS 0: nobody is answered.
    packet: Option<(PacketId, QoS)>,
    verdict: Verdict,
}

#[derive(Debug)]
enum Verdict {
    /// What becomes of a chunk of this transfer decides.
    Open(Box<str>),
    /// Known, and waiting for those before it.
    Said(ReasonCode),
}

impl UploadLane {
    /// Whether more may be gathered, with so many bytes at most.
    pub(super) fn wants_input(&self, window_bytes: usize, is_over_budget: bool) -> bool {
        self.gathered_bytes < window_bytes && !(is_over_budget && self.is_writing)
    }
}

impl DeviceSession {
    /// Whether the uploads of this connection let more of what the device says be taken.
    pub(super) fn uploads_want_input(&self) -> bool {
        self.uploads.as_ref().is_none_or(|lane| {
            let uploads = &self.link.node.uploads;
            lane.wants_input(uploads.window_bytes(), uploads.is_over_budget())
        })
    }

    /// Takes a chunk; it is answered when it is in the spool, or refused.
    pub(super) fn take_upload_chunk(&mut self, publish: &Publish) {
        let Some(chunk) = up_chunk(publish.topic.as_str()) else {
            return;
        };
        let (transfer, offset) = (chunk.transfer, chunk.offset);
        let answer = publish.packet_id.map(|packet_id| (packet_id, publish.qos));
        match self.gather_chunk(&publish.payload, transfer, offset) {
            Ok(Some(())) => {
                let verdict = Verdict::Open(transfer.into());
                let lane = self.uploads.get_or_insert_default();
                lane.answers.push_back(Answer {
                    packet: answer,
                    verdict,
                });
            }
            // Stored with all of its upload already.
            Ok(None) => self.answer_in_order(answer, ReasonCode::Success),
            Err(NotGathered::Later) => self.answer_in_order(answer, ReasonCode::QuotaExceeded),
            Err(NotGathered::Refused(refusal)) => {
                self.refuse_upload(refusal, transfer);
                self.answer_in_order(answer, reason_of(refusal));
            }
        }
    }

    fn gather_chunk(
        &mut self,
        payload: &Bytes,
        transfer: &str,
        offset: &str,
    ) -> Result<Option<()>, NotGathered> {
        let uploads = &self.link.node.uploads;
        let found = uploads.find(&self.device.device_id, transfer);
        let Some(upload) = found.inspect_err(|_| uploads.count(UploadChunk::Refused))? else {
            uploads.count(UploadChunk::Duplicate);
            return Ok(None);
        };
        let Ok(offset) = offset.parse::<u64>() else {
            uploads.count(UploadChunk::Refused);
            return Err(NotGathered::Refused(BAD_OFFSET));
        };
        // Only MQTT 5 has a way to say "later"; from others the chunk is kept, and then they are not read from.
        if self.link.version() == ProtocolVersion::V5 && uploads.is_over_budget() {
            uploads.count(UploadChunk::Postponed);
            return Err(NotGathered::Later);
        }
        let chunk = uploads.gather(&upload, offset, payload.clone())?;
        let lane = self.uploads.get_or_insert_default();
        lane.gathered_bytes += chunk.len();
        lane.gathered.push(chunk);
        Ok(Some(()))
    }

    /// Hands over what was gathered, unless the disk still has what was handed over before.
    pub(super) fn hand_over_chunks(&mut self) {
        let Some(lane) = &mut self.uploads else {
            return;
        };
        if !lane.is_writing && !lane.gathered.is_empty() {
            lane.is_writing = true;
            lane.gathered_bytes = 0;
            let chunks = std::mem::take(&mut lane.gathered);
            let sink = Arc::clone(&self.handle);
            self.link.node.uploads.write(chunks, sink);
        }
    }

    /// Answers what has become of chunks, and tells how uploads ended.
    pub(super) fn handle_upload_news(&mut self) {
        let (outcomes, ended) = self.handle.take_upload_news();
        for outcome in outcomes {
            self.settle_chunk(outcome);
        }
        self.release_answers();
        for ended in ended {
            self.tell_upload_end(&ended);
        }
    }

    /// Takes the outcome of the first chunk whose is not known.
    fn settle_chunk(&mut self, outcome: Result<(), Refusal>) {
        let Some(lane) = &mut self.uploads else {
            return;
        };
        lane.is_writing = false;
        let open = lane
            .answers
            .iter_mut()
            .find(|answer| matches!(answer.verdict, Verdict::Open(_)));
        let Some(answer) = open else { return };
        let said = outcome.map_or_else(reason_of, |()| ReasonCode::Success);
        let settled = std::mem::replace(&mut answer.verdict, Verdict::Said(said));
        if let (Verdict::Open(transfer), Err(refusal)) = (settled, outcome) {
            self.refuse_upload(refusal, &transfer);
        }
    }

    /// Answers a PUBLISH, behind the chunks that came before it.
    pub(super) fn answer_in_order(&mut self, packet: Option<(PacketId, QoS)>, reason: ReasonCode) {
        let Some((packet_id, qos)) = packet else {
            return;
        };
        // Before MQTT 5 there is no way to say no; the message is taken and dropped.
        let said = if self.link.version() == ProtocolVersion::V5 {
            reason
        } else {
            ReasonCode::Success
        };
        match self
            .uploads
            .as_mut()
            .filter(|lane| !lane.answers.is_empty())
        {
            Some(lane) => lane.answers.push_back(Answer {
                packet,
                verdict: Verdict::Said(said),
            }),
            None => self.link.connection.acknowledge(packet_id, qos, said),
        }
    }

    /// Sends the answers that wait for no chunk any more.
    fn release_answers(&mut self) {
        let is_v5 = self.link.version() == ProtocolVersion::V5;
        let Some(lane) = &mut self.uploads else {
            return;
        };
        while let Some(Answer {
            packet,
            verdict: Verdict::Said(said),
        }) = lane.answers.front()
        {
            let said = if is_v5 { *said } else { ReasonCode::Success };
            if let Some((packet_id, qos)) = *packet {
                self.link.connection.acknowledge(packet_id, qos, said);
            }
            lane.answers.pop_front();
        }
        if lane.answers.is_empty() && lane.gathered.is_empty() && !lane.is_writing {
            self.uploads = None;
        }
    }

    pub(super) async fn create_upload(&mut self, task: &CreateUploadTask) {
        let who = Uploader {
            device_id: &self.device.device_id,
            product_id: &self.device.product.id,
            node_id: &self.device.node_id,
            reached_at: self.reached_at,
        };
        match self.link.node.uploads.create(who, task).await {
            Ok(created) => {
                self.tell(
                    &DownMessage::CreateUploadTaskRsp(created.rsp),
                    Sent::Message,
                );
                if let Some(ended) = created.ended {
                    self.tell_upload_end(&ended);
                }
            }
            Err(refusal) => {
                tracing::info!(device_id = %self.device.device_id, code = ?refusal.code, size = task.size, "an upload was refused");
                self.refuse_upload(refusal, "");
            }
        }
    }

    pub(super) async fn answer_upload_state(&mut self, transfer: &str) {
        match self
            .link
            .node
            .uploads
            .state(&self.device.device_id, transfer)
            .await
        {
            Ok((state, ended)) => {
                if let Some(state) = state {
                    self.tell(&DownMessage::UploadState(state), Sent::Message);
                }
                if let Some(ended) = ended {
                    self.tell_upload_end(&ended);
                }
            }
            Err(refusal) => self.refuse_upload(refusal, transfer),
        }
    }

    pub(super) async fn answer_upload_report(&mut self, report: &UploadReport) {
        let receipt = self
            .link
            .node
            .uploads
            .report(&self.device.device_id, report)
            .await;
        self.tell(
            &DownMessage::ReportUploadProgressRsp(receipt),
            Sent::Message,
        );
    }

    fn tell_upload_end(&mut self, ended: &Ended) {
        let result = UploadResult::new(&ended.transfer, &ended.name, ended.code);
        self.tell(&DownMessage::UploadResult(result), Sent::Message);
    }

    fn refuse_upload(&mut self, refusal: Refusal, transfer: &str) {
        self.tell(
            &DownMessage::TransferError(refusal.into_message(transfer)),
            Sent::Message,
        );
    }
}

/// Why a chunk was not gathered.
#[derive(Debug, Clone, Copy)]
enum NotGathered {
    /// Too much waits for the disk.
    Later,
    /// It belongs nowhere.
    Refused(Refusal),
}

impl From<Refusal> for NotGathered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What an MQTT 5 device is told in the acknowledgement.
const fn reason_of(refusal: Refusal) -> ReasonCode {
    match refusal.code {
        TransferErrorCode::Busy | TransferErrorCode::NoSpace | TransferErrorCode::QuotaExceeded => {
            ReasonCode::QuotaExceeded
        }
        TransferErrorCode::OutOfRange
        | TransferErrorCode::BadRequest
        | TransferErrorCode::TooLarge => ReasonCode::PayloadFormatInvalid,
        TransferErrorCode::UnknownTransfer
        | TransferErrorCode::StaleVersion
        | TransferErrorCode::NotSubscribed
        | TransferErrorCode::Canceled => ReasonCode::ImplementationSpecificError,
    }
}

const BAD_OFFSET: Refusal = Refusal {
    code: TransferErrorCode::BadRequest,
    message: "the last level of the topic must be an offset in decimal",
    retry_after: None,
};
