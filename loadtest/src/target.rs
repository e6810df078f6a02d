//! Where the gateway is: from flags, or from the data directory that it wrote.
//!
//! Reads `ports.json`, `api.token` and `tls/ca.pem`; a flag wins over a file. Everything missing is
//! reported in words that say which flag supplies it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;

use crate::cli::{CommonArgs, Proto};
use crate::tls::{self, TlsError};

/// A gateway that can be reached.
#[derive(Clone)]
pub(crate) struct Target {
    /// The listener for devices.
    pub(crate) listener: SocketAddr,
    /// Name that its certificate must carry, and the connector; `None` without TLS.
    pub(crate) tls: Option<(TlsConnector, String)>,
    /// Name or address that the listener was asked for by.
    pub(crate) host: String,
    /// Base of the API without a slash at its end.
    pub(crate) http_url: String,
    /// API token.
    pub(crate) token: String,
}

/// Why the gateway cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// A file of the data directory is missing.
    #[error("cannot read {path}: {source}; is the gateway running with this --data-dir?")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `ports.json` is not what the gateway writes.
    #[error("{path} does not name the listeners: {source}")]
    Ports {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// No token.
    #[error("no API token: give --token or --data-dir")]
    NoToken,
    /// No CA.
    #[error("no CA to trust: give --ca or --data-dir, or --plain for a listener without TLS")]
    NoCa,
    /// The host has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The host has no address at all.
    #[error("{0} has no address")]
    NoAddress(String),
    /// See [`TlsError`].
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the gateway writes into `ports.json` when it is ready.
#[derive(Debug, Default, Deserialize)]
struct Ports {
    mqtts: Option<SocketAddr>,
    mqtt: Option<SocketAddr>,
    coap: Option<SocketAddr>,
    coaps: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Target {
    /// Finds the gateway that `args` speak of.
    ///
    /// # Errors
    /// [`TargetError`]: something is missing, unreadable or cannot be resolved.
    pub(crate) async fn find(args: &CommonArgs) -> Result<Self, TargetError> {
        let data_dir = args.data_dir.as_deref();
        let ports = data_dir.map(read_ports).transpose()?.unwrap_or_default();
        let (listener, default_port) = match (args.proto, args.plain) {
            // ports.json says where further listeners are, not what they speak.
            (Proto::Mqtt, plain) if args.ws => (None, if plain { 8083 } else { 8084 }),
            (Proto::Coap, _) => (ports.coap, 5683),
            (Proto::Coaps, _) => (ports.coaps, 5684),
            (Proto::Mqtt, true) => (ports.mqtt, 1883),
            (Proto::Mqtt, false) => (ports.mqtts, 8883),
        };
        let listener = listener.map(reachable);
        let host = match (&args.host, listener) {
            (Some(host), _) => host.clone(),
            (None, Some(listener)) => listener.ip().to_string(),
            (None, None) => Ipv4Addr::LOCALHOST.to_string(),
        };
        let port = args
            .port
            .or_else(|| listener.map(|l| l.port()))
            .unwrap_or(default_port);
        let http_url = match (&args.http_url, ports.http.map(reachable)) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(http)) => format!("http://{http}"),
            (None, None) => format!("http://{}", bracketed(&host, 8080)),
        };
        let is_tls = args.proto == Proto::Mqtt && !args.plain;
        let tls = if is_tls {
            Some((connector(args)?, host.clone()))
        } else {
            None
        };
        Ok(Self {
            listener: resolve(&host, port).await?,
            tls,
            host,
            http_url,
            token: if args.broker.any_broker {
                String::new()
            } else {
                token(args)?
            },
        })
    }
}

#[cfg(test)]
impl Target {
    /// A fake's listener without TLS, and no API.
    pub(crate) fn plain(listener: SocketAddr) -> Self {
        Self {
            listener,
            tls: None,
            host: String::new(),
            http_url: String::new(),
            token: String::new(),
        }
    }
}

/// The connector that trusts the CA of `args`.
fn connector(args: &CommonArgs) -> Result<TlsConnector, TargetError> {
    let ca = match (&args.ca, &args.data_dir) {
        (Some(ca), _) => ca.clone(),
        (None, Some(dir)) => dir.join("tls/ca.pem"),
        (None, None) => return Err(TargetError::NoCa),
    };
    Ok(tls::connector(&ca)?)
}

fn token(args: &CommonArgs) -> Result<String, TargetError> {
    match (&args.token, &args.data_dir) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(dir)) => Ok(read(&dir.join("api.token"))?.trim().to_owned()),
        (None, None) => Err(TargetError::NoToken),
    }
}

fn read_ports(dir: &Path) -> Result<Ports, TargetError> {
    let path = dir.join("ports.json");
    let text = read(&path)?;
    serde_json::from_str(&text).map_err(|source| TargetError::Ports { path, source })
}

fn read(path: &Path) -> Result<String, TargetError> {
    fs::read_to_string(path).map_err(|source| TargetError::File {
        path: path.to_owned(),
        source,
    })
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, TargetError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = lookup_host((host, port)).await;
    let mut found = found.map_err(|source| TargetError::Resolve {
        host: host.to_owned(),
        source,
    })?;
    found
        .next()
        .ok_or_else(|| TargetError::NoAddress(host.to_owned()))
}

/// A listener on all addresses is reached on loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listener.port())
    } else {
        listener
    }
}

fn bracketed(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The address that device `index` connects from: on loopback one of 127.0.0.0/8 for every
/// [`DEVICES_PER_ADDRESS`] devices, else whatever the system chooses.
///
/// `salt` (the process id) keeps runs apart, so that ports of an earlier one, still in TIME-WAIT,
/// are in nobody's way.
pub(crate) fn source_address(target: SocketAddr, index: u32, salt: u32) -> Option<IpAddr> {
    let IpAddr::V4(target) = target.ip() else {
        return None;
    };
    if !target.is_loopback() {
        return None;
    }
    let block = salt
        .wrapping_mul(251)
        .wrapping_add(index / DEVICES_PER_ADDRESS);
    let [_, a, b, _] = block.to_be_bytes();
    let [.., last] = (index / DEVICES_PER_ADDRESS).to_be_bytes();
    Some(IpAddr::V4(Ipv4Addr::new(
        127,
        a % 250 + 1,
        b,
        last % 250 + 2,
    )))
}

/// Some 28,000 ephemeral ports an address, kept well below that.
const DEVICES_PER_ADDRESS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_are_spread_on_loopback_only() {
        let target = "127.0.0.1:8883".parse().unwrap();
        let used: HashSet<_> = (0..50_000)
            .map(|i| source_address(target, i, 77).unwrap())
            .collect();
        assert_eq!(used.len(), 5);
        assert!(used.iter().all(IpAddr::is_loopback));
        assert_eq!(source_address("192.0.2.1:1".parse().unwrap(), 0, 1), None);
        assert_eq!(source_address("[::1]:1".parse().unwrap(), 0, 1), None);
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        let any: SocketAddr = "0.0.0.0:8883".parse().unwrap();
        assert_eq!(reachable(any).to_string(), "127.0.0.1:8883");
        let one: SocketAddr = "192.0.2.1:8883".parse().unwrap();
        assert_eq!(reachable(one), one);
    }

    #[test]
    fn a_missing_data_dir_says_what_to_do() {
        let error = read_ports(Path::new("/nonexistent"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/ports.json") && error.contains("--data-dir"),
            "{error}"
        );
    }
}
