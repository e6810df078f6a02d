//! nginx sending a whole file over HTTPS: the yardstick for bytes that leave over TLS.

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

/// A running nginx with one file to give away.
pub(crate) struct Nginx {
    /// The master; its workers are counted with it.
    pub(crate) server: Server,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Nginx {
    /// Starts it with `file` as the whole of what it serves, under [`FILE_PATH`].
    ///
    /// # Errors
    /// [`BenchError`]: it does not start.
    pub(crate) async fn start(
        args: &MeasureArgs,
        tls: &TlsFiles,
        file: &Path,
    ) -> Result<Self, BenchError> {
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let address = free_port()?;
        let config = directory.path().join("nginx.conf");
        let text = config_text(directory.path(), address, tls, file);
        fs::write(&config, text).map_err(BenchError::file(&config))?;
        let mut command = Command::new(&args.nginx);
        command.arg("-p").arg(directory.path());
        command.arg("-c").arg(&config);
        let mut server = Server::start("nginx", command, directory.path().join("log"))?;
        server.until_listening(address).await?;
        Ok(Self {
            server,
            address,
            _directory: directory,
        })
    }
}

fn config_text(directory: &Path, address: SocketAddr, tls: &TlsFiles, file: &Path) -> String {
    let directory = directory.display();
    // Workers of a root's nginx are somebody else unless told: they could not read the file.
    let user = if geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    format!(
        "daemon off;
{user}
worker_processes 2;
worker_rlimit_nofile 20000;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 600s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {address} ssl backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_ecdh_curve X25519;
        ssl_session_tickets off;
        ssl_session_cache off;
        location = {FILE_PATH} {{ alias {file}; }}
    }}
}}
",
        certificate = tls.certificate.display(),
        key = tls.key.display(),
        file = file.display(),
    )
}

/// What clients ask for.
pub(crate) const FILE_PATH: &str = "/file";
