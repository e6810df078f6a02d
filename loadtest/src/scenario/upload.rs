//! `swarm upload`: every device sends a file of its own, and some are fetched back and compared.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, ServerWatch, await_connected, clean_up, ensure_devices, identities, kind, limits,
    mark, preflight, stop, troubles, within,
};
use crate::api::Api;
use crate::cli::UploadArgs;
use crate::device::identity::{Identity, Odds};
use crate::device::sending::SendPlan;
use crate::device::work::Job;
use crate::progress::{Phase, Unit};
use crate::provision::Provision;
use crate::report::{Percentiles, Report, Uploads, as_f64, ratio};
use crate::stats::Timing;
use crate::swarm::{self, Swarm, Waited};
use crate::target::Target;
use crate::timeline::Timeline;

/// Runs the scenario.
///
/// # Errors
/// [`RunError`]: the run could not be made; devices' errors are in the report.
pub(crate) async fn run(
    args: &UploadArgs,
    interrupt: CancellationToken,
) -> Result<Report, RunError> {
    let common = &args.common;
    let limits = limits(common, interrupt);
    let target = Target::find(common).await?;
    let identities = identities(common);
    let api = Arc::new(Api::new(&target)?);
    let mut provision = Provision::new(Arc::clone(&api), kind(common));
    let plan = Arc::new(plan(args));
    let job = Job::Send(Arc::clone(&plan));
    let swarm = Arc::new(Swarm::new(common, &target, Some(job), false)?);
    preflight(common, &swarm, 1).await?;
    let prepare = ensure_devices(&mut provision, &identities, common.seed);
    if let Err(error) = within(&limits, prepare).await {
        clean_up(provision, common.keep, &swarm).await;
        return Err(error);
    }

    let mut server = ServerWatch::start(common.server_pid);
    let timeline = Timeline::start(&swarm, common.probe());
    let started = Instant::now();
    let tasks = swarm.spawn(identities.clone(), Some(odds(args)), Some(common.rate));
    let mut waited = await_connected(&swarm, common.devices, &limits).await;
    let connect_secs = swarm
        .last_ready()
        .saturating_duration_since(started)
        .as_secs_f64();
    server.iter_mut().for_each(ServerWatch::on_connected);
    if waited == Waited::Reached {
        let devices = u64::from(common.devices);
        let mut phase = Phase::start("upload", args.size * devices, Unit::Bytes);
        let stats = &swarm.stats;
        let message = || {
            format!(
                "{} of {devices} done {}",
                stats.done.get(),
                troubles(&swarm)
            )
        };
        waited = limits
            .wait(
                || stats.ended() >= devices,
                || phase.update(stats.bytes.get(), message),
            )
            .await;
    }
    let secs = swarm
        .last_end()
        .saturating_duration_since(started)
        .as_secs_f64();
    let bytes = swarm.stats.bytes.get();
    let server = server.map(|watch| watch.finish(u64::from(common.devices), bytes));
    let verified = if waited == Waited::Reached {
        verify(args, &api, &plan, &identities, &swarm).await
    } else {
        0
    };
    stop(&swarm, tasks).await;
    if !common.keep
        && let Err(error) = provision.remove_uploads(&plan.name).await
    {
        swarm.stats.problem("clean_up", || error.to_string());
    }
    clean_up(provision, common.keep, &swarm).await;
    let mut report = Report::new("upload", common.devices, &swarm.stats, connect_secs);
    report.server = server;
    report.timeline = timeline.finish();
    report.ok &= verified == sample(args, &identities).count() as u64 || waited != Waited::Reached;
    report.uploads = Some(uploads(args, &swarm, secs, verified));
    mark(&mut report, waited);
    Ok(report)
}

fn plan(args: &UploadArgs) -> SendPlan {
    SendPlan {
        version: swarm::version(args.common.mqtt),
        product: args.common.product.clone(),
        name: format!("swarm-{}", args.common.seed),
        size: args.size,
        seed: args.common.seed,
        chunk: args.chunk,
    }
}

const fn odds(args: &UploadArgs) -> Odds {
    Odds {
        seed: args.common.seed,
        slow_fraction: 0.0,
        slow_bps: 1,
        drop_rate: args.drop_rate,
        size: args.size,
    }
}

/// The devices whose files are fetched back: evenly over all.
fn sample<'a>(
    args: &UploadArgs,
    identities: &'a [Identity],
) -> impl Iterator<Item = &'a Identity> + use<'a> {
    let wanted = usize::try_from(args.verify_sample).unwrap_or(usize::MAX);
    let step = identities
        .len()
        .div_ceil(wanted.clamp(1, identities.len().max(1)));
    identities.iter().step_by(step.max(1)).take(wanted)
}

/// Fetches the sample back; how many are what was sent.
async fn verify(
    args: &UploadArgs,
    api: &Api,
    plan: &SendPlan,
    identities: &[Identity],
    swarm: &Swarm,
) -> u64 {
    let mut right = 0;
    let wanted = sample(args, identities).count() as u64;
    let mut phase = Phase::start("verify", wanted, Unit::Devices);
    for identity in sample(args, identities) {
        phase.update(right, String::new);
        match Provision::uploaded(api, &identity.device_id, &plan.name).await {
            Ok(Some((size, sha256))) => {
                let sent = plan.content(identity.index);
                if sent.is_ok_and(|sent| sent.size() == size && *sent.sha256() == sha256) {
                    right += 1;
                } else {
                    let text = || format!("{}: other bytes than were sent", identity.device_id);
                    swarm.stats.problem("wrong_upload", text);
                }
            }
            Ok(None) => {
                let text = || format!("{}: the gateway lists none", identity.device_id);
                swarm.stats.problem("missing_upload", text);
            }
            Err(error) => swarm.stats.problem("verify", || error.to_string()),
        }
    }
    right
}

fn uploads(args: &UploadArgs, swarm: &Swarm, secs: f64, verified: u64) -> Uploads {
    let stats = &swarm.stats;
    let percentiles = |timing| stats.with_times(|times| Percentiles::of(times.of(timing)));
    Uploads {
        file_bytes: args.size,
        bytes: stats.bytes.get(),
        chunks: stats.chunks.get(),
        postponed: stats.stalls.get(),
        seconds: secs,
        mb_per_second: ratio(as_f64(stats.bytes.get()) / 1e6, secs),
        duration: percentiles(Timing::Duration),
        verified,
    }
}
