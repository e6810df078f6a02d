//! How a session is, for an operator who asks: the session itself answers, so it keeps nothing for
//! the case.

use std::{net::SocketAddr, time::Duration};

use headgate_protocol::mqtt::{ProtocolVersion, QoS};
use serde::{Deserialize, Serialize};

use crate::model::Millis;

/// The two ends of a connection, as far as they are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Where the client is.
    pub client: Option<SocketAddr>,
    /// Which address of this node it came to.
    pub listener: Option<SocketAddr>,
}

/// One session as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// When the device came in.
    pub since: Millis,
    /// How it named its connection.
    pub client_id: String,
    /// Which MQTT it speaks; `None`: CoAP.
    #[serde(with = "version")]
    pub version: Option<ProtocolVersion>,
    /// Where it comes from; `None` where the connection is going away.
    pub address: Option<SocketAddr>,
    /// Where it came to: the address of a listener of this node.
    pub listener: Option<SocketAddr>,
    /// How long it may be silent, half of it more before it is given up.
    pub keep_alive: Duration,
    /// Seconds that its session outlives the connection.
    pub session_expiry_secs: u32,
    /// What it subscribed to, with the QoS that was granted.
    #[serde(with = "subscriptions")]
    pub subscriptions: Vec<(String, QoS)>,
    /// Bytes that wait for it on this connection.
    pub outbox_bytes: usize,
    /// Messages that wait for it on this connection.
    pub outbox_messages: usize,
}

/// A version of MQTT by its level, as nodes tell it to each other.
mod version {
    use headgate_protocol::mqtt::ProtocolVersion;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    const ALL: [ProtocolVersion; 3] = [
        ProtocolVersion::V31,
        ProtocolVersion::V311,
        ProtocolVersion::V5,
    ];

    #[expect(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over the field as it is"
    )]
    pub(super) fn serialize<S: Serializer>(
        version: &Option<ProtocolVersion>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        version.map(ProtocolVersion::level).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ProtocolVersion>, D::Error> {
        let level = Option::<u8>::deserialize(deserializer)?;
        Ok(level.and_then(|level| ALL.into_iter().find(|one| one.level() == level)))
    }
}

/// Subscriptions with the bits of their QoS, as nodes tell them to each other.
mod subscriptions {
    use headgate_protocol::mqtt::QoS;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        all: &[(String, QoS)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(all.iter().map(|(filter, qos)| (filter, qos.bits())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, QoS)>, D::Error> {
        let all = Vec::<(String, u8)>::deserialize(deserializer)?;
        let qos = |bits| QoS::from_bits(bits).unwrap_or(QoS::AtMostOnce);
        Ok(all
            .into_iter()
            .map(|(filter, bits)| (filter, qos(bits)))
            .collect())
    }
}
