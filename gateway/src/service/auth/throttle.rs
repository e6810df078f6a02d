//! Failed logins, and who has to wait because of them.
//!
//! Failures are counted for each name as seen from one network, and for each network: an IPv4 /24 or an IPv6 /56.
//! Whoever fails more often than is usual waits, each time longer. A network is refused before TLS as long as nobody in
//! it is known, a name before its password is looked at.
//! A name that was let in within the last day is known, and its network's failures do not count against it: a whole
//! fleet may sit behind one address. Who is connected at this moment is not asked at all; whoever calls sees to that.
//! Invariants: every table is bounded and swept; names stand there as keyed hashes; time comes from the caller.

mod http;
pub(super) mod shared;
pub(super) mod table;

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use headgate_protocol::credential::{Claim, Form};

pub use self::{http::HttpLogin, shared::connect as connect_cluster};
use self::{
    shared::Shared,
    table::{Entry, Table},
};
use crate::{
    config::AuthConfig,
    telemetry::metrics::{AuthThrottle, Metrics},
};

/// Counts failed logins and decides who waits.
pub struct Throttle {
    hasher: RandomState,
    /// Failures of a name as seen from one network.
    names: Table<Failures>,
    /// Failures of a network.
    networks: Table<Failures>,
    /// Names that were let in, with the network that it was from.
    known: Table<Known>,
    /// Networks that known names came from.
    homes: Table<Known>,
    name_rule: Rule,
    network_rule: Rule,
    known_for: Duration,
    /// Where there are other nodes.
    shared: OnceLock<Shared>,
    metrics: Metrics,
}

/// What costs nothing, and how long the rest costs.
#[derive(Clone, Copy)]
struct Rule {
    /// One failure is forgotten in each of these.
    forget_every: Duration,
    /// Failures that would take longer than this to forget are too many.
    memory: Duration,
    max_delay: Duration,
}

struct Failures {
    /// When the last of them will have been forgotten: says how many there are.
    forgotten_at: Instant,
    waits_until: Instant,
    /// How often something had to be waited for since all was forgotten.
    delays: u32,
}

struct Known {
    until: Instant,
}

impl Throttle {
    /// One under which nothing has failed yet.
    pub fn new(config: &AuthConfig, metrics: &Metrics) -> Self {
        let rule = |failures: u32| Rule {
            forget_every: config.failure_memory / failures.max(1),
            memory: config.failure_memory,
            max_delay: config.max_login_delay,
        };
        Self {
            hasher: RandomState::new(),
            names: Table::new(config.throttle_entries),
            networks: Table::new(config.throttle_entries),
            known: Table::new(config.throttle_entries),
            homes: Table::new(config.throttle_entries),
            name_rule: rule(config.device_failures),
            network_rule: rule(config.source_failures),
            known_for: config.known_for,
            shared: OnceLock::new(),
            metrics: metrics.clone(),
        }
    }

    /// Whether a connection from this address is worth a handshake.
    pub fn admits_connection(&self, address: IpAddr, now: Instant) -> bool {
        let network = self.key(network(address));
        !self.networks.any(network, |failures| failures.wait(now))
            || self.homes.any(network, |known| known.until > now)
    }

    /// Whether a login is worth a look at its password.
    pub fn admits_login(&self, claim: &Claim<'_>, address: IpAddr, now: Instant) -> bool {
        let (name, network) = self.keys(claim, address);
        !self.names.any(name, |failures| failures.wait(now))
            && (!self.networks.any(network, |failures| failures.wait(now))
                || self.known.any(name, |known| known.until > now))
    }

    /// Whether this name was let in from this network lately.
    pub fn knows(&self, claim: &Claim<'_>, address: IpAddr, now: Instant) -> bool {
        let (name, _) = self.keys(claim, address);
        self.known.any(name, |known| known.until > now)
    }

