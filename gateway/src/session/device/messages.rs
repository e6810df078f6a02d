//! What the device says about transfers, and what it is told.

use std::sync::Arc;

use bytes::Bytes;
use headgate_protocol::{
    mqtt::{Message as Outgoing, QoS, TopicName},
    transfer::{
        message::{DownMessage, GetChunks, TransferError, TransferErrorCode, UpMessage},
        window::Ask,
    },
};

use super::{Announcing, DeviceSession, Sent};
use crate::{
    service::delivery::{LiveDelivery, Offer, PumpLimits, Refusal},
    session::pump::ActiveTransfer,
    telemetry::metrics::DropReason,
};

/// The longest header of a chunk's PUBLISH: fixed header, topic, packet identifier, properties.
const MAX_CHUNK_HEADER_BYTES: u32 = 256;

impl DeviceSession {
    pub(super) async fn handle_service_message(&mut self, payload: &[u8]) {
        match UpMessage::parse(payload) {
            Ok(message) => self.handle_up(message).await,
            Err(malformed) => {
                tracing::debug!(device_id = %self.device.device_id, %malformed, "a transfer message was refused");
                let error = TransferError {
                    transfer: malformed
                        .transfer
                        .unwrap_or_default()
                        .chars()
                        .take(32)
                        .collect(),
                    code: TransferErrorCode::BadRequest,
                    message: malformed.reason,
                    retry_after: None,
                };
                self.tell(&DownMessage::TransferError(error), Sent::Message);
            }
        }
    }

    async fn handle_up(&mut self, message: UpMessage) {
        match message {
            UpMessage::GetDownloadTask => self.answer_download_task().await,
            UpMessage::ReportDownloadProgress(report) => {
                let receipt = self
                    .link
                    .node
                    .delivery
                    .report(&self.device.device_id, &report)
                    .await;
                self.drop_finished_transfer();
                self.tell(
                    &DownMessage::ReportDownloadProgressRsp(receipt),
                    Sent::Message,
                );
            }
            UpMessage::GetChunks(request) => {
                self.stop_announcing();
                if let Err(refusal) = self.start_transfer(&request).await {
                    self.refuse(refusal, &request.transfer);
                }
            }
            UpMessage::StopChunks { transfer } => {
                let active = self
                    .transfer
                    .as_ref()
                    .is_some_and(|active| *active.delivery.transfer == *transfer);
                if active {
                    self.drop_transfer(std::time::Instant::now());
                } else if let Err(refusal) = self
                    .link
                    .node
                    .delivery
                    .find(&self.device.device_id, &transfer)
                    .await
                {
                    self.refuse(refusal, &transfer);
                }
            }
            UpMessage::GetManifest {
                transfer,
                from,
                count,
            } => {
                let found = self
                    .link
                    .node
                    .delivery
                    .find(&self.device.device_id, &transfer)
                    .await;
                match found
                    .and_then(|delivery| self.link.node.delivery.manifest(&delivery, from, count))
                {
                    Ok(manifest) => self.tell(&DownMessage::Manifest(manifest), Sent::Message),
                    Err(refusal) => self.refuse(refusal, &transfer),
                }
            }
            UpMessage::CreateUploadTask(task) => self.create_upload(&task).await,
            UpMessage::GetUploadState { transfer } => self.answer_upload_state(&transfer).await,
            UpMessage::ReportUploadProgress(report) => self.answer_upload_report(&report).await,
            UpMessage::Unknown(kind) => {
                let error = TransferError {
                    transfer: String::new(),
                    code: TransferErrorCode::BadRequest,
                    message: format!("messages of type {kind} are not served"),
                    retry_after: None,
                };
                self.tell(&DownMessage::TransferError(error), Sent::Message);
            }
        }
    }

    /// Tells the device of what waits for it, if it is its turn.
    pub(super) fn announce(&mut self) {
        self.announcing = Announcing::WhenWoken;
        let Some(form) = self.hears_of_deliveries() else {
            return;
        };
        if let Offer::Ready(offered) = self
            .link
            .node
            .delivery
            .offer(&self.device.device_id, self.reached_at)
        {
            let out_already = self
                .transfer
                .as_ref()
                .is_some_and(|active| active.delivery.id == offered.delivery.id);
            if !out_already {
                self.tell_waiting(form, *offered);
            }
        }
    }

    pub(super) fn tell_canceled(&mut self) {
        for canceled in self.handle.take_canceled() {
            if self
                .transfer
                .as_ref()
                .is_some_and(|active| active.delivery.transfer == canceled.transfer)
            {
                self.drop_transfer(std::time::Instant::now());
            }
            let message = DownMessage::CancelDownload {
                transfer: canceled.transfer.into_string(),
                name: canceled.name.into_string(),
            };
            self.tell(&message, Sent::Message);
        }
    }

