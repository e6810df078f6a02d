//! Headgate itself, and the swarm that drives it.

pub(crate) mod stock;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::{ClientError, Dial};
use crate::http::Api;
use crate::process::{Sample, Server, free_port, tail};

/// A running gateway with a registry of its own.
pub(crate) struct Headgate {
    server: Server,
    data_dir: PathBuf,
    swarm: PathBuf,
    /// Dropped after the server has ended.
    directory: TempDir,
}

/// What is read of the addresses that it listens on.
#[derive(Debug, Deserialize)]
struct Ports {
    http: SocketAddr,
    mqtt: SocketAddr,
    mqtts: SocketAddr,
    coap: Option<SocketAddr>,
    coaps: Option<SocketAddr>,
}

/// What is read of the swarm's report.
#[derive(Debug, Deserialize)]
pub(crate) struct SwarmReport {
    /// How devices ended.
    pub(crate) devices: DeviceFigures,
    /// The gateway's process.
    pub(crate) server: Option<ServerFigures>,
    /// The delivery, of `swarm deliver`.
    pub(crate) delivery: Option<DeliveryFigures>,
    /// Datagrams, by CoAP.
    pub(crate) datagrams: Option<DatagramFigures>,
}

/// How devices ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeviceFigures {
    /// Right to the end.
    pub(crate) ok: u64,
}

/// What became of the datagrams of devices.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DatagramFigures {
    /// Lost by the swarm's choice, either way.
    pub(crate) lost: u64,
    /// Messages that devices sent again.
    pub(crate) retransmissions: u64,
}

/// The gateway's process as the swarm saw it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerFigures {
    /// CPU seconds for each 10^9 bytes delivered.
    pub(crate) cpu_seconds_per_gb: Option<f64>,
    /// Growth of resident memory for each connected device.
    pub(crate) rss_per_device_bytes: u64,
    /// With all devices connected and nothing else going on.
    pub(crate) rss_connected_bytes: u64,
    /// Peak resident memory of the run.
    pub(crate) rss_peak_bytes: u64,
}

/// The delivery as the swarm saw it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeliveryFigures {
    /// Bytes that devices took for the first time.
    pub(crate) bytes: u64,
    /// Bytes that came again.
    pub(crate) duplicate_bytes: u64,
    /// Creation of the task to the last device's end.
    pub(crate) seconds: f64,
    /// 10^6 bytes a second over all devices.
    pub(crate) mb_per_second: f64,
    /// Time over size / (window / round trip), with `--rtt`.
    pub(crate) link_bound_ratio: Option<f64>,
}

impl Headgate {
    /// Starts a gateway in a new data directory, with a plain listener beside the one with TLS.
    ///
    /// # Errors
    /// [`BenchError`]: the programs are not there, or it does not become ready.
    pub(crate) async fn start(args: &MeasureArgs) -> Result<Self, BenchError> {
        Self::start_with(args, CONFIG).await
    }

    /// The same with further sections of settings.
    ///
    /// # Errors
    /// As [`Headgate::start`].
    pub(crate) async fn start_with_more(
        args: &MeasureArgs,
        more: &str,
    ) -> Result<Self, BenchError> {
        Self::start_with(args, &format!("{CONFIG}{more}")).await
    }

    /// The same at addresses that it will have again when it is started anew.
    ///
    /// # Errors
    /// As [`Headgate::start`].
    pub(crate) async fn start_to_be_killed(args: &MeasureArgs) -> Result<Self, BenchError> {
        let mut config = String::new();
        for part in CONFIG.split_inclusive("127.0.0.1:0") {
            match part.strip_suffix("127.0.0.1:0") {
                Some(before) => {
                    config += before;
                    config += &free_port()?.to_string();
                }
                None => config += part,
            }
        }
        Self::start_with(args, &config).await
    }

    async fn start_with(args: &MeasureArgs, settings: &str) -> Result<Self, BenchError> {
        let swarm = args.swarm()?;
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let config = directory.path().join("headgate.toml");
        fs::write(&config, settings).map_err(BenchError::file(&config))?;
        let data_dir = directory.path().join("data");
        let server = Self::serve(args, directory.path()).await?;
        Ok(Self {
            server,
            data_dir,
            swarm,
            directory,
        })
    }

