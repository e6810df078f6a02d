//! Server CPU per GB delivered over TLS: Headgate to devices that acknowledge every chunk, against
//! nginx sending the whole file over HTTPS.
//!
//! Both sides count from the moment when all are connected and the server is at rest to the moment
//! when the last has everything: handshakes and what follows them are not in the figures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::{certificate, progress};
use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::{Dial, https};
use crate::peer::headgate::{Headgate, TlsFiles, spoken};
use crate::peer::is_there;
use crate::peer::nginx::{FILE_PATH, Nginx};
use crate::report::{Section, as_f64};

/// Measures both sizes.
///
/// # Errors
/// [`BenchError`] of a run that failed.
pub(crate) async fn measure(args: &MeasureArgs) -> Result<Vec<Section>, BenchError> {
    let works: &[Work] = if args.quick { &QUICK } else { &FULL };
    let mut sections = Vec::new();
    for work in works {
        sections.push(work.measure(args).await?);
    }
    Ok(sections)
}

/// A file for a number of devices, and how much CPU it may cost.
struct Work {
    devices: u32,
    size_mib: u64,
    must: Option<f64>,
    aim: Option<f64>,
}

impl Work {
    async fn measure(&self, args: &MeasureArgs) -> Result<Section, BenchError> {
        let directory = TempDir::new().map_err(BenchError::Runtime)?;
        let tls = certificate(args, directory.path()).await?;
        let file = random_file(directory.path(), self.size_bytes())?;
        let has_nginx = is_there(&args.nginx, "-v");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for pair in 0..args.pairs() {
            progress(&format!("delivery: {}, pair {}", self.spoken(), pair + 1));
            // Neither side is always the first to find the machine warm.
            if pair % 2 == 1 && has_nginx {
                theirs.push(self.nginx(args, &tls, &file).await?);
            }
            ours.push(self.headgate(args).await?);
            if pair % 2 == 0 && has_nginx {
                theirs.push(self.nginx(args, &tls, &file).await?);
            }
        }
        Ok(self.section(&ours, &theirs))
    }

    fn section(&self, ours: &[f64], theirs: &[f64]) -> Section {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        let mut section = Section::new(format!(
            "delivery over TLS 1.3, {} x {} MiB: server CPU",
            self.devices, self.size_mib
        ));
        section.figure("headgate, MQTT QoS 1", "CPU-s/GB", ours);
        section.figure("nginx, whole file by HTTPS", "CPU-s/GB", theirs);
        section.bar(
            "headgate / nginx, pair by pair",
            "x",
            &ratios,
            self.must,
            self.aim,
        );
        section.note(format!("headgate: `{}`", self.spoken()));
        if theirs.is_empty() {
            section.note("nginx is not installed: nothing to compare with (--nginx)");
        }
        section
    }

    async fn headgate(&self, args: &MeasureArgs) -> Result<f64, BenchError> {
        let headgate = Headgate::start(args).await?;
        let (devices, size) = (self.devices.to_string(), self.size_text());
        let arguments = Self::arguments(&devices, &size);
        let report = headgate.swarm(&arguments, RUN_TIMEOUT).await?;
        headgate.stop().await;
        report.cpu_seconds_per_gb()
    }

    async fn nginx(
        &self,
        args: &MeasureArgs,
        tls: &TlsFiles,
        file: &Path,
    ) -> Result<f64, BenchError> {
        let nginx = Nginx::start(args, tls, file).await?;
        let client = |error| nginx.server.client_error(error);
        let dial = Dial::tls(nginx.address, &tls.ca).map_err(client)?;
        let fleet = https::Fleet::connect(&dial, self.devices, FILE_PATH, self.size_bytes());
        let fleet = fleet.await.map_err(client)?;
        // The last handshakes end at the client first.
        sleep(SETTLE).await;
        let before = nginx.server.sample()?;
        fleet.fetch().await.map_err(client)?;
        let after = nginx.server.sample()?;
        nginx.server.stop().await;
        let sent = as_f64(u64::from(self.devices) * self.size_bytes());
        Ok((after.cpu_secs - before.cpu_secs) / (sent / 1e9))
    }

    fn arguments<'a>(devices: &'a str, size: &'a str) -> [&'a str; 7] {
        let [verify, kind] = VERIFY;
        [
            "deliver",
            "--devices",
            devices,
            "--size",
            size,
            verify,
            kind,
        ]
    }

    fn spoken(&self) -> String {
        spoken(&Self::arguments(
            &self.devices.to_string(),
            &self.size_text(),
        ))
    }

    fn size_text(&self) -> String {
        format!("{}MiB", self.size_mib)
    }

    const fn size_bytes(&self) -> u64 {
        self.size_mib << 20
    }
}

/// A file that cannot be compressed.
fn random_file(directory: &Path, size_bytes: u64) -> Result<PathBuf, BenchError> {
    let path = directory.join("file");
    let mut content = vec![0; usize::try_from(size_bytes).unwrap_or(usize::MAX)];
    getrandom::fill(&mut content).map_err(|error| BenchError::Runtime(error.into()))?;
    fs::write(&path, content).map_err(BenchError::file(&path))?;
    Ok(path)
}

/// The bars of two cores.
const FULL: [Work; 2] = [
    Work {
        devices: 200,
        size_mib: 8,
        must: Some(0.75),
        aim: Some(0.62),
    },
    Work {
        devices: 1000,
        size_mib: 1,
        must: Some(0.85),
        aim: Some(0.68),
    },
];
const QUICK: [Work; 1] = [Work {
    devices: 20,
    size_mib: 1,
    must: None,
    aim: None,
}];
/// Devices share the cores with the server: the cheaper check disturbs it less.
const VERIFY: [&str; 2] = ["--verify", "crc32"];
const SETTLE: Duration = Duration::from_millis(300);
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
