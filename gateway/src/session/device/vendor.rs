//! The same deliveries and uploads in vendors' words: `$ota` of Tencent, `$ota` and `$file_manager` of Huawei.
//!
//! The form is the one that the device listens to: `$resource` if it subscribed to that, else `$ota/update`, else
//! Huawei's events, which its devices hear without a subscription. Bytes go over HTTPS.

use std::time::Instant;

use bytes::Bytes;
use headgate_protocol::{
    mqtt::{Publish, ReasonCode},
    transfer::message::{CreateUploadTask, DownMessage},
    vendor::{
        huawei::{files, ota as huawei_ota},
        tencent::ota as tencent_ota,
    },
};

use super::{Announcing, DeviceSession, Sent};
use crate::{
    model::Millis,
    service::{
        delivery::{Offer, Offered},
        upload::Uploader,
        vendor::huawei::{self, Transfer},
    },
};

/// In whose words a device is told of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `$resource/down/service`.
    Resource,
    /// `$ota/update`.
    TencentOta,
    /// `sys/events/down`.
    Huawei,
}

impl DeviceSession {
    /// Where the device hears of deliveries, if anywhere.
    pub(super) fn hears_of_deliveries(&self) -> Option<Form> {
        let names = self.names();
        let hears = |topic: &str| self.granted_qos(topic).is_some();
        if hears(&names.down_service()) {
            Some(Form::Resource)
        } else if hears(&names.tencent_ota_update()) {
            Some(Form::TencentOta)
        } else if hears(&names.huawei_events_down()) {
            Some(Form::Huawei)
        } else {
            None
        }
    }

    /// Has the device told of what waits, once it has had time to subscribe to the rest.
    pub(super) fn listen(&mut self, now: Instant) {
        if self.announcing == Announcing::NotListening && self.hears_of_deliveries().is_some() {
            self.announcing = Announcing::At(now + self.link.node.delivery_config.announce_delay);
        }
    }

    /// Tells the device of what waits for it.
    pub(super) fn tell_waiting(&mut self, form: Form, offered: Offered) {
        match form {
            Form::Resource => {
                self.announced = Some(offered.delivery);
                let message = DownMessage::Download(offered.announcement);
                self.tell(&message, Sent::Announcement);
            }
            Form::TencentOta => {
                self.announced = Some(offered.delivery);
                let update = tencent_ota::update_firmware(&offered.announcement);
                let topic = self.names().tencent_ota_update();
                self.tell_on(&topic, update.into(), Sent::Announcement);
            }
            // It is told once it has said which version it runs.
            Form::Huawei => {
                let (device, time) = (self.device.device_id.as_str(), huawei::time(Millis::now()));
                let query = huawei_ota::version_query(device, &time);
                self.tell_huawei(query);
            }
        }
    }

    /// Takes a message on `$ota/report`; `None` where it could not be handed on.
    pub(super) async fn take_tencent_ota(&mut self, publish: &Publish) -> Option<ReasonCode> {
        match tencent_ota::Report::parse(&publish.payload) {
            Ok(tencent_ota::Report::Version(version)) => {
                tracing::debug!(device_id = %self.device.device_id, version, "a device told its version");
                let topic = self.names().tencent_ota_update();
                self.tell_on(&topic, tencent_ota::version_rsp().into(), Sent::Message);
                self.stop_announcing();
                if let Offer::Ready(offered) = self.offer() {
                    self.tell_waiting(Form::TencentOta, *offered);
                }
            }
            Ok(tencent_ota::Report::Progress(report)) => {
                let delivery = &self.link.node.delivery;
                let receipt = delivery.report(&self.device.device_id, &report).await;
                if receipt.result_code != 0 {
                    tracing::info!(device_id = %self.device.device_id, message = receipt.result_msg, "a report on an update was not believed");
                }
                self.drop_finished_transfer();
            }
            Err(error) => {
                tracing::debug!(device_id = %self.device.device_id, %error, "no report on an update: data");
                return self.hand_on(publish).await;
            }
        }
        Some(ReasonCode::Success)
    }

