//! What a task of ten thousand rows costs the server, from the request to the answer.
//!
//! How many statements that takes is counted by a test of the registry.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::peer::headgate::Headgate;
use crate::peer::headgate::stock::Stock;
use crate::report::Section;

#[derive(Deserialize)]
struct Made {
    id: String,
}

/// Registers the devices, then makes the task.
///
/// # Errors
/// [`BenchError`] of what went wrong.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let rows = args.devices(500, 10_000);
    progress(&format!("task: {rows} rows"));
    let headgate = Headgate::start(args).await?;
    let api = headgate.api()?;
    let failed = |source| headgate.client_error(source);
    let stock = Stock::register(&headgate, rows, None).await?;
    let fields = [("name", "bench"), ("product", Stock::product())];
    let resource = api.post_form("/resources", &fields, "a task of many rows");
    let resource: Made = resource.await.map_err(failed)?;
    let body = json!({"resource_id": resource.id, "device_ids": stock.device_ids()});
    // What registering left to be done is done.
    sleep(SETTLE).await;
    let before = headgate.sample()?;
    let started = Instant::now();
    let _: Value = api.post("/tasks", &body).await.map_err(failed)?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = headgate.sample()?.cpu_secs - before.cpu_secs;
    headgate.stop().await;

    let mut section = Section::new(format!("a task of {rows} rows"));
    let must = (!args.quick).then_some(MUST_CPU_SECS);
    section.bar("server CPU", "s", &[cpu], must, None);
    section.figure("request to answer", "s", &[seconds]);
    Ok(vec![section])
}

const SETTLE: Duration = Duration::from_secs(1);
const MUST_CPU_SECS: f64 = 1.0;
