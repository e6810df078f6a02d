//! The beginning of a device's connection: handshake and CONNECT, both before one deadline.
//!
//! Everything here is boxed by the caller and gone when the session runs. A client that fails is
//! counted, answered where it speaks MQTT well enough to be answered, and closed.

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, time::Instant};

use bytes::{Buf as _, BytesMut};
use headgate_protocol::mqtt::{
    Connection, DecodeError, Decoder, Event, Input, Output, Packet, ProtocolVersion, Role,
    Violation,
};
use tokio::net::TcpStream;

use super::{ListenerSetup, Live};
use crate::{
    config::Transport,
    edge::{
        accept::HandshakePermit,
        proxy::{self, Proxied},
        tls::{DeviceStream, ReadOutcome},
        web::Upgrade,
    },
    service::auth::Peer,
    session::{Batch, Node, Sent, Session, admit, admit_anyone},
};

/// Whose connection it is.
struct Arrival {
    tcp: TcpStream,
    client: SocketAddr,
    /// Where the client connected to, if a load balancer says so.
    reached: Option<SocketAddr>,
}

/// Handshake and CONNECT, both before one deadline.
pub(super) async fn open(
    tcp: TcpStream,
    address: SocketAddr,
    is_proxy: bool,
    setup: Arc<ListenerSetup>,
    node: Arc<Node>,
    mut permit: HandshakePermit,
) -> Option<Box<Live>> {
    let started = Instant::now();
    let arrival = arrive(tcp, address, is_proxy, &node, &mut permit).await?;
    let deadline = started + permit.timeout();
    let attempts = &node.metrics.connect_attempts;
    let opening = begin(arrival, &setup, &node, started, deadline);
    match tokio::time::timeout_at(deadline.into(), opening).await {
        Ok(Ok(live)) => {
            drop(permit);
            attempts.accepted.inc();
            Some(Box::new(live))
        }
        Ok(Err(())) => None,
        Err(_elapsed) => {
            attempts.timeout.inc();
            None
        }
    }
}

/// Has a load balancer say whose connection it is, and looks at where that one comes from.
async fn arrive(
    mut tcp: TcpStream,
    address: SocketAddr,
    is_proxy: bool,
    node: &Node,
    permit: &mut HandshakePermit,
) -> Option<Arrival> {
    if !is_proxy {
        return Some(Arrival {
            tcp,
            client: address,
            reached: None,
        });
    }
    let attempts = &node.metrics.connect_attempts;
    match tokio::time::timeout(permit.timeout(), proxy::read(&mut tcp)).await {
        Ok(Ok(Proxied::Client { from, to })) => permit.admit(from.ip()).then_some(Arrival {
            tcp,
            client: from,
            reached: Some(to),
        }),
        // It looks whether somebody is here.
        Ok(Ok(Proxied::Own)) => Some(Arrival {
            tcp,
            client: address,
            reached: None,
        }),
        Ok(Err(error)) => {
            attempts.failed_proxy.inc();
            tracing::debug!(%address, %error, "a load balancer did not say whose connection it passes on");
            None
        }
        Err(_elapsed) => {
            attempts.timeout.inc();
            None
        }
    }
}

/// TLS, the upgrade to a WebSocket, CONNECT: what of it there is.
async fn begin(
    arrival: Arrival,
    setup: &ListenerSetup,
    node: &Arc<Node>,
    started: Instant,
    deadline: Instant,
) -> Result<Live, ()> {
    let attempts = &node.metrics.connect_attempts;
    let Arrival {
        tcp,
        client,
        reached,
    } = arrival;
    let mut stream = match &setup.tls {
        Some(tls) => DeviceStream::handshake(tcp, tls).await.map_err(|error| {
            tracing::debug!(%error, "a TLS handshake failed");
            attempts.failed_tls.inc();
        })?,
        None => DeviceStream::plain(tcp),
    };
    node.metrics
        .handshake_seconds
        .observe(started.elapsed().as_secs_f64());
    let mut buffer = BytesMut::new();
    if setup.transport == Transport::WebSocket {
        let only_local = setup.conformance.is_some();
        upgrade(&mut stream, &mut buffer, only_local)
            .await
            .map_err(|error| {
                tracing::debug!(%error, "no WebSocket came about");
                attempts.failed_websocket.inc();
            })?;
    }
    let mut live = introduce(stream, buffer, client, reached, setup, node, deadline).await?;
    live.proxied = reached.map(|_| Box::new(client));
    Ok(live)
}

/// Takes the request for a WebSocket and answers it; what came behind it is left in `buffer`.
async fn upgrade(
    stream: &mut DeviceStream,
    buffer: &mut BytesMut,
    only_local: bool,
) -> io::Result<()> {
    loop {
        match Upgrade::read(buffer, only_local) {
            Ok(Some(upgrade)) => {
                buffer.advance(upgrade.head_bytes);
                stream.write_bytes(upgrade.answer.as_bytes())?;
                return stream.upgrade(buffer);
            }
            Ok(None) => {}
            Err(refusal) => {
                stream.write_bytes(refusal.answer().as_bytes())?;
                stream.close();
                return Err(io::Error::new(io::ErrorKind::InvalidData, refusal));
            }
        }
        match stream.read(buffer)? {
            ReadOutcome::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            ReadOutcome::Blocked => poll_fn(|cx| stream.poll_read_ready(cx)).await?,
            ReadOutcome::Data(_) => {}
        }
    }
}

