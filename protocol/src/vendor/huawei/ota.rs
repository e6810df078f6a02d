//! Huawei's `$ota`: a device is asked for its version, told of an upgrade, and reports how it goes.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::transfer::message::{Announcement, DownloadReport, DownloadState};

/// What a device says to `$ota`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `version_report`: what it runs; empty where it has none of that kind.
    Version {
        /// Of the firmware.
        firmware: String,
        /// Of the software.
        software: String,
    },
    /// `upgrade_progress_report`: how its upgrade goes.
    Progress(DownloadReport),
}

#[derive(Deserialize)]
struct RawVersion {
    #[serde(default)]
    fw_version: Option<String>,
    #[serde(default)]
    sw_version: Option<String>,
}

#[derive(Deserialize)]
struct RawProgress {
    result_code: i32,
    progress: Option<u8>,
    description: Option<String>,
}

impl Report {
    /// Reads what an event of this type says; `None` where that is nothing of this form.
    pub fn read(event_type: &str, paras: &Value) -> Option<Self> {
        match event_type {
            "version_report" => {
                let raw = RawVersion::deserialize(paras).ok()?;
                Some(Self::Version {
                    firmware: raw.fw_version.unwrap_or_default(),
                    software: raw.sw_version.unwrap_or_default(),
                })
            }
            "upgrade_progress_report" => {
                let raw = RawProgress::deserialize(paras).ok()?;
                let percent = raw.progress.filter(|percent| *percent <= 100);
                let state = match (raw.result_code, percent) {
                    // Without a percentage it is the end.
                    (0, Some(100) | None) => DownloadState::Done,
                    (0, Some(_)) => DownloadState::Downloading,
                    _ => DownloadState::Fail,
                };
                let text = raw.description.unwrap_or_default();
                Some(Self::Progress(DownloadReport {
                    transfer: None,
                    name: None,
                    state,
                    percent,
                    result_code: raw.result_code,
                    result_msg: text.chars().take(256).collect(),
                }))
            }
            _ => None,
        }
    }
}

/// Asks a device for its version.
pub fn version_query(device: &str, time: &str) -> Vec<u8> {
    super::event(device, "$ota", "version_query", time, &json!({}))
}

/// Tells of an upgrade, of the firmware or of the software; the token and the signed address expire after `expires`
/// seconds.
pub fn upgrade(
    device: &str,
    time: &str,
    waiting: &Announcement,
    is_firmware: bool,
    expires: u64,
) -> Vec<u8> {
    let kind = if is_firmware {
        "firmware_upgrade"
    } else {
        "software_upgrade"
    };
    // The signature in the address is the right to fetch it; the token says the same once more.
    let token = waiting.url.rsplit('/').next().unwrap_or_default();
    let paras = json!({
        "version": waiting.version.to_string(),
        "url": waiting.url,
        "file_size": waiting.size,
        "access_token": token,
        "expires": expires,
        "sign": waiting.sha256,
    });
    super::event(device, "$ota", kind, time, &paras)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_the_sdk_writes_them() {
        let version = json!({"fw_version": "v1.0", "sw_version": "v2.0"});
        assert_eq!(
            Report::read("version_report", &version),
            Some(Report::Version {
                firmware: "v1.0".to_owned(),
                software: "v2.0".to_owned()
            })
        );
        for (paras, state, percent) in [
            (
                json!({"result_code": 0, "version": "v2", "progress": 100, "description": "ok"}),
                DownloadState::Done,
                Some(100),
            ),
            (
                json!({"result_code": 0, "progress": 50}),
                DownloadState::Downloading,
                Some(50),
            ),
            (json!({"result_code": 0}), DownloadState::Done, None),
            (
                json!({"result_code": 7, "progress": 10}),
                DownloadState::Fail,
                Some(10),
            ),
        ] {
            let Some(Report::Progress(report)) = Report::read("upgrade_progress_report", &paras)
            else {
                panic!("{paras}")
            };
            assert_eq!((report.state, report.percent), (state, percent), "{paras}");
        }
        for (kind, paras) in [
            ("upgrade_progress_report", json!({})),
            ("upgrade_progress_report", json!(null)),
            ("version_report", json!(7)),
            ("other", json!({})),
        ] {
            assert_eq!(Report::read(kind, &paras), None, "{kind} {paras}");
        }
    }

    #[test]
    fn an_upgrade_is_told_in_the_vendors_fields() {
        let waiting = Announcement {
            size: 5_000,
            name: "fw".to_owned(),
            md5sum: "0a".to_owned(),
            url: "https://h/files/signed".to_owned(),
            transfer: "t".to_owned(),
            sha256: "0b".to_owned(),
            chunk_size: 1,
            chunks: 1,
            version: 2,
            acked: 0,
        };
        let told: Value =
            serde_json::from_slice(&upgrade("P_d", "20261121T055753Z", &waiting, true, 86_400))
                .expect("JSON");
        assert_eq!(
            told,
            json!({"object_device_id": "P_d", "services": [{
                "service_id": "$ota", "event_type": "firmware_upgrade",
                "event_time": "20261121T055753Z",
                "paras": {"version": "2", "url": "https://h/files/signed", "file_size": 5_000,
                          "access_token": "signed", "expires": 86_400, "sign": "0b"},
            }]})
        );
    }
}
