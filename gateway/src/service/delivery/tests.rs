//! The service over a real SQLite registry, real blobs and a table of devices that only remembers.

use std::{collections::HashSet, convert::Infallible, path::Path, time::Duration};

use headgate_protocol::transfer::{
    message::{DownloadReport, DownloadState, GetChunks, TransferErrorCode},
    window::{Ask, Chunk},
};
use parking_lot::Mutex;

use super::*;
use crate::{
    config::{AuthConfig, ResourceConfig},
    model::{
        Actor, AuthKind, CredentialForm, FailReason, Resource, RunState, TopicPolicy, Transports,
    },
    service::{
        auth::DeviceAuthenticator,
        link::LinkSigner,
        registry::{NewDevice, RegistryService},
        resource::{Expected, NewResource, ResourceService},
        seal::Sealer,
    },
    store::registry::{TaskFilter, sqlite_url},
};

mod edit;
mod ends;
mod journal;
mod making;
mod nodes;
mod policy;

const SIZE: usize = 100_000;

/// Remembers who was woken and what was cancelled; only `online` devices are here.
#[derive(Debug, Default)]
struct Remembered {
    online: Mutex<HashSet<DeviceId>>,
    woken: Mutex<Vec<DeviceId>>,
    canceled: Mutex<Vec<(DeviceId, String)>>,
}

impl DeviceLinks for Remembered {
    fn wake(&self, device: &DeviceId) -> bool {
        let here = self.is_connected(device);
        if here {
            self.woken.lock().push(device.clone());
        }
        here
    }

    fn cancel(&self, device: &DeviceId, transfer: &str, _name: &ResourceName) {
        self.canceled
            .lock()
            .push((device.clone(), transfer.to_owned()));
    }

    fn is_connected(&self, device: &DeviceId) -> bool {
        self.online.lock().contains(device)
    }
}

struct Stage {
    delivery: DeliveryService,
    resources: ResourceService,
    links: Arc<Remembered>,
    resource: Resource,
    shutdown: Shutdown,
    directory: tempfile::TempDir,
}

/// Settings under which a failure is an end.
fn once() -> DeliveryConfig {
    DeliveryConfig {
        max_attempts: 1,
        ..DeliveryConfig::default()
    }
}

fn actor() -> Actor {
    Actor::gateway()
}

async fn parts(directory: &Path, config: DeliveryConfig) -> DeliveryParts {
    DeliveryParts {
        registry: Registry::open(&sqlite_url(&directory.join("registry.db")), 2)
            .await
            .expect("opens"),
        sessions: SessionStore::open(&directory.join("sessions.db"))
            .await
            .expect("opens"),
        blobs: BlobStore::open(&directory.join("blobs"))
            .await
            .expect("opens"),
        urls: FileUrls::new(
            LinkSigner::new([3; 32]),
            Some("https://files.example.org".to_owned()),
            None,
            Duration::from_mins(1),
        ),
        config,
        retention: RetentionConfig::default(),
        metrics: Metrics::new(),
    }
}

impl Stage {
    /// Two devices `d1` and `d2` of product `p`, a device `x1` of product `q`, and a resource.
    async fn new(config: DeliveryConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let parts = parts(directory.path(), config).await;
        Self::on(parts, directory).await
    }

    /// The same on stores of the test's own.
    async fn on(parts: DeliveryParts, directory: tempfile::TempDir) -> Self {
        let (registry, blobs) = (parts.registry.clone(), parts.blobs.clone());
        let sealer = Sealer::open_or_create(&directory.path().join("key")).expect("a key");
        let authenticator = DeviceAuthenticator::new(
            registry.clone(),
            sealer.clone(),
            &AuthConfig::default(),
            &Metrics::new(),
        )
        .expect("seals");
        let service = RegistryService::new(registry.clone(), sealer, authenticator);
        for (product, nodes) in [("p", &["d1", "d2"][..]), ("q", &["x1"])] {
            let product = Product {
                id: product.parse().expect("legal"),
                name: product.to_owned(),
                description: String::new(),
                transports: Transports::default(),
                auth_kinds: vec![AuthKind::Secret],
                credential_forms: vec![CredentialForm::Native],
                client_ca: None,
                topic_policy: TopicPolicy::default(),
                confirm: Confirm::Report,
                trust_done: false,
                reachable_after_uplink_secs: None,
                created_at: Millis::now(),
                updated_at: Millis::now(),
            };
            service
                .create_product(&actor(), product.clone())
                .await
                .expect("made");
            for node in nodes {
                let device = NewDevice::of(product.id.clone(), node.parse().expect("legal"));
                service.create_device(&actor(), device).await.expect("made");
            }
        }
        let resources = ResourceService::open(registry, blobs, ResourceConfig::default())
            .await
            .expect("opens");
        let shutdown = Shutdown::new();
        let delivery = DeliveryService::start(parts, &shutdown)
            .await
            .expect("starts");
        let links = Arc::new(Remembered::default());
        delivery.connect_links(Arc::clone(&links) as Arc<dyn DeviceLinks>);
        let new = NewResource {
            product_id: "p".parse().expect("legal"),
            name: "fw".parse().expect("legal"),
            description: String::new(),
            expected: Expected::default(),
        };
        let resource = resources
            .upload(&actor(), new, body(1))
            .await
            .expect("stored");
        Self {
            delivery,
            resources,
            links,
            resource,
            shutdown,
            directory,
        }
    }

