//! What is counted of CoAP.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{IntCounter, IntGauge};

use super::maker::Maker;

/// CoAP, as far as it has metrics of its own.
#[derive(Debug)]
pub struct Coap {
    /// Devices that are registered, awake or not.
    pub registrations: IntGauge,
    /// Requests that are not answered.
    pub requests: IntGauge,
    /// Received messages that are remembered.
    pub remembered: IntGauge,
    /// Bytes of answers that are kept for duplicates.
    pub reply_bytes: IntGauge,
    /// Devices to which messages of the gateway's own went lately.
    pub peers: IntGauge,
    /// Networks whose datagrams are counted.
    pub networks: IntGauge,
    /// Messages that were sent again.
    pub retransmissions: IntCounter,
    /// Datagrams that were no messages.
    pub malformed: IntCounter,
    /// Messages that had been received before.
    pub duplicate: IntCounter,
    /// Messages of ours that nobody acknowledged.
    pub timeout: IntCounter,
    /// Messages that were rejected with a Reset.
    pub rejected: IntCounter,
    /// Requests that were told to come again, because too many waited.
    pub overloaded: IntCounter,
    /// Requests that were answered with Echo first.
    pub echo: IntCounter,
    /// Datagrams that were dropped because their network sent too many.
    pub limited: IntCounter,
    /// DTLS.
    pub dtls: Dtls,
}

/// DTLS, as far as it has metrics of its own.
#[derive(Debug)]
pub struct Dtls {
    /// Handshakes under way.
    pub handshakes: IntGauge,
    /// Sessions in memory, ready.
    pub live: IntGauge,
    /// Sessions at rest, frozen.
    pub frozen: IntGauge,
    /// What all of them take, in bytes, about.
    pub bytes: IntGauge,
    /// What happened, by the names of `EVENTS`.
    pub events: [IntCounter; EVENTS.len()],
}

/// Events of DTLS, in the order that the edge counts them in.
const EVENTS: [&str; 9] = [
    "cookie",
    "handshake",
    "limited",
    "unknown_record",
    "rejected_record",
    "moved",
    "frozen",
    "thawed",
    "evicted",
];

impl Dtls {
    /// Sets the gauges.
    pub fn set(&self, handshakes: usize, live: usize, frozen: usize, bytes: usize) {
        for (gauge, depth) in [
            (&self.handshakes, handshakes),
            (&self.live, live),
            (&self.frozen, frozen),
            (&self.bytes, bytes),
        ] {
            gauge.set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
    }

    fn new(make: &Maker<'_>) -> Self {
        let sessions = make.gauges(
            "dtls_sessions",
            "Sessions of DTLS, in memory as they are used or frozen.",
            &["state"],
        );
        let events = make.counters(
            "dtls_events_total",
            "What happened to peers of DTLS and their records.",
            &["event"],
        );
        Self {
            handshakes: make.gauge("dtls_handshakes", "Handshakes of DTLS under way."),
            live: sessions.with_label_values(&["live"]),
            frozen: sessions.with_label_values(&["frozen"]),
            bytes: make.gauge(
                "dtls_bytes",
                "Bytes that sessions and handshakes of DTLS take, about.",
            ),
            events: EVENTS.map(|name| events.with_label_values(&[name])),
        }
    }
}

impl Coap {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let events = make.counters(
            "coap_events_total",
            "What happened to messages of CoAP besides the rule.",
            &["event"],
        );
        let event = |name| events.with_label_values(&[name]);
        Self {
            dtls: Dtls::new(make),
            registrations: make.gauge("coap_registrations", "Devices registered by CoAP."),
            requests: make.gauge("coap_requests", "Requests by CoAP that are not answered."),
            remembered: make.gauge(
                "coap_remembered_messages",
                "Messages that are remembered for their duplicates.",
            ),
            reply_bytes: make.gauge(
                "coap_reply_bytes",
                "Bytes of answers that are kept for duplicates.",
            ),
            peers: make.gauge(
                "coap_peers",
                "Devices to which messages of the gateway's own went lately.",
            ),
            networks: make.gauge(
                "coap_networks",
                "Networks of strangers whose datagrams are counted.",
            ),
            retransmissions: make
                .counters(
                    "retransmissions_total",
                    "Messages to devices that were sent again.",
                    &["protocol"],
                )
                .with_label_values(&["coap"]),
            malformed: event("malformed"),
            duplicate: event("duplicate"),
            timeout: event("timeout"),
            rejected: event("rejected"),
            overloaded: event("overloaded"),
            echo: event("echo"),
            limited: event("limited"),
        }
    }
}
