//! What is counted of CoAP.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::{Bytes, DisconnectReason, disconnects_of, maker::Maker};

/// CoAP, as far as it has metrics of its own.
#[derive(Debug)]
pub struct Coap {
    /// The listener without DTLS.
    pub plain: CoapListener,
    /// The listener with DTLS.
    pub secure: CoapListener,
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

/// What is counted of one listener; clones share it.
#[derive(Debug, Clone)]
pub struct CoapListener {
    /// Bytes of datagrams that came.
    pub received_bytes: IntCounter,
    /// Bytes of datagrams that went.
    pub sent_bytes: IntCounter,
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
    disconnects: Vec<IntCounter>,
}

impl CoapListener {
    /// Registrations that ended for `reason`.
    pub fn disconnects(&self, reason: DisconnectReason) -> &IntCounter {
        &self.disconnects[reason.index()]
    }

    fn pair(make: &Maker<'_>, bytes: &Bytes, disconnects: &IntCounterVec) -> [Self; 2] {
        let gauges = |name, text| make.gauges(name, text, &["protocol"]);
        let registrations = gauges("coap_registrations", "Devices registered by CoAP.");
        let requests = gauges("coap_requests", "Requests by CoAP that are not answered.");
        let remembered = gauges(
            "coap_remembered_messages",
            "Messages that are remembered for their duplicates.",
        );
        let reply_bytes = gauges(
            "coap_reply_bytes",
            "Bytes of answers that are kept for duplicates.",
        );
        let peers = gauges(
            "coap_peers",
            "Devices to which messages of the gateway's own went lately.",
        );
        let networks = gauges(
            "coap_networks",
            "Networks of strangers whose datagrams are counted.",
        );
        let retransmissions = make.counters(
            "retransmissions_total",
            "Messages to devices that were sent again.",
            &["protocol"],
        );
        [
            ("coap", &bytes.in_coap, &bytes.out_coap),
            ("coaps", &bytes.in_coaps, &bytes.out_coaps),
        ]
        .map(|(protocol, received, sent)| Self {
            received_bytes: received.clone(),
            sent_bytes: sent.clone(),
            registrations: registrations.with_label_values(&[protocol]),
            requests: requests.with_label_values(&[protocol]),
            remembered: remembered.with_label_values(&[protocol]),
            reply_bytes: reply_bytes.with_label_values(&[protocol]),
            peers: peers.with_label_values(&[protocol]),
            networks: networks.with_label_values(&[protocol]),
            retransmissions: retransmissions.with_label_values(&[protocol]),
            disconnects: disconnects_of(disconnects, protocol),
        })
    }
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
    pub(super) fn new(make: &Maker<'_>, bytes: &Bytes, disconnects: &IntCounterVec) -> Self {
        let [plain, secure] = CoapListener::pair(make, bytes, disconnects);
        let events = make.counters(
            "coap_events_total",
            "What happened to messages of CoAP besides the rule.",
            &["event"],
        );
        let event = |name| events.with_label_values(&[name]);
        Self {
            dtls: Dtls::new(make),
            plain,
            secure,
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
