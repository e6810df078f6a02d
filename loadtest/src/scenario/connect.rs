//! `swarm connect`: all devices log in, subscribe and stay.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, ServerWatch, await_connected, clean_up, ensure_devices, identities, kind, limits,
    mark, preflight, stop, troubles, within,
};
use crate::api::Api;
use crate::cli::ConnectArgs;
use crate::progress::{Phase, Unit};
use crate::provision::Provision;
use crate::report::Report;
use crate::swarm::{Limits, Swarm, Waited};
use crate::target::Target;

/// Runs the scenario.
///
/// # Errors
/// [`RunError`]: the run could not be made; devices' errors are in the report.
pub(crate) async fn run(
    args: &ConnectArgs,
    interrupt: CancellationToken,
) -> Result<Report, RunError> {
    let common = &args.common;
    let limits = limits(common, interrupt);
    let target = Target::find(common).await?;
    let identities = identities(common);
    let mut provision = Provision::new(Arc::new(Api::new(&target)?), kind(common));
    let mut swarm = Swarm::new(common, &target, None, false)?;
    swarm.handshake_only = args.handshake_only;
    let swarm = Arc::new(swarm);
    preflight(common, &swarm, 1).await?;
    let prepare = ensure_devices(&mut provision, &identities, common.seed);
    if let Err(error) = within(&limits, prepare).await {
        clean_up(provision, common.keep, &swarm).await;
        return Err(error);
    }

    let mut server = ServerWatch::start(common.server_pid);
    let started = Instant::now();
    let tasks = swarm.spawn(identities, None, Some(common.rate));
    let mut waited = await_connected(&swarm, common.devices, &limits).await;
    let connect_secs = swarm
        .last_ready()
        .saturating_duration_since(started)
        .as_secs_f64();
    if waited == Waited::Reached {
        server.iter_mut().for_each(ServerWatch::on_connected);
        waited = hold(args, &swarm, &limits).await;
        // What an idle connection holds shows once the buffers of the rush were given back.
        server.iter_mut().for_each(ServerWatch::on_idle);
    }
    let asks = args.ask && waited == Waited::Reached;
    if asks {
        waited = ask(common.devices, &swarm, &limits).await;
    }
    let server = server.map(|watch| watch.finish(swarm.stats.ever_connected.get(), 0));
    stop(&swarm, tasks).await;
    clean_up(provision, common.keep, &swarm).await;
    let mut report = Report::new("connect", common.devices, &swarm.stats, connect_secs);
    report.server = server;
    report.answered = asks.then(|| swarm.stats.answered.get());
    report.ok &= report
        .answered
        .is_none_or(|count| count == u64::from(common.devices));
    mark(&mut report, waited);
    Ok(report)
}

/// Has every device ask once, and waits until all were answered.
async fn ask(devices: u32, swarm: &Swarm, limits: &Limits) -> Waited {
    swarm.ask.cancel();
    let stats = &swarm.stats;
    let devices = u64::from(devices);
    let mut phase = Phase::start("ask", devices, Unit::Devices);
    limits
        .wait(
            || stats.answered.get() + stats.failed.get() >= devices,
            || phase.update(stats.answered.get(), || troubles(swarm)),
        )
        .await
}

async fn hold(args: &ConnectArgs, swarm: &Swarm, limits: &Limits) -> Waited {
    let from = Instant::now();
    let mut phase = Phase::start("hold", args.hold.as_secs(), Unit::Seconds);
    let message = || {
        format!(
            "{} connected {}",
            swarm.stats.connected.get(),
            troubles(swarm)
        )
    };
    limits
        .wait(
            || from.elapsed() >= args.hold,
            || phase.update(from.elapsed().as_secs(), message),
        )
        .await
}
