//! Whether a gateway is there at all: a ping of CoAP, or the first words of a handshake.

use std::time::Duration;

use bytes::Bytes;
use headgate_dtls::{Client, ClientConfig, ClientOutput, Credential};
use headgate_protocol::coap::{Code, Message, MessageId, MessageType};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::air::Air;
use super::dialogue::MAX_MESSAGE_BYTES;
use crate::device::error::DeviceError;

/// Whether something at the gateway's address answers, until then.
///
/// # Errors
/// [`DeviceError`]: nothing can be sent.
pub(super) async fn ping(
    air: &mut Air,
    is_secure: bool,
    until: Instant,
) -> Result<bool, DeviceError> {
    let datagram = if is_secure { hello()? } else { empty()? };
    loop {
        air.send(&datagram).map_err(DeviceError::Io)?;
        let again = (Instant::now() + PING_INTERVAL).min(until);
        while let Some(answer) = air.receive(again).await.map_err(DeviceError::Io)? {
            if is_secure || is_pong(&answer) {
                return Ok(true);
            }
        }
        if Instant::now() >= until {
            return Ok(false);
        }
    }
}

/// An empty confirmable message, which is answered with a Reset. [RFC 7252 s4.3]
fn empty() -> Result<Bytes, DeviceError> {
    let ping = Message::empty(MessageType::Confirmable, PING_ID);
    let datagram = ping.encode(MAX_MESSAGE_BYTES);
    datagram.map_err(|error| DeviceError::Unexpected(error.to_string()))
}

fn is_pong(answer: &[u8]) -> bool {
    Message::decode(answer).is_ok_and(|message| {
        message.kind == MessageType::Reset && message.id == PING_ID && message.code == Code::EMPTY
    })
}

/// A `ClientHello` of nobody, which is answered with a cookie. [RFC 6347 s4.2.1]
fn hello() -> Result<Bytes, DeviceError> {
    let nobody = Credential::Psk {
        identity: b"nobody".to_vec(),
        key: Zeroizing::new(vec![1; 16]),
    };
    let now = Instant::now().into_std();
    let mut client = Client::connect(&ClientConfig::default(), &nobody, now)?;
    match client.poll_output() {
        Some(ClientOutput::Transmit(datagram)) => Ok(datagram.into()),
        other => Err(DeviceError::Unexpected(format!("{other:?}"))),
    }
}

const PING_ID: MessageId = MessageId(1);
const PING_INTERVAL: Duration = Duration::from_secs(1);