    async fn task(&self, devices: &[&str]) -> Result<TaskView, DeliveryError> {
        self.task_with(devices, "{}").await
    }

    /// A task with a policy.
    async fn task_with(&self, devices: &[&str], policy: &str) -> Result<TaskView, DeliveryError> {
        let devices = devices.iter().map(|device| (*device).to_owned());
        self.task_for(Targets::Devices(devices.collect()), policy)
            .await
    }

    async fn task_for(&self, targets: Targets, policy: &str) -> Result<TaskView, DeliveryError> {
        let new = NewTask {
            name: None,
            resource_id: self.resource.id,
            targets,
            policy: serde_json::from_str(policy).expect(policy),
        };
        self.delivery.create_task(&actor(), new).await
    }

    /// More devices of product `p`: `p_n0` and so on.
    async fn crowd(&self, count: usize) -> Vec<String> {
        let registry = &self.delivery.inner.registry;
        registry.add_devices("p", count).await.expect("added");
        (0..count).map(|number| format!("p_n{number}")).collect()
    }

    /// What happens when so much time has passed.
    async fn pass(&self, time: Duration) {
        let (now, at) = (std::time::Instant::now() + time, Millis::now().after(time));
        self.delivery.pass_time(now, at).await;
    }

    /// What the device reports about a failure.
    async fn fail(&self, device: &str, code: i32) {
        let report = DownloadReport {
            transfer: None,
            name: None,
            state: DownloadState::Fail,
            percent: None,
            result_code: code,
            result_msg: String::new(),
        };
        self.delivery.report(&id(device), &report).await;
    }

    /// A device takes its delivery whole and says so.
    async fn deliver(&self, device: &str) -> Arc<LiveDelivery> {
        self.connect(device);
        let delivery = self.offer(device);
        self.delivery.on_announced(&delivery).await;
        self.transfer(&delivery, 0, SIZE).await;
        assert_eq!(self.report(device, DownloadState::Done).await, 0);
        delivery
    }

    async fn waiting(&self, delivery: Id) -> Option<WaitReason> {
        let view = self.delivery.delivery(delivery).await.expect("known");
        view.waiting
    }

    async fn run_of(&self, task: Id) -> RunState {
        self.delivery.task(task).await.expect("known").task.run
    }

    fn connect(&self, device: &str) {
        self.links.online.lock().insert(id(device));
    }

    fn offer(&self, device: &str) -> Arc<LiveDelivery> {
        match self.delivery.offer(&id(device), None) {
            Offer::Ready(offered) => offered.delivery,
            other => panic!("{other:?}"),
        }
    }

    /// Sends and acknowledges every byte in `range`, as a session does.
    async fn transfer(&self, delivery: &Arc<LiveDelivery>, start: usize, end: usize) {
        let request = window(delivery, None);
        self.delivery
            .begin(delivery, &request, limits())
            .await
            .expect("begins");
        for offset in (start..end).step_by(10_000) {
            let chunk = Chunk {
                offset: offset as u64,
                len: 10_000,
            };
            delivery.on_sent(chunk);
            assert!(!self.delivery.on_acknowledged(delivery, chunk));
        }
    }

    async fn report(&self, device: &str, state: DownloadState) -> i32 {
        let report = DownloadReport {
            transfer: None,
            name: Some("fw".to_owned()),
            state,
            percent: None,
            result_code: if state == DownloadState::Fail { 7 } else { 0 },
            result_msg: "verification failed".to_owned(),
        };
        self.delivery.report(&id(device), &report).await.result_code
    }

    async fn state(&self, delivery: &LiveDelivery) -> (DeliveryState, Option<String>) {
        let view = self.delivery.delivery(delivery.id).await.expect("known");
        (view.delivery.state, view.delivery.reason)
    }