/// Waits for CONNECT and answers it; a failure has been counted and answered.
async fn introduce(
    mut stream: DeviceStream,
    mut buffer: BytesMut,
    address: SocketAddr,
    reached: Option<SocketAddr>,
    setup: &ListenerSetup,
    node: &Arc<Node>,
    deadline: Instant,
) -> Result<Live, ()> {
    let attempts = &node.metrics.connect_attempts;
    let profile = setup.conformance.as_deref();
    let (decoder_limits, limits) = match profile {
        Some(profile) => (profile.decoder_limits(node), profile.connection_limits()),
        None => (node.decoder_limits(), Arc::clone(&node.connection_limits)),
    };
    let mut decoder = Decoder::new(Role::Server, decoder_limits);
    let mut connection: Connection<Sent> = Connection::new(limits, deadline);
    let packet = match first_packet(&mut stream, &mut decoder, &mut buffer).await {
        Ok(packet) => packet,
        Err(Opening::Refused(error)) => {
            attempts.protocol_error.inc();
            tracing::info!(%error, "a client that did not begin with a good CONNECT was closed");
            refuse_first(&mut stream, &mut connection, decoder.version(), &error);
            return Err(());
        }
        Err(Opening::Lost) => {
            attempts.protocol_error.inc();
            return Err(());
        }
    };
    connection.handle(Instant::now(), Input::Packet(packet));
    let connect = loop {
        match connection.poll_output() {
            Some(Output::Event(Event::Connect(connect))) => break connect,
            Some(Output::Transmit(packet)) => {
                attempts.refused.inc();
                write_packet(&mut stream, &packet, connection.version());
            }
            Some(_) => {}
            None => return Err(()),
        }
    };
    let reached_at = reached
        .or_else(|| stream.socket().local_addr().ok())
        .map(|address| address.ip());
    let peer = Peer {
        address,
        certificate: stream.peer_certificate().map(Arc::new),
    };
    let admitted = match profile {
        Some(profile) => {
            let session = admit_anyone(node, profile, connection, &connect).await;
            session.map(|session| Session::Conformance(Box::new(session)))
        }
        None => admit(node, connection, &connect, &peer, reached_at).await,
    };
    match admitted {
        Ok(session) => Ok(Live::new(
            Arc::clone(node),
            stream,
            decoder,
            session,
            buffer,
        )),
        Err(mut refused) => {
            attempts.refused.inc();
            while let Some(output) = refused.connection.poll_output() {
                if let Output::Transmit(packet) = output {
                    write_packet(&mut stream, &packet, refused.connection.version());
                }
            }
            stream.close();
            Err(())
        }
    }
}

enum Opening {
    Refused(DecodeError),
    Lost,
}

async fn first_packet(
    stream: &mut DeviceStream,
    decoder: &mut Decoder,
    buffer: &mut BytesMut,
) -> Result<Packet, Opening> {
    loop {
        // It may have come along with what was before it.
        if let Some(packet) = decoder.decode(buffer).map_err(Opening::Refused)? {
            return Ok(packet);
        }
        match stream.read(buffer).map_err(|_| Opening::Lost)? {
            ReadOutcome::Closed => return Err(Opening::Lost),
            ReadOutcome::Blocked => {
                poll_fn(|cx| stream.poll_read_ready(cx))
                    .await
                    .map_err(|_| Opening::Lost)?;
            }
            ReadOutcome::Data(_) => {}
        }
    }
}

/// Tells a client that speaks MQTT, only not well enough, what is wrong with its CONNECT.
fn refuse_first(
    stream: &mut DeviceStream,
    connection: &mut Connection<Sent>,
    version: Option<ProtocolVersion>,
    error: &DecodeError,
) {
    // [MQTT-3.1.2-2], [MQTT-3.1.3-8]
    if matches!(
        error,
        DecodeError::UnsupportedVersion { .. }
            | DecodeError::ClientIdTooLong { .. }
            | DecodeError::Violation(Violation::EmptyClientId)
    ) {
        let version = version.unwrap_or(ProtocolVersion::V311);
        connection.refuse(error.reason_code());
        while let Some(output) = connection.poll_output() {
            if let Output::Transmit(packet) = output {
                write_packet(stream, &packet, version);
            }
        }
    }
    stream.close();
}

/// Sends one packet of a connection that never became a session.
fn write_packet(stream: &mut DeviceStream, packet: &Packet, version: ProtocolVersion) {
    let mut encoded = BytesMut::new();
    if packet.encode(version, &mut encoded).is_ok() {
        let mut batch = Batch::take();
        batch.push_encoded(&encoded);
        // The client is turned away whether it hears why or not.
        let _lost = stream.write(&batch);
        batch.give_back();
    }
}
