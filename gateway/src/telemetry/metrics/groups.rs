//! Groups of metrics that differ in one label only.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec};

use crate::model::{AuthKind, DeliveryState};

use super::{
    super::labels::{PauseReason, SessionKind, UploadChunk, UploadEnd, WillEnd},
    maker::Maker,
};

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

/// Wills of clients.
#[derive(Debug)]
pub struct Wills {
    /// Those that may have to be published.
    pub held: IntGauge,
    /// Changes that wait to be stored.
    pub unstored: IntGauge,
    ends: Vec<IntCounter>,
}

impl Wills {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let ends = make.counters("wills_total", "Wills by what became of them.", &["result"]);
        Self {
            held: make.gauge("wills", "Wills that may have to be published."),
            unstored: make.gauge("wills_unstored", "Changes of wills not stored yet."),
            ends: WillEnd::ALL
                .iter()
                .map(|end| ends.with_label_values(&[end.label()]))
                .collect(),
        }
    }

    /// Wills by what became of them.
    pub fn ended(&self, end: WillEnd) -> &IntCounter {
        &self.ends[end.index()]
    }
}

/// Retained messages of all devices.
#[derive(Debug)]
pub struct Retained {
    /// How many.
    pub messages: IntGauge,
    /// What they take on the disk.
    pub bytes: IntGauge,
}

impl Retained {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            messages: make.gauge("retained_messages", "Retained messages."),
            bytes: make.gauge("retained_bytes", "Bytes of retained messages."),
        }
    }
}

/// Sessions that outlive their connections, and what waits for them.
#[derive(Debug)]
pub struct PersistentSessions {
    kinds: Vec<IntGauge>,
    /// Clients that got a session that ends with its connection, because there are as many as may be.
    pub refused: IntCounter,
    /// Messages that wait for those of applications.
    pub queue_messages: IntGauge,
    /// What they take, in bytes.
    pub queue_bytes: IntGauge,
}

impl PersistentSessions {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let sessions = make.gauges(
            "persistent_sessions",
            "Sessions that outlive their connections.",
            &["kind"],
        );
        let of = |kind: &SessionKind| sessions.with_label_values(&[kind.label()]);
        Self {
            kinds: SessionKind::ALL.iter().map(of).collect(),
            refused: make.counter(
                "persistent_sessions_refused_total",
                "Sessions that were not kept, because as many are as may be.",
            ),
            queue_messages: make.gauge(
                "queue_messages",
                "Messages that wait for persistent sessions of applications.",
            ),
            queue_bytes: make.gauge("queue_bytes", "Bytes of these messages."),
        }
    }

    /// How many there are of this kind.
    pub fn of(&self, kind: SessionKind) -> &IntGauge {
        &self.kinds[kind.index()]
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

/// `headgate_deliveries` by state.
#[derive(Debug)]
pub struct Deliveries {
    /// Waiting for their turn or their device.
    pub pending: IntGauge,
    /// The device was told.
    pub pushed: IntGauge,
    /// Bytes move.
    pub delivering: IntGauge,
    /// Done.
    pub delivered: IntGauge,
    /// Given up.
    pub failed: IntGauge,
}

impl Deliveries {
    /// The gauge of one state.
    pub const fn of(&self, state: DeliveryState) -> &IntGauge {
        match state {
            DeliveryState::Pending => &self.pending,
            DeliveryState::Pushed => &self.pushed,
            DeliveryState::Delivering => &self.delivering,
            DeliveryState::Delivered => &self.delivered,
            DeliveryState::Failed => &self.failed,
        }
    }
}

/// `headgate_delivery_chunks_total{protocol="mqtt"}` by result.
#[derive(Debug)]
pub struct DeliveryChunks {
    /// Handed to the socket.
    pub sent: IntCounter,
    /// Acknowledged by the device.
    pub acked: IntCounter,
    /// Sent again.
    pub resent: IntCounter,
    /// Blocks sent by CoAP.
    pub sent_coap: IntCounter,
    /// Blocks after which the device asked for the next.
    pub acked_coap: IntCounter,
    /// Blocks sent by CoAP again.
    pub resent_coap: IntCounter,
}

/// The chunk cache that all devices share.
#[derive(Debug)]
pub struct ChunkCache {
    /// Bytes it holds.
    pub bytes: IntGauge,
    /// Chunks found in it.
    pub hits: IntCounter,
    /// Chunks read from the blob store.
    pub misses: IntCounter,
}

/// What devices upload.
#[derive(Debug)]
pub struct Uploads {
    ends: Vec<IntCounter>,
    chunks: Vec<IntCounter>,
    chunks_coap: Vec<IntCounter>,
    /// Bytes that came by MQTT and are stored.
    pub bytes_mqtt: IntCounter,
    /// Bytes that came by CoAP and are stored.
    pub bytes_coap: IntCounter,
    /// Bytes that came by HTTPS and are stored.
    pub bytes_files: IntCounter,
    /// Uploads in progress.
    pub open: IntGauge,
    /// Bytes of them that are in the spool.
    pub spool_bytes: IntGauge,
    /// Bytes in memory that wait for the spool.
    pub waiting_bytes: IntGauge,
    /// Writes that wait for a thread.
    pub waiting_writes: IntGauge,
    /// Uploads that are whole and wait to be checked.
    pub unchecked: IntGauge,
}

impl Uploads {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let ends = make.counters("uploads_total", "What became of uploads.", &["result"]);
        let chunks = make.counters(
            "upload_chunks_total",
            "Chunks of uploads.",
            &["protocol", "result"],
        );
        let bytes = make.counters(
            "upload_bytes_total",
            "Bytes of uploads in the spool.",
            &["protocol"],
        );
        let chunks = |protocol| {
            let of = |chunk: &UploadChunk| chunks.with_label_values(&[protocol, chunk.label()]);
            UploadChunk::ALL.iter().map(of).collect()
        };
        Self {
            ends: UploadEnd::ALL
                .iter()
                .map(|end| ends.with_label_values(&[end.label()]))
                .collect(),
            chunks: chunks("mqtt"),
            chunks_coap: chunks("coap"),
            bytes_coap: bytes.with_label_values(&["coap"]),
            bytes_mqtt: bytes.with_label_values(&["mqtt"]),
            bytes_files: bytes.with_label_values(&["files"]),
            open: make.gauge("uploads_open", "Uploads in progress."),
            spool_bytes: make.gauge("upload_spool_bytes", "Bytes of uploads in progress."),
            waiting_bytes: make.gauge(
                "upload_waiting_bytes",
                "Bytes of uploads in memory that wait for the disk.",
            ),
            waiting_writes: make.gauge("upload_waiting_writes", "Writes that wait for a thread."),
            unchecked: make.gauge(
                "uploads_unchecked",
                "Uploads that are whole and wait to be checked.",
            ),
        }
    }

    /// Uploads that came to this end.
    pub fn ended(&self, end: UploadEnd) -> &IntCounter {
        &self.ends[end.index()]
    }

    /// Chunks that this became of.
    pub fn chunks(&self, chunk: UploadChunk) -> &IntCounter {
        &self.chunks[chunk.index()]
    }

    /// Blocks by CoAP that this became of.
    pub fn chunks_coap(&self, chunk: UploadChunk) -> &IntCounter {
        &self.chunks_coap[chunk.index()]
    }
}