    /// The same gateway after a stop.
    async fn restart(self) -> Self {
        self.delivery.flush().await;
        self.shutdown.stop();
        self.shutdown.wait(Duration::from_secs(5)).await;
        let shutdown = Shutdown::new();
        let parts = parts(self.directory.path(), once()).await;
        let delivery = DeliveryService::start(parts, &shutdown)
            .await
            .expect("starts");
        delivery.connect_links(Arc::clone(&self.links) as Arc<dyn DeviceLinks>);
        Self {
            delivery,
            shutdown,
            ..self
        }
    }
}

fn id(device: &str) -> DeviceId {
    device.parse().expect("legal")
}

fn body(fill: u8) -> impl futures_util::Stream<Item = Result<bytes::Bytes, Infallible>> {
    futures_util::stream::iter([Ok(bytes::Bytes::from(vec![fill; SIZE]))])
}

fn window(delivery: &LiveDelivery, offset: Option<u64>) -> GetChunks {
    GetChunks {
        transfer: delivery.transfer.to_string(),
        offset,
        ask: Ask::Window(8),
        chunk_size: None,
    }
}

fn limits() -> PumpLimits {
    PumpLimits {
        receive_maximum: 64,
        max_payload_bytes: u32::MAX,
    }
}

#[tokio::test]
async fn a_device_that_takes_every_byte_and_says_done_has_it() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    let task = stage.task(&["p_d1"]).await.expect("made");
    assert_eq!(
        *stage.links.woken.lock(),
        [id("p_d1")],
        "the device that is here is told"
    );
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, SIZE).await;
    assert_eq!(delivery.percent(), 100);
    assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(
        stage.state(&delivery).await,
        (DeliveryState::Delivered, None)
    );
    let ended = stage.delivery.task(task.task.id).await.expect("known");
    assert_eq!(
        (ended.task.run, ended.counts.delivered),
        (RunState::Finished, 1)
    );
    let states: Vec<_> = stage
        .delivery
        .timeline(delivery.id)
        .await
        .expect("known")
        .iter()
        .map(|entry| entry.state)
        .collect();
    let walked = [
        DeliveryState::Pending,
        DeliveryState::Pushed,
        DeliveryState::Delivering,
        DeliveryState::Delivered,
    ];
    assert_eq!(states, walked);
    assert_eq!(
        stage.report("p_d1", DownloadState::Done).await,
        0,
        "a repeated report does no harm"
    );
}

#[tokio::test]
async fn done_at_ten_percent_is_a_failure() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, 10_000).await;
    assert_ne!(stage.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(
        stage.state(&delivery).await,
        (DeliveryState::Failed, Some("incomplete".to_owned()))
    );
}

#[tokio::test]
async fn a_device_that_gives_up_says_why_and_can_be_tried_again() {
    let stage = Stage::new(once()).await;
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    assert_eq!(stage.report("p_d1", DownloadState::Fail).await, 0);
    let failed = stage
        .delivery
        .delivery(delivery.id)
        .await
        .expect("known")
        .delivery;
    assert_eq!(failed.detail.as_deref(), Some("7: verification failed"));
    stage
        .delivery
        .retry_task(&actor(), task.id, Chosen::All)
        .await
        .expect("failed ones are there");
    let again = stage.offer("p_d1");
    assert_eq!((again.id, again.attempt), (delivery.id, 2));
    let retried = stage.delivery.task(task.id).await.expect("known");
    assert_eq!(
        (retried.task.run, retried.counts.pending),
        (RunState::Running, 1)
    );
    let attempts: Vec<u32> = stage
        .delivery
        .timeline(delivery.id)
        .await
        .expect("known")
        .iter()
        .map(|entry| entry.attempt)
        .collect();
    assert_eq!(attempts, [1, 1, 1, 2]);
}

#[tokio::test]
async fn what_is_cancelled_stays_failed_whatever_arrives_later() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, SIZE).await;
    stage
        .delivery
        .cancel_delivery(&actor(), delivery.id)
        .await
        .expect("open");
    assert_eq!(
        *stage.links.canceled.lock(),
        [(id("p_d1"), delivery.transfer.to_string())]
    );
    assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(
        stage.state(&delivery).await,
        (DeliveryState::Failed, Some("canceled".to_owned()))
    );
    let refusal = stage
        .delivery
        .find(&id("p_d1"), &delivery.transfer)
        .await
        .expect_err("over");
    assert_eq!(refusal.code, TransferErrorCode::Canceled);
    let again = stage.delivery.cancel_delivery(&actor(), delivery.id).await;
    assert!(matches!(again, Err(DeliveryError::Conflict(_))));
}

