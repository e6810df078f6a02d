//! The JSON messages about a transfer, in both directions.
//!
//! The vendor's names and types are kept as they are; our own fields stand flat behind them, where
//! devices that do not know them ignore them. Numbers are taken as numbers or as text, because
//! devices send both.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

pub use super::upload::{
    CreateUploadTask, CreateUploadTaskRsp, UploadReport, UploadReportState, UploadResult,
    UploadResultCode, UploadState,
};
use super::window::{Ask, MAX_COUNT, MAX_WINDOW, parse_bitmap};

/// The most digests that one `get_manifest` is answered with.
pub const MAX_MANIFEST_DIGESTS: u32 = 64;

/// What a device says on `$resource/up/service/{product}/{device}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpMessage {
    /// Asks what waits for it.
    GetDownloadTask,
    /// Tells how far it is, or how it ended.
    ReportDownloadProgress(DownloadReport),
    /// Asks for bytes.
    GetChunks(GetChunks),
    /// Wants no more bytes for now.
    StopChunks {
        /// The transfer to stop.
        transfer: String,
    },
    /// Asks for the digests of parts.
    GetManifest {
        /// The transfer that it is about.
        transfer: String,
        /// The first part, counted from 0.
        from: u32,
        /// How many parts, at most [`MAX_MANIFEST_DIGESTS`].
        count: u32,
    },
    /// Announces what it will send.
    CreateUploadTask(CreateUploadTask),
    /// Asks what has been stored of what it sends.
    GetUploadState {
        /// The transfer that it is about.
        transfer: String,
    },
    /// Tells how far it is with sending, or how that ended.
    ReportUploadProgress(UploadReport),
    /// A type that is not served.
    Unknown(String),
}

/// What `get_chunks` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetChunks {
    /// The transfer.
    pub transfer: String,
    /// Where to begin; `None`: where the gateway's cursor stands.
    pub offset: Option<u64>,
    /// Which chunks.
    pub ask: Ask,
    /// Bytes a chunk; `None`: as announced.
    pub chunk_size: Option<u32>,
}

impl GetChunks {
    /// Whether the offset says where the device stands: only a request for all that follows does;
    /// `count` and `missing` ask for pieces out of order.
    pub fn ask_moves_cursor(&self) -> bool {
        matches!(self.ask, Ask::Window(_))
    }
}

/// How a download stands, in the device's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadReport {
    /// Which transfer; `None`: the one delivery that is out to this device.
    pub transfer: Option<String>,
    /// The resource's name as the device knows it.
    pub name: Option<String>,
    /// Where it stands.
    pub state: DownloadState,
    /// 0 to 100, where the report has it.
    pub percent: Option<u8>,
    /// 0: no fault; the vendor's codes otherwise.
    pub result_code: i32,
    /// The device's own words about the fault; cut at 256 characters.
    pub result_msg: String,
}

/// The state in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadState {
    /// Bytes are on their way, or being written.
    Downloading,
    /// The device has the resource and is content with it.
    Done,
    /// The device gave up.
    Fail,
}

/// A message that is not of the form it claims to have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct MalformedMessage {
    /// The transfer that it names, for the answer.
    pub transfer: Option<String>,
    /// The field and the rule that it breaks.
    pub reason: String,
}

#[derive(Deserialize)]
pub(super) struct RawUp {
    #[serde(rename = "type")]
    kind: String,
    pub(super) transfer: Option<String>,
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "number")]
    pub(super) size: Option<i64>,
    pub(super) md5sum: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) mode: Option<String>,
    #[serde(default, deserialize_with = "number")]
    offset: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    window: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    count: Option<i64>,
    missing: Option<String>,
    #[serde(default, deserialize_with = "number")]
    pub(super) chunk_size: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    from: Option<i64>,
    pub(super) progress: Option<RawProgress>,
}

#[derive(Deserialize)]
pub(crate) struct RawProgress {
    pub(crate) state: Option<String>,
    #[serde(default, deserialize_with = "number")]
    pub(super) percent: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    pub(super) result_code: Option<i64>,
    pub(super) result_msg: Option<String>,
}

/// A whole number, written as a number or as text; empty text is as good as absent.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    use serde::de::Error as _;
    match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number
            .as_i64()
            .map(Some)
            .ok_or_else(|| D::Error::custom("must be a whole number")),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| D::Error::custom("must be a whole number")),
        Some(_) => Err(D::Error::custom("must be a whole number")),
    }
}

