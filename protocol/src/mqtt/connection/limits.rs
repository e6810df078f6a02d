//! The bounds of a connection, and what the server says in CONNACK that it offers.

use std::time::Duration;

use crate::mqtt::QoS;

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The longest keep-alive that a client gets; a longer one becomes this.
    pub max_keep_alive: Duration,
    /// The longest keep-alive of an MQTT 5 client, which is told so; [`Self::max_keep_alive`] where
    /// there is none.
    pub server_keep_alive: Option<Duration>,
    /// Whether a client may have no keep-alive at all (0); otherwise it gets the longest.
    pub allow_no_keep_alive: bool,
    /// The most messages that wait for the client's Receive Maximum.
    pub outbox_messages: usize,
    /// The most bytes of payload and properties that wait likewise.
    pub outbox_bytes: usize,
    /// The most packets that are under way to the client whatever its Receive Maximum.
    pub max_in_flight: u16,
    /// The most QoS 1 and 2 packets that an MQTT 5 client may have under way to us.
    pub receive_maximum: u16,
    /// The most QoS 2 packets that an older client, which cannot be told, may leave unreleased; 2
    /// bytes each.
    pub max_unreleased: u16,
    /// The largest packet that we take, told to an MQTT 5 client.
    pub max_packet_bytes: u32,
    /// What there is beyond the plain exchange of messages.
    pub offer: Offer,
}

/// What the server offers: told to an MQTT 5 client in CONNACK, and held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Whether messages are retained.
    pub retain_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscriptions: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifiers: bool,
    /// The greatest topic alias that a client may use; each costs its topic's length while the
    /// connection lasts.
    pub topic_alias_maximum: u16,
    /// The most topic aliases that we use towards a client that takes them.
    pub outbound_topic_aliases: u16,
    /// The greatest QoS of a message from a client.
    pub max_qos: QoS,
    /// The longest that a session outlives its connection; in whole seconds, and
    /// [`Offer::FOR_EVER`] and more is for ever.
    pub max_session_expiry: Duration,
}

impl Offer {
    /// A session that lasts so long never ends.  Spec: MQTT 5.0 s3.1.2.11.2.
    pub const FOR_EVER: Duration = Duration::from_secs(0xFFFF_FFFF);
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            retain_available: false,
            shared_subscriptions: false,
            subscription_identifiers: false,
            topic_alias_maximum: 0,
            outbound_topic_aliases: 0,
            max_qos: QoS::ExactlyOnce,
            max_session_expiry: Duration::ZERO,
        }
    }
}

/// A Session Expiry Interval, in seconds, of a duration.
pub(super) fn expiry_secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
