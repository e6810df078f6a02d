//! What all sessions of this process share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use headgate_protocol::mqtt::{ConnectionLimits, Limits};

use super::{slots::SendingSlots, table::SessionTable};
use crate::{
    config::{DeliveryConfig, MqttConfig},
    service::{auth::DeviceAuthenticator, delivery::DeliveryService, presence::Presence},
    telemetry::{metrics::Metrics, sampler::Sampler},
};

/// Packets that are under way to one client whatever its Receive Maximum: a window of chunks and
/// some messages.
const MAX_IN_FLIGHT: u16 = 64;
/// QoS 1 and 2 packets that a client may have under way to us.
const RECEIVE_MAXIMUM: u16 = 32;
/// The longest client identifier, in bytes: the longest that vendors allow.
const MAX_CLIENT_ID_BYTES: usize = 256;

/// The services, limits and tables that sessions use.
#[derive(Debug)]
pub struct Node {
    /// Checks who connects.
    pub authenticator: DeviceAuthenticator,
    /// Offers, bytes and reports.
    pub delivery: DeliveryService,
    /// Who was seen when.
    pub presence: Presence,
    /// Who is connected.
    pub table: Arc<SessionTable>,
    /// Who may send now.
    pub slots: SendingSlots,
    /// Settings of connections.
    pub mqtt: MqttConfig,
    /// Settings of deliveries.
    pub delivery_config: DeliveryConfig,
    /// Bounds of the protocol state.
    pub connection_limits: Arc<ConnectionLimits>,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Which refusals of topics are logged.
    pub refusals: Sampler,
    /// Which refusals of logins are logged.
    pub logins: Sampler,
    /// Bytes that sockets have not taken, over all sessions.
    backlog_bytes: AtomicUsize,
}

impl Node {
    /// A node without sessions.
    pub fn new(
        authenticator: DeviceAuthenticator,
        delivery: DeliveryService,
        presence: Presence,
        mqtt: MqttConfig,
        delivery_config: DeliveryConfig,
        metrics: Metrics,
    ) -> Self {
        let connection_limits = Arc::new(ConnectionLimits {
            max_keep_alive: mqtt.max_keep_alive,
            outbox_messages: mqtt.outbox_messages,
            outbox_bytes: mqtt.outbox_bytes,
            max_in_flight: MAX_IN_FLIGHT,
            receive_maximum: RECEIVE_MAXIMUM,
            max_packet_bytes: u32::try_from(mqtt.max_packet_bytes).unwrap_or(u32::MAX),
        });
        Self {
            slots: SendingSlots::new(delivery_config.sending_slots, delivery_config.slot_hold),
            table: Arc::new(SessionTable::default()),
            backlog_bytes: AtomicUsize::new(0),
            authenticator,
            delivery,
            presence,
            mqtt,
            delivery_config,
            connection_limits,
            metrics,
            refusals: Sampler::default(),
            logins: Sampler::default(),
        }
    }

    /// The decoder's limits for a device's connection.
    pub fn decoder_limits(&self) -> Limits {
        Limits {
            max_packet_bytes: self.mqtt.max_packet_bytes,
            max_connect_bytes: self.mqtt.max_connect_bytes,
            max_topic_bytes: self.mqtt.max_topic_bytes,
            max_topic_levels: self.mqtt.max_topic_levels,
            max_client_id_bytes: MAX_CLIENT_ID_BYTES,
            max_filters_per_packet: self.mqtt.max_subscriptions,
        }
    }

    /// Whether the memory for bytes that sockets have not taken allows another batch.
    pub fn has_backlog_budget(&self) -> bool {
        self.backlog_bytes.load(Ordering::Relaxed) < self.delivery_config.max_window_bytes_total
    }

    /// Corrects the sum of bytes that sockets have not taken: one held `before`, holds `after`.
    pub fn move_backlog(&self, before: usize, after: usize) {
        if after >= before {
            self.backlog_bytes
                .fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.backlog_bytes
                .fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}