impl UpMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// [`MalformedMessage`] where it is no JSON object of a known form; the device is answered
    /// with `transfer_error` `bad_request` and nothing changes.
    pub fn parse(payload: &[u8]) -> Result<Self, MalformedMessage> {
        let raw: RawUp = serde_json::from_slice(payload).map_err(|error| MalformedMessage {
            transfer: None,
            reason: format!("not a transfer message: {error}"),
        })?;
        let transfer = raw.transfer.clone();
        Self::from_raw(raw).map_err(|reason| MalformedMessage {
            transfer,
            reason: reason.to_owned(),
        })
    }

    fn from_raw(raw: RawUp) -> Result<Self, &'static str> {
        match raw.kind.as_str() {
            "get_download_task" => Ok(Self::GetDownloadTask),
            "report_download_progress" => raw.into_report().map(Self::ReportDownloadProgress),
            "get_chunks" => raw.into_get_chunks().map(Self::GetChunks),
            "create_upload_task" => raw.into_create_upload().map(Self::CreateUploadTask),
            "report_upload_progress" => raw.into_upload_report().map(Self::ReportUploadProgress),
            "get_upload_state" => Ok(Self::GetUploadState {
                transfer: required(raw.transfer)?,
            }),
            "stop_chunks" => Ok(Self::StopChunks {
                transfer: required(raw.transfer)?,
            }),
            "get_manifest" => {
                let from =
                    u32::try_from(raw.from.unwrap_or(0)).map_err(|_| "from must be 0 or more")?;
                let count = u32::try_from(raw.count.unwrap_or_else(|| MAX_MANIFEST_DIGESTS.into()))
                    .ok()
                    .filter(|count| (1..=MAX_MANIFEST_DIGESTS).contains(count))
                    .ok_or("count must be 1 to 64")?;
                Ok(Self::GetManifest {
                    transfer: required(raw.transfer)?,
                    from,
                    count,
                })
            }
            _ => Ok(Self::Unknown(raw.kind.chars().take(64).collect())),
        }
    }
}

impl RawUp {
    fn into_get_chunks(self) -> Result<GetChunks, &'static str> {
        let ask = match (self.window, self.count, self.missing) {
            (Some(window), None, None) => u8::try_from(window)
                .ok()
                .filter(|window| (1..=MAX_WINDOW).contains(window))
                .map(Ask::Window)
                .ok_or("window must be 1 to 32")?,
            (None, Some(count), None) => u8::try_from(count)
                .ok()
                .filter(|count| (1..=MAX_COUNT).contains(count))
                .map(Ask::Count)
                .ok_or("count must be 1 to 64")?,
            (None, None, Some(missing)) => Ask::Missing(
                parse_bitmap(&missing)
                    .ok_or("missing must be 2 to 2048 hexadecimal digits, two a byte")?,
            ),
            _ => return Err("exactly one of window, count and missing must be given"),
        };
        let offset = self
            .offset
            .map(|offset| u64::try_from(offset).map_err(|_| "offset must be 0 or more"))
            .transpose()?;
        let chunk_size = self
            .chunk_size
            .map(|size| u32::try_from(size).map_err(|_| "chunk_size must be 256 to 131072"))
            .transpose()?;
        Ok(GetChunks {
            transfer: required(self.transfer)?,
            offset,
            ask,
            chunk_size,
        })
    }

    fn into_report(self) -> Result<DownloadReport, &'static str> {
        let progress = self.progress.ok_or("progress is missing")?;
        let state = match progress.state.as_deref() {
            Some("downloading" | "burning") => DownloadState::Downloading,
            Some("done") => DownloadState::Done,
            Some("fail") => DownloadState::Fail,
            _ => return Err("progress.state must be downloading, burning, done or fail"),
        };
        let percent = progress.percent()?;
        let result_code = progress.result_code()?;
        let result_msg = progress.result_msg();
        Ok(DownloadReport {
            transfer: self.transfer,
            name: self.name,
            state,
            percent,
            result_code,
            result_msg,
        })
    }
}

