//! `swarm telemetry`, `soak` and `chaos`: devices publish by plan, and listeners hear them.
//!
//! One process, or several that meet twice: when all devices are connected, and when nothing more is
//! published and everything was acknowledged. Then listeners wait for what is still on its way.

use std::sync::Arc;
use std::time::Duration;

use headgate_protocol::mqtt::QoS;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    RunError, ServerWatch, await_connected, clean_up, ensure_devices, identities, kind, limits,
    mark, preflight, stop, troubles, within,
};
use crate::api::Api;
use crate::cli::{ChaosArgs, CommonArgs, Part, SoakArgs, TelemetryArgs, TrafficArgs};
use crate::crew::{Briefing, Crew, Peers};
use crate::device::identity::Identity;
use crate::device::login::Login;
use crate::progress::{Phase, Unit};
use crate::provision::Provision;
use crate::report::{Chaos, Messages, Report, Soak};
use crate::rng::Rng;
use crate::stats::Stats;
use crate::swarm::{Limits, Swarm, Waited};
use crate::target::Target;
use crate::throttle::Pacer;
use crate::timeline::{Flatness, Point, Timeline};
use crate::traffic::listener::Listener;
use crate::traffic::schedule::Schedule;
use crate::traffic::sender::Sender;
use crate::traffic::trouble::Trouble;
use crate::traffic::{Plan, Traffic};

/// What one of the three scenarios is.
pub(crate) struct Job<'a> {
    name: &'static str,
    common: &'a CommonArgs,
    traffic: &'a TrafficArgs,
    length: Duration,
    trouble: Trouble,
    /// What share of the time is not looked at, and what memory may grow by in the rest.
    soak: Option<(f64, f64)>,
}

impl<'a> From<&'a TelemetryArgs> for Job<'a> {
    fn from(args: &'a TelemetryArgs) -> Self {
        Self {
            name: "telemetry",
            common: &args.common,
            traffic: &args.traffic,
            length: args.length,
            trouble: Trouble::None,
            soak: None,
        }
    }
}

impl<'a> From<&'a SoakArgs> for Job<'a> {
    fn from(args: &'a SoakArgs) -> Self {
        Self {
            name: "soak",
            common: &args.common,
            traffic: &args.traffic,
            length: args.length,
            trouble: Trouble::Flapping {
                seed: args.common.seed,
                share: args.flap,
                every: args.flap_every,
            },
            soak: Some((args.settle, args.max_growth)),
        }
    }
}

impl<'a> From<&'a ChaosArgs> for Job<'a> {
    fn from(args: &'a ChaosArgs) -> Self {
        let seed = args.common.seed;
        Self {
            name: "chaos",
            common: &args.common,
            traffic: &args.traffic,
            length: args.length,
            trouble: Trouble::chaos(seed, &args.faults, args.every, args.length, args.share),
            soak: None,
        }
    }
}

/// Runs the scenario.
///
/// # Errors
/// [`RunError`]: the run could not be made; devices' errors are in the report.
pub(crate) async fn run(job: &Job<'_>, interrupt: CancellationToken) -> Result<Report, RunError> {
    let common = job.common;
    let limits = limits(common, interrupt);
    let target = Target::find(common).await?;
    let swarm = Arc::new(Swarm::new(common, &target, None, false)?);
    preflight(common, &swarm, 1).await?;
    let identities = identities(common);
    if let Some(part) = common.part {
        let briefing = Briefing::received().unwrap_or_default();
        return job.part(part, identities, &swarm, briefing, &limits).await;
    }
    let (provision, briefing) = job.prepare(&target, &identities, &swarm, &limits).await?;
    let outcome = if common.processes > 1 {
        job.together(&swarm, &briefing).await
    } else {
        job.alone(identities, &swarm, briefing, &limits).await
    };
    if let Some(provision) = provision {
        clean_up(provision, common.keep, &swarm).await;
    }
    let mut report = outcome?;
    report.errors = swarm.stats.errors();
    Ok(report)
}

/// How the work of one process went.
struct Done {
    waited: Waited,
    connect_secs: f64,
    points: Vec<Point>,
    /// When messages began to be due, and when they ended, on the timeline.
    span: (f64, f64),
}