/// `headgate_registration_rows_total` by result.
#[derive(Debug)]
pub struct RegistrationRows {
    /// The device was registered.
    pub created: IntCounter,
    /// It was there, as the row says.
    pub unchanged: IntCounter,
    /// The row cannot be used.
    pub failed: IntCounter,
}

/// `headgate_registration_batches` by state.
#[derive(Debug)]
pub struct RegistrationBatches {
    /// Others are before it.
    pub waiting: IntGauge,
    /// Its rows are being registered.
    pub running: IntGauge,
}

impl RegistrationRows {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let rows = make.counters(
            "registration_rows_total",
            "Rows of batches by what became of them.",
            &["result"],
        );
        Self {
            created: rows.with_label_values(&["created"]),
            unchanged: rows.with_label_values(&["unchanged"]),
            failed: rows.with_label_values(&["failed"]),
        }
    }
}

impl RegistrationBatches {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let batches = make.gauges(
            "registration_batches",
            "Batches of devices that are not done.",
            &["state"],
        );
        Self {
            waiting: batches.with_label_values(&["waiting"]),
            running: batches.with_label_values(&["running"]),
        }
    }
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

impl Deliveries {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let deliveries = make.gauges(
            "deliveries",
            "Deliveries: open ones, and those that ended since the start.",
            &["state"],
        );
        Self {
            pending: deliveries.with_label_values(&["pending"]),
            pushed: deliveries.with_label_values(&["pushed"]),
            delivering: deliveries.with_label_values(&["delivering"]),
            delivered: deliveries.with_label_values(&["delivered"]),
            failed: deliveries.with_label_values(&["failed"]),
        }
    }
}

impl DeliveryChunks {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let chunks = make.counters(
            "delivery_chunks_total",
            "Chunks by what became of them.",
            &["protocol", "result"],
        );
        Self {
            sent: chunks.with_label_values(&["mqtt", "sent"]),
            acked: chunks.with_label_values(&["mqtt", "acked"]),
            resent: chunks.with_label_values(&["mqtt", "resent"]),
            sent_coap: chunks.with_label_values(&["coap", "sent"]),
            acked_coap: chunks.with_label_values(&["coap", "acked"]),
            resent_coap: chunks.with_label_values(&["coap", "resent"]),
        }
    }
}

impl ChunkCache {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            bytes: make.gauge("chunk_cache_bytes", "Bytes in the chunk cache."),
            hits: make.counter("chunk_cache_hits_total", "Chunks found in the cache."),
            misses: make.counter("chunk_cache_misses_total", "Chunks read from the store."),
        }
    }
}
