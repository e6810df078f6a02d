//! The scenarios: what a run makes, in which order, and what it reports.

pub(crate) mod connect;
pub(crate) mod deliver;
pub(crate) mod traffic;
pub(crate) mod upload;

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::ApiError;
use crate::cli::{Command, CommonArgs};
use crate::crew::CrewError;
use crate::device::coap;
use crate::device::error::DeviceError;
use crate::device::identity::Identity;
use crate::proc_stat::{self, ProcSample, SAMPLE_INTERVAL};
use crate::progress::{Phase, Unit};
use crate::provision::{Kind, Provision};
use crate::report::{Report, Server, as_f64, ratio};
use crate::swarm::{Limits, Swarm, Waited};
use crate::target::TargetError;
use crate::tls::TlsError;

/// Why a run could not be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The gateway cannot be found.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The API does not answer as it should.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nothing listens for devices.
    #[error(
        "cannot reach the listener for devices at {address}: {error}; is the gateway running there? (--data-dir or --host and --port say where)"
    )]
    Unreachable {
        /// The listener.
        address: SocketAddr,
        /// Why.
        error: DeviceError,
    },
    /// Something listens that is not trusted.
    #[error(
        "{address}: {error}; is the CA (--ca or --data-dir) that of this gateway, and --host a name in its certificate?"
    )]
    Untrusted {
        /// The listener.
        address: SocketAddr,
        /// Why.
        error: DeviceError,
    },
    /// `--timeout` passed before the first device started.
    #[error("not ready within --timeout")]
    TooLate,
    /// The resource cannot be read.
    #[error("cannot read the resource: {0}")]
    Content(#[source] io::Error),
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// More devices than files may be open.
    #[error(
        "{devices} devices need {needed} open files and only {allowed} are allowed: raise the hard limit (`ulimit -Hn`, or `nofile` in /etc/security/limits.conf)"
    )]
    OpenFiles {
        /// `--devices`.
        devices: u32,
        /// Files needed.
        needed: u64,
        /// Hard limit.
        allowed: u64,
    },
    /// Nothing would be left to deliver.
    #[error("the resource is empty")]
    Empty,
    /// The processes of the run.
    #[error(transparent)]
    Crew(#[from] CrewError),
    /// The report could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Ctrl-C twice.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the scenario of `command` until it ends or is interrupted.
///
/// # Errors
/// [`RunError`]: the run could not be made; devices' errors are in the report.
pub(crate) async fn run(
    command: &Command,
    interrupt: CancellationToken,
) -> Result<Report, RunError> {
    match command {
        Command::Connect(args) => Box::pin(connect::run(args, interrupt)).await,
        Command::Deliver(args) => Box::pin(deliver::run(args, interrupt)).await,
        Command::Upload(args) => Box::pin(upload::run(args, interrupt)).await,
        Command::Telemetry(args) => Box::pin(traffic::run(&args.into(), interrupt)).await,
        Command::Soak(args) => Box::pin(traffic::run(&args.into(), interrupt)).await,
        Command::Chaos(args) => Box::pin(traffic::run(&args.into(), interrupt)).await,
    }
}

/// The run's limits in time.
fn limits(args: &CommonArgs, interrupt: CancellationToken) -> Limits {
    Limits {
        deadline: Instant::now() + args.timeout,
        interrupt,
    }
}

/// Refuses early what could only fail later, thousands of times: too few files, nobody there, a
/// certificate of somebody else.
async fn preflight(args: &CommonArgs, swarm: &Arc<Swarm>, files_each: u64) -> Result<(), RunError> {
    let needed = u64::from(args.devices) * files_each + SPARE_FILES;
    if let Some(allowed) = raise_open_files(needed)
        && allowed < needed
    {
        return Err(RunError::OpenFiles {
            devices: args.devices,
            needed,
            allowed,
        });
    }
    let address = swarm.dial.address;
    if swarm.coap.is_some() {
        let until = Instant::now() + PREFLIGHT_TIMEOUT;
        return match coap::ping(swarm, until).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(DeviceError::Silent),
            Err(error) => Err(error),
        }
        .map_err(|error| RunError::Unreachable { address, error });
    }
    match timeout(PREFLIGHT_TIMEOUT, swarm.dial.open(None, None)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error @ DeviceError::Tls(_))) => Err(RunError::Untrusted { address, error }),
        Ok(Err(error)) => Err(RunError::Unreachable { address, error }),
        Err(_) => {
            let error = DeviceError::ConnectTimeout("tcp and tls");
            Err(RunError::Unreachable { address, error })
        }
    }
}

