//! From CONNECT to a session: who it is, and whether it may come in.

use std::{net::IpAddr, sync::Arc, time::Instant};

use headgate_protocol::{
    credential::Claim,
    mqtt::{Connect, Connection, ProtocolVersion, ReasonCode},
};

use super::{
    device::{DeviceSession, Sent},
    node::Node,
};
use crate::{
    model::Millis,
    service::auth::{AuthError, Peer},
    telemetry::metrics::DisconnectReason,
};

/// A client that was not let in; its connection holds the CONNACK that says so.
#[derive(Debug)]
pub struct Refused {
    /// The connection, to be drained and closed.
    pub connection: Connection<Sent>,
    /// What the CONNACK says.
    pub reason: ReasonCode,
}

/// Checks what CONNECT claims and makes the session.
///
/// `peer` is who is at the other end of the connection, `reached_at` the address at which it reached this node.
///
/// # Errors
/// [`Refused`] with the answer that the client gets.
pub async fn admit(
    node: &Arc<Node>,
    mut connection: Connection<Sent>,
    connect: &Connect,
    peer: &Peer,
    reached_at: Option<IpAddr>,
) -> Result<DeviceSession, Box<Refused>> {
    let claim = Claim::read(
        &connect.client_id,
        connect.username.as_deref(),
        connect.password.as_deref(),
    );
    let device = match node
        .authenticator
        .authenticate(&claim, peer, Millis::now())
        .await
    {
        Ok(device) => device,
        Err(error) => {
            let reason = refusal(&error, connect.version);
            count(node, &error);
            tracing::info!(client_id = %connect.client_id, %error, "a client was refused");
            connection.refuse(reason);
            return Err(Box::new(Refused { connection, reason }));
        }
    };
    if !device.product.transports.mqtt {
        tracing::info!(device_id = %device.device_id, "refused: the product does not allow MQTT");
        node.metrics.auth_failures.disabled.inc();
        connection.refuse(ReasonCode::NotAuthorized);
        return Err(Box::new(Refused {
            connection,
            reason: ReasonCode::NotAuthorized,
        }));
    }
    let rules = node.table.topics().rules(&device.product);
    let (handle, took_over) = node.table.enter(&device.device_id, rules);
    if took_over {
        node.metrics.session_takeovers.inc();
        node.metrics.disconnects(DisconnectReason::Takeover).inc();
    }
    if connect.client_id.is_empty() && connect.version == ProtocolVersion::V5 {
        connection.assign_client_id(device.device_id.as_str());
    }
    connection.accept(Instant::now());
    node.presence.seen(&device.device_id);
    node.metrics.connections_mqtt.inc();
    tracing::debug!(device_id = %device.device_id, version = ?connect.version, "a device connected");
    let mut session = DeviceSession::new(
        Arc::clone(node),
        device,
        handle,
        connection,
        reached_at,
        &connect.client_id,
    );
    // CONNACK is the first thing that is written.
    session.drain(Instant::now()).await;
    Ok(session)
}

/// An unknown device and a wrong secret get the same answer.
fn refusal(error: &AuthError, version: ProtocolVersion) -> ReasonCode {
    match error {
        AuthError::Refused | AuthError::Malformed { .. } | AuthError::Stale { .. }
            if version != ProtocolVersion::V5 =>
        {
            ReasonCode::BadUserNameOrPassword
        }
        error if error.is_refusal() => ReasonCode::NotAuthorized,
        _ => ReasonCode::ServerUnavailable,
    }
}

fn count(node: &Node, error: &AuthError) {
    let failures = &node.metrics.auth_failures;
    match error {
        AuthError::Refused => failures.unknown_or_wrong.inc(),
        AuthError::Disabled => failures.disabled.inc(),
        AuthError::Malformed { .. } => failures.malformed.inc(),
        AuthError::Stale { .. } => failures.stale.inc(),
        AuthError::Certificate(_) => failures.certificate.inc(),
        _ => {}
    }
}
