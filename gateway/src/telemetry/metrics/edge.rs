//! Metrics of connections: who came, how they said who they are, and what went over them.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec};

use super::{super::labels::PauseReason, maker::Maker};
use crate::model::AuthKind;

/// `headgate_connect_attempts_total{protocol="mqtt"}` by outcome.
#[derive(Debug)]
pub struct ConnectAttempts {
    /// The device was let in.
    pub accepted: IntCounter,
    /// CONNECT was understood and refused.
    pub refused: IntCounter,
    /// TLS was not agreed.
    pub failed_tls: IntCounter,
    /// TLS and CONNECT took too long.
    pub timeout: IntCounter,
    /// What arrived was no proper CONNECT.
    pub protocol_error: IntCounter,
    /// There were too many connections.
    pub over_limit: IntCounter,
    /// Too many logins from its network failed: it was closed before TLS.
    pub throttled: IntCounter,
    /// Its network had too many handshakes under way.
    pub crowded: IntCounter,
    /// A load balancer did not say as it should whose connection it was.
    pub failed_proxy: IntCounter,
    /// It was no WebSocket.
    pub failed_websocket: IntCounter,
    /// Times that accepting waited for the rate.
    pub delayed: IntCounter,
    /// A device registered by CoAP.
    pub accepted_coap: IntCounter,
    /// A registration by CoAP was refused.
    pub refused_coap: IntCounter,
    /// There were too many registrations by CoAP.
    pub over_limit_coap: IntCounter,
    /// A device finished a handshake of DTLS.
    pub accepted_coaps: IntCounter,
    /// It has not the key or certificate of its name, or there is none of that name.
    pub refused_coaps: IntCounter,
    /// DTLS was not agreed.
    pub failed_coaps: IntCounter,
    /// A handshake of DTLS took too long.
    pub timeout_coaps: IntCounter,
}

impl ConnectAttempts {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let attempts = make.counters(
            "connect_attempts_total",
            "How connections of devices began.",
            &["protocol", "outcome"],
        );
        Self {
            accepted: attempts.with_label_values(&["mqtt", "accepted"]),
            refused: attempts.with_label_values(&["mqtt", "refused"]),
            failed_tls: attempts.with_label_values(&["mqtt", "failed_tls"]),
            timeout: attempts.with_label_values(&["mqtt", "timeout"]),
            protocol_error: attempts.with_label_values(&["mqtt", "protocol_error"]),
            over_limit: attempts.with_label_values(&["mqtt", "over_limit"]),
            throttled: attempts.with_label_values(&["mqtt", "throttled"]),
            crowded: attempts.with_label_values(&["mqtt", "crowded"]),
            failed_proxy: attempts.with_label_values(&["mqtt", "failed_proxy"]),
            failed_websocket: attempts.with_label_values(&["mqtt", "failed_websocket"]),
            delayed: make.counter(
                "accept_delays_total",
                "Times that accepting devices waited for mqtt.max_accept_rate.",
            ),
            accepted_coap: attempts.with_label_values(&["coap", "accepted"]),
            refused_coap: attempts.with_label_values(&["coap", "refused"]),
            over_limit_coap: attempts.with_label_values(&["coap", "over_limit"]),
            accepted_coaps: attempts.with_label_values(&["coaps", "accepted"]),
            refused_coaps: attempts.with_label_values(&["coaps", "refused"]),
            failed_coaps: attempts.with_label_values(&["coaps", "failed_tls"]),
            timeout_coaps: attempts.with_label_values(&["coaps", "timeout"]),
        }
    }
}

/// `headgate_tls_reloads_total` by result, and `headgate_tls_certificate_not_after_seconds`.
#[derive(Debug)]
pub struct TlsCertificates {
    /// When the first of them ends, in seconds since 1970.
    pub(super) not_after: Gauge,
    /// Other certificates are served.
    pub changed: IntCounter,
    /// A file could not be used; what was served before still is.
    pub failed: IntCounter,
}

impl TlsCertificates {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let reloads = make.counters(
            "tls_reloads_total",
            "Times that certificates were read again, and what came of it.",
            &["result"],
        );
        Self {
            not_after: make.seconds(
                "tls_certificate_not_after_seconds",
                "End of the certificate that ends first, seconds since 1970.",
            ),
            changed: reloads.with_label_values(&["changed"]),
            failed: reloads.with_label_values(&["failed"]),
        }
    }
}

/// `headgate_connections` of devices by one protocol, by what they proved themselves by.
#[derive(Debug)]
pub struct DeviceConnections {
    /// A secret.
    pub secret: IntGauge,
    /// A certificate.
    pub x509: IntGauge,
}

impl DeviceConnections {
    pub(super) fn of_family(connections: &IntGaugeVec, protocol: &str) -> Self {
        Self {
            secret: connections.with_label_values(&[protocol, "secret"]),
            x509: connections.with_label_values(&[protocol, "x509"]),
        }
    }

