//! A device's download by HTTPS: `GET url` with `Range`, resumed after every lost link.
//!
//! Speaks just enough HTTP/1.1 for the gateway's files listener and reads bodies through one
//! buffer into the device's [`Verifier`]. Used by `--mode https`; the MQTT link stays meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, timeout};

use crate::device::error::DeviceError;
use crate::device::identity::Fate;
use crate::device::link::{Dial, Socket};
use crate::stats::Timing;
use crate::swarm::Swarm;
use crate::target::source_address;
use crate::tls;
use crate::verify::Verifier;

/// Downloads what `verifier` still lacks; gives it back with the result.
pub(crate) async fn run(
    swarm: Arc<Swarm>,
    index: u32,
    fate: Fate,
    url: String,
    mut verifier: Verifier,
) -> (Verifier, Result<(), DeviceError>) {
    let mut fetch = Fetch {
        swarm,
        index,
        fate,
        asked_at: None,
    };
    let mut failures = 0;
    loop {
        let before = verifier.offset();
        match fetch.connection(&url, &mut verifier).await {
            Ok(()) if verifier.is_complete() => return (verifier, Ok(())),
            Ok(()) => fetch.swarm.stats.planned_drops.add(1),
            Err(error) => {
                failures = if verifier.offset() > before {
                    1
                } else {
                    failures + 1
                };
                if !error.is_transient() || failures >= fetch.swarm.attempts {
                    return (verifier, Err(error));
                }
                let stats = &fetch.swarm.stats;
                stats.problem(error.kind(), || format!("device {index}: {error}"));
                stats.reconnects.add(1);
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// What the connections of one download share.
struct Fetch {
    swarm: Arc<Swarm>,
    index: u32,
    fate: Fate,
    asked_at: Option<Instant>,
}

impl Fetch {
    /// One request; ends early, without an error, where the drop schedule wants it.
    async fn connection(&mut self, url: &str, verifier: &mut Verifier) -> Result<(), DeviceError> {
        let location = Location::parse(url)?;
        let dial = self.dial(&location).await?;
        let source = source_address(dial.address, self.index, self.swarm.salt);
        let open = timeout(
            self.swarm.connect_timeout,
            dial.open(source, self.fate.read_bps),
        )
        .await;
        let mut socket = open.map_err(|_| DeviceError::ConnectTimeout("https"))??;
        let from = verifier.offset();
        let Location {
            authority, path, ..
        } = location;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nRange: bytes={from}-\r\nConnection: close\r\n\r\n"
        );
        socket
            .write_all(request.as_bytes())
            .await
            .map_err(DeviceError::Io)?;
        socket.flush().await.map_err(DeviceError::Io)?;
        self.asked_at.get_or_insert_with(Instant::now);
        self.receive(&mut *socket, verifier).await
    }

    async fn receive(
        &mut self,
        socket: &mut dyn Socket,
        verifier: &mut Verifier,
    ) -> Result<(), DeviceError> {
        let mut buffer = vec![0; READ_BYTES];
        let mut filled = 0;
        let head = loop {
            if filled == buffer.len() {
                return Err(DeviceError::Https("response head too long".into()));
            }
            filled += read(socket, &mut buffer[filled..]).await?;
            if let Some(head) = Head::parse(&buffer[..filled])? {
                break head;
            }
        };
        let start = verifier.offset();
        let left = verifier.size() - start;
        if head.content_length != left || (start > 0 && head.status != 206) {
            return Err(DeviceError::Https(format!(
                "{} with {} bytes where {left} are left",
                head.status, head.content_length
            )));
        }
        if let Some(asked_at) = self.asked_at.take() {
            self.swarm
                .stats
                .record(Timing::FirstByte, asked_at.elapsed());
        }
        let mut body = head.len..filled;
        loop {
            if !body.is_empty() {
                let bytes = &buffer[body];
                let fresh = verifier.accept(verifier.offset(), bytes)?;
                self.swarm.stats.bytes.add(fresh);
            }
            if verifier.is_complete() {
                return Ok(());
            }
            if self
                .fate
                .drop_at
                .is_some_and(|drop_at| verifier.offset() >= drop_at)
            {
                self.fate.drop_at = None;
                return Ok(());
            }
            body = 0..read(socket, &mut buffer).await?;
        }
    }

    async fn dial(&self, location: &Location<'_>) -> Result<Dial, DeviceError> {
        let Some((connector, _)) = &self.swarm.dial.tls else {
            return Err(DeviceError::Https("not possible with --plain".into()));
        };
        let host = location.host.trim_start_matches('[').trim_end_matches(']');
        let name = tls::server_name(host).map_err(|error| DeviceError::Https(error.to_string()))?;
        let address = lookup_host((host, location.port))
            .await
            .map_err(DeviceError::Connect)?
            .next();
        let address: SocketAddr =
            address.ok_or_else(|| DeviceError::Https(format!("{host} has no address")))?;
        Ok(Dial {
            address,
            tls: Some((connector.clone(), name)),
            web: None,
        })
    }
}

/// Bytes of one read; the peer's end and silence are errors.
async fn read(socket: &mut dyn Socket, buffer: &mut [u8]) -> Result<usize, DeviceError> {
    let read = timeout(READ_TIMEOUT, socket.read(buffer)).await;
    let read = read.map_err(|_| DeviceError::Https("no byte for 120 s".into()))?;
    match read.map_err(DeviceError::Io)? {
        0 => Err(DeviceError::Closed),
        n => Ok(n),
    }
}

/// The parts of an `https` URL.
#[derive(Debug, PartialEq, Eq)]
struct Location<'a> {
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Location<'a> {
    fn parse(url: &'a str) -> Result<Self, DeviceError> {
        let bad = || DeviceError::Announcement(format!("url `{url}`"));
        let rest = url.strip_prefix("https://").ok_or_else(bad)?;
        let slash = rest.find('/').ok_or_else(bad)?;
        let (authority, path) = rest.split_at(slash);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (authority, 443),
        };
        Ok(Self {
            authority,
            host,
            port,
            path,
        })
    }
}

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    content_length: u64,
    /// Bytes up to the body.
    len: usize,
}

