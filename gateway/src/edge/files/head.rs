//! Heads of the answers of the files listener.
//!
//! Devices read them with string searches and fixed buffers, so there are few headers and all of
//! them are short.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{File, FileBody};
use crate::edge::http::range::Selection;

/// What every served path starts with.
pub(super) const PREFIX: &str = "/files/";

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Head and body for a file that may be read.
pub(super) fn of_file<F: File>(
    file: F,
    method: &Method,
    headers: &HeaderMap,
) -> Response<FileBody> {
    let size_bytes = file.size_bytes();
    let etag = format!("\"{}\"", hex::encode(file.sha256()));
    let selection = Selection::of(headers, size_bytes, &etag);
    let (start, end) = selection.bounds(size_bytes);
    let mut response = Response::new(FileBody::empty());
    match selection {
        Selection::Whole => {
            // Only of the whole: devices hold it against the MD5 that was announced.
            set(&mut response, CONTENT_MD5, &STANDARD.encode(file.md5()));
        }
        Selection::Part { start, end } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{size_bytes}", end.saturating_sub(1));
            set(&mut response, header::CONTENT_RANGE, &range);
        }
        Selection::Unsatisfiable => {
            let mut response = refusal(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the range lies outside the content",
            );
            let range = format!("bytes */{size_bytes}");
            set(&mut response, header::CONTENT_RANGE, &range);
            return response;
        }
    }
    let length = (end - start).to_string();
    set(&mut response, header::CONTENT_LENGTH, &length);
    set(
        &mut response,
        header::CONTENT_TYPE,
        "application/octet-stream",
    );
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &etag);
    set(
        &mut response,
        header::CACHE_CONTROL,
        "private, no-transform",
    );
    if method == Method::GET {
        *response.body_mut() = FileBody::of(file, start, end);
    }
    response
}

/// A short text and the end of the connection: whoever guesses pays for a handshake each time.
pub(super) fn refusal(status: StatusCode, text: &'static str) -> Response<FileBody> {
    let mut response = Response::new(FileBody::text(text));
    *response.status_mut() = status;
    let length = text.len().to_string();
    set(&mut response, header::CONTENT_LENGTH, &length);
    set(
        &mut response,
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    set(&mut response, header::CONNECTION, "close");
    response
}

/// The path would exist with another method.
pub(super) fn method_not_allowed() -> Response<FileBody> {
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "only GET, HEAD and PUT are served",
    );
    set(&mut response, header::ALLOW, "GET, HEAD, PUT");
    response
}

pub(super) fn set(response: &mut Response<FileBody>, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value)
        .expect("digits, hex, base64 and fixed texts are header values");
    response.headers_mut().insert(name, value);
}
