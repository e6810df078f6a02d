//! Settings of the HTTP API.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    section::section,
    setting::{Address, Count, FilePath, Optional, Size, Span},
    units::{KIB, MIB, secs},
};

section! {
    /// The HTTP API for operators and applications.
    pub struct HttpConfig in "http" {
        /// Address of the API; TLS is spoken when a certificate is given.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), Address;
        /// PEM file with the certificate chain of the API; needs `key`.
        certificate: Option<PathBuf> = None, Optional(FilePath, "");
        /// PEM file with the private key of `certificate`.
        key: Option<PathBuf> = None, Optional(FilePath, "");
        /// Largest JSON body; uploads of resources are limited by `resources.max_size_bytes` alone.
        max_request_bytes: usize = MIB, Size(16 * KIB..=64 * MIB);
        /// Largest CSV of devices for one task.
        max_csv_bytes: usize = 2 * MIB, Size(16 * KIB..=64 * MIB);
        /// Connections open at one time; at the limit accepting waits. Each costs about 20 KB.
        max_connections: usize = 1000, Count(1..=100_000);
        /// Requests that one operator, token or application may make in a second; more are answered with 429.
        requests_per_sec: u32 = 1000, Count(1..=1_000_000);
        /// Requests that one of them may make at once before `requests_per_sec` holds.
        request_burst: u32 = 2000, Count(1..=1_000_000);
        /// Time for a request's head to arrive, and for the next request on a connection.
        header_timeout: Duration = secs(30), Span(secs(1)..=secs(600));
        /// A body of which no byte arrives for so long is given up.
        body_idle_timeout: Duration = secs(60), Span(secs(1)..=secs(3600));
    }
}
