//! `openssl s_server` for DTLS 1.2 with a pre-shared key, which serves one client after the other.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::sleep;

use crate::error::BenchError;
use crate::process::{Server, free_port};

/// A running `s_server`.
pub(crate) struct Openssl {
    /// The shell that holds its standard input open, and it.
    pub(crate) server: Server,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Openssl {
    /// Starts it with a hexadecimal key for any identity.
    ///
    /// # Errors
    /// [`BenchError`]: it does not start.
    pub(crate) async fn start(key: &str) -> Result<Self, BenchError> {
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let address = free_port()?;
        // It ends with its standard input.
        let line = format!(
            "tail -f /dev/null | openssl s_server -dtls1_2 -accept {address} -psk {key} -nocert -quiet \
             -cipher PSK-AES128-CCM8:@SECLEVEL=0 & wait"
        );
        let mut command = Command::new("bash");
        command.args(["-c", &line]);
        let log = directory.path().join("log");
        let mut server = Server::start("openssl s_server", command, log)?;
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
