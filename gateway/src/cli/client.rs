//! A client of the gateway's own HTTP API, for the command line.
//!
//! It speaks plain HTTP, which the API does on the loopback, or HTTPS, one connection for each request. Everything the
//! command line does goes through it: no command knows more of HTTP than a method and a path.

mod body;
mod error;
mod settings;
mod sse;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
pub(super) use hyper::Method;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

pub use self::settings::ClientArgs;
pub(super) use self::{
    body::FileBody,
    error::ClientError,
    sse::{Event, Events},
};
use self::{
    body::{AnyBody, whole},
    error::Problem,
    settings::Settings,
};

/// How long the gateway may take to take a connection, and between two pieces of an answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest error answer that is read.
const MAX_PROBLEM_BYTES: usize = 1024 * 1024;
/// The longest answer that is held in memory.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Entries of a list that are asked for at a time.
const PAGE_LIMIT: &str = "500";

/// A client with an address and a token.
#[derive(Debug)]
pub(super) struct Client {
    settings: Settings,
}

/// What is sent.
pub(super) enum Payload {
    /// Nothing.
    Empty,
    /// A JSON value.
    Json(Value),
    /// A file of this media type.
    File(String, FileBody),
}

impl Client {
    /// The client that the arguments describe.
    ///
    /// # Errors
    /// [`ClientError`] where the gateway or the token cannot be found.
    pub(super) fn new(args: &ClientArgs) -> Result<Self, ClientError> {
        Ok(Self {
            settings: Settings::find(args)?,
        })
    }

    /// Asks for a JSON value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, path, Payload::Empty).await
    }

    /// Has something done that needs no more than its path.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) async fn act(&self, method: Method, path: &str) -> Result<Value, ClientError> {
        self.send(method, path, Payload::Empty).await
    }

    /// Has something done with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, ClientError> {
        self.send(method, path, Payload::Json(body)).await
    }

    /// Sends something and gives the JSON of the answer; [`Value::Null`] where it has no body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<Value, ClientError> {
        let mut text = Vec::new();
        self.exchange(method, path, payload, |piece| {
            if text.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::Answer("it is too long".to_owned()));
            }
            text.extend_from_slice(&piece);
            Ok(())
        })
        .await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Asks for something and gives the body as it comes, piece by piece.
    ///
    /// # Errors
    /// [`ClientError`], also where `take` gives one.
    pub(super) async fn stream(
        &self,
        path: &str,
        take: impl FnMut(Bytes) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        self.exchange(Method::GET, path, Payload::Empty, take).await
    }

    /// Asks for every entry of a list, page by page; `query` is what it is narrowed by.
    ///
    /// # Errors
    /// [`ClientError`], also where `take` gives one.
    pub(super) async fn list(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        mut take: impl FnMut(Value) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let (mut cursor, mut silent) = (None, Vec::new());
        loop {
            let mut query = query.to_vec();
            query.push(("limit", Some(PAGE_LIMIT.to_owned())));
            query.push(("cursor", cursor));
            let mut page = self.get(&with_query(path, &query)).await?;
            let items = page.get_mut("items").and_then(Value::as_array_mut);
            for item in items.into_iter().flat_map(std::mem::take) {
                take(item)?;
            }
            let nodes = page.get("silent_nodes").and_then(Value::as_array);
            let nodes = nodes.into_iter().flatten().filter_map(Value::as_str);
            silent.extend(nodes.map(str::to_owned));
            match page.get("next").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None if silent.is_empty() => return Ok(()),
                None => break,
            }
        }
        silent.sort();
        silent.dedup();
        Err(ClientError::Silent(silent))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        take: impl FnMut(Bytes) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let Settings { authority, tls, .. } = &self.settings;
        let request = self.request(method, path, payload)?;
        let connecting = TcpStream::connect(authority);
        let tcp = patiently(connecting)
            .await?
            .map_err(|source| ClientError::Connect {
                address: authority.clone(),
                source,
            })?;
        match tls {
            None => speak(tcp, request, take).await,
            Some(tls) => {
                let stream =
                    patiently(tls.connect(tcp))
                        .await?
                        .map_err(|source| ClientError::Tls {
                            address: authority.clone(),
                            source,
                        })?;
                speak(stream, request, take).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<Request<AnyBody>, ClientError> {
        let token = self.settings.token.expose();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(HOST, &self.settings.authority)
            .header(ACCEPT, "*/*")
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let request = match payload {
            Payload::Empty => request.body(whole(Bytes::new())),
            Payload::Json(value) => request
                .header(CONTENT_TYPE, "application/json")
                .body(whole(value.to_string())),
            Payload::File(kind, file) => request.header(CONTENT_TYPE, kind).body(file.boxed()),
        };
        request.map_err(|_| ClientError::Token)
    }
}

/// Sends a request on a connection of its own and hands the answer's body over as it comes.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<AnyBody>,
    mut take: impl FnMut(Bytes) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        // Not patiently: what a body takes to be sent is the link's affair, and the gateway ends what stands still.
        let answer = sender.send_request(request).await?;
        let mut body = checked(answer).await?;
        while let Some(frame) = patiently(body.frame()).await? {
            if let Ok(data) = frame?.into_data() {
                take(data)?;
            }
        }
        Ok(())
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        // The connection may end with the last bytes of the answer in hand.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// The body of a good answer.
async fn checked(answer: Response<Incoming>) -> Result<Incoming, ClientError> {
    let status = answer.status();
    let mut body = answer.into_body();
    if status.is_success() {
        return Ok(body);
    }
    let mut text = Vec::new();
    while let Some(frame) = patiently(body.frame()).await? {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > MAX_PROBLEM_BYTES {
            break;
        }
    }
    let problem = Problem::read(&text);
    Err(ClientError::Refused { status, problem })
}

async fn patiently<T>(waiting: impl Future<Output = T>) -> Result<T, ClientError> {
    timeout(PATIENCE, waiting)
        .await
        .map_err(|_| ClientError::TooSlow)
}

/// A path with the parameters that have a value.
pub(super) fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in query {
        if let Some(value) = value {
            text.push(separator);
            text.push_str(name);
            text.push('=');
            text.push_str(&encoded(value));
            separator = '&';
        }
    }
    text
}

/// A text as a part of a path or a query.  Spec: RFC 3986 s2.3.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ok = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_without_a_value_are_left_out_and_others_encoded() {
        let query = [
            ("product", None),
            ("filter", Some("a b&c/é".to_owned())),
            ("limit", Some("5".to_owned())),
        ];
        let path = with_query("/devices", &query);
        assert_eq!(path, "/devices?filter=a%20b%26c%2F%C3%A9&limit=5");
        assert_eq!(with_query("/devices", &[("a", None)]), "/devices");
    }
}
