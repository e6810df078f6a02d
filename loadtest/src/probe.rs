//! Where CPU time and memory of the server are read: its process, or its metrics.
//!
//! Invariants: reading never fails a run; a reading that could not be had is absent.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proc_stat::ProcSample;

/// A server that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Its process, on this machine.
    Pid(u32),
    /// Its metrics, by plain HTTP.
    Metrics {
        /// Host and port.
        authority: String,
        /// From the first slash on.
        path: String,
    },
}

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reading {
    /// User and system CPU time, seconds.
    pub(crate) cpu_secs: f64,
    /// Resident memory, bytes.
    pub(crate) rss_bytes: u64,
}

impl Probe {
    /// Reads `http://host:port/path`.
    pub(crate) fn parse_url(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .ok_or("write it like http://127.0.0.1:9464/metrics")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
        if authority.is_empty() {
            return Err("no host".to_owned());
        }
        let authority = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self::Metrics {
            authority,
            path: format!("/{path}"),
        })
    }

    /// Looks once.
    pub(crate) async fn read(&self) -> Option<Reading> {
        match self {
            Self::Pid(pid) => ProcSample::read(*pid).map(|sample| Reading {
                cpu_secs: sample.cpu_secs,
                rss_bytes: sample.rss_bytes,
            }),
            Self::Metrics { authority, path } => {
                let body = timeout(TIMEOUT, fetch(authority, path)).await.ok()?.ok()?;
                read_metrics(&body)
            }
        }
    }
}

async fn fetch(authority: &str, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut body = Vec::new();
    socket.take(MAX_BYTES).read_to_end(&mut body).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The two lines that every client library of Prometheus exports.
fn read_metrics(text: &str) -> Option<Reading> {
    let value = |name: &str| -> Option<f64> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.find_map(|rest| rest.strip_prefix(' ')?.trim().parse().ok())
    };
    Some(Reading {
        cpu_secs: value("process_cpu_seconds_total")?,
        rss_bytes: whole(value("process_resident_memory_bytes")?),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates, and memory is no negative number"
)]
const fn whole(bytes: f64) -> u64 {
    bytes as u64
}

const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_metrics_are_read() {
        let metrics = |authority: &str, path: &str| Probe::Metrics {
            authority: authority.to_owned(),
            path: path.to_owned(),
        };
        for (text, probe) in [
            ("http://a:9464/metrics", Some(metrics("a:9464", "/metrics"))),
            ("http://a", Some(metrics("a:80", "/metrics"))),
            ("https://a/metrics", None),
            ("http:///metrics", None),
        ] {
            assert_eq!(Probe::parse_url(text).ok(), probe, "{text}");
        }
    }

    #[test]
    fn metrics_of_any_exporter_are_read() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP process_cpu_seconds_total x\n\
            process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 1.048576e+06\n";
        let reading = read_metrics(text).unwrap();
        assert!((reading.cpu_secs - 12.5).abs() < 1e-9);
        assert_eq!(reading.rss_bytes, 1 << 20);
        assert_eq!(read_metrics("process_cpu_seconds_total 1\n"), None);
    }

    #[tokio::test]
    async fn this_process_can_be_read() {
        assert!(Probe::Pid(std::process::id()).read().await.is_some());
        assert_eq!(
            Probe::parse_url("http://127.0.0.1:1").unwrap().read().await,
            None
        );
    }
}