    /// Those of this kind. Devices that prove nothing have no way here.
    pub const fn of(&self, auth: AuthKind) -> &IntGauge {
        match auth {
            AuthKind::X509 => &self.x509,
            AuthKind::Secret | AuthKind::None => &self.secret,
        }
    }
}

/// Connections that are not read from because clients publish faster than they may.
#[derive(Debug)]
pub struct RatePauses {
    waiting: Vec<IntGauge>,
    begun: Vec<IntCounter>,
}

impl RatePauses {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let waiting = make.gauges(
            "paused_by_rate",
            "Connections that wait because clients publish too fast.",
            &["reason"],
        );
        let begun = make.counters(
            "rate_pauses_total",
            "Times that a connection had to wait because clients publish too fast.",
            &["reason"],
        );
        let labels = PauseReason::ALL.iter().map(|reason| reason.label());
        Self {
            waiting: labels
                .clone()
                .map(|label| waiting.with_label_values(&[label]))
                .collect(),
            begun: labels
                .map(|label| begun.with_label_values(&[label]))
                .collect(),
        }
    }

    /// Connections that wait now.
    pub fn waiting(&self, reason: PauseReason) -> &IntGauge {
        &self.waiting[reason.index()]
    }

    /// Times that one had to.
    pub fn begun(&self, reason: PauseReason) -> &IntCounter {
        &self.begun[reason.index()]
    }
}

/// `headgate_auth_failures_total` by reason.
#[derive(Debug)]
pub struct AuthFailures {
    /// Unknown device or wrong secret: nobody outside can tell which.
    pub unknown_or_wrong: IntCounter,
    /// The device is frozen.
    pub disabled: IntCounter,
    /// The credential has no known form.
    pub malformed: IntCounter,
    /// The password is for another hour, or its end is past.
    pub stale: IntCounter,
    /// The device's own certificate has ended, or has not begun.
    pub certificate: IntCounter,
    /// The name, or its network, has to wait: nothing was looked at.
    pub throttled: IntCounter,
}

impl AuthFailures {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let failures = make.counters(
            "auth_failures_total",
            "Devices that were not let in.",
            &["reason"],
        );
        Self {
            unknown_or_wrong: failures.with_label_values(&["unknown_or_wrong"]),
            disabled: failures.with_label_values(&["disabled"]),
            malformed: failures.with_label_values(&["malformed"]),
            stale: failures.with_label_values(&["stale"]),
            certificate: failures.with_label_values(&["certificate"]),
            throttled: failures.with_label_values(&["throttled"]),
        }
    }
}

/// `headgate_auth_throttle_entries` by table.
#[derive(Debug)]
pub struct AuthThrottle {
    /// Names, as seen from one network, whose logins failed.
    pub failed_names: IntGauge,
    /// Networks from which logins failed.
    pub failed_networks: IntGauge,
    /// Names that were let in.
    pub known_names: IntGauge,
    /// Networks from which names were let in.
    pub known_networks: IntGauge,
}

impl AuthThrottle {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let entries = make.gauges(
            "auth_throttle_entries",
            "What is remembered of logins, counted each minute.",
            &["table"],
        );
        Self {
            failed_names: entries.with_label_values(&["failed_names"]),
            failed_networks: entries.with_label_values(&["failed_networks"]),
            known_names: entries.with_label_values(&["known_names"]),
            known_networks: entries.with_label_values(&["known_networks"]),
        }
    }
}

/// `headgate_bytes_total` by protocol and direction.
#[derive(Debug)]
pub struct Bytes {
    /// From devices by MQTT.
    pub in_mqtt: IntCounter,
    /// To devices by MQTT.
    pub out_mqtt: IntCounter,
    /// From devices by CoAP without DTLS.
    pub in_coap: IntCounter,
    /// To devices by CoAP without DTLS.
    pub out_coap: IntCounter,
    /// From devices by CoAP over DTLS.
    pub in_coaps: IntCounter,
    /// To devices by CoAP over DTLS.
    pub out_coaps: IntCounter,
    /// From devices at the files listener.
    pub in_files: IntCounter,
    /// To devices at the files listener.
    pub out_files: IntCounter,
}

impl Bytes {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let bytes = make.counters(
            "bytes_total",
            "Bytes of the protocol, inside TLS.",
            &["protocol", "direction"],
        );
        Self {
            in_mqtt: bytes.with_label_values(&["mqtt", "in"]),
            out_mqtt: bytes.with_label_values(&["mqtt", "out"]),
            in_coap: bytes.with_label_values(&["coap", "in"]),
            out_coap: bytes.with_label_values(&["coap", "out"]),
            in_coaps: bytes.with_label_values(&["coaps", "in"]),
            out_coaps: bytes.with_label_values(&["coaps", "out"]),
            in_files: bytes.with_label_values(&["files", "in"]),
            out_files: bytes.with_label_values(&["files", "out"]),
        }
    }
}
