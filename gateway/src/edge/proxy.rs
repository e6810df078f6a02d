//! The PROXY protocol: how a load balancer says whose connection it passes on.
//!
//! Versions 1 and 2, read before anything else and byte for byte, so that nothing behind the header
//! is lost. A listed peer must begin with it; nobody else is asked, and whoever sends it unasked has
//! sent what is neither TLS nor MQTT. Extensions (TLVs) are read over.
//! Spec: `proxy-protocol.txt` of `HAProxy`, 2020-03-05, sections 2.1 and 2.2.
//! Invariants: at most [`MAX_HEADER_BYTES`] are read; every byte is checked before it is believed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Addresses and extensions of version 2 together; more is no header that anyone sends.
const MAX_HEADER_BYTES: usize = 2048;
/// The longest line of version 1, with its end.
const MAX_LINE_BYTES: usize = 107;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Why a header is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no header.
    #[error("no header of the PROXY protocol: {0}")]
    Malformed(&'static str),
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// The client's address, and the one that it connected to.
    Client {
        /// Where the client is.
        from: SocketAddr,
        /// What it connected to.
        to: SocketAddr,
    },
    /// The load balancer's own: it looks whether this gateway is there.
    Own,
}

/// Reads the header that a connection begins with.
///
/// # Errors
/// [`ProxyError`]; the connection is to be closed.
///
/// # Cancel safety
/// Not safe: what was read is lost.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Proxied, ProxyError> {
    // Shorter than the shortest line of version 1.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        read_binary(stream).await
    } else if start.starts_with(b"PROXY ") {
        read_line(stream, &start).await
    } else {
        Err(ProxyError::Malformed("it begins with something else"))
    }
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> Result<Proxied, ProxyError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER_BYTES {
        return Err(ProxyError::Malformed("too long"));
    }
    let mut body = [0; MAX_HEADER_BYTES];
    let body = &mut body[..length];
    stream.read_exact(body).await?;
    match (command, family) {
        // LOCAL: whatever else it says is to be ignored.
        (0x20, _) => Ok(Proxied::Own),
        (0x21, 0x11) => four(body).ok_or(ProxyError::Malformed("addresses are missing")),
        (0x21, 0x21) => six(body).ok_or(ProxyError::Malformed("addresses are missing")),
        (0x21, _) => Err(ProxyError::Malformed("no addresses of TCP")),
        _ => Err(ProxyError::Malformed("an unknown version or command")),
    }
}

fn four(body: &[u8]) -> Option<Proxied> {
    let (from, rest) = body.split_first_chunk::<4>()?;
    let (to, rest) = rest.split_first_chunk::<4>()?;
    let address = |bytes: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*bytes));
    client(address(from), address(to), rest)
}

fn six(body: &[u8]) -> Option<Proxied> {
    let (from, rest) = body.split_first_chunk::<16>()?;
    let (to, rest) = rest.split_first_chunk::<16>()?;
    let address = |bytes: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*bytes)).to_canonical();
    client(address(from), address(to), rest)
}

fn client(from: IpAddr, to: IpAddr, ports: &[u8]) -> Option<Proxied> {
    let (from_port, rest) = ports.split_first_chunk::<2>()?;
    let (to_port, _extensions) = rest.split_first_chunk::<2>()?;
    Some(Proxied::Client {
        from: SocketAddr::new(from, u16::from_be_bytes(*from_port)),
        to: SocketAddr::new(to, u16::from_be_bytes(*to_port)),
    })
}

/// Version 1: one line of text, which begins with `start`.
async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    start: &[u8],
) -> Result<Proxied, ProxyError> {
    let mut line = start.to_vec();
    // Byte by byte: what follows the line is TLS, and belongs to it.
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_LINE_BYTES {
            return Err(ProxyError::Malformed("the line has no end"));
        }
        line.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_suffix("\r\n"))
        .ok_or(ProxyError::Malformed("no text"))?;
    parse_line(text).ok_or(ProxyError::Malformed("the line says no addresses"))
}

