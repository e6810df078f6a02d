//! Several services over one PostgreSQL, each a node with devices of its own.

use std::future::Future;

use super::*;
use crate::store::registry::tests::postgres::server::Postgres;

/// The nodes of one gateway; the first one's directory has the bytes and the cursors.
struct Nodes {
    server: Postgres,
    nodes: Vec<Stage>,
}

impl Nodes {
    async fn start<const N: usize>(config: DeliveryConfig) -> Self {
        let server = Postgres::start();
        let url = server.database();
        let directory = tempfile::tempdir().expect("a directory");
        let registry = Registry::open_shared(&url, 2).await.expect("opens");
        let shared = parts(directory.path(), config.clone()).await;
        let path = directory.path().to_owned();
        let sessions = shared.sessions.clone();
        let first = Stage::on(DeliveryParts { registry, ..shared }, directory).await;
        let mut nodes = vec![first];
        for _ in 1..N {
            let shutdown = Shutdown::new();
            let more = DeliveryParts {
                registry: Registry::open_shared(&url, 2).await.expect("opens"),
                sessions: sessions.clone(),
                ..parts(&path, config.clone()).await
            };
            let delivery = DeliveryService::start(more, &shutdown)
                .await
                .expect("starts");
            let links = Arc::new(Remembered::default());
            delivery.connect_links(Arc::clone(&links) as Arc<dyn DeviceLinks>);
            nodes.push(Stage {
                delivery,
                resources: nodes[0].resources.clone(),
                links,
                resource: nodes[0].resource.clone(),
                shutdown,
                directory: tempfile::tempdir().expect("a directory"),
            });
        }
        Self { server, nodes }
    }

    fn node(&self, index: usize) -> &Stage {
        &self.nodes[index]
    }
}

impl Stage {
    fn arrives(&self, device: &str, epoch: i64) {
        self.connect(device);
        self.delivery.on_connected(&id(device), epoch);
    }

    fn leaves(&self, device: &str) {
        self.links.online.lock().remove(&id(device));
        self.delivery.on_disconnected(&id(device));
    }

    /// What a device is offered, once it is.
    async fn offered(&self, device: &str) -> Arc<LiveDelivery> {
        until("an offer", || async {
            match self.delivery.offer(&id(device), None) {
                Offer::Ready(offered) => Some(offered.delivery),
                Offer::Nothing | Offer::Waiting => None,
            }
        })
        .await
    }

    async fn takes_whole(&self, device: &str) {
        let delivery = self.offered(device).await;
        self.delivery.on_announced(&delivery).await;
        self.transfer(&delivery, 0, SIZE).await;
        assert_eq!(self.report(device, DownloadState::Done).await, 0);
    }

    /// Sessions that were woken ask for what is for their devices.
    fn admitted(&self) -> usize {
        let woken: Vec<DeviceId> = self.links.woken.lock().drain(..).collect();
        for device in woken {
            let _waiting = self.delivery.offer(&device, None);
        }
        self.delivery.inner.admission.in_progress().len()
    }

    async fn ends(&self, task: Id, run: RunState) {
        until("the end of the task", || async {
            (self.run_of(task).await == run).then_some(())
        })
        .await;
    }
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        let mut turn = tokio::time::interval(Duration::from_millis(10));
        loop {
            turn.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking)
        .await
        .expect(what)
}

