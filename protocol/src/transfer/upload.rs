//! Messages about uploads, and which chunks of one may come.
//!
//! A device announces what it will send, is told where to go on and how much may be unanswered, and
//! is told the end. The vendor's fields come first and unchanged, ours stand behind them.

use serde::Serialize;

use super::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, message::RawUp, ranges::Ranges, window::MAX_WINDOW};

/// The most characters of an upload's name, and the most bytes of it.
pub const MAX_NAME_CHARS: usize = 128;
const MAX_NAME_BYTES: usize = 255;
/// The most hexadecimal digits of `missing` in [`UploadState`]: a window has fewer chunks.
const MAX_MISSING_BYTES: usize = 64;

/// What a device announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUploadTask {
    /// Bytes in all, at least 1.
    pub size: u64,
    /// What it calls them: 1 to [`MAX_NAME_CHARS`] characters, none of them a control character.
    pub name: String,
    /// MD5 of the bytes.
    pub md5: Option<[u8; 16]>,
    /// SHA-256 of the bytes; one of the two digests is always there.
    pub sha256: Option<[u8; 32]>,
    /// Whether the bytes come as chunks; otherwise by `PUT`, and both are always possible.
    pub by_chunks: bool,
    /// Bytes a chunk; `None`: the gateway's default.
    pub chunk_size: Option<u32>,
}

/// How an upload stands, in the device's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadReport {
    /// Which transfer; `None`: the one of that name.
    pub transfer: Option<String>,
    /// The name as the device announced it.
    pub name: Option<String>,
    /// Where it stands.
    pub state: UploadReportState,
    /// 0 to 100, where the report has it.
    pub percent: Option<u8>,
    /// 0: no fault; the vendor's codes otherwise.
    pub result_code: i32,
    /// The device's own words about the fault; cut at 256 characters.
    pub result_msg: String,
}

/// The state in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadReportState {
    /// Bytes are on their way.
    Uploading,
    /// Everything was sent.
    Done,
    /// The device gave up.
    Fail,
}

impl CreateUploadTask {
    /// Checks what was announced, whichever vendor's message it came in.
    ///
    /// # Errors
    /// The rule that it breaks, as a sentence.
    pub fn check(self) -> Result<Self, &'static str> {
        if self.size == 0 {
            return Err("size must be 1 or more");
        }
        let chars = self.name.chars().count();
        if !(1..=MAX_NAME_CHARS).contains(&chars)
            || self.name.len() > MAX_NAME_BYTES
            || self.name.chars().any(char::is_control)
        {
            return Err("name must have 1 to 128 characters, none of them a control character");
        }
        if self.md5.is_none() && self.sha256.is_none() {
            return Err("md5sum or sha256 must be given");
        }
        if self
            .chunk_size
            .is_some_and(|bytes| !(MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&bytes))
        {
            return Err(BAD_CHUNK_SIZE);
        }
        Ok(self)
    }
}

impl RawUp {
    pub(super) fn into_create_upload(self) -> Result<CreateUploadTask, &'static str> {
        let size = self.size.ok_or("size is missing")?;
        let chunk_size = self
            .chunk_size
            .map(|size| u32::try_from(size).map_err(|_| BAD_CHUNK_SIZE))
            .transpose()?;
        let by_chunks = match self.mode.as_deref() {
            Some("chunk") => true,
            None | Some("" | "url") => false,
            Some(_) => return Err("mode must be chunk or url"),
        };
        CreateUploadTask {
            size: u64::try_from(size).map_err(|_| "size must be 1 or more")?,
            name: self.name.ok_or("name is missing")?,
            md5: digest(
                self.md5sum.as_deref(),
                "md5sum must be 32 hexadecimal digits",
            )?,
            sha256: digest(
                self.sha256.as_deref(),
                "sha256 must be 64 hexadecimal digits",
            )?,
            by_chunks,
            chunk_size,
        }
        .check()
    }

    pub(super) fn into_upload_report(self) -> Result<UploadReport, &'static str> {
        let progress = self.progress.ok_or("progress is missing")?;
        let state = match progress.state.as_deref() {
            Some("uploading") => UploadReportState::Uploading,
            Some("done") => UploadReportState::Done,
            Some("fail") => UploadReportState::Fail,
            _ => return Err("progress.state must be uploading, done or fail"),
        };
        Ok(UploadReport {
            transfer: self.transfer,
            name: self.name,
            state,
            percent: progress.percent()?,
            result_code: progress.result_code()?,
            result_msg: progress.result_msg(),
        })
    }
}

