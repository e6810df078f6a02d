//! The request that turns a connection into a WebSocket, and its answer.
//!
//! One path, `/mqtt`, and one subprotocol, `mqtt`, which older clients call `mqttv3.1`. The Origin
//! header is not looked at on listeners for devices: who comes is told by CONNECT, whose credentials
//! no browser sends by itself as it sends cookies, so a foreign page can do no more than any other
//! client. Where no credentials are asked for, a page must come from this machine.
//! Spec: RFC 6455, section 4.2; MQTT 5.0, section 6.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use httparse::{EMPTY_HEADER, Header, Request, Status};

/// Longest head of a request.
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
const PATH: &str = "/mqtt";
/// [MQTT-6.0.0-3] names the first; clients of 3.1 offer the second.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// RFC 6455, 1.3.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request is no upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no HTTP, or too long.
    #[error("no request of HTTP/1.1")]
    NoHttp,
    /// Another path.
    #[error("another path than /mqtt")]
    Path,
    /// HTTP, but not the request of an upgrade.
    #[error("no request for a WebSocket")]
    NoUpgrade,
    /// Another version of the protocol.
    #[error("another version of WebSocket than 13")]
    Version,
    /// MQTT was not offered.
    #[error("the subprotocol mqtt is not offered")]
    Subprotocol,
    /// A page of another site.
    #[error("a page from elsewhere")]
    Origin,
}

impl Refusal {
    /// What the client is answered.
    pub const fn answer(self) -> &'static str {
        match self {
            Self::NoHttp | Self::NoUpgrade | Self::Subprotocol => {
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Path => {
                "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Version => {
                "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Origin => {
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
        }
    }
}

/// A request that was understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Bytes of the request; what follows are frames already.
    pub head_bytes: usize,
    /// The answer to be sent.
    pub answer: String,
}

impl Upgrade {
    /// Reads a request; `None` while more of it has to come. `only_local` refuses pages that are not
    /// from this machine.
    ///
    /// # Errors
    /// [`Refusal`], whose answer is to be sent.
    pub fn read(bytes: &[u8], only_local: bool) -> Result<Option<Self>, Refusal> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut headers);
        let head_bytes = match request.parse(bytes) {
            Ok(Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
            Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
            Ok(_) | Err(_) => return Err(Refusal::NoHttp),
        };
        if request.method != Some("GET") || request.version != Some(1) {
            return Err(Refusal::NoUpgrade);
        }
        let path = request.path.unwrap_or_default();
        if path.split('?').next() != Some(PATH) {
            return Err(Refusal::Path);
        }
        let (key, subprotocol) = agree(request.headers, only_local)?;
        Ok(Some(Self {
            head_bytes,
            answer: format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
                accept(key)
            ),
        }))
    }
}

/// The key of the request, and the subprotocol that both sides speak.
fn agree<'h>(headers: &'h [Header<'_>], only_local: bool) -> Result<(&'h str, &'h str), Refusal> {
    let names =
        |name: &str, word: &str| words(headers, name).any(|said| said.eq_ignore_ascii_case(word));
    if !names("upgrade", "websocket") || !names("connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if value(headers, "sec-websocket-version") != Some("13") {
        return Err(Refusal::Version);
    }
    let key = value(headers, "sec-websocket-key").ok_or(Refusal::NoUpgrade)?;
    if STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(Refusal::NoUpgrade);
    }
    if only_local && value(headers, "origin").is_some_and(|origin| !is_local(origin)) {
        return Err(Refusal::Origin);
    }
    let subprotocol = words(headers, "sec-websocket-protocol")
        .find(|offered| SUBPROTOCOLS.contains(offered))
        .ok_or(Refusal::Subprotocol)?;
    Ok((key, subprotocol))
}

/// The value of a header that stands there once.
fn value<'h>(headers: &'h [Header<'_>], name: &str) -> Option<&'h str> {
    let mut found = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    let value = std::str::from_utf8(found.next()?.value).ok()?.trim();
    found.next().is_none().then_some(value)
}

/// The words of a header that is a list.
fn words<'h>(headers: &'h [Header<'_>], name: &str) -> impl Iterator<Item = &'h str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(',').map(str::trim))
}

fn is_local(origin: &str) -> bool {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    ["localhost", "127.0.0.1", "::1"].contains(&name)
}

fn accept(key: &str) -> String {
    let both = format!("{key}{KEY_SUFFIX}");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, both.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";

    #[test]
    fn a_good_request_is_answered_as_the_standard_says() {
        let upgrade = Upgrade::read(format!("{GOOD}\x01").as_bytes(), false);
        let upgrade = upgrade.expect("good").expect("whole");
        assert_eq!(upgrade.head_bytes, GOOD.len());
        // The key and its answer are those of RFC 6455, 1.3.
        assert!(
            upgrade
                .answer
                .contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
        );
        assert!(
            upgrade
                .answer
                .contains("Sec-WebSocket-Protocol: mqttv3.1\r\n")
        );
        for cut in 0..GOOD.len() {
            let partial = Upgrade::read(&GOOD.as_bytes()[..cut], false);
            assert_eq!(partial, Ok(None), "{cut}");
        }
    }

    #[test]
    fn every_other_request_is_refused() {
        let change = |from: &str, to: &str| GOOD.replace(from, to);
        let cases = [
            (change("GET", "POST"), Refusal::NoUpgrade),
            (change("HTTP/1.1", "HTTP/1.0"), Refusal::NoUpgrade),
            (change("/mqtt ", "/ "), Refusal::Path),
            (change("/mqtt ", "/mqtt/x "), Refusal::Path),
            (
                change("Upgrade: websocket", "Upgrade: h2c"),
                Refusal::NoUpgrade,
            ),
            (
                change("keep-alive, Upgrade", "keep-alive"),
                Refusal::NoUpgrade,
            ),
            (change("Version: 13", "Version: 8"), Refusal::Version),
            (
                change("dGhlIHNhbXBsZSBub25jZQ==", "short"),
                Refusal::NoUpgrade,
            ),
            (change("mqttv3.1, mqtt", "stomp"), Refusal::Subprotocol),
            ("\x16\x03\x01\x02\x00".to_owned(), Refusal::NoHttp),
            (
                format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_HEAD_BYTES)),
                Refusal::NoHttp,
            ),
        ];
        for (request, expected) in cases {
            assert_eq!(
                Upgrade::read(request.as_bytes(), false),
                Err(expected),
                "{request}"
            );
        }
    }

    #[test]
    fn a_page_from_elsewhere_is_refused_where_nobody_logs_in() {
        let from = |origin: &str| GOOD.replace("Host: x", &format!("Host: x\r\nOrigin: {origin}"));
        for (origin, is_local) in [
            ("http://localhost:8080", true),
            ("https://127.0.0.1", true),
            ("http://[::1]:3000", true),
            ("https://example.org", false),
            ("https://localhost.example.org", false),
            ("null", false),
        ] {
            let request = from(origin);
            assert!(Upgrade::read(request.as_bytes(), false).is_ok(), "{origin}");
            let only_local = Upgrade::read(request.as_bytes(), true);
            assert_eq!(only_local.is_ok(), is_local, "{origin}");
        }
    }
}
