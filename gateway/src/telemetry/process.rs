//! Figures of the process and its runtime, read when they are asked for.
//!
//! `process_*` comes from `/proc/self`, `tokio_*` from the runtime that calls `gather`.
//! Invariants: a figure that cannot be read keeps its last value; reading allocates a few kilobytes
//! and costs the same with 20 and with 20,000 connections.

use std::{fs, time::SystemTime};

use parking_lot::Mutex;
use prometheus::{Counter, Gauge, IntGauge, Registry, proto::MetricFamily};

use super::metrics::Maker;

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every architecture Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process's own metrics.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    registry: Registry,
    cpu_seconds: Mutex<Counter>,
    resident_bytes: IntGauge,
    peak_resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    threads: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    start_seconds: Gauge,
    workers: IntGauge,
    alive_tasks: IntGauge,
    queue_depth: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let metrics = Self {
            cpu_seconds: Mutex::new(make.seconds_total(
                "process_cpu_seconds_total",
                "Processor time, user and system.",
            )),
            resident_bytes: make.gauge("process_resident_memory_bytes", "Memory in use."),
            peak_resident_bytes: make.gauge(
                "process_resident_memory_peak_bytes",
                "Most memory that was in use.",
            ),
            virtual_bytes: make.gauge("process_virtual_memory_bytes", "Address space in use."),
            threads: make.gauge("process_threads", "Threads."),
            open_fds: make.gauge("process_open_fds", "Open file descriptors."),
            max_fds: make.gauge("process_max_fds", "Most open file descriptors."),
            start_seconds: make.seconds(
                "process_start_time_seconds",
                "Start of the process, seconds since 1970.",
            ),
            workers: make.gauge("tokio_workers", "Threads that run tasks."),
            alive_tasks: make.gauge("tokio_alive_tasks", "Tasks that have not returned."),
            queue_depth: make.gauge(
                "tokio_global_queue_depth",
                "Tasks waiting in the queue of all workers.",
            ),
            registry,
        };
        metrics.start_seconds.set(start_time());
        metrics
    }

    /// Reads the figures and gives them.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.read_process();
        self.read_runtime();
        self.registry.gather()
    }

    fn read_process(&self) {
        if let Some(seconds) = cpu_seconds() {
            // Two scrapes at once must not both add the same difference.
            let counter = self.cpu_seconds.lock();
            counter.inc_by((seconds - counter.get()).max(0.0));
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let fields = [
            ("VmRSS:", &self.resident_bytes, 1024),
            ("VmHWM:", &self.peak_resident_bytes, 1024),
            ("VmSize:", &self.virtual_bytes, 1024),
            ("Threads:", &self.threads, 1),
        ];
        for (name, gauge, unit) in fields {
            if let Some(value) = field(&status, name) {
                gauge.set(value * unit);
            }
        }
        if let Some(count) = open_fds() {
            self.open_fds.set(count);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(limit) = field(&limits, "Max open files") {
            self.max_fds.set(limit);
        }
    }

    fn read_runtime(&self) {
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let metrics = handle.metrics();
        let figures = [
            (&self.workers, metrics.num_workers()),
            (&self.alive_tasks, metrics.num_alive_tasks()),
            (&self.queue_depth, metrics.global_queue_depth()),
        ];
        for (gauge, value) in figures {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// The first number behind `name`, at the start of a line.
fn field(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/self/stat` from the third on: the second, the name, may hold blanks.
fn stat() -> Option<Vec<f64>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let number = |field: &str| field.parse().unwrap_or(0.0);
    Some(fields.split_whitespace().map(number).collect())
}

fn cpu_seconds() -> Option<f64> {
    let stat = stat()?;
    // utime and stime, fields 14 and 15.
    Some((stat.get(11)? + stat.get(12)?) / TICKS_PER_SECOND)
}

/// Start of the process in seconds since 1970; now when `/proc` does not say.
fn start_time() -> f64 {
    let started = || {
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot: i32 = field(&boot, "btime")?.try_into().ok()?;
        // starttime, field 22.
        Some(f64::from(boot) + stat()?.get(19)? / TICKS_PER_SECOND)
    };
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    };
    started().unwrap_or_else(now)
}

fn open_fds() -> Option<i64> {
    // Since Linux 6.2 the directory's size is the number of its entries; before, it is 0.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return i64::try_from(size).ok();
    }
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}