/// Reads a digest in hexadecimal digits of either case; empty text is as good as absent.
fn digest<const N: usize>(
    text: Option<&str>,
    rule: &'static str,
) -> Result<Option<[u8; N]>, &'static str> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    parse_hex(text).map(Some).ok_or(rule)
}

/// Reads exactly `N` bytes of hexadecimal digits, of either case.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut digits = text.chars().map(|digit| digit.to_digit(16));
    for byte in &mut bytes {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

/// Where and how to send what was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateUploadTaskRsp {
    /// Bytes in all, as announced.
    pub size: u64,
    /// The name, as announced.
    pub name: String,
    /// MD5 as announced, in lower case; empty where none was.
    pub md5sum: String,
    /// Where to `PUT` the bytes; empty where the files listener is off.
    pub url: String,
    /// Names this upload in every later message and in the chunk topic; at most 32 characters.
    pub transfer: String,
    /// Where to go on: every byte before it is stored.
    pub offset: u64,
    /// Bytes a chunk.
    pub chunk_size: u32,
    /// How many chunks may be unanswered.
    pub window: u8,
}

/// What has been stored of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadState {
    /// The transfer.
    pub transfer: String,
    /// Where to go on: every byte before it is stored.
    pub offset: u64,
    /// Which chunks of the announced size from `offset` on are missing: a bitmap in hexadecimal
    /// digits, least significant bit first; chunks beyond its end are missing as well.
    pub missing: String,
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadResult {
    /// The vendor's part.
    pub report: UploadResultReport,
    /// The transfer.
    pub transfer: String,
    /// The name.
    pub name: String,
}

/// The vendor's envelope of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadResultReport {
    /// The result.
    pub progress: UploadResultProgress,
}

/// The vendor's words for a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadResultProgress {
    /// `done` or `fail`.
    pub state: &'static str,
    /// 0: stored.
    pub result_code: i32,
    /// Empty, or what is wrong.
    pub result_msg: &'static str,
}

/// The ways in which an upload ends, with the vendor's codes and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadResultCode {
    /// It is stored.
    Stored,
    /// It was not finished in time.
    TimeOut,
    /// An operator deleted it, or it was replaced by another of its name.
    FileNotExist,
    /// Its MD5 is not what was announced.
    Md5NotMatched,
    /// Its SHA-256 is not what was announced.
    Sha256NotMatched,
}

impl UploadResultCode {
    /// The number.
    pub const fn code(self) -> i32 {
        match self {
            Self::Stored => 0,
            Self::TimeOut => -1,
            Self::FileNotExist => -2,
            Self::Md5NotMatched | Self::Sha256NotMatched => -4,
        }
    }

    /// The words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Stored => "",
            Self::TimeOut => "time_out",
            Self::FileNotExist => "file_not_exist",
            Self::Md5NotMatched => "md5sum not matched",
            Self::Sha256NotMatched => "sha256 not matched",
        }
    }
}

impl UploadResult {
    /// The message about the end of an upload.
    pub fn new(transfer: &str, name: &str, code: UploadResultCode) -> Self {
        Self {
            report: UploadResultReport {
                progress: UploadResultProgress {
                    state: if code == UploadResultCode::Stored {
                        "done"
                    } else {
                        "fail"
                    },
                    result_code: code.code(),
                    result_msg: code.text(),
                },
            },
            transfer: transfer.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl UploadState {
    /// What is stored, in chunks of `chunk_size` from the first missing byte on.
    pub fn of(transfer: &str, have: &Ranges, size: u64, chunk_size: u32) -> Self {
        let offset = have.low().min(size);
        Self {
            transfer: transfer.to_owned(),
            offset,
            missing: missing(have, offset, size, u64::from(chunk_size.max(1))),
        }
    }
}

/// A bit for each chunk from `offset` to the last range that is stored: set where a byte is missing.
fn missing(have: &Ranges, offset: u64, size: u64, chunk: u64) -> String {
    let Some((_, last)) = have.beyond().last() else {
        return String::new();
    };
    let chunks = last.saturating_sub(offset).div_ceil(chunk);
    let bytes = usize::try_from(chunks.div_ceil(8))
        .unwrap_or(usize::MAX)
        .min(MAX_MISSING_BYTES);
    let mut text = String::with_capacity(bytes * 2);
    let mut start = offset;
    for _ in 0..bytes {
        let mut byte = 0_u32;
        for bit in 0..8 {
            let end = start.saturating_add(chunk).min(size);
            if start < size && !have.contains(start, end) {
                byte |= 1 << bit;
            }
            start = end;
        }
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit, 16));
        }
    }
    text
}

