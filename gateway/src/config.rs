//! The configuration: what can be set, where it is read from, what is refused.
//!
//! One TOML file, overridden by `HEADGATE__SECTION__KEY`, overridden by the command line; with
//! neither, the defaults run everything under one data directory. `Config` is read once at the
//! start; `app.rs` hands each part its own section, nobody else sees the whole.
//! Invariants: a `Config` is checked; every problem is reported at once; no secret is shown.

mod applications;
mod auth;
mod check;
mod cluster;
mod coap;
mod conformance;
mod console;
pub mod data_dir;
mod delivery;
mod files;
mod http;
mod listener;
mod live;
mod log;
mod mqtt;
mod network;
mod ops;
mod print;
mod problem;
mod rates;
mod registration;
mod resources;
mod retained;
mod retention;
mod runtime;
mod section;
mod setting;
mod shutdown;
mod source;
mod stores;
mod tls;
mod units;
mod uploads;
mod will;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use self::{
    applications::{ApplicationsConfig, MailboxConfig},
    auth::AuthConfig,
    cluster::ClusterConfig,
    coap::{CoapConfig, CoapsConfig},
    conformance::ConformanceConfig,
    console::ConsoleConfig,
    delivery::DeliveryConfig,
    files::FilesConfig,
    http::HttpConfig,
    listener::{ListenerConfig, Profile, Transport},
    log::{LogConfig, LogFormat},
    mqtt::MqttConfig,
    network::Network,
    ops::OpsConfig,
    print::example,
    problem::{ConfigError, Origin, Problem},
    rates::RatesConfig,
    registration::RegistrationConfig,
    resources::ResourceConfig,
    retained::RetainedConfig,
    retention::RetentionConfig,
    runtime::RuntimeConfig,
    setting::Secret,
    shutdown::ShutdownConfig,
    source::Sources,
    stores::{BlobsConfig, RegistryConfig, SessionsConfig},
    tls::TlsConfig,
    uploads::UploadConfig,
    will::WillConfig,
};
use self::{
    section::{Section, Shown},
    setting::FilePath,
    source::{Collected, Keys, Known},
};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory of everything that is kept, absolute. Default `$XDG_STATE_HOME/headgate`, else
    /// `~/.local/state/headgate`.
    pub data_dir: PathBuf,
    /// The log.
    pub log: LogConfig,
    /// Threads.
    pub runtime: RuntimeConfig,
    /// The certificate of the device listeners.
    pub tls: TlsConfig,
    /// MQTT.
    pub mqtt: MqttConfig,
    /// MQTT listeners beside `mqtt.listen` and `mqtt.plain_listen`.
    pub listeners: Vec<ListenerConfig>,
    /// CoAP.
    pub coap: CoapConfig,
    /// CoAP over DTLS.
    pub coaps: CoapsConfig,
    /// The HTTP API.
    pub http: HttpConfig,
    /// The console.
    pub console: ConsoleConfig,
    /// The device files listener.
    pub files: FilesConfig,
    /// Metrics and health.
    pub metrics: OpsConfig,
    /// The registry of record.
    pub registry: RegistryConfig,
    /// Session state.
    pub sessions: SessionsConfig,
    /// This node among others.
    pub cluster: ClusterConfig,
    /// The bytes of resources.
    pub blobs: BlobsConfig,
    /// Authentication.
    pub auth: AuthConfig,
    /// Applications.
    pub applications: ApplicationsConfig,
    /// The topic space of test suites.
    pub conformance: ConformanceConfig,
    /// Messages that wait for devices.
    pub mailbox: MailboxConfig,
    /// How fast clients may publish.
    pub rates: RatesConfig,
    /// Messages that are kept for whoever subscribes later.
    pub retained: RetainedConfig,
    /// Messages that clients leave for the case that their connection breaks.
    pub will: WillConfig,
    /// Delivery of resources.
    pub delivery: DeliveryConfig,
    /// Registration of devices in batches.
    pub registration: RegistrationConfig,
    /// The quota of resources.
    pub resources: ResourceConfig,
    /// What devices upload.
    pub uploads: UploadConfig,
    /// How long what is over is kept.
    pub retention: RetentionConfig,
    /// The way to stop.
    pub shutdown: ShutdownConfig,
}

/// A configuration and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    collected: Collected,
}

