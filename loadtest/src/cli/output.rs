//! Options of every scenario about the server, the processes of the swarm, and what is written.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::probe::Probe;
use crate::report::bounds::Bounds;

/// A broker that is no gateway.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Any broker")]
pub(crate) struct BrokerArgs {
    /// Nothing is registered, and no API is asked: any MQTT broker. For connect, telemetry, soak and chaos.
    #[arg(long)]
    pub(crate) any_broker: bool,
    /// User name of all clients.
    #[arg(long, short, requires = "any_broker")]
    pub(crate) username: Option<String>,
    /// Password of all clients.
    #[arg(
        long,
        env = "SWARM_PASSWORD",
        hide_env_values = true,
        requires = "any_broker"
    )]
    pub(crate) password: Option<String>,
}

/// What is written, and what must hold.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct OutputArgs {
    /// Form of the report on standard output.
    #[arg(long, value_enum, default_value_t = ReportForm::Text)]
    pub(crate) report: ReportForm,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write what happened second by second as CSV to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write one page with plots to this file; it needs nothing besides itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// What must hold, e.g. 'p99<2s,failed=0'; the run fails, with exit code 3, if one of them does not.
    #[arg(long, alias = "require", value_name = "BOUNDS")]
    pub(crate) fail_if: Option<Bounds>,
}

/// Forms of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportForm {
    /// For a person.
    Text,
    /// For a program; the text goes to standard error.
    Json,
}

/// Which part of a run one process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// From 0.
    pub(crate) index: u32,
    /// How many there are.
    pub(crate) of: u32,
}

impl Part {
    /// The devices of this part.
    pub(crate) fn devices(self, all: u32) -> std::ops::Range<u32> {
        let bound = |index: u32| {
            let at = u64::from(all) * u64::from(index) / u64::from(self.of.max(1));
            u32::try_from(at).unwrap_or(all)
        };
        bound(self.index)..bound(self.index + 1)
    }
}

/// `2/4`.
pub(super) fn parse_part(text: &str) -> Result<Part, String> {
    let (index, of) = text.split_once('/').ok_or("write it like 0/4")?;
    let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
    let part = Part {
        index: number(index)?,
        of: number(of)?,
    };
    if part.index < part.of {
        Ok(part)
    } else {
        Err("there is no such part".to_owned())
    }
}

/// The server that is looked at, where one was named.
pub(super) fn probe(pid: Option<u32>, metrics: Option<&Probe>) -> Option<Probe> {
    pid.map(Probe::Pid).or_else(|| metrics.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_whole() {
        for (all, of) in [(10, 3), (2, 4), (1_000_000, 7)] {
            let parts = (0..of).map(|index| Part { index, of }.devices(all));
            let mut next = 0;
            for part in parts {
                assert_eq!(part.start, next);
                next = part.end;
            }
            assert_eq!(next, all);
        }
        assert!(parse_part("4/4").is_err() && parse_part("x").is_err());
        assert_eq!(parse_part("3/4"), Ok(Part { index: 3, of: 4 }));
    }
}
