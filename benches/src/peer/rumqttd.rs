//! rumqttd, embedded: a child process of this program runs it, so that CPU and memory are its own.
//!
//! Built without its default features: no TLS, no console, no WebSocket.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;
use tokio::process::Command;
use tracing_subscriber::filter::LevelFilter;

use crate::error::BenchError;
use crate::process::{Server, free_port};

/// A running rumqttd.
pub(crate) struct Rumqttd {
    /// The process.
    pub(crate) server: Server,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Rumqttd {
    /// Starts it as a child process.
    ///
    /// # Errors
    /// [`BenchError`]: it does not start.
    pub(crate) async fn start() -> Result<Self, BenchError> {
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let address = free_port()?;
        let own = std::env::current_exe().map_err(BenchError::Runtime)?;
        let mut command = Command::new(own);
        command.arg("__rumqttd").arg(address.port().to_string());
        let mut server = Server::start("rumqttd", command, directory.path().join("log"))?;
        server.until_listening(address).await?;
        Ok(Self {
            server,
            address,
            _directory: directory,
        })
    }
}

/// Runs the broker in this process until it is killed, at the latest when the parent ends.
///
/// # Errors
/// [`BenchError::Rumqttd`] when it does not start.
pub(crate) fn serve(port: u16) -> Result<(), BenchError> {
    // Where it is refused, the parent still kills this process by its pid.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // What goes wrong is in the log that the parent shows; nothing else is written.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(LevelFilter::ERROR)
        .init();
    let mut broker = Broker::new(config(port));
    broker
        .start()
        .map_err(|error| BenchError::Rumqttd(error.to_string()))
}

/// The figures of the `rumqttd.toml` that it is shipped with, but for the number of connections.
fn config(port: u16) -> Config {
    let server = ServerSettings {
        name: "v4-1".to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: 20_000,
            max_outgoing_packet_count: 200,
            max_segment_size: 104_857_600,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("1".to_owned(), server)])),
        ..Config::default()
    }
}