impl RawProgress {
    pub(crate) fn percent(&self) -> Result<Option<u8>, &'static str> {
        self.percent
            .map(|percent| {
                u8::try_from(percent)
                    .ok()
                    .filter(|percent| *percent <= 100)
                    .ok_or("progress.percent must be 0 to 100")
            })
            .transpose()
    }

    pub(crate) fn result_code(&self) -> Result<i32, &'static str> {
        i32::try_from(self.result_code.unwrap_or(0))
            .map_err(|_| "progress.result_code is out of range")
    }

    pub(crate) fn result_msg(&self) -> String {
        let text = self.result_msg.as_deref().unwrap_or_default();
        text.chars().take(256).collect()
    }
}

fn required(transfer: Option<String>) -> Result<String, &'static str> {
    transfer
        .filter(|transfer| !transfer.is_empty())
        .ok_or("transfer is missing")
}

/// What the gateway says on `$resource/down/service/{product}/{device}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DownMessage {
    /// A resource waits; sent unasked.
    Download(Announcement),
    /// A resource waits, or nothing does; the answer to `get_download_task`.
    GetDownloadTaskRsp {
        /// What waits; its fields stand flat in the message.
        #[serde(flatten)]
        waiting: Option<Announcement>,
    },
    /// A report was taken.
    ReportDownloadProgressRsp(Receipt),
    /// Digests of parts.
    Manifest(Manifest),
    /// Where and how to send what was announced.
    CreateUploadTaskRsp(CreateUploadTaskRsp),
    /// What has been stored.
    UploadState(UploadState),
    /// A report on sending was taken.
    ReportUploadProgressRsp(Receipt),
    /// How sending ended.
    UploadResult(UploadResult),
    /// A request was not served; the connection stays.
    TransferError(TransferError),
    /// The operator cancelled.
    CancelDownload {
        /// The transfer that is over.
        transfer: String,
        /// The resource's name.
        name: String,
    },
}

/// A resource that waits for the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Announcement {
    /// Bytes in all.
    pub size: u64,
    /// The resource's name.
    pub name: String,
    /// MD5 in 32 lower-case hexadecimal digits.
    pub md5sum: String,
    /// Where the same bytes can be had by HTTPS; empty where the files listener is off.
    pub url: String,
    /// Names this delivery in every later message; at most 32 characters.
    pub transfer: String,
    /// SHA-256 in 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Bytes a chunk, unless the device asks for another size.
    pub chunk_size: u32,
    /// How many chunks of that size there are.
    pub chunks: u64,
    /// The version of the resource.
    pub version: u32,
    /// Bytes that this device acknowledged before: a hint.
    pub acked: u64,
}

/// That a report was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// 0: taken.
    pub result_code: i32,
    /// "ok", or what is wrong.
    pub result_msg: String,
}

impl Receipt {
    /// The report was taken.
    pub fn ok() -> Self {
        Self {
            result_code: 0,
            result_msg: "ok".to_owned(),
        }
    }
}

/// The digests of some parts of the resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The transfer.
    pub transfer: String,
    /// The first part.
    pub from: u32,
    /// How many parts follow.
    pub count: u32,
    /// Bytes a part: [`super::PART_BYTES`].
    pub digest_size: u64,
    /// The concatenated SHA-256 of each part, in base64.
    pub digests: String,
}

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransferError {
    /// The transfer as the device named it; empty where it named none.
    pub transfer: String,
    /// The kind of error.
    pub code: TransferErrorCode,
    /// One sentence for the device's log.
    pub message: String,
    /// Seconds after which asking again makes sense; only with `busy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// The kinds of error that a device can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferErrorCode {
    /// No such transfer is open for this device.
    UnknownTransfer,
    /// The transfer is of a version that has been replaced.
    StaleVersion,
    /// The offset or the bitmap reaches beyond the end.
    OutOfRange,
    /// Window mode needs a QoS 1 subscription on the chunk topic, the other modes any.
    NotSubscribed,
    /// The message is not of the form it must have.
    BadRequest,
    /// The operator cancelled the delivery.
    Canceled,
    /// Not now; ask again after `retry_after` seconds.
    Busy,
    /// What is announced is larger than an upload may be.
    TooLarge,
    /// The device, or all devices together, have stored as much as they may.
    QuotaExceeded,
    /// The gateway has no room to store it; ask again after `retry_after` seconds.
    NoSpace,
}

impl DownMessage {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Serialising plain structs of numbers and text into memory has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