    /// Serves what a device says to `$ota` and `$file_manager`.
    pub(super) async fn serve_huawei(&mut self, transfers: Vec<Transfer>) {
        for transfer in transfers {
            match transfer {
                Transfer::Ota(huawei_ota::Report::Version { firmware, software }) => {
                    // A device that has no firmware of its own to speak of upgrades its software.
                    let is_firmware = !firmware.is_empty() || software.is_empty();
                    self.tell_upgrade(is_firmware).await;
                }
                Transfer::Ota(huawei_ota::Report::Progress(report))
                | Transfer::Files(files::Request::DownloadResult(report)) => {
                    let delivery = &self.link.node.delivery;
                    let receipt = delivery.report(&self.device.device_id, &report).await;
                    if receipt.result_code != 0 {
                        tracing::info!(device_id = %self.device.device_id, message = receipt.result_msg, "a report on a download was not believed");
                    }
                    self.drop_finished_transfer();
                }
                Transfer::Files(files::Request::Upload(task)) => self.tell_upload_url(&task).await,
                Transfer::Files(files::Request::Download(name)) => {
                    self.tell_download_url(&name).await;
                }
                // The gateway knows what came and what did not.
                Transfer::Files(files::Request::UploadResult { name, result_code }) => {
                    tracing::debug!(device_id = %self.device.device_id, name, result_code, "a device told how an upload went");
                }
            }
        }
    }

    async fn tell_upgrade(&mut self, is_firmware: bool) {
        self.stop_announcing();
        if let Offer::Ready(offered) = self.offer() {
            let (device, time) = (self.device.device_id.as_str(), huawei::time(Millis::now()));
            let waiting = &offered.announcement;
            let upgrade = huawei_ota::upgrade(device, &time, waiting, is_firmware, self.url_secs());
            self.tell_huawei(upgrade);
            // Mostly at QoS 0, which nobody acknowledges.
            let delivery = &self.link.node.delivery;
            delivery.on_announced(&offered.delivery).await;
        }
    }

    async fn tell_download_url(&mut self, name: &str) {
        let Offer::Ready(offered) = self.offer() else {
            return self.log_nothing(name);
        };
        if !files::is_named(name, &offered.announcement.name) {
            return self.log_nothing(name);
        }
        self.stop_announcing();
        let (device, time) = (self.device.device_id.as_str(), huawei::time(Millis::now()));
        let told = files::download_url(device, &time, &offered.announcement, self.url_secs());
        self.tell_huawei(told);
        let delivery = &self.link.node.delivery;
        delivery.on_announced(&offered.delivery).await;
    }

    async fn tell_upload_url(&mut self, task: &CreateUploadTask) {
        let who = Uploader {
            device_id: &self.device.device_id,
            product_id: &self.device.product.id,
            node_id: &self.device.node_id,
            reached_at: self.reached_at,
        };
        match self.link.node.uploads.create(who, task).await {
            Ok(created) => {
                let (device, time) = (self.device.device_id.as_str(), huawei::time(Millis::now()));
                let told = files::upload_url(device, &time, task, &created.rsp, self.url_secs());
                self.tell_huawei(told);
            }
            // The vendor has no word for "no".
            Err(refusal) => {
                tracing::info!(device_id = %self.device.device_id, code = ?refusal.code, size = task.size, "an upload was refused");
            }
        }
    }

    fn offer(&self) -> Offer {
        let delivery = &self.link.node.delivery;
        delivery.offer(&self.device.device_id, self.reached_at)
    }

    fn tell_huawei(&mut self, message: Vec<u8>) {
        let topic = self.names().huawei_events_down();
        self.tell_on(&topic, Bytes::from(message), Sent::Message);
    }

    fn url_secs(&self) -> u64 {
        self.link.node.uploads.url_lifetime().as_secs()
    }

    fn log_nothing(&self, name: &str) {
        tracing::info!(device_id = %self.device.device_id, name, "a device asked for a file that does not wait for it");
    }
}