/// Waits for `work` no longer than the run may last.
async fn within<T>(
    limits: &Limits,
    work: impl Future<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    tokio::select! {
        biased;
        () = limits.interrupt.cancelled() => Err(RunError::Interrupted),
        () = sleep_until(limits.deadline) => Err(RunError::TooLate),
        done = work => done,
    }
}

/// Raises the limit of open files to `needed`, or as far as this process may; what is then allowed,
/// `None`: anything.
///
/// Systems start programs with 1,024, for the sake of `select(2)`, which nothing here uses.
fn raise_open_files(needed: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    // Only a privileged process may raise the hard limit; every process may go up to it.
    let raised = if hard.is_none_or(|hard| hard >= needed) {
        hard
    } else {
        Some(needed)
    };
    for wanted in [raised, hard] {
        if setrlimit(
            Resource::Nofile,
            Rlimit {
                current: wanted,
                maximum: wanted,
            },
        )
        .is_ok()
        {
            return wanted;
        }
    }
    limit.current
}

/// The product of a run, and what its devices are.
fn kind(args: &CommonArgs) -> Kind {
    Kind {
        product: args.product.clone(),
        proto: args.proto,
        form: args.form,
        // A little longer than they are awake: the gateway counts from the last datagram that it got.
        reachable_secs: (!args.coap.sleep.is_zero()).then(|| args.coap.awake.as_secs() + 1),
    }
}

/// The devices of a run.
fn identities(args: &CommonArgs) -> Vec<Identity> {
    (0..args.devices)
        .map(|index| Identity::new(&args.product, args.seed, index))
        .collect()
}

/// Makes product and devices, with progress.
async fn ensure_devices(
    provision: &mut Provision,
    identities: &[Identity],
    seed: u64,
) -> Result<(), RunError> {
    provision.ensure_product().await?;
    let done = Arc::new(AtomicUsize::new(0));
    let work = provision.ensure_devices(identities, seed, &done);
    Ok(with_progress("provision", identities.len(), &done, work).await?)
}

/// Deletes what the run made, with progress; says so where that cannot be done.
async fn clean_up(mut provision: Provision, keep: bool, swarm: &Swarm) {
    if let Err(error) = provision.remove_app().await {
        swarm.stats.problem("clean_up", || error.to_string());
    }
    if keep {
        return;
    }
    let done = Arc::new(AtomicUsize::new(0));
    let total = provision.made_devices();
    if let Err(error) = with_progress("clean up", total, &done, provision.remove(&done)).await {
        swarm.stats.problem("clean_up", || error.to_string());
    }
}

async fn with_progress<T>(
    name: &'static str,
    total: usize,
    done: &AtomicUsize,
    work: impl Future<Output = T>,
) -> T {
    let mut phase = Phase::start(name, total as u64, Unit::Devices);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ = ticks.tick() => phase.update(done.load(Ordering::Relaxed) as u64, String::new),
        }
    }
}

/// Waits until every device was ready once or has given up.
async fn await_connected(swarm: &Swarm, total: u32, limits: &Limits) -> Waited {
    let mut phase = Phase::start("connect", u64::from(total), Unit::Devices);
    let stats = &swarm.stats;
    limits
        .wait(
            || stats.ever_connected.get() + stats.failed.get() >= u64::from(total),
            || phase.update(stats.ever_connected.get(), || troubles(swarm)),
        )
        .await
}

/// What goes wrong, for the progress line.
fn troubles(swarm: &Swarm) -> String {
    let stats = &swarm.stats;
    let mut text = String::new();
    for (count, what) in [
        (stats.wrong.get(), "WRONG"),
        (stats.failed.get(), "failed"),
        (stats.reconnects.get(), "reconnects"),
        (stats.planned_drops.get(), "drops"),
    ] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{count} {what} ");
        }
    }
    text
}

/// Lets all devices leave.
async fn stop(swarm: &Swarm, mut tasks: JoinSet<()>) {
    swarm.stop.cancel();
    let leave = async { while tasks.join_next().await.is_some() {} };
    // A task that hangs here is aborted with the set.
    let _ = timeout(LEAVE_TIMEOUT, leave).await;
}

