//! The accept loop that the HTTP listeners share.
//!
//! Owns every connection it accepted: dropping the future of [`run`] ends them all, draining ends
//! them after the request in hand, stopping at once. Bounds the number of connections, the time of
//! the handshake and of a request's head, and the silence on a connection. Spec: HTTP/1.1 only (RFC
//! 9112).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    extract::ConnectInfo,
    http::{Request, Response},
};
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::idle::IdleTimeout;
use crate::shutdown::Shutdown;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Turns an accepted socket into the stream that HTTP is spoken on: plain, or TLS.
pub trait AcceptStream: Clone + Send + Sync + 'static {
    /// What is read from and written to.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Carries out the handshake, if there is one.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    fn accept_stream(
        &self,
        tcp: TcpStream,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Speaks HTTP on the socket as it is.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl AcceptStream for Plain {
    type Stream = TcpStream;

    async fn accept_stream(&self, tcp: TcpStream) -> io::Result<TcpStream> {
        Ok(tcp)
    }
}

/// Bounds and habits of one HTTP listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time; beyond it nothing is accepted until one ends.
    pub max_connections: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first to the last byte of a request's head, and the longest wait for it.
    pub header_timeout: Duration,
    /// Between two bytes in either direction.
    pub idle_timeout: Duration,
    /// Read buffer of a connection, so also the longest request head; at least 8,192.
    pub max_head_bytes: usize,
    /// Writes `Content-Length` instead of `content-length`.
    pub title_case_headers: bool,
    /// Counts the open connections, where they are to be counted.
    pub open_connections: Option<IntGauge>,
}

/// Accepts on `listener` until the node drains, then waits for the requests in hand until it stops.
///
/// # Cancel safety
/// Dropping the future closes every connection at once.
pub async fn run<A, S, B>(
    listener: TcpListener,
    acceptor: A,
    service: S,
    limits: Limits,
    shutdown: Shutdown,
) where
    A: AcceptStream,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            Some(_ended) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((tcp, peer, slot)) => {
                let connection = serve_connection(
                    tcp,
                    acceptor.clone(),
                    Stamped {
                        service: service.clone(),
                        peer,
                    },
                    limits.clone(),
                    shutdown.clone(),
                );
                let counted = Counted::new(limits.open_connections.clone());
                connections.spawn(async move {
                    connection.await;
                    drop((slot, counted));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        biased;
        () = shutdown.stopping() => {}
        () = ended => {}
    }
}

/// A service whose requests say where they come from.
#[derive(Clone)]
struct Stamped<S> {
    service: S,
    peer: SocketAddr,
}

impl<S, B> hyper::service::Service<Request<B>> for Stamped<S>
where
    S: hyper::service::Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.service.call(request)
    }
}

/// One open connection in the gauge, for as long as it lives: also when its task is aborted.
struct Counted(Option<IntGauge>);

impl Counted {
    fn new(gauge: Option<IntGauge>) -> Self {
        if let Some(gauge) = &gauge {
            gauge.inc();
        }
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.dec();
        }
    }
}

/// A slot first, then a socket: a full listener leaves the rest in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => return Ok((tcp, peer, slot)),
            // The peer was gone before we came to it: no fault of ours and no reason to pause.
            Err(error) if is_peers(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused
    )
}

async fn serve_connection<A, S, B>(
    tcp: TcpStream,
    acceptor: A,
    service: S,
    limits: Limits,
    shutdown: Shutdown,
) where
    A: AcceptStream,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Heads and bodies are written in few large pieces; waiting for more would only delay them.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let handshake = tokio::time::timeout(limits.handshake_timeout, acceptor.accept_stream(tcp));
    let stream = tokio::select! {
        biased;
        () = shutdown.draining() => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "handshake refused"),
            Err(_elapsed) => return tracing::debug!("handshake timed out"),
        },
    };
    let io = TokioIo::new(IdleTimeout::new(stream, limits.idle_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .title_case_headers(limits.title_case_headers)
        .max_buf_size(limits.max_head_bytes)
        // Body slices are handed to the socket as they are, never gathered into one buffer.
        .writev(true)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = shutdown.draining(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
        }
    }
}
