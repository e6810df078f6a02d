//! A client of the gateway's own HTTP API, for the command line.
//!
//! It finds the gateway by its data directory on this machine, or is told an address; it speaks plain
//! HTTP, which the API does on the loopback. The token is read from a file or the environment, never
//! from the command line, where everyone sees it.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::config::{ConfigError, Secret};

/// How long the gateway may take to take a connection, and between two pieces of an answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest error answer that is read.
const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// Where the gateway is, and what opens it.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// Address of the API, as `http://127.0.0.1:8080`
    /// [default: where the gateway of the data directory listens]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// File that holds the API token [env: `HEADGATE_TOKEN` holds the token itself]
    /// [default: `api.token` in the data directory]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where the data directory is.
    #[command(flatten)]
    pub source: super::SourceArgs,
}

/// Why nothing came of a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The configuration, which says where the data directory is, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No gateway runs on the data directory.
    #[error("no gateway runs on {0}; start it, or name its address with --url")]
    NotRunning(String),
    /// An address that cannot be used.
    #[error("{url}: {why}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token cannot be one.
    #[error("the token has characters that no token has")]
    Token,
    /// The connection failed.
    #[error("{address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// HTTP failed.
    #[error("the answer ended early: {0}")]
    Http(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TooSlow,
    /// The gateway refused.
    #[error("{status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The gateway's own words.
        detail: String,
    },
    /// Standard output refused.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The answer is not what this program understands.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

/// A client with an address and a token.
#[derive(Debug)]
pub(super) struct Client {
    authority: String,
    token: Secret,
}

impl Client {
    /// The client that the arguments describe.
    ///
    /// # Errors
    /// [`ClientError`] where the gateway or the token cannot be found.
    pub(super) fn new(args: ClientArgs) -> Result<Self, ClientError> {
        let from_environment = std::env::var("HEADGATE_TOKEN")
            .ok()
            .filter(|token| !token.is_empty());
        let needs_directory =
            args.url.is_none() || (args.token_file.is_none() && from_environment.is_none());
        let directory = if needs_directory {
            args.source.load()?.config.data_dir
        } else {
            PathBuf::new()
        };
        let authority = match args.url {
            Some(url) => authority_of(&url)?,
            None => authority_in(&directory)?,
        };
        let token = match (args.token_file, from_environment) {
            (Some(file), _) => read(&file)?,
            (None, Some(token)) => token,
            (None, None) => read(&directory.join("api.token"))?,
        };
        Ok(Self {
            authority,
            token: Secret::new(token.trim().to_owned()),
        })
    }

    /// Asks for something and gives the body as it comes, piece by piece.
    ///
    /// # Errors
    /// [`ClientError`], also where `take` gives one.
    pub(super) async fn get(
        &self,
        path: &str,
        mut take: impl FnMut(Bytes) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let connecting = TcpStream::connect(&self.authority);
        let tcp = patiently(connecting)
            .await?
            .map_err(|source| ClientError::Connect {
                address: self.authority.clone(),
                source,
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        let request = self.request(path)?;
        let exchange = async {
            let answer = patiently(sender.send_request(request)).await??;
            let status = answer.status();
            let mut body = answer.into_body();
            if !status.is_success() {
                let detail = problem(&mut body).await?;
                return Err(ClientError::Refused { status, detail });
            }
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

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, ClientError> {
        Request::builder()
            .method(Method::GET)
            .uri(format!("/api/v1{path}"))
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", self.token.expose()))
            .body(Empty::new())
            .map_err(|_| ClientError::Token)
    }
}

/// Writes pieces to standard output; a reader that has seen enough, as in `| head`, is no failure.
pub(super) fn to_output() -> impl FnMut(Bytes) -> Result<(), ClientError> {
    let mut out = io::stdout();
    let mut is_read = true;
    move |piece| {
        if is_read {
            match out.write_all(&piece).and_then(|()| out.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => is_read = false,
                written => written.map_err(ClientError::Output)?,
            }
        }
        Ok(())
    }
}

async fn patiently<T>(waiting: impl Future<Output = T>) -> Result<T, ClientError> {
    timeout(PATIENCE, waiting)
        .await
        .map_err(|_| ClientError::TooSlow)
}

/// What an error answer says.
async fn problem(body: &mut Incoming) -> Result<String, ClientError> {
    let mut text = Vec::new();
    while let Some(frame) = patiently(body.frame()).await? {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > MAX_PROBLEM_BYTES {
            break;
        }
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
    let detail = problem
        .as_ref()
        .and_then(|problem| problem["detail"].as_str());
    Ok(detail.unwrap_or("the gateway refused").to_owned())
}

/// Host and port of an address.
fn authority_of(url: &str) -> Result<String, ClientError> {
    let wrong = |why| ClientError::Url {
        url: url.to_owned(),
        why,
    };
    let parsed: Uri = url.parse().map_err(|_| wrong("not an address"))?;
    if parsed.scheme_str() != Some("http") {
        return Err(wrong(
            "only http:// is spoken here; reach a remote gateway through a tunnel",
        ));
    }
    let host = parsed.host().ok_or_else(|| wrong("it names no host"))?;
    let port = parsed.port_u16().unwrap_or(80);
    Ok(format!("{host}:{port}"))
}

/// Where the gateway of a data directory listens.
fn authority_in(directory: &Path) -> Result<String, ClientError> {
    let not_running = || ClientError::NotRunning(directory.display().to_string());
    let ports = fs::read(directory.join("ports.json")).map_err(|_| not_running())?;
    let ports: serde_json::Value = serde_json::from_slice(&ports).map_err(|_| not_running())?;
    let address = ports["http"].as_str().ok_or_else(not_running)?;
    let mut address: std::net::SocketAddr = address.parse().map_err(|_| not_running())?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address.to_string())
}

fn read(path: &Path) -> Result<String, ClientError> {
    fs::read_to_string(path).map_err(|source| ClientError::File {
        path: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("http://localhost", Some("localhost:80")),
            ("http://[::1]:9/", Some("[::1]:9")),
            ("https://example.org", None),
            ("127.0.0.1:8080", None),
            ("", None),
        ] {
            assert_eq!(authority_of(url).ok().as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_gateway_is_found_by_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = authority_in(directory.path()).expect_err("not running");
        assert!(matches!(missing, ClientError::NotRunning(_)));
        for (http, expected) in [
            ("127.0.0.1:18080", "127.0.0.1:18080"),
            ("0.0.0.0:18080", "127.0.0.1:18080"),
        ] {
            let ports = format!("{{\"http\":\"{http}\"}}");
            fs::write(directory.path().join("ports.json"), ports).expect("written");
            assert_eq!(authority_in(directory.path()).expect("running"), expected);
        }
    }
}
