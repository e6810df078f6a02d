//! What the gateway's process used: CPU seconds and resident memory, read from `/proc`.
//!
//! A sampler reads every [`SAMPLE_INTERVAL`]; figures are those of the whole process named by
//! `--server-pid`, in user and system mode, threads included.
//! Invariants: reading never fails a run; a process that ended is reported as absent figures.

use std::fs;
use std::time::Duration;

/// One reading of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcSample {
    /// User and system CPU time, seconds.
    pub(crate) cpu_secs: f64,
    /// `VmRSS`, bytes.
    pub(crate) rss_bytes: u64,
    /// `VmHWM`, bytes: the peak since the process started, or since the last reset.
    pub(crate) rss_peak_bytes: u64,
}

impl ProcSample {
    /// Reads process `pid`; `None` when there is none or it cannot be read.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self {
            cpu_secs: cpu_secs(&stat)?,
            rss_bytes: kib_field(&status, "VmRSS:")?,
            rss_peak_bytes: kib_field(&status, "VmHWM:")?,
        })
    }
}

/// Sets the peak (`VmHWM`) of `pid` back to what it holds now; false where that is not allowed.
pub(crate) fn reset_peak(pid: u32) -> bool {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

/// `utime + stime` of a `/proc/PID/stat` line.
fn cpu_secs(stat: &str) -> Option<f64> {
    // The command name may hold blanks and brackets: fields are counted from the last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SEC)
}

/// A field of `/proc/PID/status` given in kB, in bytes.
fn kib_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// How often a running gateway is read.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// `USER_HZ`: 100 in every Linux ABI that user space sees.
const TICKS_PER_SEC: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_after_an_awkward_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu_secs(stat), Some(4.0));
        assert_eq!(cpu_secs("7 (x) S 1"), None);
        assert_eq!(cpu_secs(""), None);
    }

    #[test]
    fn reads_memory_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib_field(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(kib_field(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kib_field(status, "VmSwap:"), None);
    }

    #[test]
    fn reads_this_process_and_no_absent_one() {
        let sample = ProcSample::read(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 0 && sample.rss_peak_bytes >= sample.rss_bytes / 2);
        assert_eq!(ProcSample::read(u32::MAX), None);
    }
}
