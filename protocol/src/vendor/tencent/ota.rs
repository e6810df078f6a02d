//! Tencent's `$ota`: a device tells its version and is told of firmware, fetches it over HTTPS and reports.
//!
//! Numbers in reports are text.

use serde::{Deserialize, Serialize};

use crate::transfer::message::{Announcement, DownloadReport, DownloadState, RawProgress};

/// What a device says on `$ota/report/{product}/{device}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `report_version`: which version it runs.
    Version(String),
    /// `report_progress`: how its update goes.
    Progress(DownloadReport),
}

/// Why a message is no report.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is not of the form that reports have.
    #[error("no report: {0}")]
    Json(#[from] serde_json::Error),
    /// A field breaks a rule.
    #[error("{0}")]
    Field(&'static str),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    report: RawReport,
}

#[derive(Deserialize)]
struct RawReport {
    version: Option<String>,
    progress: Option<RawProgress>,
}

#[derive(Serialize)]
struct VersionRsp {
    #[serde(rename = "type")]
    kind: &'static str,
    result_code: i32,
    result_msg: &'static str,
}

#[derive(Serialize)]
struct UpdateFirmware<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    file_size: u64,
    md5sum: &'a str,
    url: &'a str,
    version: String,
}

impl Report {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] where it is none of the two reports.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let raw: Raw = serde_json::from_slice(payload)?;
        match raw.kind.as_str() {
            "report_version" => {
                let version = raw.report.version;
                Ok(Self::Version(
                    version.ok_or(Malformed::Field("version is missing"))?,
                ))
            }
            "report_progress" => {
                let progress = raw.report.progress;
                let progress = progress.ok_or(Malformed::Field("progress is missing"))?;
                let state = match progress.state.as_deref() {
                    Some("downloading" | "burning") => DownloadState::Downloading,
                    Some("done") => DownloadState::Done,
                    Some("fail") => DownloadState::Fail,
                    _ => return Err(Malformed::Field("state is none of this form")),
                };
                Ok(Self::Progress(DownloadReport {
                    transfer: None,
                    name: None,
                    state,
                    percent: progress.percent().map_err(Malformed::Field)?,
                    result_code: progress.result_code().map_err(Malformed::Field)?,
                    result_msg: progress.result_msg(),
                }))
            }
            _ => Err(Malformed::Field("type is none of this form")),
        }
    }
}

/// The answer to `report_version`.
pub fn version_rsp() -> Vec<u8> {
    let rsp = VersionRsp {
        kind: "report_version_rsp",
        result_code: 0,
        result_msg: "success",
    };
    // Plain structs of numbers and text always serialize.
    serde_json::to_vec(&rsp).unwrap_or_default()
}

/// That firmware waits.
pub fn update_firmware(waiting: &Announcement) -> Vec<u8> {
    let update = UpdateFirmware {
        kind: "update_firmware",
        file_size: waiting.size,
        md5sum: &waiting.md5sum,
        url: &waiting.url,
        version: waiting.version.to_string(),
    };
    serde_json::to_vec(&update).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_the_sdk_writes_them() {
        let version = br#"{"type": "report_version", "report":{"version":"0.1"}}"#;
        assert_eq!(
            Report::parse(version).expect("good"),
            Report::Version("0.1".to_owned())
        );
        for (state, percent, expected) in [
            ("downloading", r#""0""#, DownloadState::Downloading),
            ("downloading", "40", DownloadState::Downloading),
            ("burning", r#""100""#, DownloadState::Downloading),
            ("done", r#""100""#, DownloadState::Done),
            ("fail", r#""10""#, DownloadState::Fail),
        ] {
            let json = format!(
                r#"{{"type":"report_progress","report":{{"progress":{{"state":"{state}","percent":{percent},"result_code":"-4","result_msg":"md5"}},"version":"0.2"}}}}"#
            );
            let Report::Progress(report) = Report::parse(json.as_bytes()).expect("good") else {
                panic!("another report")
            };
            assert_eq!((report.state, report.result_code), (expected, -4));
        }
        for bad in [
            &b"\xff"[..],
            b"{}",
            br#"{"type":"report_version","report":{}}"#,
            br#"{"type":"report_progress","report":{"progress":{"state":"x"}}}"#,
            br#"{"type":"x","report":{}}"#,
        ] {
            assert!(Report::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn firmware_is_told_in_the_vendors_fields() {
        let waiting = Announcement {
            size: 5_000,
            name: "fw".to_owned(),
            md5sum: "0a".to_owned(),
            url: "https://h/files/x".to_owned(),
            transfer: "t".to_owned(),
            sha256: "0b".to_owned(),
            chunk_size: 1,
            chunks: 1,
            version: 2,
            acked: 0,
        };
        assert_eq!(
            String::from_utf8(update_firmware(&waiting)).expect("UTF-8"),
            r#"{"type":"update_firmware","file_size":5000,"md5sum":"0a","url":"https://h/files/x","version":"2"}"#
        );
        assert_eq!(
            String::from_utf8(version_rsp()).expect("UTF-8"),
            r#"{"type":"report_version_rsp","result_code":0,"result_msg":"success"}"#
        );
    }
}
