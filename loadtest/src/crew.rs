//! Several processes under one command: who is told what, and when they go on together.
//!
//! The first process registers what is needed and starts the others with its own arguments and a
//! part of the devices each. They speak by lines on standard input and output: `meet N` waits for all
//! and is answered `go SUM`; `dump {..}` is the last one.
//! Invariants: a process that ends early stops nobody; what it counted is missing, and that is told.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::cli::Part;
use crate::device::login::Login;
use crate::stats::Dump;
use crate::swarm::Swarm;
use crate::timeline::{self, Point, Timeline};

/// What every process has to know besides the arguments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Briefing {
    /// Marks this run's messages.
    pub(crate) run: u32,
    /// How listeners log in.
    pub(crate) listener: Option<Login>,
}

impl Briefing {
    /// What the process that started this one says; `None` where it says nothing.
    pub(crate) fn received() -> Option<Self> {
        serde_json::from_str(&std::env::var(VARIABLE).ok()?).ok()
    }
}

/// Why the processes of a run could not work together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    /// A process could not be started.
    #[error("cannot start another process: {0}")]
    Start(#[source] io::Error),
    /// A process ended without a word.
    #[error("process {0} of the swarm ended too early; its own words are above")]
    Gone(u32),
    /// The process that started this one is gone.
    #[error("the process that started this one is gone")]
    Alone,
}

/// The processes that this one started.
pub(crate) struct Crew(Vec<Member>);

/// What all processes did together.
#[derive(Debug, Default)]
pub(crate) struct Total {
    /// Until the last device was ready.
    pub(crate) connect_secs: f64,
    /// The run second by second.
    pub(crate) points: Vec<Point>,
    /// CPU seconds of the others.
    pub(crate) cpu_secs: f64,
    /// Their peaks of memory.
    pub(crate) rss_peak_bytes: u64,
}

struct Member {
    number: u32,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    dump: Option<Dump>,
}

impl Crew {
    /// Starts `count` processes like this one.
    ///
    /// # Errors
    /// [`CrewError::Start`].
    pub(crate) fn start(count: u32, briefing: &Briefing) -> Result<Self, CrewError> {
        let program = std::env::current_exe().map_err(CrewError::Start)?;
        // Plain data with text keys always serialises.
        let briefing = serde_json::to_string(briefing).unwrap_or_default();
        let mut crew = Self(Vec::new());
        for index in 0..count {
            let mut child = Command::new(&program)
                .args(std::env::args_os().skip(1))
                .arg(format!("--part={index}/{count}"))
                .env(VARIABLE, &briefing)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(CrewError::Start)?;
            let (sender, lines) = mpsc::channel(4);
            if let Some(output) = child.stdout.take() {
                // Ends with the child's output.
                spawn_blocking(move || {
                    for line in BufReader::new(output).lines().map_while(Result::ok) {
                        if sender.blocking_send(line).is_err() {
                            return;
                        }
                    }
                });
            }
            crew.0.push(Member {
                number: index + 1,
                input: child.stdin.take(),
                child,
                lines,
                dump: None,
            });
        }
        Ok(crew)
    }

    /// Waits for all, and lets them go on.
    ///
    /// # Errors
    /// [`CrewError::Gone`].
    pub(crate) async fn meet(&mut self) -> Result<(), CrewError> {
        let mut sum = 0;
        for member in &mut self.0 {
            if member.dump.is_none() {
                let line = member.lines.recv().await;
                sum += member.heard(line)?;
            }
        }
        for member in &mut self.0 {
            if let (None, Some(input)) = (&member.dump, &mut member.input) {
                let told = writeln!(input, "go {sum}").and_then(|()| input.flush());
                told.map_err(|_| CrewError::Gone(member.number))?;
            }
        }
        Ok(())
    }

    /// Adds what all of them counted to `swarm`, and their timelines to this process's.
    ///
    /// # Errors
    /// [`CrewError::Gone`].
    pub(crate) async fn finish(
        mut self,
        swarm: &Swarm,
        timeline: Timeline,
    ) -> Result<Total, CrewError> {
        let mut total = Total {
            points: timeline.finish(),
            ..Total::default()
        };
        for member in &mut self.0 {
            while member.dump.is_none() {
                let line = member.lines.recv().await;
                member.heard(line)?;
            }
            if let Some(dump) = &member.dump {
                swarm.stats.absorb(dump);
                timeline::merge(&mut total.points, &dump.timeline);
                total.connect_secs = total.connect_secs.max(dump.connect_secs);
                total.cpu_secs += dump.cpu_secs;
                total.rss_peak_bytes += dump.rss_peak_bytes;
            }
        }
        Ok(total)
    }
}

impl Member {
    /// What it brings to a meeting; a dump is kept.
    fn heard(&mut self, line: Option<String>) -> Result<u64, CrewError> {
        let gone = || CrewError::Gone(self.number);
        let line = line.ok_or_else(gone)?;
        if let Some(number) = line.strip_prefix("meet ") {
            return number.parse().map_err(|_| gone());
        }
        let dump = line.strip_prefix("dump ").ok_or_else(gone)?;
        self.dump = Some(serde_json::from_str(dump).map_err(|_| gone())?);
        Ok(0)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.0 {
            // One that has ended already has nothing to say against it.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

/// The other processes, as one of them sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// There are none.
    Alone,
    /// This is one of several.
    Part,
}

impl Peers {
    /// Of a process that is `part`.
    pub(crate) const fn of(part: Option<Part>) -> Self {
        match part {
            Some(_) => Self::Part,
            None => Self::Alone,
        }
    }

    /// Brings `value`, waits for all, and gives the sum of what all brought.
    ///
    /// # Errors
    /// [`CrewError::Alone`].
    pub(crate) async fn meet(self, value: u64) -> Result<u64, CrewError> {
        if self == Self::Alone {
            return Ok(value);
        }
        say(&format!("meet {value}")).map_err(|_| CrewError::Alone)?;
        let line = spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = line.await.ok().and_then(Result::ok).unwrap_or_default();
        let sum = line.trim().strip_prefix("go ");
        sum.and_then(|sum| sum.parse().ok()).ok_or(CrewError::Alone)
    }

    /// Hands over what was counted.
    ///
    /// # Errors
    /// [`CrewError::Alone`].
    pub(crate) fn hand_over(dump: &Dump) -> Result<(), CrewError> {
        let text = serde_json::to_string(dump).unwrap_or_default();
        say(&format!("dump {text}")).map_err(|_| CrewError::Alone)
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

const VARIABLE: &str = "SWARM_BRIEFING";
