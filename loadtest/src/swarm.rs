//! What all devices of a run share, and how a run of them is driven to its end.
//!
//! Owns every device task; dropping it ends them. Devices start by schedule, are counted in
//! [`Stats`], and leave when [`Swarm::stop`] is cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headgate_protocol::mqtt::ProtocolVersion;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::cli::{CommonArgs, Form, MqttVersion, Proto};
use crate::device::Device;
use crate::device::coap::CoapPlan;
use crate::device::error::DeviceError;
use crate::device::identity::{Fate, Identity, Odds};
use crate::device::link::Dial;
use crate::device::login::{self, Login};
use crate::device::work::Job;
use crate::stats::Stats;
use crate::target::Target;
use crate::throttle::Pacer;
use crate::tls::{self, TlsError};

/// Settings and counters that all devices share.
pub(crate) struct Swarm {
    /// How to reach the listener.
    pub(crate) dial: Dial,
    /// How devices speak CoAP, where they do.
    pub(crate) coap: Option<Arc<CoapPlan>>,
    /// How devices say who they are, by MQTT.
    pub(crate) entry: Entry,
    /// Version that devices speak, by MQTT.
    pub(crate) version: ProtocolVersion,
    /// Product of all devices.
    pub(crate) product: String,
    /// Seed of the run.
    pub(crate) seed: u64,
    /// MQTT keep-alive; zero: none.
    pub(crate) keep_alive: Duration,
    /// For one attempt, up to SUBACK.
    pub(crate) connect_timeout: Duration,
    /// In a row, before a device gives up.
    pub(crate) attempts: u32,
    /// What devices do besides staying.
    pub(crate) job: Option<Job>,
    /// Whether unfinished slow devices are no failure.
    pub(crate) leave_slow: bool,
    /// Whether devices whose delivery is cancelled are no failure.
    pub(crate) cancels: bool,
    /// Devices leave after the TLS handshake.
    pub(crate) handshake_only: bool,
    /// Counters.
    pub(crate) stats: Stats,
    /// Connections being made.
    pub(crate) connecting: Semaphore,
    /// Has devices that stay ask once, by CoAP.
    pub(crate) ask: CancellationToken,
    /// Ends all devices.
    pub(crate) stop: CancellationToken,
    /// Keeps the source addresses of runs apart.
    pub(crate) salt: u32,
    started: Instant,
    last_ready_micros: AtomicU64,
    last_end_micros: AtomicU64,
}

impl Swarm {
    /// A swarm against `target`; nothing happens yet.
    ///
    /// # Errors
    /// [`TlsError`]: the host is no name that a certificate can carry.
    pub(crate) fn new(
        args: &CommonArgs,
        target: &Target,
        job: Option<Job>,
        leave_slow: bool,
    ) -> Result<Self, TlsError> {
        let tls = match &target.tls {
            Some((connector, host)) => Some((connector.clone(), tls::server_name(host)?)),
            None => None,
        };
        Ok(Self {
            dial: Dial {
                address: target.listener,
                tls,
                web: args.ws.then(|| target.host.clone()),
            },
            entry: Entry::of(args),
            coap: match args.proto {
                Proto::Mqtt => None,
                Proto::Coap | Proto::Coaps => Some(Arc::new(CoapPlan::new(
                    &args.coap,
                    args.proto == Proto::Coaps,
                ))),
            },
            version: version(args.mqtt),
            product: args.product.clone(),
            seed: args.seed,
            keep_alive: args.keep_alive,
            connect_timeout: args.connect_timeout,
            attempts: args.attempts.max(1),
            job,
            leave_slow,
            cancels: false,
            handshake_only: false,
            stats: Stats::default(),
            connecting: Semaphore::new(MAX_CONNECTING),
            ask: CancellationToken::new(),
            stop: CancellationToken::new(),
            salt: std::process::id(),
            started: Instant::now(),
            last_ready_micros: AtomicU64::new(0),
            last_end_micros: AtomicU64::new(0),
        })
    }

    /// What `identity` logs in with now.
    pub(crate) fn login(&self, identity: &Identity) -> Login {
        match &self.entry {
            Entry::Registered(form) => Login::of(*form, &self.product, self.seed, identity),
            Entry::Anyone { username, password } => Login {
                client_id: identity.device_id.clone(),
                username: username.clone(),
                password: password.clone(),
                persistent: false,
            },
        }
    }

