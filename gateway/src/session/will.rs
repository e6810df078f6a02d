//! The will in a CONNECT, and whether its client may leave it.

use std::time::Duration;

use headgate_protocol::{
    identity::AppId,
    mqtt::{Connect, Connection, ReasonCode},
    topics::{DeviceNames, UpTopic},
};

use super::{connect::Refused, device::Sent, node::Node};
use crate::{
    model::{DeviceName, Message, MessageProperties, Millis, Will, WillKey},
    service::{
        auth::AuthenticatedDevice,
        topics::ProductRules,
        will::{TooManyWills, WillTicket},
    },
};

/// Why a client is turned away for its will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WillRefused {
    /// It may not publish on the will's topic.
    #[error("the client may not publish on its will's topic")]
    Forbidden,
    /// It could not be found out whether it may.
    #[error("the owner of the will's topic could not be looked up")]
    Unavailable,
    /// There are as many as may be.
    #[error(transparent)]
    TooMany(#[from] TooManyWills),
}

impl WillRefused {
    const fn reason(self) -> ReasonCode {
        match self {
            Self::Forbidden => ReasonCode::NotAuthorized,
            Self::Unavailable => ReasonCode::ServerUnavailable,
            Self::TooMany(_) => ReasonCode::QuotaExceeded,
        }
    }

    /// Turns the client away.
    pub(super) fn turn_away(
        self,
        node: &Node,
        mut connection: Connection<Sent>,
        connect: &Connect,
    ) -> Box<Refused> {
        if let Some(left_out) = node.refusals.admit(std::time::Instant::now()) {
            tracing::info!(client_id = %connect.client_id, error = %self, left_out, "a client was refused for its will");
        }
        let reason = self.reason();
        connection.refuse(reason);
        Box::new(Refused { connection, reason })
    }
}

/// What a device's CONNECT leaves, on one of the device's own topics.
pub(super) fn of_device(
    device: &AuthenticatedDevice,
    rules: &ProductRules,
    connect: &Connect,
) -> Result<Option<Will>, WillRefused> {
    let Some(will) = &connect.will else {
        return Ok(None);
    };
    let names = DeviceNames {
        product: &device.product.id,
        node: &device.node_id,
        device: &device.device_id,
    };
    // The gateway's own topics are for what a connected device asks.
    if rules.topics().classify_publish(names, &will.topic) != Some(UpTopic::Data) {
        return Err(WillRefused::Forbidden);
    }
    let name = DeviceName {
        device_id: device.device_id.clone(),
        product_id: device.product.id.clone(),
        node_id: device.node_id.clone(),
    };
    Ok(Some(read(connect, will, name)))
}

/// What an application's CONNECT leaves, on a topic of a device bound to it.
pub(super) async fn of_application(
    node: &Node,
    app: &AppId,
    connect: &Connect,
) -> Result<Option<Will>, WillRefused> {
    let Some(will) = &connect.will else {
        return Ok(None);
    };
    let owner = node.uplink.resolve(&will.topic).await;
    let owner = owner.map_err(|_| WillRefused::Unavailable)?;
    let owner = owner.ok_or(WillRefused::Forbidden)?;
    let is_bound = node.uplink.is_bound(app, &owner.device_id).await;
    if !is_bound.map_err(|_| WillRefused::Unavailable)? {
        return Err(WillRefused::Forbidden);
    }
    Ok(Some(read(connect, will, (*owner).clone())))
}

/// Enters what a client leaves, or nothing; what it left before is over.
pub(super) async fn enter(
    node: &Node,
    key: &WillKey,
    will: Option<Will>,
    resumes: bool,
) -> Result<Option<Box<WillTicket>>, WillRefused> {
    Ok(node.wills.enter(key, will, resumes).await?.map(Box::new))
}

fn read(connect: &Connect, will: &headgate_protocol::mqtt::Will, device: DeviceName) -> Will {
    let secs = |secs: u32| Duration::from_secs(secs.into());
    let properties = will.properties.as_deref();
    let delay = properties.and_then(|properties| properties.will_delay_interval_secs);
    let session = connect.properties.as_deref();
    let session_expiry = session.and_then(|properties| properties.session_expiry_interval_secs);
    let at = Millis::from_i64(0);
    Will {
        message: Message {
            device,
            topic: will.topic.clone(),
            payload: will.payload.clone(),
            qos: will.qos,
            retain: will.retain,
            properties: MessageProperties {
                expires_at: None,
                ..MessageProperties::of_publish(properties, at)
            },
            at,
        },
        expiry: properties
            .and_then(|properties| properties.message_expiry_interval_secs)
            .map(secs),
        // Published when the session ends, at the latest.  Spec: MQTT 5.0 s3.1.3.2.2
        delay: secs(delay.unwrap_or(0).min(session_expiry.unwrap_or(0))),
    }
}