/// Readings of the gateway's process along a run.
struct ServerWatch {
    pid: u32,
    peak_reset: bool,
    before: ProcSample,
    connected: ProcSample,
    idle: ProcSample,
    rss_max: Arc<AtomicUsize>,
    sampler: JoinSet<()>,
}

impl ServerWatch {
    /// Takes the first reading; `None` where there is no such process.
    fn start(pid: Option<u32>) -> Option<Self> {
        let pid = pid?;
        let peak_reset = proc_stat::reset_peak(pid);
        let before = ProcSample::read(pid)?;
        let rss_max = Arc::new(AtomicUsize::new(0));
        let mut sampler = JoinSet::new();
        let max = Arc::clone(&rss_max);
        sampler.spawn(async move {
            while let Some(sample) = ProcSample::read(pid) {
                let rss = usize::try_from(sample.rss_bytes).unwrap_or(usize::MAX);
                max.fetch_max(rss, Ordering::Relaxed);
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
        });
        Some(Self {
            pid,
            peak_reset,
            before,
            connected: before,
            idle: before,
            rss_max,
            sampler,
        })
    }

    /// Waits until the gateway has done what comes after a connection: it looks for what waits for a device a moment
    /// after its subscription. A gateway that has other work is not waited for long.
    async fn until_at_rest(&self) {
        let cpu = || ProcSample::read(self.pid).map(|sample| sample.cpu_secs);
        let began = Instant::now();
        let (mut last, mut rests_since) = (cpu(), began);
        while rests_since.elapsed() < REST && began.elapsed() < REST_TIMEOUT {
            tokio::time::sleep(SAMPLE_INTERVAL).await;
            let now = cpu();
            if now != last {
                (last, rests_since) = (now, Instant::now());
            }
        }
    }

    /// The last device is connected.
    fn on_connected(&mut self) {
        self.connected = ProcSample::read(self.pid).unwrap_or(self.connected);
    }

    /// All devices are connected and nothing else goes on.
    fn on_idle(&mut self) {
        self.idle = ProcSample::read(self.pid).unwrap_or(self.idle);
    }

    /// The figures, at the end of the run proper.
    fn finish(mut self, devices: u64, bytes: u64) -> Server {
        let end = ProcSample::read(self.pid).unwrap_or_default();
        self.sampler.abort_all();
        let connect_cpu = (self.connected.cpu_secs - self.before.cpu_secs).max(0.0);
        let run_cpu = (end.cpu_secs - self.connected.cpu_secs).max(0.0);
        let per_gb = |cpu| (bytes > 0).then(|| ratio(cpu, as_f64(bytes) / 1e9));
        let grown = self.idle.rss_bytes.saturating_sub(self.before.rss_bytes);
        Server {
            connect_cpu_seconds: connect_cpu,
            connect_cpu_seconds_per_1000: ratio(connect_cpu * 1000.0, as_f64(devices)),
            run_cpu_seconds: run_cpu,
            cpu_seconds_per_gb: per_gb(run_cpu),
            cpu_seconds_per_gb_with_connect: per_gb(connect_cpu + run_cpu),
            rss_before_bytes: self.before.rss_bytes,
            rss_connected_bytes: self.idle.rss_bytes,
            rss_per_device_bytes: grown.checked_div(devices).unwrap_or(0),
            rss_max_bytes: self.rss_max.load(Ordering::Relaxed) as u64,
            rss_peak_bytes: end.rss_peak_bytes,
            rss_peak_is_of_this_run: self.peak_reset,
            rss_now_bytes: end.rss_bytes,
        }
    }
}

/// Marks how a run ended before its time.
const fn mark(report: &mut Report, waited: Waited) {
    match waited {
        Waited::Reached => {}
        Waited::Interrupted => {
            report.interrupted = true;
            report.ok = false;
        }
        Waited::TimedOut => {
            report.timed_out = true;
            report.ok = false;
        }
    }
}

/// Files besides the devices' sockets.
const SPARE_FILES: u64 = 128;
const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(10);
/// For all devices to say DISCONNECT.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(15);
/// A gateway that has used no processor time for so long is at rest: longer than it waits after a subscription.
const REST: Duration = Duration::from_millis(1500);
const REST_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests;