fn parse_line(line: &str) -> Option<Proxied> {
    let mut words = line.split(' ');
    if words.next()? != "PROXY" {
        return None;
    }
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Proxied::Own);
    }
    let (from, to): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (from_port, to_port) = (port(words.next()?)?, port(words.next()?)?);
    let fits = match family {
        "TCP4" => from.is_ipv4() && to.is_ipv4(),
        "TCP6" => from.is_ipv6() && to.is_ipv6(),
        _ => false,
    };
    (fits && words.next().is_none()).then(|| Proxied::Client {
        from: SocketAddr::new(from.to_canonical(), from_port),
        to: SocketAddr::new(to.to_canonical(), to_port),
    })
}

/// A port without sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = word == "0" || !word.starts_with('0');
    (is_plain && is_short).then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// Reads a header and gives what stands behind it.
    async fn check(bytes: &[u8]) -> (Result<Proxied, String>, Vec<u8>) {
        let mut rest = bytes;
        let read = read(&mut rest).await.map_err(|error| error.to_string());
        (read, rest.to_vec())
    }

    fn binary(rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], rest].concat()
    }

    fn proxied(from: &str, to: &str) -> Proxied {
        Proxied::Client {
            from: from.parse().expect("an address"),
            to: to.parse().expect("an address"),
        }
    }

    #[tokio::test]
    async fn both_versions_are_understood_and_nothing_behind_them_is_taken() {
        let cases = [
            (
                b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 8883\r\n".to_vec(),
                proxied("203.0.113.9:56324", "192.0.2.1:8883"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n".to_vec(),
                proxied("[2001:db8::9]:1", "[2001:db8::1]:2"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Proxied::Own),
            (b"PROXY UNKNOWN ff::1 x 0 0\r\n".to_vec(), Proxied::Own),
            (
                binary(&hex!("21 11 000c cb007109 c0000201 dc04 22b3")),
                proxied("203.0.113.9:56324", "192.0.2.1:8883"),
            ),
            // With two extensions.
            (
                binary(&hex!(
                    "21 11 0014 cb007109 c0000201 dc04 22b3 04 0001 00 05 0001 00"
                )),
                proxied("203.0.113.9:56324", "192.0.2.1:8883"),
            ),
            (
                binary(&hex!(
                    "21 21 0024 00000000000000000000ffffcb007109 20010db8000000000000000000000001 0001 0002"
                )),
                proxied("203.0.113.9:1", "[2001:db8::1]:2"),
            ),
            (binary(&hex!("20 00 0000")), Proxied::Own),
            (binary(&hex!("20 11 0003 010203")), Proxied::Own),
        ];
        for (header, expected) in cases {
            let bytes = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(
                check(&bytes).await,
                (Ok(expected), b"\x16\x03\x01".to_vec())
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_not_believed() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let cases = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00".to_vec(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 192.0.2.1 56324\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 8883 9\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 8883\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 192.0.2.1 +1 8883\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 192.0.2.1 1 8883\r\n".to_vec(),
            b"PROXY TCP6 203.0.113.9 192.0.2.1 1 8883\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.9 192.0.2.1 1 8883\r\n".to_vec(),
            b"PROXY \xff\xfe 203.0.113.9\r\n".to_vec(),
            endless,
            binary(&hex!("11 11 000c cb007109 c0000201 dc04 22b3")),
            binary(&hex!("22 11 000c cb007109 c0000201 dc04 22b3")),
            binary(&hex!("21 12 000c cb007109 c0000201 dc04 22b3")),
            binary(&hex!("21 31 0000")),
            binary(&hex!("21 11 000b cb007109 c0000201 dc04 22")),
            binary(&hex!("21 11 ffff")),
            binary(&hex!("21 11 000c cb00")),
            b"PROXY".to_vec(),
        ];
        for bytes in cases {
            let (read, _) = check(&bytes).await;
            assert!(
                read.is_err(),
                "{:?} {read:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}