    async fn answer_download_task(&mut self) {
        self.stop_announcing();
        let waiting = match self
            .link
            .node
            .delivery
            .offer(&self.device.device_id, self.reached_at)
        {
            Offer::Ready(offered) => {
                self.link
                    .node
                    .delivery
                    .on_announced(&offered.delivery)
                    .await;
                Some(offered.announcement)
            }
            Offer::Waiting | Offer::Nothing => None,
        };
        self.tell(&DownMessage::GetDownloadTaskRsp { waiting }, Sent::Message);
    }

    async fn start_transfer(&mut self, request: &GetChunks) -> Result<(), Refusal> {
        let delivery = self
            .link
            .node
            .delivery
            .find(&self.device.device_id, &request.transfer)
            .await?;
        let topic_prefix = self.names().chunk_prefix(&delivery.transfer);
        // The first chunk stands for all: most devices subscribe with a wildcard, and one that
        // asks chunk by chunk may name each topic.
        let first = request.offset.unwrap_or_else(|| delivery.resume_at(None));
        let qos = self.granted_qos(&format!("{topic_prefix}{first}"));
        let qos = match (&request.ask, qos) {
            (_, None) | (Ask::Window(_), Some(QoS::AtMostOnce)) => {
                return Err(Refusal::not_subscribed());
            }
            // A chunk that comes twice does no harm.
            (_, Some(qos)) => qos.min(QoS::AtLeastOnce),
        };
        let limits = PumpLimits {
            receive_maximum: self.link.connection.client_receive_maximum(),
            max_payload_bytes: self
                .link
                .connection
                .client_max_packet_bytes()
                .saturating_sub(MAX_CHUNK_HEADER_BYTES),
        };
        let pump = self
            .link
            .node
            .delivery
            .begin(&delivery, request, limits)
            .await?;
        self.drop_transfer(std::time::Instant::now());
        self.generations = self.generations.wrapping_add(1);
        let moved = request.offset.is_some() && request.ask_moves_cursor();
        let goes_on = self
            .acknowledging
            .as_ref()
            .is_some_and(|(known, _)| Arc::ptr_eq(known, &delivery) && !moved);
        if !goes_on {
            // What was sent before says nothing about what the device has now.
            self.acknowledging = Some((Arc::clone(&delivery), self.generations));
        }
        self.transfer = Some(Box::new(ActiveTransfer::new(
            delivery,
            pump,
            qos,
            topic_prefix,
            self.generations,
        )));
        Ok(())
    }

    /// Drops the pump of a delivery that has ended.
    pub(super) fn drop_finished_transfer(&mut self) {
        let ended = |delivery: &Arc<LiveDelivery>| delivery.state().is_final();
        let sends = self.transfer.as_ref().map(|active| &active.delivery);
        let waits = self.acknowledging.as_ref().map(|(delivery, _)| delivery);
        if sends.is_some_and(ended) || (sends.is_none() && waits.is_some_and(ended)) {
            self.drop_transfer(std::time::Instant::now());
        }
    }

    pub(super) fn stop_announcing(&mut self) {
        if matches!(self.announcing, Announcing::At(_)) {
            self.announcing = Announcing::WhenWoken;
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, transfer: &str) {
        self.tell(
            &DownMessage::TransferError(refusal.into_message(transfer)),
            Sent::Message,
        );
    }

    /// Sends a message on the device's service topic, if it listens there.
    pub(super) fn tell(&mut self, message: &DownMessage, tag: Sent) {
        let topic = self.names().down_service();
        self.tell_on(&topic, Bytes::from(message.to_json()), tag);
    }

    /// Sends a message of the gateway's own, if the device listens there.
    pub(super) fn tell_on(&mut self, topic: &str, payload: Bytes, tag: Sent) {
        let qos = self.granted_qos(topic);
        let Some(qos) = qos.map(|granted| granted.min(QoS::AtLeastOnce)) else {
            self.link
                .node
                .metrics
                .messages_dropped(DropReason::NoSubscription)
                .inc();
            return;
        };
        // Product, node and device ids hold no wildcard and no NUL.
        let Ok(topic) = topic.parse::<TopicName>() else {
            return;
        };
        let message = Outgoing {
            qos: qos.min(self.max_unstored_qos()),
            ..Outgoing::new(topic, payload, tag)
        };
        if let Err(error) = self.link.send(message) {
            tracing::debug!(device_id = %self.device.device_id, %error, "a message was dropped");
        }
    }
}
