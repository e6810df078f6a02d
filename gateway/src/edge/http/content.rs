//! `GET /resources/{id}/content`: the bytes of the current version, with ranges; and the same for
//! other bytes that are kept.

use std::{fmt::Write as _, future::Future};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};

use super::{
    ApiState,
    auth::Viewer,
    extract::PathOf,
    problem::{Kind, Problem},
    range::Selection,
};
use crate::model::Id;

const REPR_DIGEST: header::HeaderName = header::HeaderName::from_static("repr-digest");

/// Bytes read from the blob at a time, and held per download.
const SLICE_BYTES: u64 = 256 * 1024;

/// Downloads the current version's bytes, or a range of them.
#[utoipa::path(get, path = "/resources/{resource}/content", tag = "resources",
    params(("resource" = String, Path, description = "The resource's id"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The entity tag that the range is of")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(in crate::edge) async fn download(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<Id>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let resource = state.resources.resource(id).await?;
    let version = state.resources.version(id, resource.version).await?;
    let stored = Stored {
        name: resource.name.as_str(),
        size: version.size,
        sha256: version.sha256,
        md5: version.md5,
    };
    let blob = version.blob;
    respond(&stored, &headers, move |start, end| {
        let resources = state.resources.clone();
        async move { resources.read(&blob, start..end).await }
    })
}

/// Bytes that are kept, whatever they are.
#[derive(Debug)]
pub(in crate::edge) struct Stored<'a> {
    /// What whoever saves them may call them.
    pub(in crate::edge) name: &'a str,
    /// How many.
    pub(in crate::edge) size: u64,
    /// Their SHA-256.
    pub(in crate::edge) sha256: [u8; 32],
    /// Their MD5.
    pub(in crate::edge) md5: [u8; 16],
}

/// The answer to a request for bytes, whole or a range; `read` gives those from the first to
/// (exclusive) the second number.
pub(in crate::edge) fn respond<R, F, E>(
    stored: &Stored<'_>,
    headers: &HeaderMap,
    read: R,
) -> Result<Response, Problem>
where
    R: Fn(u64, u64) -> F + Send + 'static,
    F: Future<Output = Result<Bytes, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let size = stored.size;
    let etag = format!("\"{}\"", hex::encode(stored.sha256));
    let selection = Selection::of(headers, size, &etag);
    let (start, end) = selection.bounds(size);
    let status = match selection {
        Selection::Whole => StatusCode::OK,
        Selection::Part { .. } => StatusCode::PARTIAL_CONTENT,
        Selection::Unsatisfiable => {
            let detail = format!("the content has {size} bytes");
            return Err(Problem::new(Kind::RangeNotSatisfiable, detail).with_content_size(size));
        }
    };
    let mut response = Body::from_stream(slices(read, start, end)).into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Bytes that someone uploaded are never a page of ours.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        insert(
            headers,
            header::CONTENT_RANGE,
            &format!("bytes {start}-{}/{size}", end.saturating_sub(1)),
        );
    }
    insert(headers, header::ETAG, &etag);
    // [RFC 9530 s3]: of the whole, whatever part is sent.
    let digests = format!(
        "sha-256=:{}:, md5=:{}:",
        STANDARD.encode(stored.sha256),
        STANDARD.encode(stored.md5)
    );
    insert(headers, REPR_DIGEST, &digests);
    insert(
        headers,
        header::CONTENT_DISPOSITION,
        &disposition(stored.name),
    );
    Ok(response)
}

/// The bytes from `start` up to and without `end`, read slice by slice as the socket takes them.
fn slices<R, F, E>(
    read: R,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static
where
    R: Fn(u64, u64) -> F + Send + 'static,
    F: Future<Output = Result<Bytes, E>> + Send + 'static,
    E: Send + 'static,
{
    unfold((start, read), move |(at, read)| async move {
        if at >= end {
            return None;
        }
        let next = end.min(at.saturating_add(SLICE_BYTES));
        match read(at, next).await {
            Ok(slice) => Some((Ok(slice), (next, read))),
            // Nothing can follow an error.
            Err(error) => Some((Err(error), (end, read))),
        }
    })
}

/// Names the file for whoever saves it; names may hold CJK, which only the extended form can carry.
fn disposition(name: &str) -> String {
    let mut text = String::from("attachment; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _written = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value)
        .expect("digits, hex and percent-encoded texts are header values");
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_are_encoded() {
        assert_eq!(disposition("fw_1"), "attachment; filename*=UTF-8''fw_1");
        assert_eq!(
            disposition("固(1)"),
            "attachment; filename*=UTF-8''%E5%9B%BA%281%29"
        );
    }
}
