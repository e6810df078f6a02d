//! The device files listener: bytes of a delivery for devices that fetch over HTTPS, and of an
//! upload from devices that send so.
//!
//! HTTP/1.1 and nothing but `/files/{signed}`; the signature is the whole authentication. What a
//! request gets is decided by `head`, what it says of the outcome by plain short texts. Bytes are
//! slices of the shared chunk cache, read one slice ahead of the socket. Invariants: every answer
//! has `Content-Length`, title-case header names and a head under 1,024 bytes; nothing is
//! compressed or redirected, since the HTTP parsers in devices know none of it. Spec: RFC 9110, RFC
//! 9112.

mod body;
mod grant;
mod head;
mod put;

use std::{convert::Infallible, future::Future, io, time::Duration};

use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::{body::Incoming, service::service_fn};
use prometheus::IntCounter;
use tokio::net::TcpListener;

use self::head::{PREFIX, refusal};
pub use self::{body::FileBody, grant::DeviceFiles};
use super::http::listener::{self, AcceptStream, Limits};
use crate::{
    config::FilesConfig, service::upload::PutRefusal, shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// Time for the TLS handshake, and for a request's head once its connection stands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Read buffer of a connection; a signed address and a few headers take a quarter of it.
const MAX_HEAD_BYTES: usize = 8_192;

/// Why a signed address is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The signature does not fit, or what is signed is no address of ours.
    BadSignature,
    /// Its time is over.
    Expired,
    /// The delivery was cancelled.
    Canceled,
    /// The delivery or the upload has ended.
    Gone,
    /// It cannot be looked up now.
    Unavailable,
}

/// Opens signed addresses.
pub trait FileSource: Clone + Send + Sync + 'static {
    /// What one request may read.
    type File: File;
    /// What one request may send.
    type Upload: UploadFile;

    /// Checks a signed address and opens what it names.
    ///
    /// # Errors
    /// Why it is not served.
    fn open(&self, signed: &str) -> impl Future<Output = Result<Self::File, Refusal>> + Send;

    /// Checks a signed address for sending and opens what it names.
    ///
    /// # Errors
    /// Why it is not served.
    fn open_upload(
        &self,
        signed: &str,
    ) -> impl Future<Output = Result<Self::Upload, Refusal>> + Send;
}

/// An upload that a request may send.
pub trait UploadFile: Send + Sync + 'static {
    /// What takes its bytes.
    type Receiver: Receiver;

    /// Begins to take `length` bytes, whose MD5 is this where the head has it.
    ///
    /// # Errors
    /// Why they are not taken.
    fn begin(&self, length: u64, md5: Option<[u8; 16]>) -> Result<Self::Receiver, PutRefusal>;
}

/// Takes the bytes of one request, in order.
pub trait Receiver: Send + 'static {
    /// Takes some; more may follow when it returns.
    ///
    /// # Errors
    /// Why they cannot be stored.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), PutRefusal>> + Send;

    /// All were taken: they are stored when it returns.
    ///
    /// # Errors
    /// Why they are not.
    fn finish(self) -> impl Future<Output = Result<(), PutRefusal>> + Send;
}

/// One version of a resource on its way to one device.
pub trait File: Send + Sync + 'static {
    /// Length of the content.
    fn size_bytes(&self) -> u64;
    /// MD5 of the content.
    fn md5(&self) -> [u8; 16];
    /// SHA-256 of the content.
    fn sha256(&self) -> [u8; 32];
    /// A slice of the shared copy from `offset` on, at most `max_bytes` and never empty inside the
    /// content.
    fn read(&self, offset: u64, max_bytes: usize)
    -> impl Future<Output = io::Result<Bytes>> + Send;
    /// Notes that the bytes from `start` up to and without `end` were handed to the socket.
    fn sent(&self, start: u64, end: u64);
}

/// Serves `source` on `listener` until the node drains, then the requests in hand until it stops.
///
/// # Cancel safety
/// Dropping the future closes every connection at once.
pub async fn serve<A: AcceptStream, F: FileSource>(
    listener: TcpListener,
    acceptor: A,
    source: F,
    config: &FilesConfig,
    metrics: &Metrics,
    shutdown: Shutdown,
) {
    let limits = Limits {
        max_connections: config.max_connections,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        header_timeout: config.idle_timeout,
        idle_timeout: config.idle_timeout,
        max_head_bytes: MAX_HEAD_BYTES,
        title_case_headers: true,
        open_connections: Some(metrics.connections_files.clone()),
    };
    let bytes_out = metrics.bytes.out_files.clone();
    let bytes_in = metrics.bytes.in_files.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (source, bytes_out) = (source.clone(), bytes_out.clone());
        let bytes_in = bytes_in.clone();
        async move {
            let method = request.method().clone();
            let response = respond(&source, request, &bytes_in).await;
            // Never the path: whoever has it has the file.
            tracing::debug!(%method, status = response.status().as_u16(), "a request for a file was answered");
            Ok::<_, Infallible>(response.map(|body| body.counted_by(bytes_out)))
        }
    });
    listener::run(listener, acceptor, service, limits, shutdown).await;
}

/// The answer to one request; a body is read only where it is an upload's.
async fn respond<F: FileSource>(
    source: &F,
    request: Request<Incoming>,
    bytes_in: &IntCounter,
) -> Response<FileBody> {
    let signed = match request.uri().path().strip_prefix(PREFIX) {
        Some(signed) if !signed.is_empty() && !signed.contains('/') => signed.to_owned(),
        _ => return refusal(StatusCode::NOT_FOUND, "no such path"),
    };
    let method = request.method();
    if method == Method::PUT {
        return put::take(source, &signed, request, bytes_in).await;
    }
    if method != Method::GET && method != Method::HEAD {
        return head::method_not_allowed();
    }
    match source.open(&signed).await {
        Ok(file) => head::of_file(file, method, request.headers()),
        Err(refused) => refusal_of(refused),
    }
}

fn refusal_of(refused: Refusal) -> Response<FileBody> {
    match refused {
        Refusal::BadSignature => refusal(StatusCode::FORBIDDEN, "the address is not valid"),
        Refusal::Expired => refusal(StatusCode::FORBIDDEN, "the address has expired"),
        Refusal::Canceled => refusal(StatusCode::FORBIDDEN, "the delivery was cancelled"),
        Refusal::Gone => refusal(StatusCode::GONE, "it has ended"),
        Refusal::Unavailable => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "not available now, try again",
        ),
    }
}

#[cfg(test)]
mod tests;