impl Head {
    /// `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, DeviceError> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status: u16 =
            status.ok_or_else(|| DeviceError::Https(format!("response `{first}`")))?;
        if !matches!(status, 200 | 206) {
            // Busy gateways are worth another try; a refusal of this URL is final.
            let text = format!("the gateway answered `{first}`");
            return Err(match status {
                429 | 500..=599 => DeviceError::Https(text),
                _ => DeviceError::TransferError {
                    code: status.to_string(),
                    message: text,
                },
            });
        }
        let content_length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let content_length =
            content_length.ok_or_else(|| DeviceError::Https("no Content-Length".into()))?;
        Ok(Some(Self {
            status,
            content_length,
            len: end + 4,
        }))
    }
}

/// One buffer a download under way: two TLS records.
const READ_BYTES: usize = 32 * 1024;
/// A peer that sends nothing for so long is gone.
const READ_TIMEOUT: Duration = Duration::from_mins(2);
/// Before the next request of the same download.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let location = Location::parse("https://gw.example:8443/files/abc?x=1").unwrap();
        assert_eq!((location.host, location.port), ("gw.example", 8443));
        assert_eq!(location.path, "/files/abc?x=1");
        assert_eq!(Location::parse("https://gw.example/f").unwrap().port, 443);
        assert_eq!(Location::parse("https://[::1]:8/f").unwrap().host, "[::1]");
        for bad in ["http://a/b", "https://a", "", "https://a:x/b"] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn heads_are_read_in_any_case() {
        let head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\nX: y\r\n\r\nbody";
        assert_eq!(
            Head::parse(head).unwrap(),
            Some(Head {
                status: 206,
                content_length: 12,
                len: 58
            })
        );
        assert_eq!(
            Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1").unwrap(),
            None
        );
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let refused = Head::parse(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap_err();
        assert!(!refused.is_transient());
        assert!(
            Head::parse(b"HTTP/1.1 503 Busy\r\n\r\n")
                .unwrap_err()
                .is_transient()
        );
    }
}
