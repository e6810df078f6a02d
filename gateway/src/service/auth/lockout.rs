//! Operators who gave a wrong password too often, and how long they are locked out.
//!
//! Failures count for each name as seen from one network, so that nobody can lock an operator out from elsewhere, and
//! for each network. Invariants: tables are bounded; names stand there as keyed hashes; time comes from the caller.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::throttle::{
    network,
    shared::{Logins, Shared},
    table::{Entry, Table},
};
use crate::config::ConsoleConfig;

/// Names and networks that are remembered, each.
const ENTRIES: usize = 10_000;
/// A network may fail so many times as often as a name: several operators sit behind one address.
const NETWORK_FACTOR: u32 = 10;

/// Counts failed sign-ins.
pub(super) struct Lockout {
    hasher: RandomState,
    names: Table<Failures>,
    networks: Table<Failures>,
    failures: u32,
    time: Duration,
    /// Where there are other nodes.
    shared: OnceLock<Shared>,
}

struct Failures {
    count: u32,
    until: Instant,
}

impl Lockout {
    pub(super) fn new(config: &ConsoleConfig) -> Self {
        Self {
            hasher: RandomState::new(),
            names: Table::new(ENTRIES),
            networks: Table::new(ENTRIES),
            failures: config.sign_in_failures,
            time: config.lock_out,
            shared: OnceLock::new(),
        }
    }

    /// Counts over all nodes from here on; says whether that is new.
    pub(super) fn share(&self, key: Vec<u8>) -> bool {
        self.shared.set(Shared::new(key)).is_ok()
    }

    /// What other nodes are to be told.
    pub(super) fn shared(&self) -> Option<&Shared> {
        self.shared.get()
    }

    /// Takes note of what another node counted; says whether a name or a network is locked out from here on.
    ///
    /// Right passwords come first: in which order they came is not known, and a wrong one that came before counts rather
    /// than one that came after does not.
    pub(super) fn heard(&self, told: &Logins, now: Instant) -> bool {
        for (name, _) in &told.admitted {
            self.names.remove(*name);
        }
        let mut locks = false;
        for (name, network) in &told.failed {
            locks |= self.count(*name, *network, now);
        }
        locks
    }

    /// How much longer a name is locked out; `None`: it is not.
    pub(super) fn remaining(&self, name: &str, address: IpAddr, now: Instant) -> Option<Duration> {
        let (name, network) = self.keys(name, address);
        let left = |table: &Table<Failures>, key, most| {
            let mut left = None;
            table.any(key, |failures| {
                if failures.count >= most && failures.until > now {
                    left = Some(failures.until - now);
                }
                left.is_some()
            });
            left
        };
        left(&self.names, name, self.failures).max(left(
            &self.networks,
            network,
            self.network_failures(),
        ))
    }

    /// Takes note of a wrong password; says whether it was the last one before the lock-out.
    pub(super) fn failed(&self, name: &str, address: IpAddr, now: Instant) -> bool {
        let (name, network) = self.keys(name, address);
        if let Some(shared) = self.shared.get() {
            shared.failed(name, network);
        }
        self.count(name, network, now)
    }

    fn count(&self, name: u64, network: u64, now: Instant) -> bool {
        let mut locks = false;
        for (table, key, most) in [
            (&self.names, name, self.failures),
            (&self.networks, network, self.network_failures()),
        ] {
            let none = || Failures {
                count: 0,
                until: now,
            };
            table.update(key, now, none, |failures| {
                if failures.until <= now {
                    failures.count = 0;
                }
                failures.count = failures.count.saturating_add(1);
                failures.until = now + self.time;
                locks |= failures.count == most;
            });
        }
        locks
    }

    /// Takes note of a right password: the name's failures are forgotten, those of its network are not.
    pub(super) fn succeeded(&self, name: &str, address: IpAddr) {
        let (name, network) = self.keys(name, address);
        if let Some(shared) = self.shared.get() {
            shared.admitted(name, network);
        }
        self.names.remove(name);
    }

    const fn network_failures(&self) -> u32 {
        self.failures.saturating_mul(NETWORK_FACTOR)
    }

    fn keys(&self, name: &str, address: IpAddr) -> (u64, u64) {
        let network = network(address);
        (self.key((name, network)), self.key(network))
    }

    fn key(&self, what: impl Hash) -> u64 {
        match self.shared.get() {
            Some(shared) => shared.hash(what),
            None => self.hasher.hash_one(what),
        }
    }
}

impl Entry for Failures {
    fn ends(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

    fn lockout() -> Lockout {
        Lockout::new(&ConsoleConfig {
            sign_in_failures: 3,
            lock_out: Duration::from_mins(1),
            ..ConsoleConfig::default()
        })
    }

    #[test]
    fn a_name_is_locked_out_where_it_failed_and_nowhere_else() {
        let (lockout, now) = (lockout(), Instant::now());
        assert!(!lockout.failed("admin", HERE, now));
        assert!(!lockout.failed("admin", HERE, now));
        assert_eq!(lockout.remaining("admin", HERE, now), None);
        assert!(lockout.failed("admin", HERE, now));
        let left = lockout.remaining("admin", HERE, now);
        assert_eq!(left, Some(Duration::from_mins(1)));
        assert_eq!(lockout.remaining("admin", ELSEWHERE, now), None);
        assert_eq!(lockout.remaining("other", HERE, now), None);
        let later = now + Duration::from_mins(1);
        assert_eq!(lockout.remaining("admin", HERE, later), None);
        assert!(!lockout.failed("admin", HERE, later), "counted anew");
    }

    #[test]
    fn a_network_that_tries_many_names_is_locked_out_as_a_whole() {
        let (lockout, now) = (lockout(), Instant::now());
        for number in 0..30 {
            assert_eq!(lockout.remaining("admin", HERE, now), None);
            lockout.failed(&number.to_string(), HERE, now);
        }
        assert!(lockout.remaining("admin", HERE, now).is_some());
        assert_eq!(lockout.remaining("admin", ELSEWHERE, now), None);
    }

    #[test]
    fn what_other_nodes_counted_counts() {
        let (here, elsewhere, now) = (lockout(), lockout(), Instant::now());
        assert!(here.share(vec![7]) && elsewhere.share(vec![7]));
        for _ in 0..3 {
            elsewhere.failed("admin", HERE, now);
        }
        let told = elsewhere.shared().and_then(Shared::take);
        here.heard(&told.unwrap(), now);
        assert!(here.remaining("admin", HERE, now).is_some());
        elsewhere.succeeded("admin", HERE);
        let told = elsewhere.shared().and_then(Shared::take);
        here.heard(&told.unwrap(), now);
        assert_eq!(here.remaining("admin", HERE, now), None);
    }

    #[test]
    fn a_right_password_forgets_the_wrong_ones() {
        let (lockout, now) = (lockout(), Instant::now());
        for _ in 0..2 {
            lockout.failed("admin", HERE, now);
        }
        lockout.succeeded("admin", HERE);
        for _ in 0..2 {
            lockout.failed("admin", HERE, now);
        }
        assert_eq!(lockout.remaining("admin", HERE, now), None);
    }
}
