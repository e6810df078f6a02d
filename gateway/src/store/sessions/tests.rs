//! Sessions in real stores: one contract, on SQLite and on Redis.

mod contract;
mod cursors;
mod mail;
mod persistent;
mod queue;
mod redis;
mod retained;

use headgate_protocol::mqtt::QoS;

use self::contract::SERVER;
use super::*;
use crate::model::{DeviceName, Message, MessageProperties};

/// A store of its own, which can be closed and opened again.
struct Fixture {
    store: SessionStore,
    place: Place,
}

enum Place {
    File(tempfile::TempDir),
    Server(String, String),
}

impl std::ops::Deref for Fixture {
    type Target = SessionStore;

    fn deref(&self) -> &SessionStore {
        &self.store
    }
}

impl Place {
    async fn open(&self) -> SessionStore {
        match self {
            Self::File(dir) => SessionStore::open(&dir.path().join("s.db")).await.unwrap(),
            Self::Server(url, prefix) => {
                let opened = SessionStore::open_redis(url, prefix, b"r", node("n1"));
                opened.await.unwrap()
            }
        }
    }
}

impl Fixture {
    async fn new() -> Self {
        let place = match SERVER.try_with(|server| server.url()) {
            Ok(url) => {
                let mut random = [0; 8];
                getrandom::fill(&mut random).unwrap();
                Place::Server(url, hex::encode(random))
            }
            Err(_) => Place::File(tempfile::tempdir().unwrap()),
        };
        let store = place.open().await;
        Self { store, place }
    }

    /// As after a restart of the gateway.
    async fn again(self) -> Self {
        self.store.close().await;
        let store = self.place.open().await;
        let place = self.place;
        Self { store, place }
    }
}

/// A node on a machine of its own.
fn node(name: &str) -> NodeEntry {
    NodeEntry {
        name: name.to_owned(),
        instance: name.to_owned(),
        lease: std::time::Duration::from_mins(1),
        inbox_messages: 1_000,
    }
}

fn id(number: i64) -> Id {
    Id::from_i64(number).unwrap()
}

fn at(millis: i64) -> Millis {
    Millis::from_i64(millis)
}

fn message(device: &str, payload: &str) -> Message {
    Message {
        device: DeviceName {
            device_id: format!("P_{device}").parse().unwrap(),
            product_id: "P".parse().unwrap(),
            node_id: device.parse().unwrap(),
        },
        topic: format!("up/P/{device}/é").parse().unwrap(),
        payload: payload.to_owned().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: MessageProperties {
            content_type: Some("text/plain".into()),
            user: vec![("a".into(), "b\n\"".into())],
            ..MessageProperties::default()
        },
        at: at(7),
    }
}
