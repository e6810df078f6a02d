//! Messages of 16 KiB at QoS 1, beside brokers: one topic to a thousand listeners, a topic for each
//! device, and listeners of which some take nothing.
//!
//! In Headgate one topic is a device's, and its listeners are sessions of an application that is
//! bound to it; a topic for each device is an application that sends to every device.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{certificate, progress};
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::Dial;
use crate::fleet::mqtt::{self, Fleet, Login, Publishing, TOPIC};
use crate::peer::headgate::Headgate;
use crate::peer::headgate::stock::Stock;
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
    Ok(vec![
        one_topic(args).await?,
        topic_each(args).await?,
        stalled(args).await?,
    ])
}

/// What a run cost.
struct Cost {
    /// CPU seconds of the server for each GB that listeners received.
    cpu_secs_per_gb: f64,
    /// From the first message to the last that a reader received.
    taken: Duration,
    /// The most memory that the server had, above that before the first message.
    grown_bytes: u64,
}

async fn one_topic(args: &MeasureArgs) -> Result<Section, BenchError> {
    let clients = args.devices(20, 1_000);
    let has_mosquitto = is_there(&args.mosquitto, "-h");
    let (mut tls, mut mosquittos) = (Vec::new(), Vec::new());
    let (mut plain, mut rumqttds) = (Vec::new(), Vec::new());
    for round in 0..args.pairs() {
        progress(&format!(
            "messages, one topic: {clients} listeners, round {}",
            round + 1
        ));
        tls.push(fan_out(args, clients, Wire::Tls).await?.cpu_secs_per_gb);
        if has_mosquitto {
            mosquittos.push(mosquitto(args, mqtt::anonymous(clients), &[TOPIC.to_owned()]).await?);
        }
        plain.push(fan_out(args, clients, Wire::Plain).await?.cpu_secs_per_gb);
        rumqttds.push(rumqttd(clients).await?);
    }
    let mut section = Section::new(format!("one topic to {clients} listeners: server CPU"));
    let must = |value| (!args.quick).then_some(value);
    section.figure("headgate, TLS", "CPU-s/GB", &tls);
    section.figure("mosquitto, TLS", "CPU-s/GB", &mosquittos);
    section.bar(
        "headgate / mosquitto, TLS",
        "x",
        &ratios(&tls, &mosquittos),
        must(0.45),
        None,
    );
    section.figure("headgate, plain TCP", "CPU-s/GB", &plain);
    section.figure("rumqttd 0.20, plain TCP", "CPU-s/GB", &rumqttds);
    section.bar(
        "headgate / rumqttd, plain TCP",
        "x",
        &ratios(&plain, &rumqttds),
        must(0.75),
        None,
    );
    section.note("64 messages of 16 KiB, QoS 1, every one acknowledged; connecting is not counted");
    section.note("rumqttd's TLS rests on a library with advisories: compared without");
    if !has_mosquitto {
        section.note("mosquitto is not installed (--mosquitto)");
    }
    Ok(section)
}

async fn topic_each(args: &MeasureArgs) -> Result<Section, BenchError> {
    let clients = args.devices(20, 1_000);
    let has_mosquitto = is_there(&args.mosquitto, "-h");
    let topics: Vec<String> = (0..clients)
        .map(|number| format!("bench/n{number}/bench"))
        .collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..args.pairs() {
        progress(&format!(
            "messages, a topic each: {clients} devices, round {}",
            round + 1
        ));
        ours.push(to_devices(args, clients).await?.cpu_secs_per_gb);
        if has_mosquitto {
            let login = |topic: &String| Login::anonymous(topic.replace('/', "-"), topic);
            theirs.push(mosquitto(args, topics.iter().map(login).collect(), &topics).await?);
        }
    }
    let mut section = Section::new(format!("a topic for each of {clients} devices: server CPU"));
    let must = (!args.quick).then_some(0.70);
    section.figure("headgate, application to devices, TLS", "CPU-s/GB", &ours);
    section.figure("mosquitto, TLS", "CPU-s/GB", &theirs);
    section.bar(
        "headgate / mosquitto",
        "x",
        &ratios(&ours, &theirs),
        must,
        None,
    );
    section.note("64 messages of 16 KiB to each, QoS 1, published by one client over TLS");
    if !has_mosquitto {
        section.note("mosquitto is not installed (--mosquitto)");
    }
    Ok(section)
}

async fn stalled(args: &MeasureArgs) -> Result<Section, BenchError> {
    let (clients, stalled) = if args.quick { (20, 2) } else { (200, 20) };
    let (mut with, mut without, mut grown) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..args.pairs() {
        progress(&format!(
            "messages, {stalled} of {clients} stalled, pair {}",
            pair + 1
        ));
        without.push(run_stalled(args, clients, 0).await?.taken.as_secs_f64());
        let cost = run_stalled(args, clients, stalled).await?;
        with.push(cost.taken.as_secs_f64());
        grown.push(as_f64(cost.grown_bytes) / as_f64(1 << 20));
    }
    let title = format!("one topic to {clients} listeners, {stalled} of which take nothing");
    let mut section = Section::new(title);
    let must = (!args.quick).then_some(1.15);
    section.figure("time of the others", "s", &with);
    section.figure("time when all take", "s", &without);
    section.bar("with / without", "x", &ratios(&with, &without), must, None);
    section.figure("memory that it took, at its peak", "MiB", &grown);
    section
        .note("512 messages of 16 KiB, QoS 1, TLS; `applications.inbox_bytes` bounds what waits");
    Ok(section)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plain,
    Tls,
}

