//! Every metric of the daemon, made once, with its labels' children at hand.
//!
//! `app.rs` makes one `Metrics` and hands clones to whoever counts; the metrics listener calls
//! `render`. Names start with `headgate_`, except `process_*` and `tokio_*`, whose names are shared
//! by all programs.
//! Invariants: no label takes a value from outside (see `labels`); counting never looks a child up
//! by name, except `store_seconds`, whose result callers keep.

mod cluster;
mod coap;
mod edge;
mod maker;
mod messages;
mod registration;
mod stores;
mod transfers;

use std::{ops::Deref, sync::Arc, time::SystemTime};

use prometheus::{
    Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub use self::cluster::ClusterMetrics;
pub use self::coap::{Coap, CoapListener, Dtls};
pub use self::edge::{
    AuthFailures, AuthThrottle, Bytes, ConnectAttempts, DeviceConnections, RatePauses,
    TlsCertificates,
};
pub(super) use self::maker::Maker;
pub use self::messages::{PersistentSessions, Retained, Wills};
pub use self::registration::{RegistrationBatches, RegistrationRows};
use self::stores::Stores;
pub use self::transfers::{ChunkCache, Deliveries, DeliveryChunks, Uploads};
pub use super::labels::{
    DisconnectReason, DropReason, PauseReason, SessionKind, UploadChunk, UploadEnd, WillEnd,
};
use super::process::ProcessMetrics;

/// Names of MQTT control packet types by their number in the fixed header; 0 is reserved.
const PACKET_TYPES: [&str; 16] = [
    "reserved",
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];

/// Seconds: from memory alone to a disk that does not keep up.
const PUBLISH_BUCKETS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0,
];
/// Seconds: TLS and CONNECT together; the limit is 10 s.
const HANDSHAKE_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Seconds: from a local network to a night on NB-IoT.
const DELIVERY_BUCKETS: &[f64] = &[
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
];

/// Every metric; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Families>);

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The metrics by family. Not made directly: see [`Metrics::new`].
#[derive(Debug)]
pub struct Families {
    registry: Registry,
    process: ProcessMetrics,
    /// Devices connected by MQTT.
    pub connections_mqtt: DeviceConnections,
    /// Applications connected by MQTT.
    pub connections_applications: IntGauge,
    /// Devices that are registered by CoAP and awake.
    pub connections_coap: IntGauge,
    /// Devices that are awake by CoAP over DTLS.
    pub connections_coaps: DeviceConnections,
    /// CoAP.
    pub coap: Coap,
    /// Connections to the files listener.
    pub connections_files: IntGauge,
    /// How MQTT connections began.
    pub connect_attempts: ConnectAttempts,
    /// Connections between accept and CONNACK.
    pub handshakes_in_flight: IntGauge,
    /// From accept to the end of the TLS handshake.
    pub handshake_seconds: Histogram,
    /// Devices that were not let in.
    pub auth_failures: AuthFailures,
    /// What is remembered of logins.
    pub auth_throttle: AuthThrottle,
    /// Queries for devices that were not in memory; each is for all that wait.
    pub auth_queries: IntCounter,
    /// Bytes of the protocol, inside TLS.
    pub bytes: Bytes,
    /// Deliveries by state: open ones, and those that ended since the start.
    pub deliveries: Deliveries,
    /// Chunks by what became of them.
    pub delivery_chunks: DeliveryChunks,
    delivery_waiting: IntGaugeVec,
    /// From pushed to delivered.
    pub delivery_seconds: Histogram,
    /// From pushed to the first chunk's acknowledgement.
    pub delivery_first_byte_seconds: Histogram,
    /// Chunks sent and not acknowledged.
    pub chunks_in_flight: IntGauge,
    /// The chunk cache.
    pub chunk_cache: ChunkCache,
    /// What devices upload.
    pub uploads: Uploads,
    /// Bytes in the outboxes of all devices.
    pub outbox_bytes: IntGauge,
    /// Messages that wait for devices.
    pub mailbox_messages: IntGauge,
    /// Wills of clients.
    pub wills: Wills,
    /// Retained messages.
    pub retained: Retained,
    /// Sessions that outlive their connections.
    pub sessions: PersistentSessions,
    /// Event streams that applications and operators read.
    pub event_streams: IntGauge,
    /// Devices whose messages the console looks at.
    pub watched_devices: IntGauge,
    /// Connections that are not read from for now.
    pub paused_connections: IntGauge,
    /// From the moment when a PUBLISH of QoS 1 or 2 was found until its acknowledgement was written.
    pub publish_seconds: Histogram,
    /// Connections that wait because clients publish too fast.
    pub rate_pauses: RatePauses,
    /// Rows of batches by what became of them.
    pub registration_rows: RegistrationRows,
    /// Batches of devices that are not done.
    pub registration_batches: RegistrationBatches,
    /// Connections that ended an older one of the same device.
    pub session_takeovers: IntCounter,
    /// The other nodes.
    pub cluster: ClusterMetrics,
    /// 1 while this node drains.
    pub draining: IntGauge,
    /// The certificates that are served.
    pub tls_certificates: TlsCertificates,
    disconnects: Vec<IntCounter>,
    messages_dropped: Vec<IntCounter>,
    packets_in: [IntCounter; 16],
    packets_out: [IntCounter; 16],
    stores: Stores,
}