#[tokio::test]
async fn after_a_restart_a_delivery_goes_on_where_it_stood() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1", "p_d2"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    stage.transfer(&delivery, 0, 50_000).await;
    let stage = stage.restart().await;
    let resumed = stage.offer("p_d1");
    assert_eq!(
        (resumed.id, resumed.acknowledged_bytes()),
        (delivery.id, 50_000)
    );
    assert_eq!(resumed.state(), DeliveryState::Delivering);
    stage.transfer(&resumed, 50_000, SIZE).await;
    assert_eq!(stage.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(
        stage.state(&resumed).await,
        (DeliveryState::Delivered, None)
    );
    assert_eq!(stage.offer("p_d2").acknowledged_bytes(), 0);
}

#[tokio::test]
async fn a_transfer_is_for_its_device_and_its_version() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    stage.delivery.on_announced(&delivery).await;
    let refused = async |device: &str, transfer: &str| {
        stage
            .delivery
            .find(&id(device), transfer)
            .await
            .expect_err("refused")
            .code
    };
    for (device, transfer) in [
        ("p_d2", &*delivery.transfer),
        ("p_d1", "0000000000001"),
        ("p_d1", "../etc"),
        ("p_d1", ""),
    ] {
        assert_eq!(
            refused(device, transfer).await,
            TransferErrorCode::UnknownTransfer,
            "{device} {transfer}"
        );
    }
    stage.transfer(&delivery, 0, SIZE).await;
    stage.report("p_d1", DownloadState::Done).await;
    assert_eq!(
        refused("p_d1", &delivery.transfer).await,
        TransferErrorCode::UnknownTransfer,
        "it has ended"
    );
    stage
        .resources
        .replace_content(&actor(), stage.resource.id, Expected::default(), body(2))
        .await
        .expect("stored");
    assert_eq!(
        refused("p_d1", &delivery.transfer).await,
        TransferErrorCode::StaleVersion
    );
}

#[tokio::test]
async fn a_request_out_of_range_changes_nothing() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let delivery = stage.offer("p_d1");
    let request = window(&delivery, Some(SIZE as u64 + 1));
    let refusal = stage
        .delivery
        .begin(&delivery, &request, limits())
        .await
        .expect_err("beyond the end");
    assert_eq!(refusal.code, TransferErrorCode::OutOfRange);
    assert_eq!(delivery.state(), DeliveryState::Pending);
    let narrow = PumpLimits {
        max_payload_bytes: 1_000,
        ..limits()
    };
    let refusal = stage
        .delivery
        .begin(&delivery, &window(&delivery, None), narrow)
        .await
        .expect_err("too large");
    assert_eq!(refusal.code, TransferErrorCode::BadRequest);
    assert!(stage.delivery.manifest(&delivery, 2, 1).is_err());
    let manifest = stage
        .delivery
        .manifest(&delivery, 0, 64)
        .expect("two parts");
    assert_eq!((manifest.count, manifest.digests.len()), (2, 88));
}

#[tokio::test]
async fn a_place_in_progress_goes_to_the_next_device_that_is_here() {
    let one = DeliveryConfig {
        max_in_progress: 1,
        ..once()
    };
    let stage = Stage::new(one).await;
    stage.connect("p_d1");
    stage.connect("p_d2");
    stage.task(&["p_d1", "p_d2"]).await.expect("made");
    let first = stage.offer("p_d1");
    assert!(matches!(
        stage.delivery.offer(&id("p_d2"), None),
        Offer::Waiting
    ));
    let waiting = stage.delivery.open_of_device(&id("p_d2"));
    let view = stage.delivery.delivery(waiting[0]).await.expect("known");
    assert_eq!(view.waiting, Some(WaitReason::InProgressLimit));
    stage.links.woken.lock().clear();
    stage
        .delivery
        .cancel_delivery(&actor(), first.id)
        .await
        .expect("open");
    assert_eq!(*stage.links.woken.lock(), [id("p_d2")]);
    assert!(stage.offer("p_d2").is_admitted());
    stage.links.online.lock().clear();
    stage.delivery.on_disconnected(&id("p_d2"));
    let view = stage.delivery.delivery(waiting[0]).await.expect("known");
    assert_eq!(
        (view.delivery.state, view.waiting),
        (DeliveryState::Pending, Some(WaitReason::Offline))
    );
}

