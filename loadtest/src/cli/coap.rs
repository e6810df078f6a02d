//! Options of devices that speak CoAP.

use std::time::Duration;

use clap::{Args, ValueEnum};
use headgate_protocol::coap::Szx;

use super::values::{parse_block, parse_duration, parse_share};
use super::{Command, Mode};

/// What devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proto {
    /// MQTT over TLS, or plain.
    Mqtt,
    /// CoAP over UDP.
    Coap,
    /// CoAP over DTLS with Connection ID.
    Coaps,
}

/// How devices speak CoAP, and what becomes of their datagrams.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --proto coap and coaps")]
pub(crate) struct CoapArgs {
    /// Share of datagrams that are lost, either way, 0 to 1.
    #[arg(long, default_value = "0", value_parser = parse_share)]
    pub(crate) loss: f64,
    /// Share of datagrams that arrive twice, either way, 0 to 1.
    #[arg(long, default_value = "0", value_parser = parse_share)]
    pub(crate) duplicate: f64,
    /// Share of datagrams that later ones overtake, either way, 0 to 1.
    #[arg(long, default_value = "0", value_parser = parse_share)]
    pub(crate) reorder: f64,
    /// Each device has another source port after so many datagrams, as behind a NAT; 0: never.
    #[arg(long, default_value_t = 0)]
    pub(crate) rebind: u32,
    /// Devices sleep for so long each time that they were awake for --awake; 0s: never.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub(crate) sleep: Duration,
    /// How long devices are awake between two times of sleep.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub(crate) awake: Duration,
    /// Bytes a block: 16, 32 and so on to 1024.
    #[arg(long, default_value = "1024", value_parser = parse_block)]
    pub(crate) block: Szx,
    /// A device that was told of nothing looks by itself after this time.
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    pub(crate) poll: Duration,
    /// `ACK_TIMEOUT`: a message that was not answered goes again after this time, and half as much at most.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(crate) ack_timeout: Duration,
}

/// An option that has no meaning by CoAP, or by plain CoAP, and was given all the same.
pub(super) fn misplaced(command: &Command) -> Option<&'static str> {
    let common = command.common();
    match command {
        Command::Connect(args) if args.ask && common.proto == Proto::Mqtt => Some("--ask"),
        _ if common.proto == Proto::Mqtt => None,
        _ if common.plain => Some("--plain"),
        Command::Deliver(args) if args.mode != Mode::Window => Some("--mode"),
        Command::Connect(args) if args.handshake_only && common.proto == Proto::Coap => {
            Some("--handshake-only")
        }
        _ => None,
    }
}
