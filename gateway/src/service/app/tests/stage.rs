//! Services over stores in a temporary directory, and a session that writes down what it is offered.

use std::sync::Arc;

use bytes::Bytes;
use headgate_protocol::{
    identity::{AppId, DeviceId, NodeId, ProductId},
    mqtt::QoS,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    config::{ApplicationsConfig, MailboxConfig, RetainedConfig},
    model::{
        Actor, AuthKind, Device, DeviceName, Handing, Message, MessageProperties, Millis,
        PskEncoding, Role, product::tests::product,
    },
    service::{
        app::AppService,
        auth::AppAuthenticator,
        uplink::{
            Ended, MessageLinks, Offered, Sink, Stored, SubscribeOptions, Subscriber, Uplink,
            UplinkParts,
        },
    },
    shutdown::Shutdown,
    store::{
        registry::{DeviceCredentials, Registry, sqlite_url},
        sessions::SessionStore,
    },
    telemetry::metrics::Metrics,
};

pub(super) fn app_id(text: &str) -> AppId {
    text.parse().unwrap()
}

pub(super) fn device_id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

/// A message of device `node` of product `P`, whose id is its node id.
pub(super) fn message(node: &str, topic: &str, qos: QoS) -> Message {
    Message {
        device: DeviceName {
            device_id: device_id(node),
            product_id: ProductId::new("P").unwrap(),
            node_id: NodeId::new(node).unwrap(),
        },
        topic: topic.parse().unwrap(),
        payload: Bytes::from_static(b"payload"),
        qos,
        retain: false,
        properties: MessageProperties::default(),
        at: Millis::now(),
    }
}

/// What a session was offered, as topic and `QoS`.
#[derive(Default)]
pub(super) struct Recorder {
    taken: Mutex<Vec<(Arc<Message>, Handing)>>,
    ended: Mutex<Option<Ended>>,
    bound: Mutex<Vec<DeviceId>>,
    pub(super) capacity: Mutex<Option<usize>>,
}

impl Recorder {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn topics(&self) -> Vec<(String, u8)> {
        let taken = self.taken.lock();
        taken
            .iter()
            .map(|(message, handing)| (message.topic.to_string(), handing.qos.bits()))
            .collect()
    }

    /// Topics and payloads of what is said to be retained.
    pub(super) fn retained(&self) -> Vec<(String, String)> {
        let taken = self.taken.lock();
        let retained = taken.iter().filter(|(_, handing)| handing.retain);
        let mut retained: Vec<_> = retained
            .map(|(message, _)| {
                let payload = String::from_utf8_lossy(&message.payload).into_owned();
                (message.topic.to_string(), payload)
            })
            .collect();
        retained.sort_unstable();
        retained
    }

    pub(super) fn bound(&self) -> Vec<DeviceId> {
        self.bound.lock().clone()
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        *self.ended.lock()
    }
}

impl Sink for Recorder {
    fn offer(&self, message: &Arc<Message>, handing: Handing) -> Offered {
        let mut taken = self.taken.lock();
        if self
            .capacity
            .lock()
            .is_some_and(|capacity| taken.len() >= capacity)
        {
            return Offered::Full;
        }
        taken.push((Arc::clone(message), handing));
        Offered::Taken
    }

    fn revoke(&self, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        self.taken
            .lock()
            .retain(|(message, _)| !is_revoked(&message.device.device_id));
    }

    fn bound(&self, devices: &[DeviceId]) {
        self.bound.lock().extend(devices.iter().cloned());
    }

    fn close(&self, reason: Ended) {
        *self.ended.lock() = Some(reason);
    }
}

/// Devices that are connected, and what they were sent.
#[derive(Default)]
pub(super) struct Links {
    pub(super) online: Mutex<Vec<DeviceId>>,
    pub(super) sent: Mutex<Vec<Arc<Stored>>>,
}

impl MessageLinks for Links {
    fn offer(&self, device: &DeviceId, message: Arc<Stored>) -> bool {
        let is_online = self.online.lock().contains(device);
        if is_online {
            self.sent.lock().push(message);
        }
        is_online
    }

    fn mail_waits(&self, device: &DeviceId) -> bool {
        self.is_here(device)
    }

    fn is_here(&self, device: &DeviceId) -> bool {
        self.online.lock().contains(device)
    }
}

