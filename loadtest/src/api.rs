//! A small client of the gateway's HTTP API.
//!
//! Keeps connections open between requests; many requests may run at once, each on a connection of
//! its own. Answers are JSON; an error carries what the gateway's problem document says.
//! Invariants: the token stands in no error text.

mod body;
mod error;

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::device::link::Socket;
use crate::target::Target;
use crate::tls;
pub(crate) use body::{ApiBody, Upload};
pub(crate) use error::ApiError;
use error::problem;

/// The client.
pub(crate) struct Api {
    base: Base,
    connector: Option<TlsConnector>,
    token: String,
    idle: Mutex<Vec<Connection>>,
}

/// An open connection; its driver ends with it.
struct Connection {
    sender: SendRequest<ApiBody>,
    _driver: JoinSet<()>,
}

/// Where the API is.
#[derive(Debug, PartialEq, Eq)]
struct Base {
    url: String,
    tls: bool,
    host: String,
    port: u16,
}

impl Base {
    fn parse(url: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(bad()),
        };
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains('/') {
            return Err(bad());
        }
        let default_port = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (authority, default_port),
        };
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            url: url.to_owned(),
            tls,
            host,
            port,
        })
    }
}

impl Api {
    /// A client of `target`'s API; connects at the first request.
    ///
    /// # Errors
    /// [`ApiError::Url`].
    pub(crate) fn new(target: &Target) -> Result<Self, ApiError> {
        Ok(Self {
            base: Base::parse(&target.http_url)?,
            connector: target.tls.as_ref().map(|(connector, _)| connector.clone()),
            token: target.token.clone(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.json(Method::GET, path, None).await
    }

    /// `GET path`; `None` where there is no such thing.
    ///
    /// # Errors
    /// [`ApiError`] other than 404.
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ApiError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// `POST path` without caring for the answer's body.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn command(&self, path: &str) -> Result<(), ApiError> {
        self.answer(&Method::POST, path, ApiBody::empty, None)
            .await
            .map(drop)
    }

    /// `DELETE path`; what is not there counts as deleted.
    ///
    /// # Errors
    /// [`ApiError`] other than 404.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        match self
            .answer(&Method::DELETE, path, ApiBody::empty, None)
            .await
        {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(()),
            other => other.map(drop),
        }
    }

    /// `POST path` with a CSV.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn post_csv<T: DeserializeOwned>(
        &self,
        path: &str,
        text: &str,
    ) -> Result<T, ApiError> {
        let body = || ApiBody::text(text);
        let content_type = Some("text/csv".to_owned());
        let bytes = self.answer(&Method::POST, path, body, content_type).await?;
        parse(&Method::POST, path, &bytes)
    }

