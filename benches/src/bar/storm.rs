//! A fleet that comes back at once: what a device that is connected notices of it.
//!
//! The swarm runs at the lowest priority: its devices stand for machines of their own, and shall not take the
//! gateway's processor. The one device that is watched runs at this program's.

use std::time::Duration;

use tokio::time::sleep;

use super::probe::{p99_millis, waits};
use super::progress;
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::mqtt::Prober;
use crate::peer::headgate::stock::Stock;
use crate::peer::headgate::{Headgate, spoken};
use crate::report::Section;

/// Connects the fleet once, so that it is registered; then again, while one device publishes.
///
/// # Errors
/// [`BenchError`] of what went wrong.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let devices = args.devices(50, 10_000).to_string();
    let headgate = Headgate::start(args).await?;
    let failed = |source| headgate.client_error(source);
    let stock = Stock::register(&headgate, 1, None).await?;
    let login = stock.logins().into_iter().next();
    let (login, topic) = login
        .zip(stock.topics().into_iter().next())
        .ok_or(BenchError::NoFigure("device"))?;
    let (user, secret) = login.secret.ok_or(BenchError::NoFigure("secret"))?;
    let dial = headgate.tls_dial()?;
    let mut prober = Prober::connect(&dial, &user, &secret)
        .await
        .map_err(failed)?;
    let make = ["connect", "--devices", &devices, "--hold", "0s", "--keep"];
    progress(&format!("storm: {}", spoken(&make)));
    headgate.swarm(&make, RUN_TIMEOUT).await?;
    let (quiet, ()) = waits(&mut prober, &topic, sleep(QUIET))
        .await
        .map_err(failed)?;
    let again = ["connect", "--devices", &devices, "--hold", "1s", "--keep"];
    progress(&format!("storm: {}", spoken(&again)));
    let before = headgate.sample()?;
    let storm = headgate.gentle_swarm(&again, RUN_TIMEOUT);
    let (busy, report) = waits(&mut prober, &topic, storm).await.map_err(failed)?;
    report?;
    let cpu = headgate.sample()?.cpu_secs - before.cpu_secs;
    headgate.stop().await;

    let mut section = Section::new(format!("storm: {devices} devices connect again at once"));
    let must = (!args.quick).then_some(MUST_P99_MILLIS);
    section.figure("server CPU", "s", &[cpu]);
    let name = "PUBLISH to PUBACK, p99";
    section.figure(format!("{name}, before"), "ms", &[p99_millis(quiet)]);
    section.bar(
        format!("{name}, meanwhile"),
        "ms",
        &[p99_millis(busy)],
        must,
        None,
    );
    section.note(format!("`{}`, at the lowest priority", spoken(&again)));
    section.note("PUBLISH to PUBACK is as another device sees it, on the same machine: above the server's own time");
    Ok(vec![section])
}

const QUIET: Duration = Duration::from_secs(2);
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
const MUST_P99_MILLIS: f64 = 20.0;
