//! What all sessions of this process share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use headgate_protocol::mqtt::{ConnectionLimits, Limits, Offer, ReasonCode};

use super::{
    application::ApplicationTable, inbox::InboxLimits, pace::Rates, slots::SendingSlots,
    table::SessionTable,
};
use crate::{
    config::{ApplicationsConfig, DeliveryConfig, MqttConfig, RatesConfig, ShutdownConfig},
    service::{
        auth::{AppAuthenticator, DeviceAuthenticator},
        delivery::DeliveryService,
        presence::Presence,
        uplink::Uplink,
        upload::UploadService,
        vendor::Requests,
        will::Wills,
    },
    telemetry::{metrics::Metrics, sampler::Sampler},
};

/// Packets that are under way to one client whatever its Receive Maximum: a window of chunks and
/// some messages.
const MAX_IN_FLIGHT: u16 = 64;
/// QoS 1 and 2 packets that a client may have under way to us.
const RECEIVE_MAXIMUM: u16 = 32;
/// QoS 2 packets that a client of MQTT 3.1.1, which knows no Receive Maximum, may leave unreleased.
const MAX_UNRELEASED: u16 = 1_024;
/// Topics that have an alias on one connection, each way; most devices use a handful.
const TOPIC_ALIASES: u16 = 16;
/// The longest client identifier, in bytes: the longest that vendors allow.
const MAX_CLIENT_ID_BYTES: usize = 256;

/// The services, limits and tables that sessions use.
#[derive(Debug)]
pub struct Node {
    /// Checks who connects.
    pub authenticator: DeviceAuthenticator,
    /// Offers, bytes and reports.
    pub delivery: DeliveryService,
    /// What devices send.
    pub uploads: UploadService,
    /// Who was seen when.
    pub presence: Presence,
    /// Checks which application connects.
    pub app_authenticator: AppAuthenticator,
    /// Messages between devices and applications.
    pub uplink: Uplink,
    /// What clients leave for the case that their connection breaks.
    pub wills: Wills,
    /// Who waits for the response of a device.
    pub requests: Requests,
    /// Who is connected.
    pub table: Arc<SessionTable>,
    /// Which sessions of applications there are.
    pub applications: Arc<ApplicationTable>,
    /// Who may send now.
    pub slots: SendingSlots,
    /// Settings of connections.
    pub mqtt: MqttConfig,
    /// What MQTT 5 clients are told when the node stops: where to go, and whether for good.
    pub(super) elsewhere: Option<(Box<str>, ReasonCode)>,
    /// How fast clients may publish.
    pub(super) rates: Rates,
    /// Settings of deliveries.
    pub delivery_config: DeliveryConfig,
    /// Bounds of the protocol state.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The same for applications, which share subscriptions.
    pub application_limits: Arc<ConnectionLimits>,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Which refusals of topics are logged.
    pub refusals: Sampler,
    /// Which refusals of logins are logged.
    pub logins: Sampler,
    /// Bytes that sockets have not taken, over all sessions.
    backlog_bytes: AtomicUsize,
}

/// What a node is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// Checks which device connects.
    pub authenticator: DeviceAuthenticator,
    /// Checks which application connects.
    pub app_authenticator: AppAuthenticator,
    /// Offers, bytes and reports.
    pub delivery: DeliveryService,
    /// What devices send.
    pub uploads: UploadService,
    /// Messages between devices and applications.
    pub uplink: Uplink,
    /// What clients leave for the case that their connection breaks.
    pub wills: Wills,
    /// Who was seen when.
    pub presence: Presence,
    /// Settings of connections.
    pub mqtt: MqttConfig,
    /// Settings of applications.
    pub applications: ApplicationsConfig,
    /// Where clients are told to go when the node stops.
    pub shutdown: ShutdownConfig,
    /// How fast clients may publish.
    pub rates: RatesConfig,
    /// Settings of deliveries.
    pub delivery_config: DeliveryConfig,
    /// Where it is counted.
    pub metrics: Metrics,
}

impl Node {
    /// A node without sessions.
    pub fn new(parts: NodeParts) -> Self {
        let NodeParts {
            mqtt,
            applications,
            delivery_config,
            ..
        } = parts;
        let inbox = InboxLimits {
            messages: mqtt.outbox_messages,
            bytes: mqtt.outbox_bytes,
        };
        let application_inbox = InboxLimits {
            messages: applications.inbox_messages,
            bytes: applications.inbox_bytes,
        };
        let connection_limits = ConnectionLimits {
            max_keep_alive: mqtt.max_keep_alive,
            server_keep_alive: None,
            allow_no_keep_alive: false,
            outbox_messages: mqtt.outbox_messages,
            outbox_bytes: mqtt.outbox_bytes,
            max_in_flight: MAX_IN_FLIGHT,
            receive_maximum: RECEIVE_MAXIMUM,
            max_unreleased: MAX_UNRELEASED,
            max_packet_bytes: u32::try_from(mqtt.max_packet_bytes).unwrap_or(u32::MAX),
            offer: Offer {
                retain_available: true,
                subscription_identifiers: true,
                max_session_expiry: mqtt.max_session_expiry,
                topic_alias_maximum: TOPIC_ALIASES,
                outbound_topic_aliases: TOPIC_ALIASES,
                ..Offer::default()
            },
        };
        let mut application_limits = connection_limits.clone();
        application_limits.offer.shared_subscriptions = true;
        Self {
            slots: SendingSlots::new(
                delivery_config.sending_slots,
                delivery_config.slot_hold,
                delivery_config.slot_bytes,
            ),
            table: Arc::new(SessionTable::new(inbox)),
            applications: Arc::new(ApplicationTable::new(application_inbox)),
            backlog_bytes: AtomicUsize::new(0),
            authenticator: parts.authenticator,
            delivery: parts.delivery,
            uploads: parts.uploads,
            presence: parts.presence,
            app_authenticator: parts.app_authenticator,
            uplink: parts.uplink,
            elsewhere: elsewhere(parts.shutdown),
            rates: Rates::new(parts.rates),
            wills: parts.wills,
            requests: Requests::new(applications.max_waiting_responses),
            mqtt,
            delivery_config,
            connection_limits: Arc::new(connection_limits),
            application_limits: Arc::new(application_limits),
            metrics: parts.metrics,
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

fn elsewhere(config: ShutdownConfig) -> Option<(Box<str>, ReasonCode)> {
    let reason = if config.server_moved {
        ReasonCode::ServerMoved
    } else {
        ReasonCode::UseAnotherServer
    };
    config
        .server_reference
        .map(|reference| (reference.into(), reason))
}