/// Why a chunk is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It is empty, or larger than a chunk may be.
    #[error("a chunk has 1 to 131072 bytes")]
    Size,
    /// It reaches beyond the announced size.
    #[error("the chunk reaches beyond the announced size")]
    BeyondEnd,
    /// It begins beyond the window.
    #[error("the chunk begins beyond the window")]
    BeyondWindow,
}

/// Whether a chunk of `len` bytes at `offset` may be stored, where everything below `low` is.
///
/// # Errors
/// [`ChunkError`] with the rule that it breaks.
pub fn check_chunk(
    size: u64,
    low: u64,
    window_bytes: u64,
    offset: u64,
    len: usize,
) -> Result<(), ChunkError> {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    if len == 0 || len > u64::from(MAX_CHUNK_BYTES) {
        return Err(ChunkError::Size);
    }
    if offset.checked_add(len).is_none_or(|end| end > size) {
        return Err(ChunkError::BeyondEnd);
    }
    if offset >= low.saturating_add(window_bytes) {
        return Err(ChunkError::BeyondWindow);
    }
    Ok(())
}

/// How many chunks of this size may be unanswered within `window_bytes`: 1 to [`MAX_WINDOW`].
pub fn window_chunks(window_bytes: u64, chunk_size: u32) -> u8 {
    let chunks = window_bytes / u64::from(chunk_size.max(1));
    u8::try_from(chunks)
        .unwrap_or(MAX_WINDOW)
        .clamp(1, MAX_WINDOW)
}

