//! What a device reports about a delivery: how far it is, and how it ended.

use std::{sync::Arc, time::Duration};

use headgate_protocol::{
    identity::DeviceId,
    transfer::{
        message::{DownloadReport, DownloadState, Receipt},
        ranges::Ranges,
    },
};

use crate::{
    model::{DeliveryState, FailReason},
    service::delivery::{DeliveryService, LiveDelivery, live::Step},
    store::sessions::Cursor,
};

/// How long another node may take to say what went out there.
const SOON: Duration = Duration::from_millis(500);

impl DeliveryService {
    /// Takes a report of the device; the receipt is what it is answered with, after whatever it
    /// stands for has been committed.
    pub async fn report(&self, device: &DeviceId, report: &DownloadReport) -> Receipt {
        let Some(delivery) = self.reported_delivery(device, report) else {
            return self.receipt_of_absent(device, report).await;
        };
        if !delivery.was_offered() && !speaks_of_an_earlier_success(&delivery, report) {
            if self.inner.shared.is_some() && delivery.attempt == 1 && report.transfer.is_some() {
                // Another node told the device, and could not write that down: it is told again.
                return try_again("the delivery has just come to this node");
            }
            // The device speaks of an attempt that is over: it has not been told of this one.
            return Receipt::ok();
        }
        delivery.on_reported(report.percent);
        let ended = match report.state {
            DownloadState::Downloading => {
                // Bytes that came by a way that we cannot see count by the device's word.
                let moves = report.percent.is_some_and(|percent| percent > 0);
                let step = if moves || delivery.sent_bytes() > 0 {
                    DeliveryState::Delivering
                } else {
                    DeliveryState::Pushed
                };
                self.note_step(&delivery, step).await;
                return Receipt::ok();
            }
            DownloadState::Done if self.was_sent_whole(&delivery).await => {
                self.finish(&delivery, DeliveryState::Delivered, None).await
            }
            DownloadState::Done => {
                let outcome = self
                    .finish(
                        &delivery,
                        DeliveryState::Failed,
                        Some(FailReason::Incomplete),
                    )
                    .await;
                if outcome.is_ok() {
                    return Receipt {
                        result_code: -1,
                        result_msg: format!(
                            "incomplete: {} of {} bytes were sent",
                            delivery.sent_bytes(),
                            delivery.content.size
                        ),
                    };
                }
                outcome
            }
            DownloadState::Fail => {
                let reason = FailReason::Device {
                    code: report.result_code,
                    message: report.result_msg.clone(),
                };
                self.finish(&delivery, DeliveryState::Failed, Some(reason))
                    .await
            }
        };
        match ended {
            // Somebody else ends it just now, and that may yet be refused.
            Ok(step) if !matches!(step, Step::Taken { .. }) && self.is_in_book(&delivery) => {
                try_again("its end is being recorded")
            }
            Ok(_) => Receipt::ok(),
            Err(error) => try_again(&error.to_string()),
        }
    }

    /// The receipt of a report on what is not in the book: it comes again because its own was lost, or is on what was
    /// cancelled. Or the delivery is open, and not in this node's hands: then nothing has been recorded.
    async fn receipt_of_absent(&self, device: &DeviceId, report: &DownloadReport) -> Receipt {
        if self.inner.shared.is_none() || report.state == DownloadState::Downloading {
            return Receipt::ok();
        }
        let is_open = match report.transfer.as_ref().map(|transfer| transfer.parse()) {
            Some(Ok(id)) => {
                let found = self.inner.registry.open_delivery(id).await;
                found.map(|found| found.is_some_and(|(open, _)| open.delivery.device_id == *device))
            }
            Some(Err(_)) => Ok(false),
            None => self.inner.registry.has_open_delivery(device).await,
        };
        match is_open {
            Ok(false) => Receipt::ok(),
            Ok(true) => {
                self.look_again(device);
                try_again("the delivery is being looked up")
            }
            Err(error) => {
                tracing::warn!(%error, device_id = %device, "a delivery that was reported could not be looked up");
                try_again("the registry is not available")
            }
        }
    }

    /// Whether every byte went out, by this node or by another one from which the device fetched.
    async fn was_sent_whole(&self, delivery: &LiveDelivery) -> bool {
        if delivery.was_sent_whole() || self.inner.shared.is_none() {
            return delivery.was_sent_whole();
        }
        // That node may be about to say so.
        for pause in [Duration::ZERO, SOON, SOON] {
            tokio::time::sleep(pause).await;
            match self.inner.sessions.cursors_of(&[delivery.id]).await {
                Ok(cursors) => {
                    let of_attempt = |cursor: &Cursor| cursor.attempt == delivery.attempt;
                    for cursor in cursors.into_iter().filter(of_attempt) {
                        delivery.add_sent(&Ranges::from_parts(cursor.acked, cursor.ranges));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, delivery = %delivery.id, "what other nodes sent could not be looked up");
                }
            }
            if delivery.was_sent_whole() {
                return true;
            }
        }
        false
    }

    /// Which delivery a report is about.
    fn reported_delivery(
        &self,
        device: &DeviceId,
        report: &DownloadReport,
    ) -> Option<Arc<LiveDelivery>> {
        let queue = self.inner.book.of_device(device);
        if let Some(transfer) = &report.transfer {
            let mut named = queue.into_iter();
            return named.find(|delivery| *delivery.transfer == **transfer);
        }
        // At most one delivery is out to a device, and it is of that name or it is not meant.
        let named = |delivery: &&Arc<LiveDelivery>| {
            let own = delivery.content.name.as_str();
            report.name.as_deref().is_none_or(|name| name == own)
        };
        let mut told = queue.iter().filter(named);
        let out = told.clone().find(|delivery| delivery.is_admitted());
        // One that waits for its next attempt: what the device says may still be about the last.
        out.or_else(|| told.find(|delivery| delivery.was_offered() || delivery.attempt > 1))
            .cloned()
    }
}

/// The receipt of what was not recorded.
fn try_again(why: &str) -> Receipt {
    Receipt {
        result_code: -1,
        result_msg: format!("try again: {why}"),
    }
}

/// Whether a report is the late `done` of an attempt that is over, which had sent every byte.
fn speaks_of_an_earlier_success(delivery: &LiveDelivery, report: &DownloadReport) -> bool {
    report.state == DownloadState::Done && delivery.attempt > 1 && delivery.was_sent_whole()
}
