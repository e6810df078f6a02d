//! `swarm deliver`: one resource to every device, every byte checked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    RunError, ServerWatch, await_connected, clean_up, ensure_devices, identities, kind, limits,
    mark, preflight, stop, troubles, within,
};
use crate::api::Api;
use crate::cli::{DeliverArgs, Mode};
use crate::content::Content;
use crate::device::identity::{Identity, Odds};
use crate::device::transfer::Plan;
use crate::device::work::Job;
use crate::progress::{Phase, Unit};
use crate::provision::{Counts, Provision};
use crate::report::{Delivery, Percentiles, Report, as_f64, ratio};
use crate::stats::Timing;
use crate::swarm::{self, Limits, Swarm, Waited};
use crate::target::Target;
use crate::timeline::Timeline;
use crate::verify::Expected;

/// Runs the scenario.
///
/// # Errors
/// [`RunError`]: the run could not be made; devices' errors are in the report.
pub(crate) async fn run(
    args: &DeliverArgs,
    interrupt: CancellationToken,
) -> Result<Report, RunError> {
    let common = &args.common;
    let limits = limits(common, interrupt);
    let target = Target::find(common).await?;
    let probe = Arc::new(Swarm::new(common, &target, None, false)?);
    let files_each = if args.mode == Mode::Https { 2 } else { 1 };
    preflight(common, &probe, files_each).await?;
    let content = within(&limits, content(args)).await?;
    let identities = identities(common);
    let mut provision = Provision::new(Arc::new(Api::new(&target)?), kind(common));
    let prepare = prepare(args, &mut provision, &identities, &content);
    let (resource, name) = match within(&limits, prepare).await {
        Ok(prepared) => prepared,
        Err(error) => {
            clean_up(provision, common.keep, &probe).await;
            return Err(error);
        }
    };
    let plan = Arc::new(plan(args, &content, name));
    let mut swarm = Swarm::new(common, &target, Some(Job::Take(plan)), args.leave_slow)?;
    swarm.cancels = args.cancel_after.is_some();
    swarm.delay(args.rtt);
    let swarm = Arc::new(swarm);
    let run = Run {
        args,
        limits,
        content,
        swarm,
    };
    run.run(provision, resource.as_deref(), identities).await
}

/// The resource's bytes and digests.
async fn content(args: &DeliverArgs) -> Result<Content, RunError> {
    let (file, seed, size) = (args.file.clone(), args.common.seed, args.size);
    let digested = tokio::task::spawn_blocking(move || match file {
        Some(path) => Content::from_file(&path),
        None => Content::generated(seed, size),
    });
    let content = digested
        .await
        .map_err(|error| RunError::Content(error.into()))?;
    let content = content.map_err(RunError::Content)?;
    if content.size() == 0 {
        Err(RunError::Empty)
    } else {
        Ok(content)
    }
}

/// Product, devices and, unless somebody else delivers, resource; gives the resource's id and name.
async fn prepare(
    args: &DeliverArgs,
    provision: &mut Provision,
    identities: &[Identity],
    content: &Content,
) -> Result<(Option<String>, Option<String>), RunError> {
    ensure_devices(provision, identities, args.common.seed).await?;
    if args.wait {
        return Ok((None, None));
    }
    let (resource, name) = provision.ensure_resource(content).await?;
    Ok((Some(resource), Some(name)))
}

fn plan(args: &DeliverArgs, content: &Content, resource_name: Option<String>) -> Plan {
    Plan {
        version: swarm::version(args.common.mqtt),
        product: args.common.product.clone(),
        resource_name,
        expected: Arc::new(Expected::from(content)),
        verify: args.verify,
        mode: args.mode,
        window: args.window,
        chunk: args.chunk,
        rtt: args.rtt,
    }
}

/// A prepared run.
struct Run<'a> {
    args: &'a DeliverArgs,
    limits: Limits,
    content: Content,
    swarm: Arc<Swarm>,
}

