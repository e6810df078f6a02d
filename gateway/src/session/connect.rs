//! From CONNECT to a session: who it is, and whether it may come in.

use std::{net::IpAddr, sync::Arc, time::Instant};

use headgate_protocol::{
    credential::{Claim, Form},
    mqtt::{Connect, Connection, ProtocolVersion, ReasonCode},
};

use super::{
    Session,
    application::{ApplicationSession, NotOpened},
    device::{DeviceSession, Sent},
    node::Node,
    persistent, will,
};
use crate::{
    model::{Millis, WillKey},
    service::{
        auth::{AuthError, AuthenticatedDevice, Peer},
        uplink::SessionKey,
    },
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
    connection: Connection<Sent>,
    connect: &Connect,
    peer: &Peer,
    reached_at: Option<IpAddr>,
) -> Result<Session, Box<Refused>> {
    let claim = Claim::read(
        &connect.client_id,
        connect.username.as_deref(),
        connect.password.as_deref(),
    );
    if claim.form == Form::Application {
        let session = admit_application(node, connection, connect, &claim, peer).await?;
        return Ok(Session::Application(Box::new(session)));
    }
    let session = admit_device(node, connection, connect, &claim, peer, reached_at).await?;
    Ok(Session::Device(session))
}

async fn admit_application(
    node: &Arc<Node>,
    connection: Connection<Sent>,
    connect: &Connect,
    claim: &Claim<'_>,
    peer: &Peer,
) -> Result<ApplicationSession, Box<Refused>> {
    let (throttle, address) = (node.authenticator.throttle(), peer.address.ip());
    let checked = if throttle.admits_login(claim, address, Instant::now()) {
        let secret = claim.password.unwrap_or_default();
        let checked = node
            .app_authenticator
            .authenticate(claim.identity, secret)
            .await;
        match &checked {
            Ok(_) => throttle.succeeded(claim, address, Instant::now()),
            Err(error) if error.is_refusal() => throttle.failed(claim, address, Instant::now()),
            // The gateway's own fault counts against nobody.
            Err(_) => {}
        }
        checked
    } else {
        Err(AuthError::Throttled)
    };
    let app = match checked {
        Ok(app) => app,
        Err(error) => return Err(refuse(node, connection, connect, peer, &error)),
    };
    let will = match will::of_application(node, &app.id, connect).await {
        Ok(will) => will,
        Err(error) => return Err(error.turn_away(node, connection, connect)),
    };
    match ApplicationSession::open(node, &app, connect, will, connection).await {
        Ok(session) => Ok(session),
        Err((connection, NotOpened::Will(error))) => {
            Err(error.turn_away(node, connection, connect))
        }
        Err((connection, error)) => {
            tracing::debug!(%error, app_id = %app.id, "an application is to come again");
            let error = AuthError::Changing;
            Err(refuse(node, connection, connect, peer, &error))
        }
    }
}

async fn admit_device(
    node: &Arc<Node>,
    mut connection: Connection<Sent>,
    connect: &Connect,
    claim: &Claim<'_>,
    peer: &Peer,
    reached_at: Option<IpAddr>,
) -> Result<DeviceSession, Box<Refused>> {
    let device = match login(node, claim, peer).await {
        Ok(device) => device,
        Err(error) => return Err(refuse(node, connection, connect, peer, &error)),
    };
    let rules = node.table.topics().rules(&device.product);
    let will = match will::of_device(&device, &rules, connect) {
        Ok(will) => will,
        Err(error) => return Err(error.turn_away(node, connection, connect)),
    };
    let (handle, took_over) = node.table.enter(&device.device_id, rules);
    if !node.authenticator.is_current(claim, &device) {
        // It may just have been frozen, and whoever did that found no session to close.
        node.table.leave(&handle);
        return Err(refuse(
            node,
            connection,
            connect,
            peer,
            &AuthError::Changing,
        ));
    }
    let key = SessionKey::Device(device.device_id.clone());
    let Ok(mut opened) = persistent::open(node, key, connect).await else {
        node.table.leave(&handle);
        let error = AuthError::Changing;
        return Err(refuse(node, connection, connect, peer, &error));
    };
    let took_over = took_over | node.placed(&handle, opened.place);
    let key = WillKey::Device(device.device_id.clone());
    let will = match will::enter(node, &key, will, opened.is_present).await {
        Ok(will) => will,
        Err(error) => {
            node.table.leave(&handle);
            return Err(error.turn_away(node, connection, connect));
        }
    };
    if took_over {
        node.metrics.session_takeovers.inc();
        node.metrics.disconnects(DisconnectReason::Takeover).inc();
    }
    if connect.client_id.is_empty() && connect.version == ProtocolVersion::V5 {
        connection.assign_client_id(device.device_id.as_str());
    }
    let resuming: Vec<_> = opened.in_flight.iter().map(|one| one.id).collect();
    connection.accept(
        Instant::now(),
        persistent::accept(&mut opened, connect.version),
    );
    node.presence.seen(&device.device_id);
    node.delivery
        .on_connected(&device.device_id, handle.claim());
    node.metrics.connections_mqtt.of(device.auth).inc();
    tracing::debug!(device_id = %device.device_id, version = ?connect.version, "a device connected");
    let mut session = DeviceSession::new(
        Arc::clone(node),
        device,
        handle,
        connection,
        reached_at,
        &connect.client_id,
    );
    session.restore(opened, resuming);
    session.leave_will(will);
    session.begin(Instant::now()).await;
    Ok(session)
}

