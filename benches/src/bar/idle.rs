//! Memory of a server for each connection at rest: connected, logged in, subscribed, nothing said.
//!
//! rumqttd has no TLS here, so that it is set beside Headgate's plain listener.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::{Dial, mqtt};
use crate::peer::headgate::{Headgate, spoken};
use crate::peer::is_there;
use crate::peer::mosquitto::Mosquitto;
use crate::peer::rumqttd::Rumqttd;
use crate::process::Server;
use crate::report::{Section, as_f64};

/// Measures all of them, one after the other.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let devices = args.devices(200, 15_000);
    let mut section = Section::new(format!("memory for each of {devices} connections at rest"));
    let must = (!args.quick).then_some(MUST_BYTES);
    let aim = (!args.quick).then_some(AIM_BYTES);
    let ours = headgate(args, devices, Wire::Tls, &mut section).await?;
    section.bar("headgate, TLS", "B", &[ours], must, aim);
    if is_there(&args.mosquitto, "-h") {
        let theirs = mosquitto(args, devices).await;
        if let Some(theirs) = measured(args, theirs, &mut section)? {
            section.figure("mosquitto, TLS", "B", &[theirs]);
            section.figure("headgate / mosquitto, TLS", "x", &[ours / theirs]);
        }
    } else {
        section.note("mosquitto is not installed: nothing to compare TLS with (--mosquitto)");
    }
    let ours = headgate(args, devices, Wire::Plain, &mut section).await?;
    section.figure("headgate, plain TCP", "B", &[ours]);
    let theirs = rumqttd(args, devices).await;
    if let Some(theirs) = measured(args, theirs, &mut section)? {
        section.figure("rumqttd 0.20, plain TCP", "B", &[theirs]);
        section.figure("headgate / rumqttd, plain TCP", "x", &[ours / theirs]);
    }
    section.note("growth of resident memory over that of the server without connections");
    Ok(vec![section])
}

/// The figure of a peer; a peer that could not take so many connections is a note, but for the
/// smoke run, which is to show that everything works.
fn measured(
    args: &MeasureArgs,
    figure: Result<f64, BenchError>,
    section: &mut Section,
) -> Result<Option<f64>, BenchError> {
    match figure {
        Err(error @ BenchError::Client { .. }) if !args.quick => {
            section.note(format!("not measured: {error}"));
            Ok(None)
        }
        figure => figure.map(Some),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plain,
    Tls,
}

async fn headgate(
    args: &MeasureArgs,
    devices: u32,
    wire: Wire,
    section: &mut Section,
) -> Result<f64, BenchError> {
    let (devices, hold) = (devices.to_string(), format!("{}s", hold(args).as_secs()));
    let mut arguments = vec!["connect", "--devices", &devices, "--hold", &hold];
    if wire == Wire::Plain {
        arguments.push("--plain");
    }
    progress(&format!("idle: {}", spoken(&arguments)));
    let headgate = Headgate::start(args).await?;
    let report = headgate.swarm(&arguments, RUN_TIMEOUT).await?;
    headgate.stop().await;
    section.note(format!("headgate: `{}`", spoken(&arguments)));
    Ok(as_f64(report.server()?.rss_per_device_bytes))
}

async fn mosquitto(args: &MeasureArgs, devices: u32) -> Result<f64, BenchError> {
    progress(&format!("idle: mosquitto, {devices} connections"));
    let directory = TempDir::new().map_err(BenchError::Runtime)?;
    let tls = super::certificate(args, directory.path()).await?;
    let peer = Mosquitto::start(args, Some(&tls), None).await?;
    let dial = Dial::tls(peer.address, &tls.ca).map_err(|error| peer.server.client_error(error))?;
    let grown = grown_by(&peer.server, &dial, devices, hold(args)).await;
    peer.server.stop().await;
    grown
}

async fn rumqttd(args: &MeasureArgs, devices: u32) -> Result<f64, BenchError> {
    progress(&format!("idle: rumqttd, {devices} connections"));
    let peer = Rumqttd::start().await?;
    let dial = Dial::plain(peer.address);
    let grown = grown_by(&peer.server, &dial, devices, hold(args)).await;
    peer.server.stop().await;
    grown
}

/// Bytes by which `server` grows for each connection.
async fn grown_by(
    server: &Server,
    dial: &Dial,
    devices: u32,
    hold: Duration,
) -> Result<f64, BenchError> {
    let before = server.sample()?;
    let fleet = mqtt::Fleet::connect(dial, mqtt::anonymous(devices))
        .await
        .map_err(|error| server.client_error(error))?;
    sleep(hold).await;
    let after = server.sample()?;
    fleet.leave().await;
    let grown = after.rss_bytes.saturating_sub(before.rss_bytes);
    Ok(as_f64(grown) / f64::from(devices))
}

/// How long connections rest before memory is read: the buffers of the rush are given back first.
const fn hold(args: &MeasureArgs) -> Duration {
    Duration::from_secs(if args.quick { 1 } else { 10 })
}

const RUN_TIMEOUT: Duration = Duration::from_mins(10);
const MUST_BYTES: f64 = 8192.0;
const AIM_BYTES: f64 = 5632.0;