impl Run<'_> {
    async fn run(
        self,
        mut provision: Provision,
        resource: Option<&str>,
        identities: Vec<Identity>,
    ) -> Result<Report, RunError> {
        let common = &self.args.common;
        let mut server = ServerWatch::start(common.server_pid);
        let timeline = Timeline::start(&self.swarm, common.probe());
        let started = Instant::now();
        let odds = self.odds();
        let tasks = self
            .swarm
            .spawn(identities.clone(), Some(odds), Some(common.rate));
        let mut waited = await_connected(&self.swarm, common.devices, &self.limits).await;
        let connected_at = self.swarm.last_ready();
        let is_measured = waited == Waited::Reached && !self.args.wait;
        if let Some(server) = server.as_ref().filter(|_| is_measured) {
            server.until_at_rest().await;
        }
        server.iter_mut().for_each(ServerWatch::on_connected);
        server.iter_mut().for_each(ServerWatch::on_idle);

        let task_at = Instant::now();
        let mut created = Ok(());
        if waited == Waited::Reached {
            if let Some(resource) = resource {
                created = provision.create_tasks(resource, &identities).await;
            }
            if created.is_ok() {
                waited = tokio::select! {
                    biased;
                    waited = self.await_delivered(odds) => waited,
                    () = self.cancel_on_time(&provision) => Waited::Reached,
                    () = self.await_given_up(&provision) => Waited::Reached,
                };
            }
        }
        let secs = self
            .swarm
            .last_end()
            .saturating_duration_since(task_at)
            .as_secs_f64();
        let bytes = self.swarm.stats.bytes.get();
        let server = server.map(|watch| watch.finish(u64::from(common.devices), bytes));
        let counts = match (&created, waited) {
            (Ok(()), Waited::Reached) if !self.args.wait => self.settled_counts(&provision).await,
            _ => None,
        };
        self.conclude(tasks, provision, waited).await;
        created?;

        let connect_secs = connected_at
            .saturating_duration_since(started)
            .as_secs_f64();
        let mut report = Report::new("deliver", common.devices, &self.swarm.stats, connect_secs);
        report.server = server;
        report.timeline = timeline.finish();
        report.ok &= counts.as_ref().is_none_or(|counts| self.agrees(counts));
        report.delivery = Some(self.delivery(secs, counts));
        mark(&mut report, waited);
        Ok(report)
    }

    /// Holds where that is wanted, lets devices leave, and removes what was made.
    async fn conclude(
        &self,
        tasks: tokio::task::JoinSet<()>,
        provision: Provision,
        waited: Waited,
    ) {
        let common = &self.args.common;
        if waited == Waited::Reached {
            let until = Instant::now() + self.args.hold;
            self.limits.wait(|| Instant::now() >= until, || {}).await;
        }
        if self.swarm.stats.done.get() < u64::from(common.devices)
            && let Err(error) = provision.cancel_tasks().await
        {
            self.swarm.stats.problem("cancel", || error.to_string());
        }
        stop(&self.swarm, tasks).await;
        let keep = common.keep || self.args.wait;
        clean_up(provision, keep, &self.swarm).await;
    }

    const fn odds(&self) -> Odds {
        Odds {
            seed: self.args.common.seed,
            slow_fraction: self.args.slow_fraction,
            slow_bps: self.args.slow_bps,
            drop_rate: self.args.drop_rate,
            size: self.content.size(),
        }
    }

    /// Waits until all devices, or all that are not slow, came to an end.
    async fn await_delivered(&self, odds: Odds) -> Waited {
        let devices = u64::from(self.args.common.devices);
        let slow = (0..self.args.common.devices).filter(|&i| odds.fate(i).read_bps.is_some());
        let fast = devices - slow.count() as u64;
        let total = self.content.size() * devices;
        let mut phase = Phase::start("deliver", total, Unit::Bytes);
        let stats = &self.swarm.stats;
        let reached = || {
            if self.args.leave_slow && fast > 0 {
                stats.fast_ended.get() >= fast
            } else {
                stats.ended() >= devices
            }
        };
        let message = || {
            format!(
                "{} of {devices} done {}",
                stats.done.get(),
                troubles(&self.swarm)
            )
        };
        self.limits
            .wait(reached, || phase.update(stats.bytes.get(), message))
            .await
    }

    /// Cancels what is under way when it is time to, and gives devices time to hear of it; waits for
    /// ever where that is not wanted.
    async fn cancel_on_time(&self, provision: &Provision) {
        let Some(after) = self.args.cancel_after else {
            return std::future::pending().await;
        };
        sleep(after).await;
        if let Err(error) = provision.cancel_tasks().await {
            self.swarm.stats.problem("cancel", || error.to_string());
        }
        let until = Instant::now() + SETTLE_TIMEOUT;
        let devices = u64::from(self.args.common.devices);
        let told = || self.swarm.stats.ended() >= devices || Instant::now() >= until;
        self.limits.wait(told, || {}).await;
    }

    /// Waits until the gateway has nothing left to deliver and devices had time to learn it: those
    /// that still wait then would wait in vain. For ever where somebody else delivers.
    async fn await_given_up(&self, provision: &Provision) {
        if self.args.wait {
            return std::future::pending().await;
        }
        loop {
            sleep(GIVEN_UP_INTERVAL).await;
            let Ok(counts) = provision.counts().await else {
                continue;
            };
            let open = ["pending", "pushed", "delivering"];
            if open
                .iter()
                .any(|state| counts.get(*state).is_some_and(|&count| count > 0))
            {
                continue;
            }
            let bytes = self.swarm.stats.bytes.get();
            sleep(GIVEN_UP_INTERVAL).await;
            if self.swarm.stats.bytes.get() == bytes {
                let text = || format!("devices wait, the gateway has ended all: {counts:?}");
                self.swarm.stats.problem("gateway_gave_up", text);
                return;
            }
        }
    }

    /// What the gateway counts, once it has written what devices already know.
    async fn settled_counts(&self, provision: &Provision) -> Option<Counts> {
        let until = Instant::now() + SETTLE_TIMEOUT;
        loop {
            match provision.counts().await {
                Ok(counts) if self.agrees(&counts) || Instant::now() >= until => {
                    return Some(counts);
                }
                Ok(_) => sleep(SETTLE_INTERVAL).await,
                Err(error) => {
                    self.swarm
                        .stats
                        .problem("task_counts", || error.to_string());
                    return None;
                }
            }
        }
    }

    /// The gateway calls delivered what devices call done.
    fn agrees(&self, counts: &Counts) -> bool {
        counts.get("delivered").copied().unwrap_or(0) == self.swarm.stats.done.get()
    }

    fn delivery(&self, secs: f64, gateway_counts: Option<Counts>) -> Delivery {
        let stats = &self.swarm.stats;
        let percentiles = |timing| stats.with_times(|times| Percentiles::of(times.of(timing)));
        let size = self.content.size();
        let rtt = self.args.rtt.as_secs_f64();
        let window = u64::from(self.args.window) * u64::from(self.args.chunk);
        let link_bound = (rtt > 0.0).then(|| as_f64(size) / (as_f64(window) / rtt));
        Delivery {
            resource_bytes: size,
            resource_sha256: hex::encode(self.content.sha256()),
            bytes: stats.bytes.get(),
            duplicate_bytes: stats.duplicate_bytes.get(),
            chunks: stats.chunks.get(),
            stalls: stats.stalls.get(),
            seconds: secs,
            mb_per_second: ratio(as_f64(stats.bytes.get()) / 1e6, secs),
            first_byte: percentiles(Timing::FirstByte),
            duration: percentiles(Timing::Duration),
            slow_duration: percentiles(Timing::SlowDuration),
            link_bound_seconds: link_bound,
            link_bound_ratio: link_bound.map(|bound| ratio(secs, bound)),
            gateway_counts,
        }
    }
}

/// How long the gateway may take to write down the last states.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);
/// Between looks at whether the gateway still has something to deliver.
const GIVEN_UP_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
