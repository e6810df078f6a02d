//! How long a device waits for the acknowledgement of a message while a roll-out runs at full speed.

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

/// Publishes from one device while a swarm takes its resource.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let devices = args.devices(20, 2_000).to_string();
    let size = if args.quick { "1MiB" } else { "4MiB" };
    let work = [
        "deliver",
        "--devices",
        &devices,
        "--size",
        size,
        "--verify",
        "crc32",
    ];
    progress(&format!("telemetry beside `{}`", spoken(&work)));
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
    let quiet = waits(&mut prober, &topic, sleep(QUIET))
        .await
        .map_err(failed)?
        .0;
    let delivering = headgate.swarm(&work, RUN_TIMEOUT);
    let (busy, delivered) = waits(&mut prober, &topic, delivering)
        .await
        .map_err(failed)?;
    delivered?;
    headgate.stop().await;
    let must = (!args.quick).then_some(MUST_MILLIS);
    let mut section = Section::new(format!(
        "PUBLISH to PUBACK while {devices} devices take {size}"
    ));
    section.figure("p99, before", "ms", &[p99_millis(quiet)]);
    section.bar("p99, meanwhile", "ms", &[p99_millis(busy)], must, None);
    section.note(format!(
        "`{}`; the connecting of its devices is in it",
        spoken(&work)
    ));
    section.note("as the device sees it, over TLS, on the same cores as gateway and swarm");
    Ok(vec![section])
}

const QUIET: Duration = Duration::from_secs(2);
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
const MUST_MILLIS: f64 = 20.0;
