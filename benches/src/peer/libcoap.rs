//! libcoap's `coap-server`, plain or over DTLS with a pre-shared key.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::sleep;

use crate::error::BenchError;
use crate::process::{Server, free_port};

/// A running coap-server.
pub(crate) struct CoapServer {
    /// The process.
    pub(crate) server: Server,
    /// Where it listens: for DTLS one above the plain port.
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl CoapServer {
    /// Starts it; with `key`, whose octets are those of this text, for DTLS.
    ///
    /// # Errors
    /// [`BenchError`]: it does not start.
    pub(crate) async fn start(program: &Path, key: Option<&str>) -> Result<Self, BenchError> {
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let mut address = free_port()?;
        let mut command = Command::new(program);
        command.args(["-A", "127.0.0.1", "-v", "1", "-p"]);
        command.arg(address.port().to_string());
        if let Some(key) = key {
            command.args(["-k", key, "-h", "bench"]);
            address.set_port(address.port() + 1);
        }
        let log = directory.path().join("log");
        let mut server = Server::start("coap-server", command, log)?;
        // It says nothing when it is ready; one that cannot listen ends at once.
        sleep(START).await;
        server.until(|| Some(())).await?;
        Ok(Self {
            server,
            address,
            _directory: directory,
        })
    }
}

const START: Duration = Duration::from_millis(300);
