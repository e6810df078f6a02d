//! The proof: a roll-out with slow devices, links that drop, and a gateway that is killed in the middle. In the end
//! every device has verified every byte, and the record of each delivery is one that can have happened.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::ClientError;
use crate::http::Api;
use crate::peer::headgate::{Headgate, spoken};
use crate::report::{Section, as_f64};

/// Runs it, and asks `headgate task check` about its history.
///
/// # Errors
/// [`BenchError`]: a device is wrong or missing, the killed gateway does not come back, or the history is one that
/// cannot have happened.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let total = args.devices(60, 15_000);
    let devices = total.to_string();
    let size = if args.quick { "512KiB" } else { "1MiB" };
    let arguments = [
        "deliver",
        "--devices",
        &devices,
        "--size",
        size,
        "--slow-fraction",
        "0.1",
        "--slow-bps",
        "64KiB",
        "--drop-rate",
        "0.05",
        "--attempts",
        "100",
        "--keep",
    ];
    progress(&format!("proof: {}", spoken(&arguments)));
    let mut headgate = Headgate::start_to_be_killed(args).await?;
    let api = headgate.api()?;
    let started = Instant::now();
    let mut running = std::pin::pin!(headgate.swarm_apart(&arguments, RUN_TIMEOUT));
    let delivered = tokio::select! {
        biased;
        ended = &mut running => {
            ended?;
            return Err(BenchError::NoFigure("a moment to kill the gateway in: all had been delivered"));
        }
        delivered = until_delivered(&api, total / 3) => delivered.map_err(|source| headgate.client_error(source))?,
    };
    progress("proof: kill -9");
    let killed_at = started.elapsed().as_secs_f64();
    headgate.kill_and_restart(args).await?;
    let back_at = started.elapsed().as_secs_f64();
    let report = running.await?;
    let tasks = Tasks::of(&api)
        .await
        .map_err(|source| headgate.client_error(source))?;
    let mut verdicts = Vec::new();
    for task in &tasks.items {
        verdicts.push(headgate.check_task(args, &task.id).await?);
    }
    headgate.stop().await;

    let delivery = report.delivery()?;
    let mut section = Section::new(format!(
        "proof: {devices} devices, a gateway killed in the middle"
    ));
    section.figure(
        "delivered before the kill",
        "devices",
        &[f64::from(delivered)],
    );
    section.figure("task to kill, with connecting", "s", &[killed_at]);
    section.figure("kill to ready", "s", &[back_at - killed_at]);
    section.figure("task to the last device", "s", &[delivery.seconds]);
    section.figure(
        "devices that verified every byte",
        "devices",
        &[as_f64(report.devices.ok)],
    );
    let again = as_f64(delivery.duplicate_bytes) / as_f64(delivery.bytes.max(1)) * 100.0;
    section.figure("bytes sent twice", "%", &[again]);
    section.note(format!("`{}`", spoken(&arguments)));
    for verdict in verdicts {
        section.note(format!("`headgate task check`: {verdict}"));
    }
    Ok(vec![section])
}

/// What is read of the tasks that there are: the swarm makes one for every 10,000 devices.
#[derive(Deserialize)]
struct Tasks {
    items: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    id: String,
    counts: Counts,
}

#[derive(Deserialize)]
struct Counts {
    delivered: u32,
}

impl Tasks {
    async fn of(api: &Api) -> Result<Self, ClientError> {
        api.get("/tasks").await
    }
}

/// Waits until so many are delivered; gives how many are.
async fn until_delivered(api: &Api, wanted: u32) -> Result<u32, ClientError> {
    loop {
        sleep(LOOK_INTERVAL).await;
        let tasks = Tasks::of(api).await?.items;
        let delivered = tasks.iter().map(|task| task.counts.delivered).sum();
        if delivered >= wanted {
            return Ok(delivered);
        }
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
