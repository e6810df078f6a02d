//! Huawei's `$file_manager`: a device asks where it may send or fetch a file, and tells how that went.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::transfer::{
    message::{Announcement, CreateUploadTask, CreateUploadTaskRsp, DownloadReport, DownloadState},
    upload::parse_hex,
};

/// What a device says to `$file_manager`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `get_upload_url`: it will send this.
    Upload(CreateUploadTask),
    /// `get_download_url`: it wants the file of this name.
    Download(String),
    /// `upload_result_report`: it has sent the file of this name, or could not.
    UploadResult {
        /// The name.
        name: String,
        /// 0: sent.
        result_code: i32,
    },
    /// `download_result_report`: it has fetched a file, or could not.
    DownloadResult(DownloadReport),
}

#[derive(Deserialize)]
struct RawFile {
    file_name: String,
    #[serde(default)]
    file_attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct Attributes {
    hash_code: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct RawResult {
    object_name: String,
    result_code: i32,
    status_description: Option<String>,
}

impl Request {
    /// Reads what an event of this type says; `None` where that is nothing of this form, or breaks a rule.
    pub fn read(event_type: &str, paras: &Value) -> Option<Self> {
        match event_type {
            "get_upload_url" => {
                let raw = RawFile::deserialize(paras).ok()?;
                let attributes = raw.file_attributes?;
                let task = CreateUploadTask {
                    size: attributes.size?,
                    name: raw.file_name,
                    md5: None,
                    sha256: Some(parse_hex(&attributes.hash_code?)?),
                    by_chunks: false,
                    chunk_size: None,
                };
                task.check().ok().map(Self::Upload)
            }
            "get_download_url" => {
                let raw = RawFile::deserialize(paras).ok()?;
                Some(Self::Download(raw.file_name))
            }
            "upload_result_report" => {
                let raw = RawResult::deserialize(paras).ok()?;
                Some(Self::UploadResult {
                    name: raw.object_name,
                    result_code: raw.result_code,
                })
            }
            "download_result_report" => {
                let raw = RawResult::deserialize(paras).ok()?;
                let text = raw.status_description.unwrap_or_default();
                Some(Self::DownloadResult(DownloadReport {
                    transfer: None,
                    name: Some(raw.object_name),
                    state: if raw.result_code == 0 {
                        DownloadState::Done
                    } else {
                        DownloadState::Fail
                    },
                    percent: None,
                    result_code: raw.result_code,
                    result_msg: text.chars().take(256).collect(),
                }))
            }
            _ => None,
        }
    }
}

/// Whether a file of this name is the resource of that: the same, or the same before an extension, which the names of
/// resources cannot have.
pub fn is_named(file: &str, resource: &str) -> bool {
    file == resource
        || file
            .rsplit_once('.')
            .is_some_and(|(stem, _)| stem == resource)
}

/// Where to send a file.
pub fn upload_url(
    device: &str,
    time: &str,
    task: &CreateUploadTask,
    told: &CreateUploadTaskRsp,
    expire: u64,
) -> Vec<u8> {
    let sha256 = task.sha256.map(hex_text).unwrap_or_default();
    let paras = json!({
        "url": told.url,
        "bucket_name": "uploads",
        "object_name": task.name,
        "expire": expire,
        "file_attributes": {"hash_code": sha256, "size": task.size},
    });
    super::event(
        device,
        "$file_manager",
        "get_upload_url_response",
        time,
        &paras,
    )
}

/// Where to fetch a file.
pub fn download_url(device: &str, time: &str, waiting: &Announcement, expire: u64) -> Vec<u8> {
    let paras = json!({
        "url": waiting.url,
        "bucket_name": "resources",
        "object_name": waiting.name,
        "expire": expire,
        "file_attributes": {"hash_code": waiting.sha256, "size": waiting.size},
    });
    super::event(
        device,
        "$file_manager",
        "get_download_url_response",
        time,
        &paras,
    )
}

fn hex_text(bytes: [u8; 32]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_the_sdk_writes_them() {
        let hash = "0a".repeat(32);
        let paras =
            json!({"file_name": "a.log", "file_attributes": {"hash_code": hash, "size": 5}});
        let Some(Request::Upload(task)) = Request::read("get_upload_url", &paras) else {
            panic!("an upload")
        };
        assert_eq!((task.size, task.name.as_str()), (5, "a.log"));
        assert_eq!(task.sha256, Some([10; 32]));
        assert_eq!(hex_text([10; 32]), hash);
        assert_eq!(
            Request::read("get_download_url", &json!({"file_name": "fw.bin"})),
            Some(Request::Download("fw.bin".to_owned()))
        );
        let done = json!({"object_name": "fw", "result_code": 0, "status_code": 200});
        let Some(Request::DownloadResult(report)) = Request::read("download_result_report", &done)
        else {
            panic!("a result")
        };
        assert_eq!(
            (report.state, report.name.as_deref()),
            (DownloadState::Done, Some("fw"))
        );
        for (kind, paras) in [
            ("get_upload_url", json!({"file_name": "a"})),
            (
                "get_upload_url",
                json!({"file_name": "a", "file_attributes": {"hash_code": "xx", "size": 5}}),
            ),
            (
                "get_upload_url",
                json!({"file_name": "", "file_attributes": {"hash_code": hash, "size": 5}}),
            ),
            ("get_download_url", json!(null)),
            ("other", json!({})),
        ] {
            assert_eq!(Request::read(kind, &paras), None, "{kind} {paras}");
        }
    }

    #[test]
    fn a_file_is_a_resource_with_or_without_extension() {
        for (file, is) in [
            ("fw", true),
            ("fw.bin", true),
            ("fw.tar.gz", false),
            ("fw2", false),
        ] {
            assert_eq!(is_named(file, "fw"), is, "{file}");
        }
    }
}