impl Metrics {
    /// Devices connected by MQTT, whatever they proved themselves by.
    pub fn devices_by_mqtt(&self) -> i64 {
        self.connections_mqtt.secret.get() + self.connections_mqtt.x509.get()
    }

    /// Devices by CoAP that can be reached now, with DTLS and without.
    pub fn devices_by_coap(&self) -> i64 {
        let secured = &self.connections_coaps;
        self.connections_coap.get() + secured.secret.get() + secured.x509.get()
    }

    /// When the first certificate ends, in seconds since 1970; `None` where none is served.
    pub fn certificate_end(&self) -> Option<u64> {
        let end = self.tls_certificates.not_after.get();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole seconds since 1970, set from a time"
        )]
        (end > 0.0).then_some(end as u64)
    }

    /// Makes every metric, at zero.
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("headgate".to_owned()), None)
            .expect("the prefix is a valid name");
        let families = Families::new(&Maker(&registry), registry.clone());
        Self(Arc::new(families))
    }

    /// Notes when the first of the certificates ends.
    pub fn set_certificate_end(&self, end: SystemTime) {
        let since = end.duration_since(SystemTime::UNIX_EPOCH);
        self.tls_certificates
            .not_after
            .set(since.unwrap_or_default().as_secs_f64());
    }
}

impl Families {
    fn new(make: &Maker<'_>, registry: Registry) -> Self {
        make.gauges("build_info", "This program.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let connections = make.gauges(
            "connections",
            "Open connections of devices.",
            &["protocol", "auth"],
        );
        let disconnects = make.counters(
            "disconnects_total",
            "Connections of devices that ended.",
            &["protocol", "reason"],
        );
        let dropped = make.counters(
            "messages_dropped_total",
            "Messages to devices and applications that were dropped.",
            &["reason"],
        );
        let packets = make.counters(
            "packets_total",
            "MQTT control packets.",
            &["protocol", "type", "direction"],
        );
        let bytes = Bytes::new(make);
        let packets = |direction| {
            let child = |name| packets.with_label_values(&["mqtt", name, direction]);
            PACKET_TYPES.map(child)
        };
        Self {
            connections_mqtt: DeviceConnections::of_family(&connections, "mqtt"),
            connections_applications: connections.with_label_values(&["mqtt", "application"]),
            connections_coap: connections.with_label_values(&["coap", "none"]),
            connections_coaps: DeviceConnections::of_family(&connections, "coaps"),
            coap: Coap::new(make, &bytes, &disconnects),
            connections_files: connections.with_label_values(&["files", "signed"]),
            connect_attempts: ConnectAttempts::new(make),
            handshakes_in_flight: make.gauge("handshakes_in_flight", "Connections before CONNACK."),
            handshake_seconds: handshake_seconds(make),
            auth_failures: AuthFailures::new(make),
            auth_throttle: AuthThrottle::new(make),
            auth_queries: make.counter(
                "auth_queries_total",
                "Queries for devices that were not in memory.",
            ),
            bytes,
            deliveries: Deliveries::new(make),
            delivery_chunks: DeliveryChunks::new(make),
            delivery_waiting: make.gauges(
                "delivery_waiting",
                "Open deliveries by what they wait for; counted every 10 s.",
                &["reason"],
            ),
            delivery_seconds: make.histogram(
                "delivery_seconds",
                "From pushed to delivered.",
                DELIVERY_BUCKETS,
            ),
            delivery_first_byte_seconds: make.histogram(
                "delivery_first_byte_seconds",
                "From pushed to the first acknowledged chunk.",
                DELIVERY_BUCKETS,
            ),
            chunks_in_flight: make.gauge("chunks_in_flight", "Chunks sent, not acknowledged."),
            chunk_cache: ChunkCache::new(make),
            uploads: Uploads::new(make),
            outbox_bytes: make.gauge("outbox_bytes", "Bytes in the outboxes of all devices."),
            event_streams: make.gauge("event_streams", "Open event streams of applications."),
            watched_devices: make.gauge(
                "watched_devices",
                "Devices whose messages the console looks at.",
            ),
            wills: Wills::new(make),
            retained: Retained::new(make),
            mailbox_messages: make.gauge("mailbox_messages", "Messages that wait for devices."),
            sessions: PersistentSessions::new(make),
            paused_connections: make.gauge("paused_connections", "Connections not read from."),
            publish_seconds: publish_seconds(make),
            rate_pauses: RatePauses::new(make),
            registration_rows: RegistrationRows::new(make),
            registration_batches: RegistrationBatches::new(make),
            session_takeovers: make.counter(
                "session_takeovers_total",
                "Connections that ended an older one of the same device.",
            ),
            cluster: ClusterMetrics::new(make),
            draining: make.gauge("draining", "1 while this node drains."),
            tls_certificates: TlsCertificates::new(make),
            disconnects: disconnects_of(&disconnects, "mqtt"),
            messages_dropped: DropReason::ALL
                .iter()
                .map(|reason| dropped.with_label_values(&[reason.label()]))
                .collect(),
            packets_in: packets("in"),
            packets_out: packets("out"),
            stores: Stores::new(make),
            process: ProcessMetrics::new(),
            registry,
        }
    }

