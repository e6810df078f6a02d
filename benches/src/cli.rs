//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::BenchError;

/// Measures Headgate against its peers: same work, one run, in turns.
#[derive(Debug, Parser)]
#[command(name = "side-by-side", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The child process that the embedded rumqttd runs in
    #[command(name = "__rumqttd", hide = true)]
    Rumqttd {
        /// Port on 127.0.0.1
        port: u16,
    },
}

/// What is measured, and with which programs.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Measure only these bars
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Bar>,
    /// Small sizes and one pair: shows that everything runs, its figures say nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Pairs of runs that each ratio is the median of; by default 5, with --quick 1
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) pairs: Option<u32>,
    /// Devices of every bar but `delivery`, in place of its own number
    #[arg(short = 'c', long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) devices: Option<u32>,
    /// Write all figures to this file as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// The gateway's program; by default the one beside this program
    #[arg(long)]
    pub(crate) headgate: Option<PathBuf>,
    /// The swarm's program; by default the one beside this program
    #[arg(long)]
    pub(crate) swarm: Option<PathBuf>,
    /// The program of nginx
    #[arg(long, default_value = "nginx")]
    pub(crate) nginx: PathBuf,
    /// The program of libcoap's server without DTLS
    #[arg(long, default_value = "coap-server-notls")]
    pub(crate) coap_server: PathBuf,
    /// The program of libcoap's server with DTLS
    #[arg(long, default_value = "coap-server-openssl")]
    pub(crate) coap_server_dtls: PathBuf,
    /// The program of mosquitto
    #[arg(long, default_value = "mosquitto")]
    pub(crate) mosquitto: PathBuf,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bar {
    /// Server CPU per GB delivered over TLS, against nginx sending the whole file
    Delivery,
    /// Memory per connection at rest, against rumqttd and mosquitto
    Idle,
    /// Server CPU of a handshake with login, against mosquitto
    Handshake,
    /// Server CPU per GB of messages, against mosquitto and rumqttd, and readers that stall
    Messages,
    /// Acknowledgements of messages while a roll-out runs
    Telemetry,
    /// Server CPU per GB over plain TCP, beside brokers that fan out one topic
    FanOut,
    /// Peak memory while devices take a file and as it grows, and time over links with a long round trip
    Growth,
    /// Server CPU and memory of a large batch of devices, and acknowledgements meanwhile
    Registration,
    /// Server CPU per GB with many devices against few, and the time of fast devices beside slow ones
    Scale,
    /// Acknowledgements of a device while a whole fleet connects again
    Storm,
    /// Server CPU of a task with many rows
    Task,
    /// Server CPU of a GET by CoAP, beside libcoap's coap-server
    CoapGet,
    /// The same over DTLS
    CoapGetDtls,
    /// Server CPU of a DTLS handshake with a pre-shared key, beside `openssl s_server`
    CoapHandshake,
    /// Memory and server CPU of a flood of first hellos of DTLS
    CoapHellos,
    /// Memory of DTLS sessions, in use and frozen
    CoapSessions,
    /// A delivery over DTLS where datagrams are lost
    CoapLoss,
    /// A roll-out with slow devices, dropping links and a killed gateway, and the check of its history
    Proof,
}

impl MeasureArgs {
    /// Whether `bar` is to be measured.
    pub(crate) fn wants(&self, bar: Bar) -> bool {
        self.only.is_empty() || self.only.contains(&bar)
    }

    /// How many pairs.
    pub(crate) fn pairs(&self) -> u32 {
        self.pairs.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// `--devices`, else `quick` or `full`.
    pub(crate) fn devices(&self, quick: u32, full: u32) -> u32 {
        self.devices
            .unwrap_or(if self.quick { quick } else { full })
    }

    /// Path of the gateway's program.
    ///
    /// # Errors
    /// [`BenchError::NotBuilt`].
    pub(crate) fn headgate(&self) -> Result<PathBuf, BenchError> {
        own_program("headgate", self.headgate.as_ref())
    }

    /// Path of the swarm's program.
    ///
    /// # Errors
    /// [`BenchError::NotBuilt`].
    pub(crate) fn swarm(&self) -> Result<PathBuf, BenchError> {
        own_program("swarm", self.swarm.as_ref())
    }
}

fn own_program(name: &'static str, given: Option<&PathBuf>) -> Result<PathBuf, BenchError> {
    let path = match given {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .map_err(BenchError::Runtime)?
            .with_file_name(name),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(BenchError::NotBuilt { name, path })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bars_are_chosen_and_quick_is_small() {
        let cli = Cli::try_parse_from(["x", "--only", "idle,fan-out", "--quick"]).unwrap();
        let args = cli.measure;
        assert!(args.wants(Bar::Idle) && args.wants(Bar::FanOut) && !args.wants(Bar::Delivery));
        assert_eq!((args.pairs(), args.devices(10, 1000)), (1, 10));
    }

    #[test]
    fn a_missing_program_is_answered_with_how_to_build_it() {
        let missing = PathBuf::from("/nonexistent/swarm");
        let error = own_program("swarm", Some(&missing))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cargo build --release") && error.contains("--swarm"));
    }
}