impl Config {
    /// The defaults under a data directory.
    pub fn embedded(data_dir: impl Into<PathBuf>) -> Self {
        let mut collected = Collected::default();
        Self::take(data_dir.into(), &mut collected)
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// `Unreadable` when the named file cannot be read, `Invalid` with every problem otherwise.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut collected = Collected::read(sources, &Self::known())?;
        let data_dir =
            Keys::of("", &mut collected).take("data_dir", &FilePath, || default_data_dir(sources));
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let config = Self::take(data_dir, &mut collected);
        check::check(&config, &mut collected);
        if collected.problems.is_empty() {
            Ok(Loaded { config, collected })
        } else {
            let mut problems = collected.problems;
            problems.sort_by(|a, b| a.origin.cmp(&b.origin));
            Err(ConfigError::Invalid(problems))
        }
    }

    fn take(data_dir: PathBuf, from: &mut Collected) -> Self {
        fn section<S: Section>(from: &mut Collected) -> S {
            S::read(&mut Keys::of(S::NAME, from))
        }
        Self {
            data_dir,
            log: section(from),
            runtime: section(from),
            tls: section(from),
            mqtt: section(from),
            listeners: Self::take_listeners(from),
            coap: section(from),
            coaps: section(from),
            http: section(from),
            console: section(from),
            files: section(from),
            metrics: section(from),
            registry: section(from),
            sessions: section(from),
            cluster: section(from),
            blobs: section(from),
            auth: section(from),
            applications: section(from),
            conformance: section(from),
            mailbox: section(from),
            rates: section(from),
            retained: section(from),
            will: section(from),
            delivery: section(from),
            registration: section(from),
            resources: section(from),
            uploads: section(from),
            retention: section(from),
            shutdown: section(from),
        }
    }

    fn take_listeners(from: &mut Collected) -> Vec<ListenerConfig> {
        let count = from.tables(ListenerConfig::NAME);
        let name = |number| format!("{}.{number}", ListenerConfig::NAME);
        (0..count)
            .map(|number| ListenerConfig::read(&mut Keys::of(name(number), from)))
            .collect()
    }

    /// Every section with its name, documentation and present values.
    fn show(&self) -> Vec<(&'static str, &'static [&'static str], Vec<Shown>)> {
        fn section<S: Section>(section: &S) -> (&'static str, &'static [&'static str], Vec<Shown>) {
            (S::NAME, S::DOC, section.show())
        }
        vec![
            section(&self.log),
            section(&self.runtime),
            section(&self.tls),
            section(&self.mqtt),
            section(&self.coap),
            section(&self.coaps),
            section(&self.http),
            section(&self.console),
            section(&self.files),
            section(&self.metrics),
            section(&self.registry),
            section(&self.sessions),
            section(&self.cluster),
            section(&self.blobs),
            section(&self.auth),
            section(&self.applications),
            section(&self.conformance),
            section(&self.mailbox),
            section(&self.rates),
            section(&self.retained),
            section(&self.will),
            section(&self.delivery),
            section(&self.registration),
            section(&self.resources),
            section(&self.uploads),
            section(&self.retention),
            section(&self.shutdown),
        ]
    }

    fn known() -> Known {
        let shown = Self::embedded(PathBuf::new()).show();
        let mut keys = vec!["data_dir".to_owned()];
        for (section, _, shown) in &shown {
            for key in shown {
                keys.push(format!("{section}.{}", key.key));
                if key.secret {
                    keys.push(format!("{section}.{}_file", key.key));
                }
            }
        }
        for key in ListenerConfig::default().show() {
            keys.push(format!("{}.{}", ListenerConfig::NAME, key.key));
        }
        let sections = shown.iter().map(|(name, ..)| *name).collect();
        Known {
            keys,
            sections,
            lists: vec![ListenerConfig::NAME],
        }
    }
}

/// `$XDG_STATE_HOME/headgate`, else `~/.local/state/headgate`; empty when neither is known.
fn default_data_dir(sources: &Sources) -> PathBuf {
    let state = sources
        .variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        // The XDG specification: a relative path is to be ignored.
        .filter(|path| path.is_absolute());
    let home = || {
        let home = sources.variable("HOME").map(Path::new)?;
        home.is_absolute().then(|| home.join(".local/state"))
    };
    state
        .or_else(home)
        .map_or_else(PathBuf::new, |state| state.join("headgate"))
}
