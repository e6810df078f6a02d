//! A device's session of DTLS.

use std::time::Instant;

use headgate_dtls::{Client, ClientConfig, ClientEvent, ClientOutput, Credential};
use tokio::time::timeout;

use super::{Coap, Gateway, Layer, PATIENCE, Passed};

impl Coap {
    /// A device with a session of DTLS, by the key that it has in hexadecimal digits.
    pub(crate) async fn secure(gateway: &Gateway, identity: &str, key: &str) -> Self {
        let mut device = Self::at(gateway.ports.coaps.expect("a CoAPS listener")).await;
        let credential = Credential::Psk {
            identity: identity.as_bytes().to_vec(),
            key: hex::decode(key).expect("hexadecimal").into(),
        };
        let config = ClientConfig::default();
        let session = Client::connect(&config, &credential, Instant::now());
        device.session = Some(Box::new(session.expect("a client")));
        let connected = async {
            while !device
                .session
                .as_ref()
                .is_some_and(|layer| layer.is_ready())
            {
                device.turn().await;
            }
        };
        timeout(PATIENCE, connected).await.expect("a handshake");
        device
    }
}

impl Layer for Client {
    fn is_ready(&self) -> bool {
        self.is_connected()
    }

    fn receive(&mut self, datagram: &[u8]) {
        self.handle_datagram(Instant::now(), datagram);
    }

    fn send(&mut self, message: &[u8]) {
        Self::send(self, Instant::now(), message).expect("a session");
    }

    fn poll(&mut self) -> Option<Passed> {
        loop {
            match self.poll_output()? {
                ClientOutput::Transmit(record) => return Some(Passed::Datagram(record)),
                ClientOutput::Event(ClientEvent::Data(message)) => {
                    return Some(Passed::Message(message));
                }
                ClientOutput::Event(event) => {
                    let goes_on = matches!(event, ClientEvent::Connected { .. });
                    assert!(goes_on, "the session ended: {event:?}");
                }
            }
        }
    }

    fn timeout(&mut self) -> Option<Instant> {
        Self::timeout(self)
    }

    fn handle_timeout(&mut self) {
        Self::handle_timeout(self, Instant::now());
    }
}
