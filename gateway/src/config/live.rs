//! What a running gateway takes over when its configuration is read again.
//!
//! Called at SIGHUP by the application. Everything else holds from the next start on: [`Config::waits_for_restart`] names it.

use super::{Config, section::Section as _};

impl Config {
    /// Names of settings that differ in `other` and cannot be taken over; what is secret or a list as a whole.
    pub fn waits_for_restart(&self, other: &Self) -> Vec<String> {
        let mut other = other.clone();
        other.take_over(self);
        let mut names = Vec::new();
        for (before, after) in self.show().into_iter().zip(other.show()) {
            let section = before.0;
            let keys = before.2.into_iter().zip(after.2);
            let changed = keys.filter(|(before, after)| before.value != after.value);
            names.extend(changed.map(|(key, _)| format!("{section}.{}", key.key)));
        }
        if self.listeners != other.listeners {
            names.push(super::ListenerConfig::NAME.to_owned());
        }
        if names.is_empty() && *self != other {
            names.push("a secret, or data_dir".to_owned());
        }
        names
    }

    /// Takes from `other` what can change while the gateway runs.
    pub fn take_over(&mut self, other: &Self) {
        self.log.level.clone_from(&other.log.level);
        self.mqtt.max_connections = other.mqtt.max_connections;
        self.mqtt.max_handshakes_per_network = other.mqtt.max_handshakes_per_network;
        self.mqtt.max_accept_rate = other.mqtt.max_accept_rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_over_is_named() {
        let before = Config::embedded("/data");
        let mut after = before.clone();
        after.log.level = "debug".to_owned();
        after.mqtt.max_connections += 1;
        after.mqtt.max_accept_rate += 1;
        after.mqtt.max_handshakes_per_network += 1;
        assert!(before.waits_for_restart(&after).is_empty());
        after.mqtt.backlog += 1;
        after
            .listeners
            .push(crate::config::ListenerConfig::default());
        let named = before.waits_for_restart(&after);
        assert_eq!(named, ["mqtt.backlog", "mqtt.listener"]);
        let mut held = before.clone();
        held.take_over(&after);
        assert_eq!(held.mqtt.max_connections, after.mqtt.max_connections);
        assert_eq!(held.mqtt.backlog, before.mqtt.backlog);
    }
}