impl Job<'_> {
    /// Registers what the run needs; nothing with a broker that is no gateway.
    async fn prepare(
        &self,
        target: &Target,
        identities: &[Identity],
        swarm: &Arc<Swarm>,
        limits: &Limits,
    ) -> Result<(Option<Provision>, Briefing), RunError> {
        let common = self.common;
        let mut rng = Rng::new(common.seed, u64::from(std::process::id()));
        let run = u32::try_from(rng.next_u64() >> 32).unwrap_or_default();
        let wants_listeners = self.traffic.listeners > 0;
        if common.broker.any_broker {
            let listener = wants_listeners.then(|| Login {
                client_id: format!("swarm-{run:08x}-listener-"),
                username: common.broker.username.clone(),
                password: common.broker.password.clone(),
                persistent: self.traffic.persistent,
            });
            return Ok((None, Briefing { run, listener }));
        }
        let mut provision = Provision::new(Arc::new(Api::new(target)?), kind(common));
        let app = format!("swarm-{run:08x}");
        let prepare = async {
            ensure_devices(&mut provision, identities, common.seed).await?;
            if !wants_listeners {
                return Ok(None);
            }
            let secret = provision.make_app(&app, identities).await?;
            Ok(Some(Login {
                client_id: format!("app:{app}:"),
                username: Some(app.clone()),
                password: Some(secret),
                persistent: self.traffic.persistent,
            }))
        };
        match within(limits, prepare).await {
            Ok(listener) => Ok((Some(provision), Briefing { run, listener })),
            Err(error) => {
                clean_up(provision, common.keep, swarm).await;
                Err(error)
            }
        }
    }

    /// The whole run in this process.
    async fn alone(
        &self,
        identities: Vec<Identity>,
        swarm: &Arc<Swarm>,
        briefing: Briefing,
        limits: &Limits,
    ) -> Result<Report, RunError> {
        let whole = Part { index: 0, of: 1 };
        let mut server = ServerWatch::start(self.common.server_pid);
        let done = self.drive(whole, identities, swarm, briefing, limits, server.as_mut());
        let done = done.await?;
        let mut report = self.report(&swarm.stats, &done);
        report.server = server.map(|watch| watch.finish(swarm.stats.ever_connected.get(), 0));
        mark(&mut report, done.waited);
        Ok(report)
    }

    /// One process of several: what it counted goes to the one that started it.
    async fn part(
        &self,
        part: Part,
        identities: Vec<Identity>,
        swarm: &Arc<Swarm>,
        briefing: Briefing,
        limits: &Limits,
    ) -> Result<Report, RunError> {
        let range = part.devices(self.common.devices);
        let mine = identities
            .into_iter()
            .filter(|it| range.contains(&it.index));
        let mine = mine.collect();
        let done = self
            .drive(part, mine, swarm, briefing, limits, None)
            .await?;
        let dump = swarm.stats.dump_of(done.connect_secs, &done.points);
        Peers::hand_over(&dump)?;
        Ok(self.report(&swarm.stats, &done))
    }

    /// Several processes, which this one starts and waits for.
    async fn together(&self, swarm: &Arc<Swarm>, briefing: &Briefing) -> Result<Report, RunError> {
        let mut server = ServerWatch::start(self.common.server_pid);
        let mut crew = Crew::start(self.common.processes, briefing)?;
        crew.meet().await?;
        server.iter_mut().for_each(ServerWatch::on_connected);
        let timeline = Timeline::start(swarm, self.common.probe());
        crew.meet().await?;
        let span = (0.0, timeline.now());
        server.iter_mut().for_each(ServerWatch::on_idle);
        let total = crew.finish(swarm, timeline).await?;
        let done = Done {
            waited: Waited::Reached,
            connect_secs: total.connect_secs,
            points: total.points,
            span,
        };
        let mut report = self.report(&swarm.stats, &done);
        report.swarm_cpu_seconds += total.cpu_secs;
        report.swarm_rss_peak_bytes += total.rss_peak_bytes;
        report.server = server.map(|watch| watch.finish(swarm.stats.ever_connected.get(), 0));
        Ok(report)
    }

    /// Connects, publishes, waits for what is under way, and leaves.
    async fn drive(
        &self,
        part: Part,
        identities: Vec<Identity>,
        swarm: &Arc<Swarm>,
        briefing: Briefing,
        limits: &Limits,
        mut server: Option<&mut ServerWatch>,
    ) -> Result<Done, RunError> {
        let peers = Peers::of(self.common.part);
        let devices = u32::try_from(identities.len()).unwrap_or(u32::MAX);
        let traffic = Arc::new(self.traffic(swarm, briefing));
        let mut tasks = JoinSet::new();
        let listeners = self.listen(part, &traffic, &mut tasks, limits).await;
        let started = Instant::now();
        let rate = self.common.rate.div_ceil(part.of);
        let pacer = Pacer::new(started, Some(rate));
        for (order, identity) in (0_u32..).zip(identities) {
            tasks.spawn(Sender::new(&traffic, identity).run(pacer.start_of(order)));
        }
        let mut waited = await_connected(swarm, devices, limits).await;
        let last = swarm.last_ready().saturating_duration_since(started);
        if let Some(server) = server.as_deref_mut() {
            server.on_connected();
        }
        peers.meet(0).await?;
        let probe = self.common.probe().filter(|_| self.common.part.is_none());
        let timeline = Timeline::start(swarm, probe);
        traffic.begin();
        let from = timeline.now();
        if waited == Waited::Reached {
            waited = self.publish(swarm, limits).await;
        }
        let span = (from, timeline.now());
        traffic.quiet.cancel();
        if waited == Waited::Reached {
            waited = settle(swarm, limits).await;
        }
        if let Some(server) = server {
            server.on_idle();
        }
        let stats = &swarm.stats;
        let due = if self.traffic.qos == 0 {
            stats.sent.get()
        } else {
            stats.acked.get()
        };
        let all_due = peers.meet(due).await?;
        if waited == Waited::Reached {
            hear_out(swarm, all_due.saturating_mul(u64::from(listeners)), limits).await;
        }
        let points = timeline.finish();
        stop(swarm, tasks).await;
        Ok(Done {
            waited,
            connect_secs: last.as_secs_f64(),
            points,
            span,
        })
    }

    fn traffic(&self, swarm: &Arc<Swarm>, briefing: Briefing) -> Traffic {
        let args = self.traffic;
        let plan = Plan {
            run: briefing.run,
            qos: QoS::from_bits(args.qos).unwrap_or(QoS::AtLeastOnce),
            size: usize::try_from(args.size).unwrap_or(usize::MAX),
            schedule: Schedule {
                interval: args.interval,
                ramp: args.ramp,
            },
            window: usize::from(args.inflight),
            topic: args.topic.clone(),
            trouble: self.trouble.clone(),
        };
        Traffic::new(Arc::clone(swarm), plan, briefing.listener)
    }

    /// Starts this part's listeners and waits until they hear; how many they are.
    async fn listen(
        &self,
        part: Part,
        traffic: &Arc<Traffic>,
        tasks: &mut JoinSet<()>,
        limits: &Limits,
    ) -> u32 {
        let numbers = (0..self.traffic.listeners).filter(|number| number % part.of == part.index);
        let mut count = 0;
        for number in numbers {
            if let Some(listener) = Listener::new(traffic, number, self.common.devices) {
                tasks.spawn(listener.run());
                count += 1;
            }
        }
        let stats = &traffic.swarm.stats;
        let ready = || stats.listening.get() + stats.listeners_lost.get() >= u64::from(count);
        limits.wait(ready, || ()).await;
        count
    }

    async fn publish(&self, swarm: &Swarm, limits: &Limits) -> Waited {
        let from = Instant::now();
        let mut phase = Phase::start("publish", self.length.as_secs(), Unit::Seconds);
        let stats = &swarm.stats;
        let message = || {
            format!(
                "{} connected, {} sent, {} acknowledged, {} heard {}",
                stats.connected.get(),
                stats.sent.get(),
                stats.acked.get(),
                stats.received.get(),
                troubles(swarm)
            )
        };
        limits
            .wait(
                || from.elapsed() >= self.length,
                || phase.update(from.elapsed().as_secs(), message),
            )
            .await
    }

    fn report(&self, stats: &Stats, done: &Done) -> Report {
        let args = self.traffic;
        let mut report = Report::new(self.name, self.common.devices, stats, done.connect_secs);
        let seconds = done.span.1 - done.span.0;
        let messages = Messages::of(stats, args.qos, args.size, args.listeners, seconds);
        report.ok &= messages.unacked == 0 && messages.refused == 0;
        report.ok &= args.qos == 0 || messages.lost.unwrap_or(0) == 0;
        report.ok &= stats.listeners_lost.get() == 0;
        report.messages = Some(messages);
        if self.name == "chaos" {
            let chaos = Chaos::of(stats);
            report.ok &= chaos.malformed == chaos.malformed_refused;
            report.chaos = Some(chaos);
        }
        if let Some((settle, max_growth)) = self.soak {
            let (from, to) = done.span;
            let memory = Flatness::of(&done.points, from + (to - from) * settle, to);
            let flat = memory.map(|memory| memory.growth <= max_growth);
            report.ok &= flat != Some(false);
            report.soak = Some(Soak {
                memory,
                max_growth,
                flat,
            });
        }
        report.timeline.clone_from(&done.points);
        report
    }
}

/// Waits until every device is back and everything was acknowledged, for a while.
async fn settle(swarm: &Swarm, limits: &Limits) -> Waited {
    let stats = &swarm.stats;
    let until = Instant::now() + SETTLE_TIMEOUT;
    let settled = || {
        let there = stats.connected.get() + stats.failed.get() >= stats.ever_connected.get();
        (stats.outstanding.get() == 0 && there) || Instant::now() >= until
    };
    limits.wait(settled, || ()).await
}

/// Waits until listeners heard `due` messages, or nothing more comes.
async fn hear_out(swarm: &Swarm, due: u64, limits: &Limits) {
    let stats = &swarm.stats;
    let mut last = (stats.received.get(), Instant::now());
    let heard = || {
        let received = stats.received.get();
        if received > last.0 {
            last = (received, Instant::now());
        }
        received >= due || last.1.elapsed() >= HEAR_TIMEOUT
    };
    limits.wait(heard, || ()).await;
}

/// For devices to come back and for what is under way to be acknowledged.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing came for so long: nothing comes any more.
const HEAR_TIMEOUT: Duration = Duration::from_secs(5);
