//! Logins by HTTP, each request of which brings its credential along.
//!
//! An application that gives its id is counted by it, together with its logins by MQTT. Whoever brings nothing but a
//! token or a secret has no name that could be counted: those of one network share a count, and what was right within
//! the last day passes whatever the count is.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Failures, Known, Throttle, network};

/// What a request brings.
#[derive(Clone, Copy)]
pub enum HttpLogin<'a> {
    /// An application's id, beside its secret.
    Application(&'a str),
    /// A token or a secret that stands for someone by itself.
    Bearer(&'a str),
}

impl std::fmt::Debug for HttpLogin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Application(id) => f.debug_tuple("Application").field(id).finish(),
            Self::Bearer(_) => f.write_str("Bearer(..)"),
        }
    }
}

impl Throttle {
    /// How long a login has still to wait before it is looked at; `None`: not at all.
    pub fn http_wait(
        &self,
        login: HttpLogin<'_>,
        address: IpAddr,
        now: Instant,
    ) -> Option<Duration> {
        let (name, known, network) = self.http_keys(login, address);
        let is_known = self.known.any(known, |known| known.until > now);
        // Its own failures hold up an application that is known, as they do by MQTT.
        if is_known && known != name {
            return None;
        }
        let of_name = self.names.of(name, |failures| failures.remaining(now));
        let of_network = self
            .networks
            .of(network, |failures| failures.remaining(now));
        of_name.or_else(|| of_network.filter(|_| !is_known))
    }

    /// Takes note of a credential that was looked at and is nobody's.
    pub fn http_failed(&self, login: HttpLogin<'_>, address: IpAddr, now: Instant) {
        let (name, _, network) = self.http_keys(login, address);
        for (table, key, rule) in [
            (&self.names, name, self.name_rule),
            (&self.networks, network, self.network_rule),
        ] {
            table.update(key, now, || Failures::none(now), |all| all.add(rule, now));
        }
    }

    /// Takes note of a credential that was right. It opens its network to no devices: who lives there is said by them.
    pub fn http_succeeded(&self, login: HttpLogin<'_>, address: IpAddr, now: Instant) {
        let (name, known, _) = self.http_keys(login, address);
        if known == name {
            self.names.remove(name);
        }
        // Every request comes here: what is known is not written down again.
        if self.known.any(known, |known| known.until > now) {
            return;
        }
        let until = now + self.known_for;
        let table = &self.known;
        table.update(known, now, || Known { until }, |known| known.until = until);
    }

    /// Under which its failures are counted, under which it is known, and its network.
    fn http_keys(&self, login: HttpLogin<'_>, address: IpAddr) -> (u64, u64, u64) {
        let network = network(address);
        let (name, known) = match login {
            HttpLogin::Application(id) => {
                let key = self.key((id, true, network));
                (key, key)
            }
            HttpLogin::Bearer(secret) => {
                (self.key(("bearer", network)), self.key((secret, network)))
            }
        };
        (name, known, self.key(network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::AuthConfig, telemetry::metrics::Metrics};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    fn throttle() -> Throttle {
        let config = AuthConfig {
            device_failures: 3,
            ..AuthConfig::default()
        };
        Throttle::new(&config, &Metrics::new())
    }

    #[test]
    fn whoever_tries_wrong_tokens_waits_and_those_who_were_let_in_do_not() {
        let (throttle, now) = (throttle(), Instant::now());
        let right = HttpLogin::Bearer("right");
        throttle.http_succeeded(right, HERE, now);
        for attempt in 0..4 {
            let wrong = format!("wrong {attempt}");
            let wrong = HttpLogin::Bearer(&wrong);
            assert_eq!(throttle.http_wait(wrong, HERE, now), None, "{attempt}");
            throttle.http_failed(wrong, HERE, now);
        }
        let other = HttpLogin::Bearer("other");
        let wait = throttle.http_wait(other, HERE, now).expect("too many");
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(throttle.http_wait(right, HERE, now), None);
        assert_eq!(throttle.http_wait(other, ELSEWHERE, now), None);
        assert_eq!(throttle.http_wait(other, HERE, now + wait), None);
        throttle.http_failed(other, HERE, now + wait);
        let longer = throttle.http_wait(other, HERE, now + wait).expect("again");
        assert_eq!(longer, Duration::from_secs(2));
    }

    #[test]
    fn wrong_secrets_of_an_application_count_against_its_own_id() {
        let (throttle, now) = (throttle(), Instant::now());
        let app = HttpLogin::Application("billing");
        for _ in 0..4 {
            throttle.http_failed(app, HERE, now);
        }
        assert!(throttle.http_wait(app, HERE, now).is_some());
        assert_eq!(throttle.http_wait(app, ELSEWHERE, now), None);
        let other = HttpLogin::Application("other");
        assert_eq!(throttle.http_wait(other, HERE, now), None);
        throttle.http_succeeded(app, HERE, now);
        assert_eq!(throttle.http_wait(app, HERE, now), None);
    }
}