/// Checks who a device is, unless it, or its network, has to wait because of logins that failed.
async fn login(
    node: &Node,
    claim: &Claim<'_>,
    peer: &Peer,
) -> Result<AuthenticatedDevice, AuthError> {
    let (throttle, address) = (node.authenticator.throttle(), peer.address.ip());
    let begun = Instant::now();
    // Whoever is connected cannot be locked out by others who use its name; those who guess from elsewhere gain
    // nothing by that.
    let is_at_home = || is_connected(node, claim) && throttle.knows(claim, address, begun);
    if !throttle.admits_login(claim, address, begun) && !is_at_home() {
        return Err(AuthError::Throttled);
    }
    let outcome = node
        .authenticator
        .authenticate(claim, peer, Millis::now())
        .await
        .and_then(|device| {
            if device.product.transports.mqtt {
                Ok(device)
            } else {
                Err(AuthError::WrongTransport)
            }
        });
    match &outcome {
        Ok(_) => throttle.succeeded(claim, address, Instant::now()),
        Err(error) if error.is_refusal() => throttle.failed(claim, address, Instant::now()),
        // The gateway's own fault counts against nobody.
        Err(_) => {}
    }
    outcome
}

fn is_connected(node: &Node, claim: &Claim<'_>) -> bool {
    let device = node.authenticator.device_in_memory(claim);
    device.is_some_and(|device| node.table.of(&device).is_some())
}

/// Turns a client away, and says so in CONNACK, metrics and log.
fn refuse(
    node: &Node,
    mut connection: Connection<Sent>,
    connect: &Connect,
    peer: &Peer,
    error: &AuthError,
) -> Box<Refused> {
    let reason = refusal(error, connect.version);
    count(node, error);
    if error.is_refusal() {
        if let Some(left_out) = node.logins.admit(Instant::now()) {
            let from = peer.address.ip();
            tracing::info!(client_id = %connect.client_id, %from, %error, left_out, "a client was refused");
        }
    } else {
        tracing::warn!(client_id = %connect.client_id, %error, "a client could not be let in");
    }
    connection.refuse(reason);
    Box::new(Refused { connection, reason })
}

/// An unknown device and a wrong secret get the same answer.
fn refusal(error: &AuthError, version: ProtocolVersion) -> ReasonCode {
    match error {
        AuthError::Refused | AuthError::Malformed { .. } | AuthError::Stale { .. }
            if version != ProtocolVersion::V5 =>
        {
            ReasonCode::BadUserNameOrPassword
        }
        AuthError::Throttled if version == ProtocolVersion::V5 => {
            ReasonCode::ConnectionRateExceeded
        }
        AuthError::Throttled => ReasonCode::ServerUnavailable,
        error if error.is_refusal() => ReasonCode::NotAuthorized,
        _ => ReasonCode::ServerUnavailable,
    }
}

fn count(node: &Node, error: &AuthError) {
    let failures = &node.metrics.auth_failures;
    match error {
        AuthError::Refused => failures.unknown_or_wrong.inc(),
        AuthError::Disabled | AuthError::WrongTransport => failures.disabled.inc(),
        AuthError::Malformed { .. } => failures.malformed.inc(),
        AuthError::Stale { .. } => failures.stale.inc(),
        AuthError::Certificate(_) => failures.certificate.inc(),
        AuthError::Throttled => failures.throttled.inc(),
        _ => {}
    }
}
