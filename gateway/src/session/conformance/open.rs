//! From CONNECT to a session of the conformance profile, which anyone gets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Accept, Connect, Connection, ConnectionLimits, Limits, Offer, ProtocolVersion, QoS, ReasonCode,
    Resumed,
};

use super::{ConformanceHandle, ConformanceSession};
use crate::{
    service::space::{Link, Opening, Space},
    session::{connect::Refused, device::Sent, node::Node},
};

/// The longest keep-alive that a client can ask for, in seconds.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(65_535);
/// QoS 2 packets that a client of MQTT 3.1.1 may leave unreleased.
const MAX_UNRELEASED: u16 = 1_024;
/// The longest topics and the deepest that suites use.
const MAX_TOPIC_BYTES: usize = 65_535;
const MAX_TOPIC_LEVELS: usize = 256;

/// What the connections of the profile share.
#[derive(Debug)]
pub struct ConformanceProfile {
    space: Arc<Space<Resumed<Sent>>>,
    limits: Arc<ConnectionLimits>,
    /// For clients without a name.
    assigned: AtomicU64,
}

impl ConformanceProfile {
    /// The way to a space.
    pub fn new(space: Arc<Space<Resumed<Sent>>>) -> Self {
        let config = space.limits();
        let limits = ConnectionLimits {
            max_keep_alive: LONGEST_KEEP_ALIVE,
            server_keep_alive: Some(config.server_keep_alive),
            allow_no_keep_alive: true,
            // Messages wait in the space.
            outbox_messages: 0,
            outbox_bytes: 0,
            max_in_flight: config.receive_maximum,
            receive_maximum: config.receive_maximum,
            max_unreleased: MAX_UNRELEASED,
            max_packet_bytes: u32::try_from(config.max_packet_bytes).unwrap_or(u32::MAX),
            offer: Offer {
                retain_available: true,
                shared_subscriptions: true,
                subscription_identifiers: true,
                topic_alias_maximum: config.topic_aliases,
                outbound_topic_aliases: config.topic_aliases,
                max_qos: QoS::ExactlyOnce,
                max_session_expiry: config.max_session_expiry,
            },
        };
        Self {
            space,
            limits: Arc::new(limits),
            assigned: AtomicU64::new(0),
        }
    }

    /// The bounds of a connection.
    pub fn connection_limits(&self) -> Arc<ConnectionLimits> {
        Arc::clone(&self.limits)
    }

    /// The decoder's limits.
    pub fn decoder_limits(&self, node: &Node) -> Limits {
        let config = self.space.limits();
        Limits {
            max_packet_bytes: config.max_packet_bytes,
            max_topic_bytes: MAX_TOPIC_BYTES,
            max_topic_levels: MAX_TOPIC_LEVELS,
            max_filters_per_packet: config.max_subscriptions,
            ..node.decoder_limits()
        }
    }
}

/// Lets a client in, whoever it is.
///
/// # Errors
/// [`Refused`], where there is no room.
pub async fn admit_anyone(
    node: &Arc<Node>,
    profile: &ConformanceProfile,
    mut connection: Connection<Sent>,
    connect: &Connect,
) -> Result<ConformanceSession, Box<Refused>> {
    let assigned;
    let client_id = if connect.client_id.is_empty() {
        let number = profile.assigned.fetch_add(1, Ordering::Relaxed);
        assigned = format!("assigned-{number}");
        if connect.version == ProtocolVersion::V5 {
            connection.assign_client_id(&assigned);
        }
        &assigned
    } else {
        &*connect.client_id
    };
    let handle = Arc::new(ConformanceHandle::new(client_id));
    let link: Arc<dyn Link> = Arc::<ConformanceHandle>::clone(&handle);
    let opening = Opening {
        client_id,
        is_clean: connect.clean_start,
        link,
    };
    let attached = match profile.space.attach(opening).await {
        Ok(attached) => attached,
        Err(error) => {
            tracing::info!(client_id, %error, "a client of the conformance profile was refused");
            let reason = ReasonCode::QuotaExceeded;
            connection.refuse(reason);
            return Err(Box::new(Refused { connection, reason }));
        }
    };
    if attached.took_over {
        node.metrics.session_takeovers.inc();
    }
    let accept = Accept {
        resumed: attached.kept,
        session_expiry: session_expiry(connect),
    };
    connection.accept(Instant::now(), accept);
    let session_expiry = Duration::from_secs(connection.session_expiry_secs().into());
    let mut session = ConformanceSession {
        node: Arc::clone(node),
        space: Arc::clone(&profile.space),
        handle,
        key: attached.key,
        connection,
        control: BytesMut::new(),
        will: connect.will.clone(),
        session_expiry,
        closing: None,
    };
    // CONNACK is the first thing that is written.
    session.act();
    Ok(session)
}

/// How long the session is to outlive the connection. Before 5.0 one that is not clean has no end, and gets
/// the longest.
fn session_expiry(connect: &Connect) -> Duration {
    if connect.version == ProtocolVersion::V5 {
        let properties = connect.properties.as_ref();
        let asked = properties.and_then(|all| all.session_expiry_interval_secs);
        return Duration::from_secs(asked.unwrap_or(0).into());
    }
    if connect.clean_start {
        Duration::ZERO
    } else {
        Offer::FOR_EVER
    }
}