    /// Connections by MQTT that ended for `reason`.
    pub fn disconnects(&self, reason: DisconnectReason) -> &IntCounter {
        &self.disconnects[reason.index()]
    }

    /// Messages dropped for `reason`.
    pub fn messages_dropped(&self, reason: DropReason) -> &IntCounter {
        &self.messages_dropped[reason.index()]
    }

    /// Packets from devices; `kind` is the packet type of the fixed header, 1 to 15.
    pub fn packets_in(&self, kind: u8) -> &IntCounter {
        &self.packets_in[usize::from(kind & 0x0f)]
    }

    /// Packets to devices; `kind` is the packet type of the fixed header, 1 to 15.
    pub fn packets_out(&self, kind: u8) -> &IntCounter {
        &self.packets_out[usize::from(kind & 0x0f)]
    }

    /// Open deliveries that wait for a reason of the program's; looked up by name, so callers keep it.
    pub fn delivery_waiting(&self, reason: &'static str) -> IntGauge {
        self.delivery_waiting.with_label_values(&[reason])
    }

    /// Time of an operation of a store; looked up by name, so callers keep it.
    pub fn store_seconds(&self, store: &'static str, operation: &'static str) -> Histogram {
        self.stores.seconds.with_label_values(&[store, operation])
    }

    /// Whether a store answers; looked up by name, so callers keep it.
    pub fn store_up(&self, store: &'static str) -> IntGauge {
        self.stores.up.with_label_values(&[store])
    }

    /// Connections to the registry's database that wait for work, and those that have some.
    pub fn set_registry_connections(&self, idle: usize, used: usize) {
        let gauges = &self.stores.registry_connections;
        for (gauge, count) in gauges.iter().zip([idle, used]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Everything in the text format of Prometheus, the process's own figures read now.
    pub fn render(&self) -> String {
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("a family that was gathered has a name, a type and samples");
        String::from_utf8(text).expect("the text encoder writes UTF-8")
    }
}

/// The children of one protocol, by the index of their reasons.
fn disconnects_of(family: &IntCounterVec, protocol: &str) -> Vec<IntCounter> {
    let of = |reason: &DisconnectReason| family.with_label_values(&[protocol, reason.label()]);
    DisconnectReason::ALL.iter().map(of).collect()
}

fn handshake_seconds(make: &Maker<'_>) -> Histogram {
    make.histogram(
        "handshake_seconds",
        "From accept to the end of the TLS handshake.",
        HANDSHAKE_BUCKETS,
    )
}

fn publish_seconds(make: &Maker<'_>) -> Histogram {
    make.histogram(
        "publish_seconds",
        "From a PUBLISH of QoS 1 or 2 to its acknowledgement written.",
        PUBLISH_BUCKETS,
    )
}

#[cfg(test)]
mod tests;
