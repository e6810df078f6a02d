//! From CONNECT to the session that it continues, and from there to what goes out again.
//!
//! Spec: MQTT 3.1.1 s3.1.2.4; MQTT 5.0 s3.1.2.4, s3.1.2.11.2, s4.4.

use std::time::Duration;

use bytes::Bytes;
use headgate_protocol::mqtt::{
    Accept, Connect, Message as Outgoing, PacketId, Phase, ProtocolVersion, QoS, Resumed, TopicName,
};

use super::{device::Sent, node::Node};
use crate::{
    model::Millis,
    service::uplink::{NotKept, Opened, Opening, SessionKey, Unacknowledged},
};

/// Opens the session that CONNECT asks for.
///
/// # Errors
/// [`NotKept`]: the client is to come again.
pub(super) async fn open(
    node: &Node,
    key: SessionKey,
    connect: &Connect,
) -> Result<Opened, NotKept> {
    let opening = Opening {
        key,
        is_clean: connect.clean_start,
        expiry_secs: expiry_secs(connect, node.mqtt.max_session_expiry),
    };
    node.uplink.sessions().open(opening).await
}

/// How the client is let in.
pub(super) fn accept(opened: &mut Opened, version: ProtocolVersion) -> Accept<Sent> {
    let Some(persistent) = &opened.session else {
        return Accept::default();
    };
    let in_flight = std::mem::take(&mut opened.in_flight);
    let resumed = opened.is_present.then(|| Resumed {
        in_flight: in_flight
            .into_iter()
            .map(|one| under_way(one, version))
            .collect(),
        waiting: Vec::new(),
        unreleased: std::mem::take(&mut opened.unreleased),
    });
    Accept {
        resumed,
        session_expiry: Duration::from_secs(u64::from(persistent.expiry_secs())),
    }
}

/// Seconds that a session is to outlive its connection. Before 5.0 one that is not clean has no end: it gets the longest.
fn expiry_secs(connect: &Connect, max: Duration) -> u32 {
    let max_secs = u32::try_from(max.as_secs()).unwrap_or(u32::MAX);
    if connect.version != ProtocolVersion::V5 {
        return if connect.clean_start { 0 } else { max_secs };
    }
    let properties = connect.properties.as_ref();
    let asked = properties.and_then(|properties| properties.session_expiry_interval_secs);
    asked.unwrap_or(0).min(max_secs)
}

fn under_way(one: Unacknowledged, version: ProtocolVersion) -> (PacketId, Phase, Outgoing<Sent>) {
    let tag = Sent::Mail(one.id);
    let Some((message, handing)) = one.message else {
        // The topic is not sent again either.
        let mut done = Outgoing::new(TopicName::aliased(), Bytes::new(), tag);
        done.qos = QoS::ExactlyOnce;
        return (one.packet_id, Phase::Released, done);
    };
    let mut again = Outgoing::new(message.topic.clone(), message.payload.clone(), tag);
    again.qos = one.qos;
    again.retain = handing.retain;
    again.subscription_ids = handing.subscription_ids;
    if version == ProtocolVersion::V5 {
        again.properties = message.properties.to_publish(Millis::now());
    }
    (one.packet_id, Phase::Published, again)
}
