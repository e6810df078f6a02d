//! Server CPU of a full handshake of TLS 1.3 with login and SUBSCRIBE, beside mosquitto: by secret, and
//! with a certificate of the client.
//!
//! Headgate looks every device up and checks its secret or fingerprint; mosquitto takes anyone, or
//! anyone whose certificate its CA signed.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::{certificate, progress};
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::Dial;
use crate::fleet::identity::Authority;
use crate::fleet::mqtt::{Fleet, Login};
use crate::peer::headgate::Headgate;
use crate::peer::headgate::stock::Stock;
use crate::peer::is_there;
use crate::peer::mosquitto::Mosquitto;
use crate::process::Server;
use crate::report::Section;

/// Measures both kinds of clients, in turns with mosquitto.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let directory = TempDir::new().map_err(BenchError::Runtime)?;
    let authority = Authority::make(directory.path()).map_err(BenchError::Clients)?;
    let must = |value| (!args.quick).then_some(value);
    let secret = section(args, None, must(0.45), must(0.36)).await?;
    let certificate = section(args, Some(&authority), must(0.65), must(0.55)).await?;
    Ok(vec![secret, certificate])
}

async fn section(
    args: &MeasureArgs,
    authority: Option<&Authority>,
    must: Option<f64>,
    aim: Option<f64>,
) -> Result<Section, BenchError> {
    let kind = match authority {
        None => "by secret",
        Some(_) => "with a P-256 certificate of the client",
    };
    let clients = args.devices(50, 4_000);
    let has_mosquitto = is_there(&args.mosquitto, "-h");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..args.pairs() {
        progress(&format!(
            "handshake {kind}: {clients} clients, pair {}",
            pair + 1
        ));
        // Neither side is always the first to find the machine warm.
        if pair % 2 == 1 && has_mosquitto {
            theirs.push(mosquitto(args, clients, authority).await?);
        }
        ours.push(headgate(args, clients, authority).await?);
        if pair % 2 == 0 && has_mosquitto {
            theirs.push(mosquitto(args, clients, authority).await?);
        }
    }
    let ratios: Vec<f64> = ours
        .iter()
        .zip(&theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect();
    let title = format!("handshake and login {kind}, {clients} clients: server CPU");
    let mut section = Section::new(title);
    section.figure("headgate", "CPU-s/1,000", &ours);
    section.figure("mosquitto", "CPU-s/1,000", &theirs);
    section.bar(
        "headgate / mosquitto, pair by pair",
        "x",
        &ratios,
        must,
        aim,
    );
    section.note("TLS 1.3, X25519, AES-128-GCM, P-256; CONNECT and SUBSCRIBE; nothing resumed");
    if !has_mosquitto {
        section.note("mosquitto is not installed: nothing to compare with (--mosquitto)");
    }
    Ok(section)
}

async fn headgate(
    args: &MeasureArgs,
    clients: u32,
    authority: Option<&Authority>,
) -> Result<f64, BenchError> {
    let headgate = Headgate::start(args).await?;
    let stock = Stock::register(&headgate, clients, authority).await?;
    let dial = headgate.tls_dial()?;
    let cost = cost(headgate.server(), &dial, stock.logins()).await;
    headgate.stop().await;
    cost
}

async fn mosquitto(
    args: &MeasureArgs,
    clients: u32,
    authority: Option<&Authority>,
) -> Result<f64, BenchError> {
    let directory = TempDir::new().map_err(BenchError::Runtime)?;
    let tls = certificate(args, directory.path()).await?;
    let file = authority.map(|authority| authority.file.as_path());
    let peer = Mosquitto::start(args, Some(&tls), file).await?;
    let client = |error| peer.server.client_error(error);
    let dial = Dial::tls(peer.address, &tls.ca).map_err(client)?;
    let logins = (0..clients).map(|number| {
        let name = format!("bench_n{number}");
        let identity = authority
            .map(|authority| authority.sign(&name))
            .transpose()?;
        Ok(Login {
            // Taken, and not looked at: what it would cost to check is not counted against Headgate.
            secret: authority
                .is_none()
                .then(|| (name.clone(), "5eed".repeat(8))),
            identity: identity.map(Into::into),
            ..Login::anonymous(name, format!("bench/n{number}/bench"))
        })
    });
    let logins = logins.collect::<Result<Vec<_>, _>>().map_err(client)?;
    let cost = cost(&peer.server, &dial, logins).await;
    peer.server.stop().await;
    cost
}

/// CPU seconds of `server` for each thousand clients that connected.
async fn cost(server: &Server, dial: &Dial, logins: Vec<Login>) -> Result<f64, BenchError> {
    let thousands = f64::from(u32::try_from(logins.len()).unwrap_or(u32::MAX)) / 1e3;
    sleep(SETTLE).await;
    let before = server.sample()?;
    let fleet = Fleet::connect(dial, logins).await;
    let fleet = fleet.map_err(|error| server.client_error(error))?;
    sleep(SETTLE).await;
    let after = server.sample()?;
    fleet.leave().await;
    Ok((after.cpu_secs - before.cpu_secs) / thousands)
}

const SETTLE: Duration = Duration::from_millis(500);
