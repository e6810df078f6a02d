use serde_json::json;

use super::*;

fn parse(value: &Value) -> Result<UpMessage, String> {
    UpMessage::parse(value.to_string().as_bytes()).map_err(|error| error.reason)
}

fn announcement() -> Announcement {
    Announcement {
        size: 5,
        name: "fw".to_owned(),
        md5sum: "m".to_owned(),
        url: "u".to_owned(),
        transfer: "t1".to_owned(),
        sha256: "s".to_owned(),
        chunk_size: 15_360,
        chunks: 1,
        version: 2,
        acked: 0,
    }
}

#[test]
fn a_device_of_the_vendors_sdk_is_understood() {
    assert_eq!(
        parse(&json!({"type": "get_download_task"})),
        Ok(UpMessage::GetDownloadTask)
    );
    let report = |progress: Value| {
        parse(&json!({"type": "report_download_progress", "name": "fw", "progress": progress}))
    };
    for (progress, state, percent) in [
        (
            json!({"state": "downloading", "percent": 7, "result_code": 0, "result_msg": ""}),
            DownloadState::Downloading,
            Some(7),
        ),
        (
            json!({"state": "downloading", "percent": "7", "result_code": "0"}),
            DownloadState::Downloading,
            Some(7),
        ),
        (
            json!({"state": "done", "result_code": 0, "result_msg": ""}),
            DownloadState::Done,
            None,
        ),
        (
            json!({"state": "done", "percent": 100}),
            DownloadState::Done,
            Some(100),
        ),
    ] {
        let Ok(UpMessage::ReportDownloadProgress(report)) = report(progress) else {
            panic!("a legal report")
        };
        assert_eq!(
            (report.state, report.percent, report.result_code),
            (state, percent, 0)
        );
        assert_eq!(
            (report.transfer, report.name.as_deref()),
            (None, Some("fw"))
        );
    }
}

#[test]
fn impossible_reports_are_refused_naming_the_field() {
    for (progress, field) in [
        (
            json!({"state": "downloading", "percent": 250}),
            "progress.percent",
        ),
        (
            json!({"state": "downloading", "percent": -1}),
            "progress.percent",
        ),
        (json!({"state": "sleeping"}), "progress.state"),
        (json!({}), "progress.state"),
    ] {
        let error = parse(&json!({"type": "report_download_progress", "progress": progress}))
            .expect_err("illegal");
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn chunks_are_asked_for_in_exactly_one_way() {
    let ask = |more: Value| {
        let mut message = json!({"type": "get_chunks", "transfer": "t1"});
        for (key, value) in more.as_object().expect("an object") {
            message[key] = value.clone();
        }
        parse(&message)
    };
    let taken = |more| match ask(more) {
        Ok(UpMessage::GetChunks(chunks)) => chunks,
        other => panic!("{other:?}"),
    };
    assert_eq!(taken(json!({"window": 8})).ask, Ask::Window(8));
    assert_eq!(taken(json!({"count": 64, "offset": 15})).offset, Some(15));
    assert_eq!(
        taken(json!({"missing": "03"})).ask,
        Ask::Missing(Box::new([3]))
    );
    for bad in [
        json!({}),
        json!({"window": 8, "count": 1}),
        json!({"window": 0}),
        json!({"window": 33}),
        json!({"count": 65}),
        json!({"count": 0}),
        json!({"missing": "0"}),
        json!({"missing": "0".repeat(2_050)}),
        json!({"window": 8, "offset": -1}),
        json!({"window": 8, "chunk_size": -5}),
        json!({"window": 8, "transfer": ""}),
        json!({"window": "many"}),
    ] {
        assert!(ask(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn what_is_no_message_is_refused_and_what_is_new_is_named() {
    for bad in [
        &b"not json"[..],
        b"[]",
        b"{}",
        b"{\"type\":5}",
        b"",
        b"\xff",
    ] {
        assert!(UpMessage::parse(bad).is_err());
    }
    assert_eq!(
        parse(&json!({"type": "dance"})),
        Ok(UpMessage::Unknown("dance".to_owned()))
    );
    let error = UpMessage::parse(br#"{"type":"get_chunks","transfer":"t9"}"#).expect_err("no ask");
    assert_eq!(
        error.transfer.as_deref(),
        Some("t9"),
        "the answer can name the transfer"
    );
}

#[test]
fn manifests_are_asked_for_in_bounded_pieces() {
    let get = |count: i64| {
        parse(&json!({"type": "get_manifest", "transfer": "t", "from": 3, "count": count}))
    };
    assert_eq!(
        get(64),
        Ok(UpMessage::GetManifest {
            transfer: "t".to_owned(),
            from: 3,
            count: 64
        })
    );
    assert!(get(65).is_err() && get(0).is_err());
}

#[test]
fn answers_have_the_vendors_form() {
    let json =
        |message: DownMessage| serde_json::from_slice::<Value>(&message.to_json()).expect("JSON");
    assert_eq!(
        json(DownMessage::GetDownloadTaskRsp { waiting: None }),
        json!({"type": "get_download_task_rsp"})
    );
    assert_eq!(
        json(DownMessage::ReportDownloadProgressRsp(Receipt::ok())),
        json!({"type": "report_download_progress_rsp", "result_code": 0, "result_msg": "ok"})
    );
    let download = json(DownMessage::Download(announcement()));
    assert_eq!(download["type"], "download");
    for field in [
        "size",
        "name",
        "md5sum",
        "url",
        "transfer",
        "sha256",
        "chunk_size",
        "chunks",
        "version",
        "acked",
    ] {
        assert!(!download[field].is_null(), "{field}");
    }
    let told = json(DownMessage::GetDownloadTaskRsp {
        waiting: Some(announcement()),
    });
    assert_eq!(told["type"], "get_download_task_rsp");
    assert_eq!(told["transfer"], "t1");
    let error = DownMessage::TransferError(TransferError {
        transfer: "t".to_owned(),
        code: TransferErrorCode::StaleVersion,
        message: "m".to_owned(),
        retry_after: None,
    });
    assert_eq!(
        json(error),
        json!({"type": "transfer_error", "transfer": "t", "code": "stale_version", "message": "m"})
    );
}
