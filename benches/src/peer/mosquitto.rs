//! mosquitto, plain or with TLS.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::process::Command;

use super::headgate::TlsFiles;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::process::{Server, free_port};

/// A running mosquitto.
pub(crate) struct Mosquitto {
    /// The process.
    pub(crate) server: Server,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Mosquitto {
    /// Starts it; plain without `tls`. With `clients`, a CA, every client must present a certificate of it.
    ///
    /// # Errors
    /// [`BenchError`]: it does not start.
    pub(crate) async fn start(
        args: &MeasureArgs,
        tls: Option<&TlsFiles>,
        clients: Option<&Path>,
    ) -> Result<Self, BenchError> {
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let address = free_port()?;
        let config = directory.path().join("mosquitto.conf");
        let text = config_text(directory.path(), address, tls, clients);
        fs::write(&config, text).map_err(BenchError::file(&config))?;
        let mut command = Command::new(&args.mosquitto);
        command.arg("-c").arg(&config);
        let mut server = Server::start("mosquitto", command, directory.path().join("log"))?;
        server.until_listening(address).await?;
        Ok(Self {
            server,
            address,
            _directory: directory,
        })
    }
}

/// As shipped, but for a queue that loses nothing and the window that every broker here gets.
fn config_text(
    directory: &Path,
    address: SocketAddr,
    tls: Option<&TlsFiles>,
    clients: Option<&Path>,
) -> String {
    let mut text = format!(
        "listener {port} {ip}
allow_anonymous true
persistence false
log_dest stderr
log_type error
max_inflight_messages 100
max_queued_messages 0
set_tcp_nodelay true
pid_file {directory}/pid
",
        port = address.port(),
        ip = address.ip(),
        directory = directory.display(),
    );
    // Else it becomes somebody who cannot read the key.
    if geteuid().is_root() {
        text += "user root\n";
    }
    if let Some(tls) = tls {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "certfile {}
keyfile {}
tls_version tlsv1.3
ciphers_tls1.3 TLS_AES_128_GCM_SHA256
",
            tls.certificate.display(),
            tls.key.display()
        );
    }
    if let Some(authority) = clients {
        let authority = authority.display();
        let _ = write!(text, "cafile {authority}\nrequire_certificate true\n");
    }
    text
}
