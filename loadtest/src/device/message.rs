//! The JSON that a device and the gateway exchange about a delivery, from the device's side.
//!
//! Kept apart from the gateway's own types on purpose: a field that the gateway renames must break
//! the swarm, as it would break a device.

use serde::Deserialize;
use serde_json::json;

use crate::cli::Mode;

/// A message on `$resource/down/service/{product}/{device}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Down {
    /// A resource waits.
    Download(Announced),
    /// The answer to `get_download_task`; without fields: nothing waits.
    GetDownloadTaskRsp(Box<MaybeAnnounced>),
    /// A report was taken, or not.
    ReportDownloadProgressRsp {
        /// 0: taken.
        result_code: i64,
        /// The gateway's words.
        result_msg: String,
    },
    /// A request was not served.
    TransferError {
        /// The transfer that it is about.
        transfer: String,
        /// Kind.
        code: String,
        /// The gateway's words.
        message: String,
        /// Seconds, with `busy`.
        retry_after: Option<u64>,
    },
    /// The operator cancelled.
    CancelDownload {
        /// The transfer that is over.
        transfer: String,
    },
    /// Whatever else a gateway may say; ignored, as a device would.
    #[serde(other)]
    Other,
}

/// A resource that waits for the device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Announced {
    /// Bytes in all.
    pub(crate) size: u64,
    /// The resource's name.
    pub(crate) name: String,
    /// Where the same bytes can be had by HTTPS.
    #[serde(default)]
    pub(crate) url: String,
    /// Names the delivery.
    pub(crate) transfer: String,
    /// Lower-case hex.
    pub(crate) sha256: String,
}

/// An announcement of which nothing need be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct MaybeAnnounced {
    size: Option<u64>,
    name: Option<String>,
    #[serde(default)]
    url: String,
    transfer: Option<String>,
    sha256: Option<String>,
}

impl MaybeAnnounced {
    /// The announcement; `None` when nothing waits.
    pub(crate) fn into_announced(self) -> Option<Announced> {
        let Self {
            size,
            name,
            url,
            transfer,
            sha256,
        } = self;
        Some(Announced {
            size: size?,
            name: name?,
            url,
            transfer: transfer?,
            sha256: sha256?,
        })
    }
}

/// Asks what waits.
pub(crate) fn get_download_task() -> String {
    json!({ "type": "get_download_task" }).to_string()
}

/// Asks for bytes from `offset`.
pub(crate) fn get_chunks(
    transfer: &str,
    offset: u64,
    mode: Mode,
    window: u8,
    chunk: u32,
) -> String {
    let amount = if mode == Mode::Count {
        "count"
    } else {
        "window"
    };
    json!({
        "type": "get_chunks",
        "transfer": transfer,
        "offset": offset,
        amount: window,
        "chunk_size": chunk,
    })
    .to_string()
}

/// Tells how far the device is.
pub(crate) fn report_downloading(announced: &Announced, percent: u64) -> String {
    json!({
        "type": "report_download_progress",
        "name": announced.name,
        "transfer": announced.transfer,
        "progress": { "state": "downloading", "percent": percent, "result_code": 0, "result_msg": "" },
    })
    .to_string()
}

/// Tells the end; `fault` absent is `done`.
pub(crate) fn report_end(announced: &Announced, fault: Option<&str>) -> String {
    let progress = match fault {
        None => json!({ "state": "done", "percent": 100, "result_code": 0, "result_msg": "" }),
        Some(fault) => json!({ "state": "fail", "result_code": -4, "result_msg": fault }),
    };
    json!({
        "type": "report_download_progress",
        "name": announced.name,
        "transfer": announced.transfer,
        "progress": progress,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Down {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn announcements_are_read_and_nothing_waiting_is_told_apart() {
        let fields = r#""size":5,"name":"n","md5sum":"m","url":"u","transfer":"t","sha256":"s","chunk_size":15360,"chunks":1,"version":1,"acked":0"#;
        let announced = Announced {
            size: 5,
            name: "n".into(),
            url: "u".into(),
            transfer: "t".into(),
            sha256: "s".into(),
        };
        let download = parse(&format!(r#"{{"type":"download",{fields}}}"#));
        assert_eq!(download, Down::Download(announced.clone()));
        let Down::GetDownloadTaskRsp(told) =
            parse(&format!(r#"{{"type":"get_download_task_rsp",{fields}}}"#))
        else {
            panic!("an answer")
        };
        assert_eq!(told.into_announced(), Some(announced));
        let Down::GetDownloadTaskRsp(nothing) = parse(r#"{"type":"get_download_task_rsp"}"#) else {
            panic!("an answer")
        };
        assert_eq!(nothing.into_announced(), None);
    }

    #[test]
    fn errors_and_unknown_messages_are_read() {
        let busy = parse(
            r#"{"type":"transfer_error","transfer":"t","code":"busy","message":"m","retry_after":3}"#,
        );
        assert!(matches!(
            busy,
            Down::TransferError {
                retry_after: Some(3),
                ..
            }
        ));
        assert_eq!(parse(r#"{"type":"manifest","digests":""}"#), Down::Other);
        assert!(serde_json::from_str::<Down>("{}").is_err());
    }

    #[test]
    fn requests_name_window_or_count() {
        let window = get_chunks("t", 15_360, Mode::Window, 8, 15_360);
        assert!(
            window.contains(r#""window":8"#) && !window.contains("count"),
            "{window}"
        );
        let count = get_chunks("t", 0, Mode::Count, 16, 1024);
        assert!(
            count.contains(r#""count":16"#) && count.contains(r#""chunk_size":1024"#),
            "{count}"
        );
    }
}
