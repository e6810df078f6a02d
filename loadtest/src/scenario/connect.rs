//! `swarm connect`: all devices log in, subscribe and stay.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, ServerWatch, await_connected, clean_up, ensure_devices, identities, kind, limits,
    mark, preflight, stop, troubles, within,
};
use crate::api::Api;
use crate::cli::{CommonArgs, ConnectArgs, Part};
use crate::crew::{Briefing, Crew, Peers};
use crate::device::identity::Identity;
use crate::progress::{Phase, Unit};
use crate::provision::Provision;
use crate::report::Report;
use crate::swarm::{Limits, Swarm, Waited};
use crate::target::Target;
use crate::timeline::{Point, Timeline};

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
    let mut swarm = Swarm::new(common, &target, None, false)?;
    swarm.handshake_only = args.handshake_only;
    let swarm = Arc::new(swarm);
    preflight(common, &swarm, 1).await?;
    if let Some(part) = common.part {
        return one_of_many(args, part, identities, &swarm, &limits).await;
    }
    let provision = prepare(common, &target, &identities, &swarm, &limits).await?;
    let outcome = if common.processes > 1 {
        together(args, &swarm).await
    } else {
        alone(args, identities, &swarm, &limits).await
    };
    if let Some(provision) = provision {
        clean_up(provision, common.keep, &swarm).await;
    }
    let mut report = outcome?;
    report.errors = swarm.stats.errors();
    Ok(report)
}

/// Registers the devices; nothing with a broker that is no gateway.
async fn prepare(
    common: &CommonArgs,
    target: &Target,
    identities: &[Identity],
    swarm: &Swarm,
    limits: &Limits,
) -> Result<Option<Provision>, RunError> {
    if common.broker.any_broker {
        return Ok(None);
    }
    let mut provision = Provision::new(Arc::new(Api::new(target)?), kind(common));
    let prepare = ensure_devices(&mut provision, identities, common.seed);
    match within(limits, prepare).await {
        Ok(()) => Ok(Some(provision)),
        Err(error) => {
            clean_up(provision, common.keep, swarm).await;
            Err(error)
        }
    }
}

/// How the work of one process went.
struct Done {
    waited: Waited,
    connect_secs: f64,
    asked: bool,
    points: Vec<Point>,
}

/// Connects `identities`, holds them, asks them, and lets them leave.
async fn drive(
    args: &ConnectArgs,
    part: Part,
    identities: Vec<Identity>,
    swarm: &Arc<Swarm>,
    limits: &Limits,
    mut server: Option<&mut ServerWatch>,
) -> Result<Done, RunError> {
    let common = &args.common;
    let peers = Peers::of(common.part);
    let devices = u32::try_from(identities.len()).unwrap_or(u32::MAX);
    let probe = common.probe().filter(|_| common.part.is_none());
    let timeline = Timeline::start(swarm, probe);
    let started = Instant::now();
    let tasks = swarm.spawn(identities, None, Some(common.rate.div_ceil(part.of)));
    let mut waited = await_connected(swarm, devices, limits).await;
    let connect_secs = swarm.last_ready().saturating_duration_since(started);
    peers.meet(0).await?;
    if waited == Waited::Reached {
        if let Some(server) = server.as_deref_mut() {
            server.on_connected();
        }
        waited = hold(args, swarm, limits).await;
        // What an idle connection holds shows once the buffers of the rush were given back.
        if let Some(server) = server {
            server.on_idle();
        }
    }
    let asked = args.ask && waited == Waited::Reached;
    if asked {
        waited = ask(devices, swarm, limits).await;
    }
    peers.meet(0).await?;
    let points = timeline.finish();
    stop(swarm, tasks).await;
    Ok(Done {
        waited,
        connect_secs: connect_secs.as_secs_f64(),
        asked,
        points,
    })
}

/// The whole run in this process.
async fn alone(
    args: &ConnectArgs,
    identities: Vec<Identity>,
    swarm: &Arc<Swarm>,
    limits: &Limits,
) -> Result<Report, RunError> {
    let whole = Part { index: 0, of: 1 };
    let mut server = ServerWatch::start(args.common.server_pid);
    let done = drive(args, whole, identities, swarm, limits, server.as_mut()).await?;
    let server = server.map(|watch| watch.finish(swarm.stats.ever_connected.get(), 0));
    let mut report = report(args, swarm, &done);
    report.server = server;
    mark(&mut report, done.waited);
    Ok(report)
}

/// One process of several.
async fn one_of_many(
    args: &ConnectArgs,
    part: Part,
    identities: Vec<Identity>,
    swarm: &Arc<Swarm>,
    limits: &Limits,
) -> Result<Report, RunError> {
    let range = part.devices(args.common.devices);
    let mine = identities
        .into_iter()
        .filter(|it| range.contains(&it.index));
    let done = drive(args, part, mine.collect(), swarm, limits, None).await?;
    let dump = swarm.stats.dump_of(done.connect_secs, &done.points);
    Peers::hand_over(&dump)?;
    Ok(report(args, swarm, &done))
}

/// Several processes, which this one starts and waits for.
async fn together(args: &ConnectArgs, swarm: &Arc<Swarm>) -> Result<Report, RunError> {
    let common = &args.common;
    let mut server = ServerWatch::start(common.server_pid);
    let timeline = Timeline::start(swarm, common.probe());
    let mut crew = Crew::start(common.processes, &Briefing::default())?;
    crew.meet().await?;
    server.iter_mut().for_each(ServerWatch::on_connected);
    crew.meet().await?;
    server.iter_mut().for_each(ServerWatch::on_idle);
    let total = crew.finish(swarm, timeline).await?;
    let done = Done {
        waited: Waited::Reached,
        connect_secs: total.connect_secs,
        asked: args.ask,
        points: total.points,
    };
    let mut report = report(args, swarm, &done);
    report.swarm_cpu_seconds += total.cpu_secs;
    report.swarm_rss_peak_bytes += total.rss_peak_bytes;
    report.server = server.map(|watch| watch.finish(swarm.stats.ever_connected.get(), 0));
    Ok(report)
}

fn report(args: &ConnectArgs, swarm: &Swarm, done: &Done) -> Report {
    let devices = args.common.devices;
    let mut report = Report::new("connect", devices, &swarm.stats, done.connect_secs);
    report.answered = done.asked.then(|| swarm.stats.answered.get());
    report.ok &= report
        .answered
        .is_none_or(|count| count == u64::from(devices));
    report.timeline.clone_from(&done.points);
    report
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
