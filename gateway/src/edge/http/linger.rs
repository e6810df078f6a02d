//! Reads on for a while when an upload is refused, so that its sender hears why.
//!
//! A connection that is closed with bytes unread is reset, and many clients that are still sending
//! then report the reset and never read the answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

/// How long the rest of a refused upload is read.
const LINGER: Duration = Duration::from_secs(10);

/// A body that can be taken back from whoever reads it.
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// The layer for routes that stream their body.
pub(in crate::edge) async fn linger(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let shared = Arc::new(Mutex::new(body));
    let body = Body::new(Shared(Arc::clone(&shared)));
    let response = next.run(Request::from_parts(parts, body)).await;
    if !response.status().is_success() {
        let mut rest = std::mem::take(&mut *shared.lock());
        let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
        if tokio::time::timeout(LINGER, reading).await.is_err() {
            tracing::debug!("a refused upload went on for too long");
        }
    }
    response
}
