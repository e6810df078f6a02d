//! An application that hears what devices say, with a session that is kept while its connections break.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headgate::shutdown::Shutdown;
use headgate_protocol::mqtt::{Packet, QoS};
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::device::DEVICE_PATIENCE;
use crate::harness::{App, Client, Login, Site, connect};

/// How often it looks whether it is to stop.
const TURN: Duration = Duration::from_millis(200);

/// A number that was heard, when, and on which connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hearing {
    pub(super) at: Instant,
    pub(super) connection: usize,
    pub(super) number: usize,
}

/// What it heard: of each topic, by each connection, the numbers in their order.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) by_topic: Mutex<HashMap<String, Vec<Hearing>>>,
    /// What must not happen, and did: of which topic, and what.
    pub(super) wrong: Mutex<Vec<(String, String)>>,
    /// The connection is to end, and another one to be made.
    pub(super) starts_over: AtomicBool,
}

impl Heard {
    /// The numbers that were heard of a topic, each once.
    pub(super) fn of(&self, topic: &str) -> Vec<usize> {
        let by_topic = self.by_topic.lock();
        let mut numbers: Vec<_> = by_topic
            .get(topic)
            .into_iter()
            .flatten()
            .map(|hearing| hearing.number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Keeps one; on one connection those of a topic come in their order, and each once.
    fn take(&self, connection: usize, topic: &str, number: usize) {
        let mut by_topic = self.by_topic.lock();
        let heard = by_topic.entry(topic.to_owned()).or_default();
        if let Some(last) = heard.last()
            && last.connection == connection
            && last.number >= number
        {
            let what = format!("{number} after {} on connection {connection}", last.number);
            self.wrong.lock().push((topic.to_owned(), what));
        }
        heard.push(Hearing {
            at: Instant::now(),
            connection,
            number,
        });
    }
}

/// The application's client.
pub(super) struct Listener {
    pub(super) site: Site,
    pub(super) app: App,
    pub(super) heard: Arc<Heard>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Listener {
    fn login(&self) -> Login {
        Login::application(&self.app, "app:app:listener").keeping(3_600)
    }

    /// Subscribes at a node, and then goes on wherever it is let in.
    pub(super) async fn spawn(self, first: &Site) -> JoinHandle<()> {
        let mut client = Client::log_in(first, &self.login()).await;
        client.subscribe(&["+/+/data"], QoS::AtLeastOnce).await;
        drop(client);
        Shutdown::new().spawn(async move {
            let mut connection = 0;
            while !self.stop.load(Ordering::Relaxed) {
                connection += 1;
                let _broken = self.connected(connection).await;
                sleep(Duration::from_millis(50)).await;
            }
        })
    }

    async fn connected(&self, connection: usize) -> Option<()> {
        let mut client = timeout(DEVICE_PATIENCE, self.open()).await.ok()??;
        let mut last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if self.heard.starts_over.swap(false, Ordering::Relaxed) {
                return None;
            }
            let Ok(packet) = timeout(TURN, client.recv()).await else {
                if last.elapsed() > DEVICE_PATIENCE {
                    return None;
                }
                continue;
            };
            last = Instant::now();
            match packet? {
                Packet::Publish(message) => {
                    let number = std::str::from_utf8(&message.payload).expect("digits");
                    let number = number.parse().expect("a number");
                    self.heard.take(connection, message.topic.as_str(), number);
                    let acknowledging = client.acknowledge(message.packet_id?);
                    timeout(DEVICE_PATIENCE, acknowledging).await.ok()?;
                }
                Packet::Disconnect(_) => return None,
                _ => {}
            }
        }
        Some(())
    }

    async fn open(&self) -> Option<Client> {
        let login = self.login();
        let mut client = Client::may_open(&self.site, Arc::clone(&self.site.tls)).await?;
        client.acknowledges = false;
        client.speak(login.version);
        client.try_send(&connect(&login)).await.ok()?;
        let Packet::ConnAck(connack) = client.recv().await? else {
            return None;
        };
        if connack.reason.is_error() {
            return None;
        }
        if !connack.session_present {
            let lost = (String::new(), "its session is lost".to_owned());
            self.heard.wrong.lock().push(lost);
        }
        Some(client)
    }
}