    async fn serve(args: &MeasureArgs, directory: &Path) -> Result<Server, BenchError> {
        let data_dir = directory.join("data");
        let mut command = Command::new(args.headgate()?);
        command.arg("serve");
        command.arg("--config").arg(directory.join("headgate.toml"));
        command.arg("--data-dir").arg(&data_dir);
        without_settings(&mut command);
        let ports = data_dir.join("ports.json");
        // One that was killed has left its own.
        let _ = fs::remove_file(&ports);
        let mut server = Server::start("headgate", command, directory.join("log"))?;
        server.until(|| ports.exists().then_some(())).await?;
        Ok(server)
    }

    /// Kills it as a loss of power would, and starts it on what it left.
    ///
    /// # Errors
    /// As [`Headgate::start`].
    pub(crate) async fn kill_and_restart(&mut self, args: &MeasureArgs) -> Result<(), BenchError> {
        self.server.kill().await;
        self.server = Self::serve(args, self.directory.path()).await?;
        Ok(())
    }

    /// Has `headgate task check` judge the history of a task; gives its words.
    ///
    /// # Errors
    /// [`BenchError::History`] where the history has a fault.
    pub(crate) async fn check_task(
        &self,
        args: &MeasureArgs,
        task: &str,
    ) -> Result<String, BenchError> {
        let mut command = Command::new(args.headgate()?);
        command.args(["task", "check", task]);
        command.arg("--data-dir").arg(&self.data_dir);
        without_settings(&mut command);
        let output = command.output().await.map_err(|source| BenchError::Spawn {
            name: "headgate task check".to_owned(),
            source,
        })?;
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            Ok(told)
        } else {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(BenchError::History(format!("{told}\n{complaint}")))
        }
    }

    /// Runs the swarm against it: `arguments` are those beside target and report.
    ///
    /// # Errors
    /// [`BenchError::Swarm`] when one device is wrong, [`BenchError::TooLate`] after `limit`.
    pub(crate) async fn swarm(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<SwarmReport, BenchError> {
        let command = Command::new(&self.swarm);
        let command = self.watching(self.driven(command, arguments));
        report(command, spoken(arguments), limit).await
    }

    /// The same at the lowest priority, so that devices do not take the gateway's processor.
    ///
    /// # Errors
    /// As [`Headgate::swarm`].
    pub(crate) async fn gentle_swarm(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<SwarmReport, BenchError> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(&self.swarm);
        let command = self.watching(self.driven(command, arguments));
        report(command, spoken(arguments), limit).await
    }

    /// The same for a gateway that does not live as long: its process is not watched.
    pub(crate) fn swarm_apart(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> impl Future<Output = Result<SwarmReport, BenchError>> + use<> {
        let command = self.driven(Command::new(&self.swarm), arguments);
        report(command, spoken(arguments), limit)
    }

    fn driven(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--report", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        without_settings(&mut command);
        command
    }

    fn watching(&self, mut command: Command) -> Command {
        command
            .arg("--server-pid")
            .arg(self.server.pid().to_string());
        command
    }

    /// Its API.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub(crate) fn api(&self) -> Result<Api, BenchError> {
        let token = self.data_dir.join("api.token");
        let text = fs::read_to_string(&token).map_err(BenchError::file(&token))?;
        Ok(Api::new(self.ports()?.http, text.trim().to_owned()))
    }

    /// Its listener without TLS.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub(crate) fn plain_address(&self) -> Result<SocketAddr, BenchError> {
        Ok(self.ports()?.mqtt)
    }

    /// Its listener with TLS.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub(crate) fn tls_address(&self) -> Result<SocketAddr, BenchError> {
        Ok(self.ports()?.mqtts)
    }

    /// Its listener for CoAP, plain or with DTLS.
    ///
    /// # Errors
    /// [`BenchError::File`], and [`BenchError::NoFigure`] where there is none.
    pub(crate) fn coap_address(&self, is_secure: bool) -> Result<SocketAddr, BenchError> {
        let ports = self.ports()?;
        let address = if is_secure { ports.coaps } else { ports.coap };
        address.ok_or(BenchError::NoFigure("listener for CoAP"))
    }

    /// How clients reach its listener with TLS.
    ///
    /// # Errors
    /// [`BenchError::File`] and [`BenchError::Client`].
    pub(crate) fn tls_dial(&self) -> Result<Dial, BenchError> {
        let dial = Dial::tls(self.tls_address()?, &self.tls_files().ca);
        dial.map_err(|source| self.client_error(source))
    }

    /// The process.
    pub(crate) const fn server(&self) -> &Server {
        &self.server
    }

    /// What it has used.
    ///
    /// # Errors
    /// [`BenchError::Sample`].
    pub(crate) fn sample(&self) -> Result<Sample, BenchError> {
        self.server.sample()
    }

    /// The most memory that it ever had, bytes.
    ///
    /// # Errors
    /// [`BenchError::Sample`].
    pub(crate) fn peak_rss_bytes(&self) -> Result<u64, BenchError> {
        self.server.peak_rss_bytes()
    }

    /// A client of it that ended with `source`.
    pub(crate) fn client_error(&self, source: ClientError) -> BenchError {
        self.server.client_error(source)
    }

    fn ports(&self) -> Result<Ports, BenchError> {
        let path = self.data_dir.join("ports.json");
        let text = fs::read_to_string(&path).map_err(BenchError::file(&path))?;
        serde_json::from_str(&text)
            .map_err(std::io::Error::other)
            .map_err(BenchError::file(&path))
    }

    /// Where its certificate is: peers use the same one.
    pub(crate) fn tls_files(&self) -> TlsFiles {
        TlsFiles::of(&self.data_dir)
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

impl SwarmReport {
    /// The gateway's process.
    ///
    /// # Errors
    /// [`BenchError::NoFigure`].
    pub(crate) fn server(&self) -> Result<&ServerFigures, BenchError> {
        self.server.as_ref().ok_or(BenchError::NoFigure("server"))
    }

    /// CPU seconds for each GB.
    ///
    /// # Errors
    /// [`BenchError::NoFigure`].
    pub(crate) fn cpu_seconds_per_gb(&self) -> Result<f64, BenchError> {
        self.server()?
            .cpu_seconds_per_gb
            .ok_or(BenchError::NoFigure("server.cpu_seconds_per_gb"))
    }

    /// The delivery.
    ///
    /// # Errors
    /// [`BenchError::NoFigure`].
    pub(crate) fn delivery(&self) -> Result<&DeliveryFigures, BenchError> {
        self.delivery
            .as_ref()
            .ok_or(BenchError::NoFigure("delivery"))
    }
}

/// Runs the swarm and reads its report.
async fn report(
    mut command: Command,
    spoken: String,
    limit: Duration,
) -> Result<SwarmReport, BenchError> {
    let output = timeout(limit, command.output())
        .await
        .map_err(|_| BenchError::TooLate {
            what: spoken.clone(),
            limit,
        })?
        .map_err(|source| BenchError::Spawn {
            name: "swarm".to_owned(),
            source,
        })?;
    if !output.status.success() {
        return Err(BenchError::Swarm {
            command: spoken,
            status: output.status,
            output: tail(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(BenchError::SwarmReport)
}

/// Files of an ECDSA P-256 certificate for 127.0.0.1.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The CA.
    pub(crate) ca: PathBuf,
    /// The server's chain.
    pub(crate) certificate: PathBuf,
    /// The server's key.
    pub(crate) key: PathBuf,
}

impl TlsFiles {
    fn of(data_dir: &Path) -> Self {
        let directory = data_dir.join("tls");
        Self {
            ca: directory.join("ca.pem"),
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        }
    }

    /// Copies them to `directory`, for a peer that outlives the gateway which made them.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub(crate) fn copy_to(&self, directory: &Path) -> Result<Self, BenchError> {
        let copies = Self {
            ca: directory.join("ca.pem"),
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        for (from, to) in [
            (&self.ca, &copies.ca),
            (&self.certificate, &copies.certificate),
            (&self.key, &copies.key),
        ] {
            fs::copy(from, to).map_err(BenchError::file(from))?;
        }
        Ok(copies)
    }
}

/// The command as a person would type it.
pub(crate) fn spoken(arguments: &[&str]) -> String {
    format!("swarm {}", arguments.join(" "))
}

/// Settings of the caller's own gateway must not reach this one.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADGATE") {
            command.env_remove(name);
        }
    }
}

/// Defaults but for the addresses, so that several runs fit on one machine.
const CONFIG: &str = r#"[mqtt]
listen = "127.0.0.1:0"
plain_listen = "127.0.0.1:0"
[http]
listen = "127.0.0.1:0"
[files]
listen = "127.0.0.1:0"
[metrics]
listen = "127.0.0.1:0"
[shutdown]
grace = "2s"
"#;