#[tokio::test]
async fn a_paused_task_is_offered_to_nobody_until_it_is_resumed() {
    let stage = Stage::new(once()).await;
    stage.connect("p_d1");
    let task = stage.task(&["p_d1"]).await.expect("made").task;
    let delivery = stage.offer("p_d1");
    stage
        .delivery
        .pause_task(&actor(), task.id)
        .await
        .expect("running");
    assert!(matches!(
        stage.delivery.offer(&id("p_d1"), None),
        Offer::Nothing | Offer::Waiting
    ));
    let refusal = stage
        .delivery
        .begin(&delivery, &window(&delivery, None), limits())
        .await
        .expect_err("held");
    assert_eq!(
        (refusal.code, refusal.retry_after.is_some()),
        (TransferErrorCode::Busy, true)
    );
    stage.links.woken.lock().clear();
    stage
        .delivery
        .resume_task(&actor(), task.id)
        .await
        .expect("paused");
    assert_eq!(*stage.links.woken.lock(), [id("p_d1")]);
    assert_eq!(stage.offer("p_d1").id, delivery.id);
}

#[tokio::test]
async fn wrong_rows_are_all_named_and_nothing_is_made() {
    let stage = Stage::new(once()).await;
    let error = stage
        .task(&["p_d1", "nobody", "p_d1", "q_x1", "a/b"])
        .await
        .expect_err("wrong rows");
    let DeliveryError::Rows(rows) = error else {
        panic!("{error}")
    };
    let found: Vec<_> = rows.iter().map(|row| (row.row, row.code)).collect();
    assert_eq!(
        found,
        [
            (2, RowErrorCode::UnknownDevice),
            (3, RowErrorCode::Duplicate),
            (4, RowErrorCode::WrongProduct),
            (5, RowErrorCode::InvalidName),
        ]
    );
    let page = crate::model::Page {
        limit: 10,
        cursor: None,
    };
    let tasks = stage
        .delivery
        .tasks(&TaskFilter::default(), &page)
        .await
        .expect("a list");
    assert_eq!(tasks.items, []);
    assert!(matches!(
        stage.delivery.offer(&id("p_d1"), None),
        Offer::Nothing
    ));
}

#[tokio::test]
async fn more_deliveries_than_may_be_open_are_refused_whole() {
    let few = DeliveryConfig {
        max_open_deliveries: 1,
        ..once()
    };
    let stage = Stage::new(few).await;
    assert!(matches!(
        stage.task(&["p_d1", "p_d2"]).await,
        Err(DeliveryError::TooManyOpen { limit: 1 })
    ));
    stage.task(&["p_d2"]).await.expect("one fits");
}

#[tokio::test]
async fn a_signed_address_opens_its_delivery_until_that_ends() {
    let stage = Stage::new(once()).await;
    stage.task(&["p_d1"]).await.expect("made");
    let Offer::Ready(offered) = stage.delivery.offer(&id("p_d1"), None) else {
        panic!("an offer")
    };
    let signed = offered
        .announcement
        .url
        .rsplit('/')
        .next()
        .expect("a token")
        .to_owned();
    let grant = stage.delivery.open_file(&signed).await.expect("open");
    assert_eq!(grant.size(), SIZE as u64);
    let bytes = grant.read(99_990, 100).await.expect("read");
    assert_eq!(&bytes[..], [1; 10]);
    grant.sent(0, SIZE as u64);
    assert_eq!(
        stage.report("p_d1", DownloadState::Done).await,
        0,
        "the bytes came by HTTPS"
    );
    assert_eq!(
        stage.delivery.open_file(&signed).await.expect_err("ended"),
        FileRefusal::Gone
    );
    assert_eq!(
        stage.delivery.open_file("AAAA").await.expect_err("forged"),
        FileRefusal::BadSignature
    );
}

#[tokio::test]
async fn what_an_earlier_attempt_sent_counts_unless_it_was_not_good() {
    for (code, believed) in [(Some(4), true), (Some(7), false), (None, false)] {
        let stage = Stage::new(once()).await;
        stage.task(&["p_d1"]).await.expect("made");
        let delivery = stage.offer("p_d1");
        stage.delivery.on_announced(&delivery).await;
        stage.transfer(&delivery, 0, 50_000).await;
        match code {
            Some(code) => stage.fail("p_d1", code).await,
            None => assert_ne!(stage.report("p_d1", DownloadState::Done).await, 0),
        }
        stage
            .delivery
            .retry_delivery(&actor(), delivery.id)
            .await
            .expect("it failed");
        let again = stage.offer("p_d1");
        let request = window(&again, Some(50_000));
        stage
            .delivery
            .begin(&again, &request, limits())
            .await
            .expect("begins");
        again.on_sent(Chunk {
            offset: 50_000,
            len: 50_000,
        });
        assert_eq!(again.was_sent_whole(), believed, "{code:?}");
    }
}
