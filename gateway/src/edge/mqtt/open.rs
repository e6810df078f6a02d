//! The beginning of a device's connection: handshake and CONNECT, both before one deadline.
//!
//! Everything here is boxed by the caller and gone when the session runs. A client that fails is
//! counted, answered where it speaks MQTT well enough to be answered, and closed.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Instant};

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Connection, DecodeError, Decoder, Event, Input, Output, Packet, ProtocolVersion, ReasonCode,
    Role,
};
use tokio::net::TcpStream;

use super::{ListenerSetup, Live};
use crate::{
    edge::{
        accept::HandshakePermit,
        tls::{DeviceStream, ReadOutcome},
    },
    service::auth::Peer,
    session::{Batch, Node, Sent, admit},
};

/// Handshake and CONNECT, both before one deadline.
pub(super) async fn open(
    tcp: TcpStream,
    address: SocketAddr,
    setup: Arc<ListenerSetup>,
    node: &Arc<Node>,
    permit: HandshakePermit,
) -> Option<Box<Live>> {
    let started = Instant::now();
    let deadline = started + node.mqtt.handshake_timeout;
    let attempts = &node.metrics.connect_attempts;
    let opening = async {
        let stream = match &setup.tls {
            Some(tls) => DeviceStream::handshake(tcp, tls).await.map_err(|error| {
                tracing::debug!(%error, "a TLS handshake failed");
                attempts.failed_tls.inc();
            })?,
            None => DeviceStream::plain(tcp),
        };
        node.metrics
            .handshake_seconds
            .observe(started.elapsed().as_secs_f64());
        introduce(stream, address, node, deadline).await
    };
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

/// Waits for CONNECT and answers it; a failure has been counted and answered.
async fn introduce(
    mut stream: DeviceStream,
    address: SocketAddr,
    node: &Arc<Node>,
    deadline: Instant,
) -> Result<Live, ()> {
    let attempts = &node.metrics.connect_attempts;
    let mut decoder = Decoder::new(Role::Server, node.decoder_limits());
    let mut connection: Connection<Sent> =
        Connection::new(Arc::clone(&node.connection_limits), deadline);
    let mut buffer = BytesMut::new();
    let packet = match first_packet(&mut stream, &mut decoder, &mut buffer).await {
        Ok(packet) => packet,
        Err(Opening::Refused(error)) => {
            attempts.protocol_error.inc();
            tracing::info!(%error, "a client that did not begin with a good CONNECT was closed");
            refuse_first(&mut stream, &mut connection, &error);
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
    let reached_at = stream
        .socket()
        .local_addr()
        .ok()
        .map(|address| address.ip());
    let peer = Peer {
        address,
        certificate: stream.peer_certificate().map(Arc::new),
    };
    match admit(node, connection, &connect, &peer, reached_at).await {
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
        match stream.read(buffer).map_err(|_| Opening::Lost)? {
            ReadOutcome::Closed => return Err(Opening::Lost),
            ReadOutcome::Blocked => {
                poll_fn(|cx| stream.poll_read_ready(cx))
                    .await
                    .map_err(|_| Opening::Lost)?;
                continue;
            }
            ReadOutcome::Data(_) => {}
        }
        if let Some(packet) = decoder.decode(buffer).map_err(Opening::Refused)? {
            return Ok(packet);
        }
    }
}

/// Tells a client that speaks MQTT, only not well enough, what is wrong with its CONNECT.
fn refuse_first(stream: &mut DeviceStream, connection: &mut Connection<Sent>, error: &DecodeError) {
    if matches!(error, DecodeError::UnsupportedVersion { .. }) {
        connection.refuse(ReasonCode::UnsupportedProtocolVersion);
        while let Some(output) = connection.poll_output() {
            if let Output::Transmit(packet) = output {
                write_packet(stream, &packet, ProtocolVersion::V311);
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