    /// Takes note of a login that was looked at and refused.
    pub fn failed(&self, claim: &Claim<'_>, address: IpAddr, now: Instant) {
        let (name, network) = self.keys(claim, address);
        if let Some(shared) = self.shared.get() {
            shared.failed(name, network);
        }
        self.count_failed(name, network, now);
    }

    fn count_failed(&self, name: u64, network: u64, now: Instant) {
        for (table, key, rule) in [
            (&self.names, name, self.name_rule),
            (&self.networks, network, self.network_rule),
        ] {
            table.update(key, now, || Failures::none(now), |all| all.add(rule, now));
        }
    }

    /// Takes note of a login that was let in: its own failures are forgotten, those of its network are not.
    pub fn succeeded(&self, claim: &Claim<'_>, address: IpAddr, now: Instant) {
        let (name, network) = self.keys(claim, address);
        if let Some(shared) = self.shared.get()
            && !self.known.any(name, |known| known.until > now)
        {
            shared.admitted(name, network);
        }
        self.count_admitted(name, network, now);
    }

    fn count_admitted(&self, name: u64, network: u64, now: Instant) {
        let until = now + self.known_for;
        self.names.remove(name);
        for (table, key) in [(&self.known, name), (&self.homes, network)] {
            table.update(key, now, || Known { until }, |known| known.until = until);
        }
    }

    /// Forgets every minute what has no effect any more, and shows how much is left.
    pub async fn run(&self) {
        let mut turn = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            turn.tick().await;
            self.sweep(Instant::now());
        }
    }

    fn sweep(&self, now: Instant) {
        self.names.sweep(now);
        self.networks.sweep(now);
        self.known.sweep(now);
        self.homes.sweep(now);
        let AuthThrottle {
            failed_names,
            failed_networks,
            known_names,
            known_networks,
        } = &self.metrics.auth_throttle;
        for (gauge, entries) in [
            (failed_names, self.names.len()),
            (failed_networks, self.networks.len()),
            (known_names, self.known.len()),
            (known_networks, self.homes.len()),
        ] {
            gauge.set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
    }

    fn keys(&self, claim: &Claim<'_>, address: IpAddr) -> (u64, u64) {
        let network = network(address);
        let is_application = claim.form == Form::Application;
        (
            self.key((claim.identity, is_application, network)),
            self.key(network),
        )
    }

    fn key(&self, what: impl Hash) -> u64 {
        match self.shared.get() {
            Some(shared) => shared.hash(what),
            None => self.hasher.hash_one(what),
        }
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

impl Failures {
    const fn none(now: Instant) -> Self {
        Self {
            forgotten_at: now,
            waits_until: now,
            delays: 0,
        }
    }

    /// How long it is to wait.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        self.wait(now).then(|| self.waits_until - now)
    }

    fn wait(&self, now: Instant) -> bool {
        self.waits_until > now
    }

    /// One more. Those that are too many have to be waited for, each time twice as long.
    fn add(&mut self, rule: Rule, now: Instant) {
        if self.forgotten_at <= now {
            *self = Self::none(now);
        }
        // Not ever more, so that it ends some day.
        let latest = now + 2 * rule.memory;
        self.forgotten_at = (self.forgotten_at + rule.forget_every).min(latest);
        // Those that were under way when the waiting began make it no longer.
        if self.forgotten_at - now > rule.memory && !self.wait(now) {
            let delay = FIRST_DELAY * (1 << self.delays.min(MAX_DOUBLINGS));
            self.waits_until = now + delay.min(rule.max_delay);
            self.delays = self.delays.saturating_add(1);
        }
    }
}

impl Entry for Failures {
    fn ends(&self) -> Instant {
        self.forgotten_at.max(self.waits_until)
    }
}

impl Entry for Known {
    fn ends(&self) -> Instant {
        self.until
    }
}

/// The network of an address: what one subscriber, or one carrier's translator, has to itself.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 72)).into(),
    }
}

const FIRST_DELAY: Duration = Duration::from_secs(1);
/// More than any `max_login_delay` needs.
const MAX_DOUBLINGS: u32 = 16;
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