const BAD_CHUNK_SIZE: &str = "chunk_size must be 256 to 131072";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::message::{DownMessage, UpMessage};

    #[track_caller]
    fn refused(json: &str, rule: &str) {
        let error = UpMessage::parse(json.as_bytes()).expect_err(json);
        assert!(error.reason.contains(rule), "{json}: {}", error.reason);
    }

    #[test]
    fn the_vendors_announcement_is_taken_as_it_is() {
        let json = br#"{"type": "create_upload_task", "size": 5000, "name": "upload", "md5sum": "b3a3b9f9a2f8e0aa8c9b1f2a5f8d5c11"}"#;
        let UpMessage::CreateUploadTask(task) = UpMessage::parse(json).expect("good") else {
            panic!("another message");
        };
        assert_eq!((task.size, task.name.as_str()), (5000, "upload"));
        assert_eq!(task.md5.expect("given")[0], 0xb3);
        assert!(task.sha256.is_none() && !task.by_chunks && task.chunk_size.is_none());
    }

    #[test]
    fn every_rule_of_an_announcement_is_named() {
        let md5 = "0".repeat(32);
        for (fields, rule) in [
            (r#""name":"n""#.to_owned(), "size is missing"),
            (r#""size":0,"name":"n""#.to_owned(), "size must be 1"),
            (r#""size":-1,"name":"n""#.to_owned(), "size must be 1"),
            (r#""size":1.5,"name":"n""#.to_owned(), "whole number"),
            (r#""size":1"#.to_owned(), "name is missing"),
            (
                format!(r#""size":1,"name":"","md5sum":"{md5}""#),
                "name must",
            ),
            (
                format!(r#""size":1,"name":"a\n","md5sum":"{md5}""#),
                "name must",
            ),
            (
                format!(r#""size":1,"name":"{}","md5sum":"{md5}""#, "n".repeat(129)),
                "name must",
            ),
            (r#""size":1,"name":"n""#.to_owned(), "md5sum or sha256"),
            (
                r#""size":1,"name":"n","md5sum":"0a""#.to_owned(),
                "32 hexadecimal",
            ),
            (
                r#""size":1,"name":"n","sha256":"zz""#.to_owned(),
                "64 hexadecimal",
            ),
            (
                format!(r#""size":1,"name":"n","md5sum":"{md5}","mode":"pigeon""#),
                "mode must",
            ),
            (
                format!(r#""size":1,"name":"n","md5sum":"{md5}","chunk_size":255"#),
                "chunk_size must",
            ),
        ] {
            refused(
                &format!(r#"{{"type":"create_upload_task",{fields}}}"#),
                rule,
            );
        }
        refused(r#"{"type":"get_upload_state"}"#, "transfer is missing");
        refused(
            r#"{"type":"report_upload_progress","progress":{"state":"burning"}}"#,
            "progress.state must be uploading",
        );
    }

    #[test]
    fn reports_are_read_with_and_without_percent() {
        for (json, state, percent) in [
            (
                r#"{"type":"report_upload_progress","name":"f","progress":{"state":"uploading","percent":"100","result_code":0,"result_msg":""}}"#,
                UploadReportState::Uploading,
                Some(100),
            ),
            (
                r#"{"type":"report_upload_progress","name":"f","progress":{"state":"done","result_code":0,"result_msg":""}}"#,
                UploadReportState::Done,
                None,
            ),
            (
                r#"{"type":"report_upload_progress","name":"f","progress":{"state":"fail","result_code":-1,"result_msg":"time_out"}}"#,
                UploadReportState::Fail,
                None,
            ),
        ] {
            let UpMessage::ReportUploadProgress(report) =
                UpMessage::parse(json.as_bytes()).expect(json)
            else {
                panic!("another message");
            };
            assert_eq!((report.state, report.percent), (state, percent));
        }
    }

    #[test]
    fn the_vendors_fields_come_first() {
        let rsp = DownMessage::CreateUploadTaskRsp(CreateUploadTaskRsp {
            size: 5,
            name: "f".to_owned(),
            md5sum: "00".to_owned(),
            url: "https://h/files/x".to_owned(),
            transfer: "0abc".to_owned(),
            offset: 0,
            chunk_size: 15_360,
            window: 8,
        });
        assert_eq!(
            String::from_utf8(rsp.to_json()).expect("UTF-8"),
            r#"{"type":"create_upload_task_rsp","size":5,"name":"f","md5sum":"00","url":"https://h/files/x","transfer":"0abc","offset":0,"chunk_size":15360,"window":8}"#
        );
        let result = DownMessage::UploadResult(UploadResult::new(
            "0abc",
            "f",
            UploadResultCode::Md5NotMatched,
        ));
        assert_eq!(
            String::from_utf8(result.to_json()).expect("UTF-8"),
            r#"{"type":"upload_result","report":{"progress":{"state":"fail","result_code":-4,"result_msg":"md5sum not matched"}},"transfer":"0abc","name":"f"}"#
        );
    }

    #[test]
    fn missing_chunks_are_a_bitmap_from_the_offset() {
        let have = Ranges::from_parts(20, [(30, 40), (50, 60)]);
        let state = UploadState::of("t", &have, 100, 10);
        // Chunks at 20, 30, 40, 50 and so on: the first and the third are missing, and the fifth.
        assert_eq!((state.offset, state.missing.as_str()), (20, "f5"));
        let state = UploadState::of("t", &Ranges::below(20), 100, 10);
        assert_eq!((state.offset, state.missing.as_str()), (20, ""));
        // A last chunk that is shorter, and nothing beyond the end.
        let have = Ranges::from_parts(0, [(10, 15)]);
        assert_eq!(UploadState::of("t", &have, 15, 10).missing, "01");
    }

    #[test]
    fn chunks_stay_within_size_and_window() {
        for (offset, len, expected) in [
            (0, 10, Ok(())),
            (90, 10, Ok(())),
            (129, 1, Ok(())),
            (130, 1, Err(ChunkError::BeyondWindow)),
            (0, 0, Err(ChunkError::Size)),
            (0, 131_073, Err(ChunkError::Size)),
            (995, 6, Err(ChunkError::BeyondEnd)),
            (u64::MAX, 1, Err(ChunkError::BeyondEnd)),
        ] {
            assert_eq!(
                check_chunk(1_000, 30, 100, offset, len),
                expected,
                "{offset}+{len}"
            );
        }
    }

    #[test]
    fn a_window_is_one_chunk_at_least() {
        for (bytes, chunk, expected) in [
            (131_072, 15_360, 8),
            (100, 256, 1),
            (1 << 30, 256, 32),
            (1, 0, 1),
        ] {
            assert_eq!(window_chunks(bytes, chunk), expected);
        }
    }
}
