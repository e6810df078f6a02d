//! The counters and distributions of one process, as it hands them to the one that started it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::proc_stat::ProcSample;
use crate::timeline::Point;

use super::{Counter, ErrorCount, Stats, Timing};

/// Everything that one process counted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dump {
    counters: BTreeMap<String, u64>,
    /// Values in microseconds, each with how often it came.
    times: BTreeMap<String, Vec<(u64, u64)>>,
    errors: BTreeMap<String, ErrorCount>,
    /// From the start to the last device that became ready.
    #[serde(default)]
    pub(crate) connect_secs: f64,
    /// CPU seconds of the process.
    #[serde(default)]
    pub(crate) cpu_secs: f64,
    /// Its peak of memory.
    #[serde(default)]
    pub(crate) rss_peak_bytes: u64,
    /// What the timeline had, second by second.
    #[serde(default)]
    pub(crate) timeline: Vec<Point>,
}

impl Stats {
    /// What was counted so far.
    fn dump(&self) -> Dump {
        let counters = self.counters();
        let counters = counters.map(|(name, counter)| (name.to_owned(), counter.get()));
        let times = self.with_times(|times| {
            let of = |timing: Timing| {
                let values = times.of(timing).iter_recorded();
                let values =
                    values.map(|value| (value.value_iterated_to(), value.count_at_value()));
                (timing.name().to_owned(), values.collect::<Vec<_>>())
            };
            Timing::ALL.map(of).into_iter().collect()
        });
        let errors = self.errors().into_iter();
        Dump {
            counters: counters.into_iter().collect(),
            times,
            errors: errors
                .map(|(kind, error)| (kind.into_owned(), error))
                .collect(),
            ..Dump::default()
        }
    }

    /// What was counted in all, with how long connecting took and the timeline.
    pub(crate) fn dump_of(&self, connect_secs: f64, points: &[Point]) -> Dump {
        let own = ProcSample::read(std::process::id()).unwrap_or_default();
        Dump {
            connect_secs,
            cpu_secs: own.cpu_secs,
            rss_peak_bytes: own.rss_peak_bytes,
            timeline: points.to_vec(),
            ..self.dump()
        }
    }

    /// Adds what another process counted.
    pub(crate) fn absorb(&self, dump: &Dump) {
        for (name, counter) in self.counters() {
            counter.add(dump.counters.get(name).copied().unwrap_or(0));
        }
        for timing in Timing::ALL {
            let mut times = self.times.lock();
            for &(value, count) in dump.times.get(timing.name()).into_iter().flatten() {
                times.of_mut(timing).saturating_record_n(value, count);
            }
        }
        for (kind, error) in &dump.errors {
            let first = || error.first.clone();
            self.problems(kind.clone().into(), error.count, first);
        }
    }

    const fn counters(&self) -> [(&'static str, &Counter); 30] {
        [
            ("connected", &self.connected),
            ("ever_connected", &self.ever_connected),
            ("reconnects", &self.reconnects),
            ("planned_drops", &self.planned_drops),
            ("bytes", &self.bytes),
            ("duplicate_bytes", &self.duplicate_bytes),
            ("chunks", &self.chunks),
            ("stalls", &self.stalls),
            ("done", &self.done),
            ("wrong", &self.wrong),
            ("failed", &self.failed),
            ("left", &self.left),
            ("fast_ended", &self.fast_ended),
            ("answered", &self.answered),
            ("sent", &self.sent),
            ("acked", &self.acked),
            ("outstanding", &self.outstanding),
            ("refused", &self.refused),
            ("received", &self.received),
            ("duplicates", &self.duplicates),
            ("listening", &self.listening),
            ("listeners_lost", &self.listeners_lost),
            ("listener_losses", &self.listener_losses),
            ("flaps", &self.flaps),
            ("storms", &self.storms),
            ("half_open", &self.half_open),
            ("deaf", &self.deaf),
            ("malformed", &self.malformed),
            ("malformed_refused", &self.malformed_refused),
            ("datagrams_sent", &self.datagrams.sent),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::error::DeviceError;

    #[test]
    fn two_processes_add_up() {
        let one = Stats::default();
        one.sent.add(3);
        one.record(Timing::PubAck, Duration::from_millis(5));
        one.error("d1", &DeviceError::Closed);
        let text = serde_json::to_string(&one.dump()).unwrap();
        let both = Stats::default();
        for _ in 0..2 {
            both.absorb(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!(both.sent.get(), 6);
        assert_eq!(both.with_times(|times| times.of(Timing::PubAck).len()), 2);
        assert_eq!(both.errors()["closed_by_gateway"].count, 2);
    }
}