#[tokio::test]
async fn each_node_delivers_to_its_own_devices_and_the_task_ends_once() {
    let nodes = Nodes::start::<2>(once()).await;
    let (a, b) = (nodes.node(0), nodes.node(1));
    a.arrives("p_d1", 1);
    b.arrives("p_d2", 2);
    let task = a.task(&["p_d1", "p_d2"]).await.expect("made").task.id;
    a.takes_whole("p_d1").await;
    assert!(matches!(
        a.delivery.offer(&id("p_d2"), None),
        Offer::Nothing
    ));
    assert_eq!(b.run_of(task).await, RunState::Running);
    b.takes_whole("p_d2").await;
    a.ends(task, RunState::Finished).await;
    for node in [a, b] {
        until("an empty book", || async {
            let inner = &node.delivery.inner;
            (inner.book.len() == 0 && inner.book.task(task).is_none()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_device_is_not_told_again_of_what_it_was_told() {
    let nodes = Nodes::start::<1>(once()).await;
    let a = nodes.node(0);
    a.arrives("p_d1", 1);
    a.task(&["p_d1"]).await.expect("made");
    a.offered("p_d1").await;
    let shared = a.delivery.inner.shared.as_ref().expect("among nodes");
    until("the look for who came", || {
        std::future::ready(shared.is_idle().then_some(()))
    })
    .await;
    a.links.woken.lock().clear();
    // The look for who came and that of a new task find the same.
    let looked = a.delivery.take_for(shared, &[(id("p_d1"), 1)]).await;
    looked.expect("looked up");
    assert_eq!(*a.links.woken.lock(), []);
}

#[tokio::test]
async fn a_device_is_woken_also_where_the_look_for_others_fails() {
    let nodes = Nodes::start::<1>(once()).await;
    let a = nodes.node(0);
    a.task(&["p_d1"]).await.expect("made");
    let shared = a.delivery.inner.shared.as_ref().expect("among nodes");
    // Nothing looks for it but what is looked at here.
    a.connect("p_d1");
    let arrived = [(id("p_d1"), 1)];
    let taken = a.delivery.inner.registry.take_deliveries(&arrived).await;
    let mut taken = taken.expect("looked up");
    assert_eq!(taken.len(), 1);
    let (mut broken, epoch) = taken[0].clone();
    // No resource has this id.
    broken.resource_id = broken.delivery.id;
    taken.push((broken, epoch));
    let entered = a.delivery.enter_taken(shared, taken).await;
    assert!(matches!(entered, Err(StoreError::NotFound { .. })));
    assert_eq!(*a.links.woken.lock(), [id("p_d1")]);
}

#[tokio::test]
async fn a_delivery_moves_with_its_device_and_the_node_before_changes_nothing_more() {
    let nodes = Nodes::start::<2>(once()).await;
    let (a, b) = (nodes.node(0), nodes.node(1));
    a.arrives("p_d1", 10);
    let task = b.task(&["p_d1"]).await.expect("made").task.id;
    let at_a = a.offered("p_d1").await;
    a.delivery.on_announced(&at_a).await;
    a.transfer(&at_a, 0, SIZE).await;
    until("the state", || async {
        let state = b.state(&at_a).await.0;
        (state == DeliveryState::Delivering).then_some(())
    })
    .await;

    // The node before does not know yet.
    b.arrives("p_d1", 20);
    let at_b = b.offered("p_d1").await;
    assert_eq!((at_b.id, at_b.attempt), (at_a.id, 1));
    assert_eq!(a.report("p_d1", DownloadState::Done).await, -1);
    assert_eq!(b.state(&at_b).await.0, DeliveryState::Delivering);
    until("it is let go", || async {
        a.delivery.inner.book.by_id(at_a.id).is_none().then_some(())
    })
    .await;
    b.transfer(&at_b, 0, SIZE).await;
    assert_eq!(b.report("p_d1", DownloadState::Done).await, 0);
    a.ends(task, RunState::Finished).await;
    // An older claim gets nothing, whenever it comes.
    a.leaves("p_d1");
    let again = a.task(&["p_d1"]).await.expect("made").task.id;
    let at_b = b.offered("p_d1").await;
    b.delivery.on_announced(&at_b).await;
    until("the state", || async {
        (b.state(&at_b).await.0 == DeliveryState::Pushed).then_some(())
    })
    .await;
    a.arrives("p_d1", 15);
    until("it is looked up", || async {
        let shared = a.delivery.inner.shared.as_ref().expect("shared");
        shared.is_idle().then_some(())
    })
    .await;
    assert!(matches!(
        a.delivery.offer(&id("p_d1"), None),
        Offer::Nothing
    ));
    b.takes_whole("p_d1").await;
    b.ends(again, RunState::Finished).await;
}

#[tokio::test]
async fn done_is_refused_by_a_node_that_does_not_have_the_delivery() {
    let nodes = Nodes::start::<2>(once()).await;
    let (a, b) = (nodes.node(0), nodes.node(1));
    a.arrives("p_d1", 1);
    let task = a.task(&["p_d1"]).await.expect("made").task.id;
    let delivery = a.offered("p_d1").await;
    a.delivery.on_announced(&delivery).await;
    a.transfer(&delivery, 0, SIZE).await;
    let done = |transfer: Option<String>| DownloadReport {
        transfer,
        name: Some("fw".to_owned()),
        state: DownloadState::Done,
        percent: None,
        result_code: 0,
        result_msg: String::new(),
    };
    // Told by its transfer, by its name, and by a device that has just come and is looked up.
    for report in [done(Some(delivery.transfer.to_string())), done(None)] {
        let receipt = b.delivery.report(&id("p_d1"), &report).await;
        assert_eq!(receipt.result_code, -1, "{receipt:?}");
        assert!(receipt.result_msg.starts_with("try again"), "{receipt:?}");
    }
    assert_eq!(a.state(&delivery).await.0, DeliveryState::Delivering);
    // Another device's word counts for nothing.
    let others = done(Some(delivery.transfer.to_string()));
    assert_eq!(b.delivery.report(&id("p_d2"), &others).await.result_code, 0);
    assert_eq!(a.state(&delivery).await.0, DeliveryState::Delivering);
    // Once it is recorded, it is taken for what comes again, at any node.
    assert_eq!(a.report("p_d1", DownloadState::Done).await, 0);
    let again = done(Some(delivery.transfer.to_string()));
    assert_eq!(b.delivery.report(&id("p_d1"), &again).await.result_code, 0);
    a.ends(task, RunState::Finished).await;
}

#[tokio::test]
async fn a_device_goes_on_at_its_cursor_wherever_it_comes_next() {
    let nodes = Nodes::start::<2>(once()).await;
    let (a, b) = (nodes.node(0), nodes.node(1));
    a.arrives("p_d1", 1);
    a.task(&["p_d1"]).await.expect("made");
    let at_a = a.offered("p_d1").await;
    a.delivery.on_announced(&at_a).await;
    a.transfer(&at_a, 0, 50_000).await;
    a.leaves("p_d1");
    assert_eq!(a.delivery.inner.book.len(), 0);
    until("a cursor", || async {
        let cursors = b.delivery.inner.sessions.cursors_of(&[at_a.id]).await;
        cursors
            .expect("read")
            .iter()
            .any(|cursor| cursor.acked == 50_000)
            .then_some(())
    })
    .await;
    let view = b.delivery.delivery(at_a.id).await.expect("known");
    assert_eq!(view.percent, Some(50), "shown where it is not");
    b.arrives("p_d1", 2);
    let at_b = b.offered("p_d1").await;
    assert_eq!(at_b.resume_at(None), 50_000);
    b.transfer(&at_b, 50_000, SIZE).await;
    assert_eq!(b.report("p_d1", DownloadState::Done).await, 0);
}

#[tokio::test]
async fn what_is_done_to_a_task_at_one_node_is_done_at_all() {
    let nodes = Nodes::start::<2>(once()).await;
    let (a, b) = (nodes.node(0), nodes.node(1));
    a.arrives("p_d1", 1);
    b.arrives("p_d2", 1);
    let task = a.task(&["p_d1", "p_d2"]).await.expect("made").task.id;
    let at_a = a.offered("p_d1").await;
    a.delivery.on_announced(&at_a).await;
    let at_b = b.offered("p_d2").await;
    b.delivery.on_announced(&at_b).await;

    b.delivery.pause_task(&actor(), task).await.expect("paused");
    until("held", || async {
        (!at_a.is_admitted() && !at_b.is_admitted() && at_a.task.is_held()).then_some(())
    })
    .await;
    a.delivery
        .resume_task(&actor(), task)
        .await
        .expect("resumed");
    until("going on", || async {
        (!at_b.task.is_held()).then_some(())
    })
    .await;

    b.delivery
        .cancel_delivery(&actor(), at_a.id)
        .await
        .expect("canceled");
    until("the device is told", || async {
        let told = a.links.canceled.lock().clone();
        (told == [(id("p_d1"), at_a.transfer.to_string())]).then_some(())
    })
    .await;
    a.delivery
        .cancel_task(&actor(), task, Chosen::All)
        .await
        .expect("canceled");
    until("the other device is told", || async {
        (!b.links.canceled.lock().is_empty()).then_some(())
    })
    .await;
    assert_eq!(b.run_of(task).await, RunState::Canceled);
    assert_eq!(b.state(&at_b).await.1.as_deref(), Some("canceled"));

    // Tried again, each finds its own.
    a.delivery
        .retry_task(&actor(), task, Chosen::All)
        .await
        .expect("again");
    a.takes_whole("p_d1").await;
    b.takes_whole("p_d2").await;
    a.ends(task, RunState::Finished).await;
}

#[tokio::test]
async fn devices_in_progress_and_the_pace_are_bounded_over_all_nodes() {
    let nodes = Nodes::start::<2>(once()).await;
    let devices = nodes.node(0).crowd(12).await;
    for (index, device) in devices.iter().enumerate() {
        nodes.node(index % 2).arrives(device, 1);
    }
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    let policy = r#"{"max_in_progress": 3, "pace": {"per_minute": 1200}}"#;
    let made = nodes.node(0).task_with(&names, policy).await.expect("made");
    until("the end", || {
        let in_progress: usize = nodes.nodes.iter().map(Stage::admitted).sum();
        assert!(in_progress <= 3, "{in_progress}");
        let (nodes, task) = (&nodes, made.task.id);
        async move {
            for node in &nodes.nodes {
                for delivery in node.delivery.inner.admission.in_progress() {
                    node.takes_whole(delivery.device_id.as_str()).await;
                }
            }
            (nodes.node(1).run_of(task).await == RunState::Finished).then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn a_canary_and_failures_count_over_all_nodes() {
    let nodes = Nodes::start::<2>(once()).await;
    let devices = nodes.node(0).crowd(8).await;
    for (index, device) in devices.iter().enumerate() {
        nodes.node(index % 2).arrives(device, 1);
    }
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    let policy = r#"{"canary": {"devices": 2, "success_percent": 100},
                     "abort": {"failed_percent": 50, "min_finished": 4}}"#;
    let task = nodes.node(0).task_with(&names, policy).await.expect("made");
    let begun = |nodes: &Nodes| nodes.nodes.iter().map(Stage::admitted).sum::<usize>();
    until("two begin", || async { (begun(&nodes) == 2).then_some(()) }).await;
    for node in &nodes.nodes {
        for delivery in node.delivery.inner.admission.in_progress() {
            node.takes_whole(delivery.device_id.as_str()).await;
        }
    }
    until("the others begin", || async {
        (begun(&nodes) == 6).then_some(())
    })
    .await;
    // One fails at each node: two of four.
    for node in &nodes.nodes {
        let out = node.delivery.inner.admission.in_progress();
        let device = out.first().expect("one").device_id.to_string();
        let delivery = node.offered(&device).await;
        node.delivery.on_announced(&delivery).await;
        node.fail(&device, 7).await;
    }
    nodes.node(1).ends(task.task.id, RunState::Aborted).await;
    until("all are ended", || async {
        (begun(&nodes) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_node_acts_for_all_and_another_one_after_it() {
    let nodes = Nodes::start::<2>(once()).await;
    let keeping = |nodes: &Nodes| {
        let keeps = nodes.nodes.iter().map(|node| node.delivery.keeps());
        keeps.collect::<Vec<_>>()
    };
    let first = until("one keeps", || async {
        match keeping(&nodes)[..] {
            [true, false] => Some(0),
            [false, true] => Some(1),
            [true, true] => panic!("two do"),
            _ => None,
        }
    })
    .await;
    // A task for a filter is made by whoever acts for all, wherever it was asked for.
    let other = nodes.node(1 - first);
    let filter = Targets::Filter(crate::model::TargetFilter::default());
    let made = other.task_for(filter, "{}").await.expect("made");
    until("created", || async {
        let view = other.delivery.task(made.task.id).await.expect("known");
        (view.task.creation == crate::model::CreationState::Created).then_some(())
    })
    .await;
    nodes.node(first).shutdown.stop();
    until("the other keeps", || async {
        other.delivery.keeps().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_device_may_fetch_by_https_from_a_node_that_has_it_not() {
    let nodes = Nodes::start::<2>(once()).await;
    let (a, b) = (nodes.node(0), nodes.node(1));
    a.arrives("p_d1", 1);
    a.task(&["p_d1"]).await.expect("made");
    let delivery = a.offered("p_d1").await;
    a.delivery.on_announced(&delivery).await;
    let url = match a.delivery.offer(&id("p_d1"), None) {
        Offer::Ready(offered) => offered.announcement.url,
        other => panic!("{other:?}"),
    };
    let signed = url.rsplit('/').next().expect("an address").to_owned();
    let grant = b.delivery.open_file(&signed).await.expect("opens");
    let bytes = grant.read(0, SIZE).await.expect("read");
    grant.sent(0, bytes.len() as u64);
    assert_eq!(a.report("p_d1", DownloadState::Done).await, 0);
    assert_eq!(b.state(&delivery).await.0, DeliveryState::Delivered);
    assert_eq!(
        b.delivery.open_file(&signed).await.expect_err("closed"),
        FileRefusal::Gone
    );
}

#[tokio::test]
async fn what_a_device_said_waits_for_a_registry_that_is_away() {
    let nodes = Nodes::start::<1>(once()).await;
    let node = nodes.node(0);
    node.arrives("p_d1", 1);
    let task = node.task(&["p_d1"]).await.expect("made").task.id;
    let delivery = node.offered("p_d1").await;
    node.delivery.on_announced(&delivery).await;
    node.transfer(&delivery, 0, SIZE).await;
    nodes.server.signal(rustix::process::Signal::STOP);
    let report = node.report("p_d1", DownloadState::Done);
    let mut report = std::pin::pin!(report);
    let waited = tokio::time::timeout(Duration::from_millis(300), report.as_mut()).await;
    assert!(waited.is_err(), "nothing is said before it is recorded");
    nodes.server.signal(rustix::process::Signal::CONT);
    assert_eq!(report.await, 0);
    node.ends(task, RunState::Finished).await;
}