/// A device to sessions of an application.
async fn fan_out(args: &MeasureArgs, clients: u32, wire: Wire) -> Result<Cost, BenchError> {
    application(args, clients, 0, wire, MESSAGES).await
}

async fn run_stalled(args: &MeasureArgs, clients: u32, stalled: u32) -> Result<Cost, BenchError> {
    application(args, clients, stalled, Wire::Tls, STALLED_MESSAGES).await
}

async fn application(
    args: &MeasureArgs,
    clients: u32,
    stalled: u32,
    wire: Wire,
    messages: usize,
) -> Result<Cost, BenchError> {
    let headgate = Headgate::start(args).await?;
    let stock = Stock::register(&headgate, 1, None).await?;
    let application = stock.bind(&headgate).await?;
    let dial = match wire {
        Wire::Plain => Dial::plain(headgate.plain_address()?),
        Wire::Tls => headgate.tls_dial()?,
    };
    let topics = stock.topics();
    let filter = topics.first().map_or(TOPIC, String::as_str);
    let login = |number| Login {
        is_stalled: number < stalled,
        ..application.login(number, filter)
    };
    let logins = (0..clients).map(login).collect();
    let device = stock.logins().into_iter().next();
    let device = device.unwrap_or_else(|| Login::anonymous("", ""));
    let publishing = Publishing {
        login: &device,
        topics: &topics,
        messages,
        size_bytes: MESSAGE_BYTES,
    };
    let cost = cost(headgate.server(), &dial, logins, &publishing).await;
    headgate.stop().await;
    cost
}

/// An application to each of its devices.
async fn to_devices(args: &MeasureArgs, clients: u32) -> Result<Cost, BenchError> {
    let headgate = Headgate::start(args).await?;
    let stock = Stock::register(&headgate, clients, None).await?;
    let application = stock.bind(&headgate).await?;
    let dial = headgate.tls_dial()?;
    let publishing = Publishing {
        login: &application.login(0, ""),
        topics: &stock.topics(),
        messages: MESSAGES,
        size_bytes: MESSAGE_BYTES,
    };
    let cost = cost(headgate.server(), &dial, stock.logins(), &publishing).await;
    headgate.stop().await;
    cost
}

async fn mosquitto(
    args: &MeasureArgs,
    logins: Vec<Login>,
    topics: &[String],
) -> Result<f64, BenchError> {
    let directory = TempDir::new().map_err(BenchError::Runtime)?;
    let tls = certificate(args, directory.path()).await?;
    let peer = Mosquitto::start(args, Some(&tls), None).await?;
    let dial = Dial::tls(peer.address, &tls.ca).map_err(|error| peer.server.client_error(error))?;
    let cost = broker(&peer.server, &dial, logins, topics).await;
    peer.server.stop().await;
    cost
}

async fn rumqttd(clients: u32) -> Result<f64, BenchError> {
    let peer = Rumqttd::start().await?;
    let dial = Dial::plain(peer.address);
    let cost = broker(
        &peer.server,
        &dial,
        mqtt::anonymous(clients),
        &[TOPIC.to_owned()],
    )
    .await;
    peer.server.stop().await;
    cost
}

async fn broker(
    server: &Server,
    dial: &Dial,
    logins: Vec<Login>,
    topics: &[String],
) -> Result<f64, BenchError> {
    let publishing = Publishing {
        login: &Login::anonymous("publisher", ""),
        topics,
        messages: MESSAGES,
        size_bytes: MESSAGE_BYTES,
    };
    Ok(cost(server, dial, logins, &publishing)
        .await?
        .cpu_secs_per_gb)
}

async fn cost(
    server: &Server,
    dial: &Dial,
    logins: Vec<Login>,
    publishing: &Publishing<'_>,
) -> Result<Cost, BenchError> {
    let client = |error| server.client_error(error);
    let readers = logins.iter().filter(|login| !login.is_stalled).count();
    let mut fleet = Fleet::connect(dial, logins).await.map_err(client)?;
    sleep(SETTLE).await;
    let before = server.sample()?;
    let begun = Instant::now();
    fleet.take(publishing).await.map_err(client)?;
    let taken = begun.elapsed();
    let after = server.sample()?;
    let grown_bytes = server.peak_rss_bytes()?.saturating_sub(before.rss_bytes);
    fleet.leave().await;
    let received = readers * publishing.messages * publishing.size_bytes;
    Ok(Cost {
        cpu_secs_per_gb: (after.cpu_secs - before.cpu_secs) / (as_f64(received as u64) / 1e9),
        taken,
        grown_bytes,
    })
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

/// 1 MiB to each listener.
const MESSAGES: usize = 64;
/// 8 MiB to each.
const STALLED_MESSAGES: usize = 512;
const MESSAGE_BYTES: usize = 16_384;
const SETTLE: Duration = Duration::from_millis(300);