pub(super) struct Stage {
    pub(super) apps: AppService,
    pub(super) uplink: Uplink,
    pub(super) registry: Registry,
    pub(super) links: Arc<Links>,
    pub(super) metrics: Metrics,
    pub(super) actor: Actor,
    sessions: SessionStore,
    shutdown: Shutdown,
    pub(super) dir: Arc<TempDir>,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut ApplicationsConfig)) -> Self {
        let mut config = ApplicationsConfig::default();
        change(&mut config);
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let stage = Self::open(dir, config, MailboxConfig::default()).await;
        let audit = stage.actor.did("product.create", "P", "");
        stage
            .registry
            .insert_product(&product("P"), &audit)
            .await
            .unwrap();
        stage
    }

    /// Opens what was left in a directory.
    pub(super) async fn open(
        dir: Arc<TempDir>,
        config: ApplicationsConfig,
        mailbox: MailboxConfig,
    ) -> Self {
        let url = sqlite_url(&dir.path().join("registry.db"));
        let registry = Registry::open(&url, 2).await.unwrap();
        let sessions = SessionStore::open(&dir.path().join("sessions.db"))
            .await
            .unwrap();
        let authenticator = AppAuthenticator::new(registry.clone());
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        let parts = UplinkParts {
            registry: registry.clone(),
            sessions: sessions.clone(),
            authenticator: authenticator.clone(),
            applications: config.clone(),
            mailbox,
            retained: RetainedConfig::default(),
            max_persistent: 100,
            metrics: metrics.clone(),
        };
        let uplink = Uplink::start(parts, &shutdown).await.unwrap();
        let links = Arc::<Links>::default();
        uplink.connect_links(Arc::clone(&links) as Arc<dyn MessageLinks>);
        let apps = AppService::new(
            registry.clone(),
            authenticator,
            uplink.clone(),
            config,
            shutdown.clone(),
        );
        Self {
            apps,
            uplink,
            registry,
            links,
            metrics,
            actor: Actor::new("ann".to_owned(), Role::Operator),
            sessions,
            shutdown,
            dir,
        }
    }

    /// Makes an application of that id and name; gives its secret.
    pub(super) async fn app(&self, id: &str) -> String {
        let made = self.apps.create(&self.actor, app_id(id), id.to_owned());
        made.await.unwrap().secret.reveal().to_owned()
    }

    /// Makes the devices `d0`, `d1` and so on of product `P`.
    pub(super) async fn devices(&self, count: usize) {
        let now = Millis::now();
        for n in 0..count {
            let node = NodeId::new(&format!("d{n}")).unwrap();
            let device = Device {
                id: device_id(node.as_str()),
                product_id: ProductId::new("P").unwrap(),
                node_id: node,
                name: String::new(),
                description: String::new(),
                auth: AuthKind::None,
                psk_encoding: PskEncoding::Text,
                enabled: true,
                created_at: now,
                updated_at: now,
                last_seen_at: None,
            };
            let audit = self.actor.did("device.create", &device.id, "");
            self.registry
                .insert_device(
                    &device,
                    &device.aliases(&product("P")),
                    &DeviceCredentials::default(),
                    &audit,
                )
                .await
                .unwrap();
        }
    }

    pub(super) async fn bind(&self, app: &str, devices: &[&str]) {
        let devices = devices.iter().map(|id| device_id(id)).collect();
        self.apps
            .bind(&self.actor, &app_id(app), devices)
            .await
            .unwrap();
    }

    pub(super) async fn unbind(&self, app: &str, devices: &[&str]) {
        let devices = devices.iter().map(|id| device_id(id)).collect();
        self.apps
            .unbind(&self.actor, &app_id(app), devices)
            .await
            .unwrap();
    }

    /// A session of an application that subscribed at `QoS` 1.
    pub(super) async fn session(
        &self,
        app: &str,
        secret: &str,
        filters: &[&str],
    ) -> (Subscriber, Arc<Recorder>) {
        let app = self
            .apps
            .authenticate(app, secret.as_bytes())
            .await
            .unwrap();
        let sink = Recorder::new();
        let mut session = self.uplink.attach(&app, Arc::clone(&sink) as Arc<dyn Sink>);
        for filter in filters {
            let options = SubscribeOptions {
                qos: QoS::AtLeastOnce,
                ..SubscribeOptions::default()
            };
            session
                .subscribe(&filter.parse().unwrap(), options)
                .unwrap();
        }
        (session, sink)
    }

    /// Ends everything; gives the directory.
    pub(super) async fn close(self) -> Arc<TempDir> {
        self.shutdown.stop();
        assert!(self.shutdown.wait(std::time::Duration::from_secs(30)).await);
        self.registry.close().await;
        self.sessions.close().await;
        self.dir
    }

    /// Everything that both databases hold.
    pub(super) async fn bytes_on_disk(self) -> Vec<u8> {
        let dir = self.close().await;
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
        }
        bytes
    }
}