    /// `POST path` with a multipart body, streamed.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        upload: &Upload,
    ) -> Result<T, ApiError> {
        let body = || ApiBody::upload(upload);
        let bytes = self
            .answer(&Method::POST, path, body, Some(upload.content_type()))
            .await?;
        parse(&Method::POST, path, &bytes)
    }

    /// Size and SHA-256 of what `GET path` answers with.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn digest(&self, path: &str) -> Result<(u64, [u8; 32]), ApiError> {
        let method = Method::GET;
        let request = self.request(&method, path, ApiBody::empty(), None)?;
        let transport = |source| ApiError::Transport {
            method: Method::GET,
            path: path.to_owned(),
            source,
        };
        let mut connection = self.connection().await?;
        let response = connection.sender.send_request(request).await;
        let response = response.map_err(transport)?;
        let status = response.status();
        if !status.is_success() {
            return Err(ApiError::Refused {
                method,
                path: path.to_owned(),
                status,
                detail: String::new(),
            });
        }
        let (mut size, mut sha256) = (0, Sha256::new());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.map_err(transport)?.into_data() {
                size += bytes.len() as u64;
                sha256.update(&bytes);
            }
        }
        self.idle.lock().push(connection);
        Ok((size, sha256.finalize().into()))
    }

    /// All items of a list that is cut into pages.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ApiError> {
        #[derive(Deserialize)]
        struct Paged<T> {
            items: Vec<T>,
            next: Option<String>,
        }
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Paged<T> = self
                .get(&format!("{path}{separator}limit={PAGE_LIMIT}{cursor}"))
                .await?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ApiError> {
        let text = body.map(ToString::to_string);
        let content_type = body.map(|_| "application/json".to_owned());
        let make = || {
            text.as_ref()
                .map_or_else(ApiBody::empty, |text| ApiBody::text(text))
        };
        let bytes = self.answer(&method, path, make, content_type).await?;
        parse(&method, path, &bytes)
    }

    /// One request, tried again while the gateway says that it is too busy.
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        body: impl Fn() -> ApiBody,
        content_type: Option<String>,
    ) -> Result<Vec<u8>, ApiError> {
        let mut tries = 0;
        loop {
            let request = self.request(method, path, body(), content_type.as_deref())?;
            let answer = timeout(ANSWER_TIMEOUT, self.once(method, path, request)).await;
            let answer = answer.unwrap_or_else(|_| {
                let secs = ANSWER_TIMEOUT.as_secs();
                Err(ApiError::Timeout {
                    method: method.clone(),
                    path: path.to_owned(),
                    secs,
                })
            });
            let busy = answer
                .as_ref()
                .err()
                .and_then(ApiError::status)
                .is_some_and(|status| {
                    matches!(
                        status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                    )
                });
            tries += 1;
            if !busy || tries >= MAX_TRIES {
                return answer;
            }
            sleep(BUSY_PAUSE * tries).await;
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: ApiBody,
        content_type: Option<&str>,
    ) -> Result<Request<ApiBody>, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(
                header::HOST,
                format!("{}:{}", self.base.host, self.base.port),
            )
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::ACCEPT, "application/json");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(body).map_err(|error| ApiError::Shape {
            method: method.clone(),
            path: path.to_owned(),
            detail: error.to_string(),
        })
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        request: Request<ApiBody>,
    ) -> Result<Vec<u8>, ApiError> {
        let transport = |source| ApiError::Transport {
            method: method.clone(),
            path: path.to_owned(),
            source,
        };
        let mut connection = self.connection().await?;
        let response = connection
            .sender
            .send_request(request)
            .await
            .map_err(transport)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;
        let bytes = body.map_err(|error| ApiError::Shape {
            method: method.clone(),
            path: path.to_owned(),
            detail: error.to_string(),
        })?;
        self.idle.lock().push(connection);
        let bytes = bytes.to_bytes().to_vec();
        if status.is_success() {
            return Ok(bytes);
        }
        let detail = problem(&bytes);
        Err(ApiError::Refused {
            method: method.clone(),
            path: path.to_owned(),
            status,
            detail,
        })
    }

    /// An idle connection that still lives, or a new one.
    async fn connection(&self) -> Result<Connection, ApiError> {
        loop {
            let idle = self.idle.lock().pop();
            let Some(mut connection) = idle else {
                return self.connect().await;
            };
            if connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ApiError> {
        let url = || self.base.url.clone();
        let socket = self
            .open()
            .await
            .map_err(|source| ApiError::Connect { url: url(), source })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(socket))
                .await
                .map_err(|source| ApiError::Transport {
                    method: Method::CONNECT,
                    path: url(),
                    source,
                })?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error is the request's error too.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            _driver: driver,
        })
    }

    async fn open(&self) -> io::Result<Box<dyn Socket>> {
        let address: Option<SocketAddr> = lookup_host((self.base.host.as_str(), self.base.port))
            .await?
            .next();
        let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        match (&self.connector, self.base.tls) {
            (_, false) => Ok(Box::new(tcp)),
            (Some(connector), true) => {
                let name = tls::server_name(&self.base.host).map_err(io::Error::other)?;
                Ok(Box::new(connector.connect(name, tcp).await?))
            }
            (None, true) => Err(io::Error::other(
                "https needs a CA, which --plain leaves out",
            )),
        }
    }
}

fn parse<T: DeserializeOwned>(method: &Method, path: &str, bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::Shape {
        method: method.clone(),
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

/// What a gateway gives on one page at most.
const PAGE_LIMIT: u32 = 500;
/// No answer of use is larger.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// An upload of 1,024 MiB takes some of it.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
const MAX_TRIES: u32 = 8;
const BUSY_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let base = Base::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(
            (base.host.as_str(), base.port, base.tls),
            ("127.0.0.1", 8080, false)
        );
        assert_eq!(Base::parse("https://gw").unwrap().port, 443);
        assert_eq!(Base::parse("http://[::1]:9").unwrap().host, "::1");
        for bad in ["gw:80", "ftp://gw", "http://", "http://gw/api"] {
            assert!(Base::parse(bad).is_err(), "{bad}");
        }
    }
}
