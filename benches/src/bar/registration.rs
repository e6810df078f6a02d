//! Registration of a large batch: what it costs, and what a device that is connected notices of it.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::probe::{p99_millis, waits};
use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::mqtt::Prober;
use crate::fleet::{ClientError, Dial};
use crate::http::Api;
use crate::peer::headgate::Headgate;
use crate::report::{Section, as_f64};

/// What is read of a batch.
#[derive(Deserialize)]
struct Batch {
    id: String,
    state: String,
    counts: Counts,
}

#[derive(Deserialize)]
struct Counts {
    created: u32,
}

#[derive(Deserialize)]
struct Made {
    secret: String,
}

/// Registers the rows while one device publishes.
///
/// # Errors
/// [`BenchError`] of what went wrong.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let rows = args.devices(2_000, 100_000);
    progress(&format!("registration: {rows} rows in one batch"));
    let headgate = Headgate::start(args).await?;
    let api = headgate.api()?;
    let failed = |source| headgate.client_error(source);
    let product = json!({"id": PRODUCT, "name": PRODUCT});
    let _: Value = api.post("/products", &product).await.map_err(failed)?;
    let probe = json!({"product_id": PRODUCT, "node_id": "probe"});
    let made: Made = api.post("/devices", &probe).await.map_err(failed)?;
    let dial = Dial::plain(headgate.plain_address()?);
    let mut prober = Prober::connect(&dial, &format!("{PRODUCT}_probe"), &made.secret)
        .await
        .map_err(failed)?;
    let topic = format!("{PRODUCT}/probe/bench");
    let quiet = waits(&mut prober, &topic, sleep(QUIET)).await;
    let quiet = quiet.map_err(failed)?.0;
    let before = headgate.sample()?;
    let started = Instant::now();
    let registering = timeout(RUN_TIMEOUT, register(&api, rows));
    let meanwhile = waits(&mut prober, &topic, registering).await;
    let (meanwhile, registered) = meanwhile.map_err(failed)?;
    let late = |_| BenchError::TooLate {
        what: "the batch".to_owned(),
        limit: RUN_TIMEOUT,
    };
    registered.map_err(late)?.map_err(failed)?;
    let seconds = started.elapsed().as_secs_f64();
    let after = headgate.sample()?;
    let grown = headgate.peak_rss_bytes()?.saturating_sub(before.rss_bytes);
    headgate.stop().await;

    let mut section = Section::new(format!("registration of {rows} devices in one batch"));
    let must = |value| (!args.quick).then_some(value);
    let cpu = after.cpu_secs - before.cpu_secs;
    section.bar("server CPU", "s", &[cpu], must(MUST_CPU_SECS), None);
    section.figure("from the first byte to the last row", "s", &[seconds]);
    section.bar(
        "peak memory above that before",
        "B",
        &[as_f64(grown)],
        must(MUST_GROWN_BYTES),
        None,
    );
    let (quiet, busy) = (p99_millis(quiet), p99_millis(meanwhile));
    section.figure("PUBLISH to PUBACK, p99, before", "ms", &[quiet]);
    section.bar(
        "PUBLISH to PUBACK, p99, meanwhile",
        "ms",
        &[busy],
        must(MUST_P99_MILLIS),
        None,
    );
    section.note("CPU of the server includes the one device that publishes every 5 ms");
    section.note("PUBLISH to PUBACK is as that device sees it, on the same machine");
    Ok(vec![section])
}

/// Sends the rows and waits until all are registered.
async fn register(api: &Api, rows: u32) -> Result<(), ClientError> {
    let mut text = String::from("node_id,device_name,product_id\n");
    for row in 0..rows {
        // Writing to a string does not fail.
        let _ = writeln!(text, "n{row:06},Sensor {row},{PRODUCT}");
    }
    let mut batch: Batch = api.post_csv("/device-batches", text).await?;
    let path = format!("/device-batches/{}", batch.id);
    while batch.state != "finished" {
        sleep(LOOK_INTERVAL).await;
        batch = api.get(&path).await?;
        if batch.state == "failed" {
            return Err(ClientError::Answer("the batch failed".to_owned()));
        }
    }
    if batch.counts.created == rows {
        Ok(())
    } else {
        let created = batch.counts.created;
        Err(ClientError::Answer(format!("{created} of {rows} devices")))
    }
}

const PRODUCT: &str = "bench";
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_secs(2);
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
const MUST_CPU_SECS: f64 = 30.0;
const MUST_GROWN_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
const MUST_P99_MILLIS: f64 = 20.0;
