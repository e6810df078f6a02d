//! `PUT /files/{signed}`: an upload's bytes, taken as they come.
//!
//! Devices send what their SDK knows: with or without `Content-MD5`, with any type, never in chunks of HTTP's own. A
//! refusal reads on for a while, since a connection that is closed with bytes unread is reset and the device would
//! not hear why.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, ext::ReasonPhrase};
use prometheus::IntCounter;

use super::{
    FileBody, FileSource, Receiver as _, UploadFile as _,
    head::{self, refusal},
};
use crate::service::upload::PutRefusal;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// How long the rest of a refused body is read.
const LINGER: Duration = Duration::from_secs(10);

/// Takes the body of a request; the answer to it.
pub(super) async fn take<S: FileSource>(
    source: &S,
    signed: &str,
    request: Request<Incoming>,
    bytes_in: &IntCounter,
) -> Response<FileBody> {
    let (parts, mut body) = request.into_parts();
    match store(source, signed, &parts.headers, &mut body, bytes_in).await {
        Ok(()) => finished(),
        Err(refused) => {
            // Who waits for "100 Continue" sends nothing before it.
            if !parts.headers.contains_key(header::EXPECT) {
                let reading = async { while let Some(Ok(_)) = body.frame().await {} };
                if tokio::time::timeout(LINGER, reading).await.is_err() {
                    tracing::debug!("a refused PUT went on for too long");
                }
            }
            refused
        }
    }
}

async fn store<S: FileSource>(
    source: &S,
    signed: &str,
    headers: &HeaderMap,
    body: &mut Incoming,
    bytes_in: &IntCounter,
) -> Result<(), Response<FileBody>> {
    let upload = source
        .open_upload(signed)
        .await
        .map_err(super::refusal_of)?;
    let length = length_of(headers).ok_or_else(|| {
        refusal(
            StatusCode::LENGTH_REQUIRED,
            "a Content-Length is needed, and no Transfer-Encoding",
        )
    })?;
    let md5 = digest_of(headers).map_err(|()| {
        let text = "Content-MD5 must be the base64 of 16 bytes";
        refusal(StatusCode::BAD_REQUEST, text)
    })?;
    let mut receiver = upload.begin(length, md5).map_err(answer)?;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let text = "the connection ended within the body";
            return Err(refusal(StatusCode::BAD_REQUEST, text));
        };
        if let Ok(bytes) = frame.into_data() {
            bytes_in.inc_by(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            receiver.write(bytes).await.map_err(answer)?;
        }
    }
    receiver.finish().await.map_err(answer)
}

/// The length that is announced, where the body is not cut into chunks of HTTP's own.
fn length_of(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.trim().parse().ok()
}

/// The digest in the head, if there is one.
fn digest_of(headers: &HeaderMap) -> Result<Option<[u8; 16]>, ()> {
    let Some(value) = headers.get(CONTENT_MD5) else {
        return Ok(None);
    };
    let bytes = STANDARD
        .decode(value.as_bytes().trim_ascii())
        .map_err(drop)?;
    bytes.try_into().map(Some).map_err(drop)
}

/// The answer to a finished `PUT`: one SDK takes it for a failure unless the reason is `ok`, in small letters.
fn finished() -> Response<FileBody> {
    let mut response = Response::new(FileBody::empty());
    let reason = ReasonPhrase::from_static(b"ok");
    response.extensions_mut().insert(reason);
    head::set(&mut response, header::CONTENT_LENGTH, "0");
    response
}

fn answer(error: PutRefusal) -> Response<FileBody> {
    let (status, text) = match error {
        PutRefusal::WrongSize => (
            StatusCode::BAD_REQUEST,
            "the length is not the announced size",
        ),
        PutRefusal::WrongDigest => (
            StatusCode::BAD_REQUEST,
            "Content-MD5 is not the announced md5sum",
        ),
        PutRefusal::Mismatch(text) => (StatusCode::BAD_REQUEST, text),
        PutRefusal::Busy => (StatusCode::CONFLICT, "the upload is being sent already"),
        PutRefusal::Ended => (StatusCode::GONE, "the upload was ended"),
        PutRefusal::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "no room to store it"),
        PutRefusal::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not available now, try again",
        ),
    };
    refusal(status, text)
}
