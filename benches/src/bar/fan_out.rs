//! Server CPU per GB over plain TCP: Headgate delivering its file, beside brokers that fan out one
//! topic to as many subscribers.
//!
//! A reference, not a bar: a broker also takes the message in, once for all; Headgate also reads a
//! file, keeps a cursor for each device and records what each reported.

use std::time::Duration;

use tokio::time::sleep;

use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::Dial;
use crate::fleet::mqtt::{self, Fleet, Login, Publishing, TOPIC};
use crate::peer::headgate::{Headgate, spoken};
use crate::peer::is_there;
use crate::peer::mosquitto::Mosquitto;
use crate::peer::rumqttd::Rumqttd;
use crate::process::Server;
use crate::report::{Section, as_f64};

/// Measures all of them, in turns.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let devices = args.devices(20, 1000);
    let has_mosquitto = is_there(&args.mosquitto, "-h");
    let (mut headgates, mut rumqttds, mut mosquittos) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.pairs() {
        progress(&format!("fan-out: {devices} devices, round {}", round + 1));
        headgates.push(headgate(args, devices).await?);
        rumqttds.push(rumqttd(devices).await?);
        if has_mosquitto {
            mosquittos.push(mosquitto(args, devices).await?);
        }
    }
    let mut section = Section::new(format!("plain TCP, {devices} x 1 MiB: server CPU"));
    section.figure("headgate, one file to each", "CPU-s/GB", &headgates);
    section.figure("rumqttd 0.20, one topic to all", "CPU-s/GB", &rumqttds);
    section.figure("mosquitto, one topic to all", "CPU-s/GB", &mosquittos);
    for (name, peers) in [("rumqttd", &rumqttds), ("mosquitto", &mosquittos)] {
        let ratios: Vec<f64> = headgates
            .iter()
            .zip(peers)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        section.figure(format!("headgate / {name}, round by round"), "x", &ratios);
    }
    let devices = devices.to_string();
    section.note(format!("headgate: `{}`", spoken(&arguments(&devices))));
    section.note("brokers: 64 messages of 16 KiB, QoS 1, every one acknowledged");
    if !has_mosquitto {
        section.note("mosquitto is not installed (--mosquitto)");
    }
    Ok(vec![section])
}

async fn headgate(args: &MeasureArgs, devices: u32) -> Result<f64, BenchError> {
    let headgate = Headgate::start(args).await?;
    let devices = devices.to_string();
    let report = headgate.swarm(&arguments(&devices), RUN_TIMEOUT).await?;
    headgate.stop().await;
    report.cpu_seconds_per_gb()
}

async fn rumqttd(devices: u32) -> Result<f64, BenchError> {
    let peer = Rumqttd::start().await?;
    let dial = Dial::plain(peer.address);
    let cost = cost(&peer.server, &dial, devices).await;
    peer.server.stop().await;
    cost
}

async fn mosquitto(args: &MeasureArgs, devices: u32) -> Result<f64, BenchError> {
    let peer = Mosquitto::start(args, None, None).await?;
    let dial = Dial::plain(peer.address);
    let cost = cost(&peer.server, &dial, devices).await;
    peer.server.stop().await;
    cost
}

/// CPU seconds of `server` for each GB that subscribers received; connecting is not counted.
async fn cost(server: &Server, dial: &Dial, devices: u32) -> Result<f64, BenchError> {
    let client = |error| server.client_error(error);
    let fleet = Fleet::connect(dial, mqtt::anonymous(devices)).await;
    let mut fleet = fleet.map_err(client)?;
    sleep(SETTLE).await;
    let before = server.sample()?;
    let publishing = Publishing {
        login: &Login::anonymous("publisher", ""),
        topics: &[TOPIC.to_owned()],
        messages: MESSAGES,
        size_bytes: MESSAGE_BYTES,
    };
    fleet.take(&publishing).await.map_err(client)?;
    let after = server.sample()?;
    fleet.leave().await;
    let sent = as_f64(u64::from(devices) * (MESSAGES * MESSAGE_BYTES) as u64);
    Ok((after.cpu_secs - before.cpu_secs) / (sent / 1e9))
}

fn arguments(devices: &str) -> [&str; 8] {
    let [verify, kind] = ["--verify", "crc32"];
    [
        "deliver",
        "--plain",
        "--devices",
        devices,
        "--size",
        "1MiB",
        verify,
        kind,
    ]
}

/// 1 MiB in all, as Headgate delivers.
const MESSAGES: usize = 64;
const MESSAGE_BYTES: usize = 16_384;
const SETTLE: Duration = Duration::from_millis(300);
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