    /// The connector with the certificate of `identity`; `None` where it needs none.
    ///
    /// # Errors
    /// [`DeviceError::Certificate`].
    pub(crate) fn connector(
        &self,
        identity: &Identity,
    ) -> Result<Option<TlsConnector>, DeviceError> {
        let (Entry::Registered(Form::Certificate), Some((base, _))) = (&self.entry, &self.dial.tls)
        else {
            return Ok(None);
        };
        let failed = |text: String| DeviceError::Certificate(text);
        let (certificate, key) = login::certificate(self.seed, &identity.device_id)
            .map_err(|error| failed(error.to_string()))?;
        let own = tls::connector_as(base, certificate, key);
        own.map(Some).map_err(|error| failed(error.to_string()))
    }

    /// Makes the datagrams of all devices by CoAP so much later.
    pub(crate) fn delay(&mut self, delay: Duration) {
        if let Some(plan) = &mut self.coap {
            Arc::make_mut(plan).weather.delay = delay;
        }
    }

    /// Starts all devices, `per_sec` of them a second; `None`: as fast as they go.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        identities: Vec<Identity>,
        odds: Option<Odds>,
        per_sec: Option<u32>,
    ) -> JoinSet<()> {
        let pacer = Pacer::new(Instant::now(), per_sec);
        let mut tasks = JoinSet::new();
        for identity in identities {
            let fate = odds.map_or(Fate::NONE, |odds| odds.fate(identity.index));
            let start = pacer.start_of(identity.index);
            let device = Device::new(Arc::clone(self), identity, fate);
            tasks.spawn(device.run(start));
        }
        tasks
    }

    /// Notes that a device is ready now.
    pub(crate) fn note_ready(&self) {
        self.last_ready_micros
            .fetch_max(self.micros(), Ordering::Relaxed);
    }

    /// Notes that a device came to an end now.
    pub(crate) fn note_end(&self) {
        self.last_end_micros
            .fetch_max(self.micros(), Ordering::Relaxed);
    }

    /// Seconds from the swarm's making to the last device that became ready.
    pub(crate) fn last_ready(&self) -> Instant {
        self.started + Duration::from_micros(self.last_ready_micros.load(Ordering::Relaxed))
    }

    /// When the last device came to an end.
    pub(crate) fn last_end(&self) -> Instant {
        self.started + Duration::from_micros(self.last_end_micros.load(Ordering::Relaxed))
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// How devices say who they are.
#[derive(Clone)]
pub(crate) enum Entry {
    /// Each by what it was registered with.
    Registered(Form),
    /// To a broker that knows no devices: all alike.
    Anyone {
        /// User name, where the broker wants one.
        username: Option<String>,
        /// Password, where the broker wants one.
        password: Option<String>,
    },
}

impl Entry {
    fn of(args: &CommonArgs) -> Self {
        if args.broker.any_broker {
            Self::Anyone {
                username: args.broker.username.clone(),
                password: args.broker.password.clone(),
            }
        } else {
            Self::Registered(args.form)
        }
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// What was waited for came.
    Reached,
    /// The user stopped the run.
    Interrupted,
    /// The run's time is over.
    TimedOut,
}

/// When a run must end.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// `--timeout` from the start.
    pub(crate) deadline: Instant,
    /// Cancelled by Ctrl-C.
    pub(crate) interrupt: CancellationToken,
}

impl Limits {
    /// Waits until `reached`, calling `tick` at each look.
    ///
    /// # Cancel safety
    /// Safe: holds nothing.
    pub(crate) async fn wait(
        &self,
        mut reached: impl FnMut() -> bool,
        mut tick: impl FnMut(),
    ) -> Waited {
        loop {
            tick();
            if reached() {
                return Waited::Reached;
            }
            tokio::select! {
                biased;
                () = self.interrupt.cancelled() => return Waited::Interrupted,
                () = sleep(LOOK_INTERVAL) => {}
            }
            if Instant::now() >= self.deadline {
                return Waited::TimedOut;
            }
        }
    }
}

/// The codec's name for `version`.
pub(crate) const fn version(version: MqttVersion) -> ProtocolVersion {
    match version {
        MqttVersion::V311 => ProtocolVersion::V311,
        MqttVersion::V5 => ProtocolVersion::V5,
    }
}

/// Handshakes under way at once: what a gateway admits by default.
const MAX_CONNECTING: usize = 256;
/// How often a run looks at its counters; the times in the report do not depend on it.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
