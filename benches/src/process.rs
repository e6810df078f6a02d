//! Child processes: started, watched, read from `/proc` and stopped by their own pid.
//!
//! Invariants: a [`Server`] that is dropped is killed with the processes that it started; none
//! outlives the run.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::error::BenchError;
use crate::fleet::ClientError;

/// CPU time and memory of a server with the processes that it started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// User and system time, seconds.
    pub(crate) cpu_secs: f64,
    /// Resident memory, bytes; pages that processes share are counted in each.
    pub(crate) rss_bytes: u64,
}

/// A running server.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Server {
    /// Starts `command`; what it prints goes to `log`.
    ///
    /// # Errors
    /// [`BenchError::Spawn`] and [`BenchError::File`].
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        log: PathBuf,
    ) -> Result<Self, BenchError> {
        let file = fs::File::create(&log).map_err(BenchError::file(&log))?;
        let second = file.try_clone().map_err(BenchError::file(&log))?;
        let spawn = |source| BenchError::Spawn {
            name: name.to_owned(),
            source,
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn)?;
        let pid = child
            .id()
            .ok_or_else(|| spawn(io::Error::other("it ended at once")))?;
        Ok(Self {
            name,
            child,
            pid,
            log,
        })
    }

    /// Its process id.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until `ready` gives something.
    ///
    /// # Errors
    /// [`BenchError::Server`] when it ends first or is not ready after [`START_TIMEOUT`].
    pub(crate) async fn until<T>(
        &mut self,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, BenchError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(format!("ended with {status}")));
            }
            if Instant::now() >= deadline {
                return Err(self.failed(format!("was not ready within {START_TIMEOUT:?}")));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until something listens at `address`.
    ///
    /// # Errors
    /// As [`Server::until`].
    pub(crate) async fn until_listening(&mut self, address: SocketAddr) -> Result<(), BenchError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).await.is_err() {
            let late = Instant::now() >= deadline;
            self.until(|| Some(())).await?;
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(format!("ended with {status}")));
            }
            if late {
                return Err(self.failed(format!("does not listen at {address}")));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// What it and the processes that it started have used.
    ///
    /// # Errors
    /// [`BenchError::Sample`] when it is gone.
    pub(crate) fn sample(&self) -> Result<Sample, BenchError> {
        let mut sum = read(self.pid).ok_or(BenchError::Sample(self.pid))?;
        for child in children(self.pid) {
            let Some(sample) = read(child) else { continue };
            sum.cpu_secs += sample.cpu_secs;
            sum.rss_bytes += sample.rss_bytes;
        }
        Ok(sum)
    }

    /// The most resident memory that it had so far, bytes, without the processes that it started.
    ///
    /// # Errors
    /// [`BenchError::Sample`] when it is gone.
    pub(crate) fn peak_rss_bytes(&self) -> Result<u64, BenchError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.map_err(|_| BenchError::Sample(self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or(BenchError::Sample(self.pid))
    }

    /// A client of it that ended with `source`.
    pub(crate) fn client_error(&self, source: ClientError) -> BenchError {
        BenchError::Client {
            peer: self.name,
            source,
            log: self.log_tail(),
        }
    }

    /// Asks it to end, and kills it when it does not within [`STOP_TIMEOUT`].
    pub(crate) async fn stop(mut self) {
        signal(self.pid, Signal::TERM);
        // Dropping kills what is left.
        let _ = timeout(STOP_TIMEOUT, self.child.wait()).await;
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        // One that has ended by itself is as dead.
        let _ = self.child.kill().await;
    }

    fn failed(&self, what: String) -> BenchError {
        BenchError::Server {
            name: self.name,
            what,
            log: self.log_tail(),
        }
    }

    fn log_tail(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After it was waited for, its pid may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            for child in children(self.pid) {
                signal(child, Signal::KILL);
            }
            signal(self.pid, Signal::KILL);
        }
    }
}

/// The last lines of `text`.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// A port of 127.0.0.1 that nobody listened at a moment ago, for programs that cannot choose.
///
/// # Errors
/// [`BenchError::Runtime`].
pub(crate) fn free_port() -> Result<SocketAddr, BenchError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(BenchError::Runtime)
}

/// Raises the limit of open files as far as this user may; child processes inherit it.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused, the run that needs more says so.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

fn read(pid: u32) -> Option<Sample> {
    let directory = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    let status = fs::read_to_string(directory.join("status")).ok()?;
    Some(Sample {
        cpu_secs: cpu_secs(&stat)?,
        rss_bytes: kib_field(&status, "VmRSS:")?,
    })
}

/// The processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&process: &u32| {
            fs::read_to_string(format!("/proc/{process}/stat"))
                .is_ok_and(|stat| parent(&stat) == Some(pid))
        })
        .collect()
}

/// Fields of a `/proc/PID/stat` line after the name, which may hold blanks and brackets.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_ascii_whitespace()
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat).nth(1)?.parse().ok()
}

fn cpu_secs(stat: &str) -> Option<f64> {
    let mut times = fields(stat).skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SEC)
}

fn kib_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 15;
/// `USER_HZ`: 100 in every Linux ABI that user space sees.
const TICKS_PER_SEC: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_an_awkward_name() {
        let stat = "7 (a) b (c)) S 42 2 3 4 5 6 7 8 9 10 250 150 0 0 20";
        assert_eq!(parent(stat), Some(42));
        assert_eq!(cpu_secs(stat), Some(4.0));
        assert_eq!(cpu_secs(""), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(kib_field("VmRSS:\t  1024 kB\n", "VmRSS:"), Some(1 << 20));
    }

    #[tokio::test]
    async fn a_stopped_server_is_gone_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]);
        let log = directory.path().join("log");
        let mut server = Server::start("sh", command, log).unwrap();
        let pid = server.pid();
        let child = server.until(|| children(pid).first().copied()).await;
        let child = child.unwrap();
        drop(server);
        while read(pid).is_some() || parent_is(child, pid) {
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn parent_is(child: u32, pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{child}/stat"))
            .is_ok_and(|stat| parent(&stat) == Some(pid))
    }
}
