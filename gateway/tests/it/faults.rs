//! A roll-out over three nodes, with telemetry to an application, while nodes are killed, paused and cut off, and stores
//! are cut off, slowed, stopped and crashed, in an order that a seed gives: in the end every device has the bytes,
//! once, every history is in order, and every message that was acknowledged came to the application.

pub(crate) mod cluster;
mod device;
mod listener;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use self::{
    cluster::{Cluster, Fault, Story},
    device::{DEVICE_PATIENCE, Living, Memory},
    listener::{Heard, Hearing, Listener},
};
use super::{
    cli::{headgate, text},
    harness::{Device, content, until_in},
};

const DEVICES: usize = 24;
const SIZE: usize = 400_000;
/// What the roll-out's pace alone lets it take, however many devices there are: about as long as the faults.
const LENGTH_SECS: usize = 20;
/// The whole of a run after its last fault.
const PATIENCE: Duration = Duration::from_secs(150);

/// The next of a row of numbers that look like chance.
fn next(seed: &mut u64, below: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    usize::try_from((*seed >> 8) % u64::try_from(below).expect("small")).expect("small")
}

/// Each fault once, in an order by chance, and one of them again.
fn faults(seed: &mut u64) -> Vec<Fault> {
    let mut faults = Fault::ALL.to_vec();
    for last in (1..faults.len()).rev() {
        faults.swap(last, next(seed, last + 1));
    }
    faults.push(Fault::ALL[next(seed, Fault::ALL.len())]);
    faults
}

/// The devices under way and what hears them.
struct Crowd {
    devices: Vec<Device>,
    memories: Vec<Arc<Memory>>,
    heard: Arc<Heard>,
}

impl Crowd {
    /// What must not happen, and did; what was between whom it befell and the gateway is told.
    fn wrong(&self, story: &Story) -> Vec<String> {
        let of_listener = self.heard.wrong.lock();
        let mut wrong: Vec<_> = of_listener
            .iter()
            .map(|(topic, what)| format!("{topic}: {what}"))
            .collect();
        for (device, memory) in self.devices.iter().zip(&self.memories) {
            let topic = topic_of(device);
            let of_device = memory.wrong.lock();
            if of_device.is_empty() && of_listener.iter().all(|(of, _)| *of != topic) {
                continue;
            }
            wrong.extend(
                of_device
                    .iter()
                    .map(|what| format!("{}: {what}", device.id)),
            );
            for (when, event) in &*memory.events.lock() {
                story.tell_at(*when, &format!("{} {event}", device.id));
            }
            for hearing in self.heard.by_topic.lock().get(&topic).into_iter().flatten() {
                let Hearing {
                    at,
                    connection,
                    number,
                } = hearing;
                let line = format!(
                    "{} is heard: {number}, on connection {connection}",
                    device.id
                );
                story.tell_at(*at, &line);
            }
        }
        wrong
    }

    /// What was acknowledged to devices and did not come to the application.
    fn lost(&self) -> Vec<String> {
        let of_devices = self.devices.iter().zip(&self.memories);
        of_devices
            .filter_map(|(device, memory)| {
                let heard = self.heard.of(&topic_of(device));
                let said = memory.acknowledged.lock();
                let lost: Vec<_> = said
                    .iter()
                    .filter(|number| heard.binary_search(number).is_err())
                    .collect();
                (!lost.is_empty()).then(|| format!("{}: {lost:?}", device.id))
            })
            .collect()
    }
}

/// What a device says things on.
fn topic_of(device: &Device) -> String {
    format!("P/{}/data", device.node)
}

async fn roll_out_under_faults(mut seed: u64, size: usize) {
    let mut cluster = Cluster::start(seed).await;
    let first = cluster.node(0);
    first.product("P", &Value::Null).await;
    let mut devices = Vec::new();
    for number in 0..size {
        devices.push(first.device("P", &format!("d{number}")).await);
    }
    let bound: Vec<_> = devices.iter().collect();
    let app = first.app("app", &bound).await;
    let bytes = content(SIZE);
    let resource = first.resource("P", "r", &bytes).await;
    let ids: Vec<_> = devices.iter().map(|device| device.id.clone()).collect();
    let crowd = Crowd {
        memories: devices.iter().map(|_| Arc::default()).collect(),
        heard: Arc::default(),
        devices,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let listener = Listener {
        site: cluster.site(),
        app,
        heard: Arc::clone(&crowd.heard),
        stop: Arc::clone(&stop),
    };
    let listening = listener.spawn(first).await;
    let silence = Arc::new(AtomicBool::new(false));
    let mut living = Vec::new();
    let site = Arc::new(cluster.site());
    for (device, memory) in crowd.devices.iter().zip(&crowd.memories) {
        let device = Living {
            site: Arc::clone(&site),
            device: device.clone(),
            memory: Arc::clone(memory),
            stop: Arc::clone(&silence),
        };
        living.push(device.spawn());
    }
    let body = json!({
        "resource_id": resource, "device_ids": ids,
        "policy": {"bytes_per_sec": SIZE * size / LENGTH_SECS, "max_in_progress": size * 2 / 3},
    });
    let made = cluster.node(1).post("/tasks", &body).await;
    let task = made["id"].as_str().expect("an id").to_owned();
    cluster.story.tell("the task is made");

    for fault in faults(&mut seed) {
        let index = next(&mut seed, 3);
        cluster.suffer(fault, index).await;
        sleep(Duration::from_millis(500)).await;
    }
    let node = cluster.node(2);
    let path = format!("/tasks/{task}");
    until_in(PATIENCE, "the end of the task", || async {
        let answer = node.api(Method::GET, &path, None).await;
        (answer.status == 200 && answer.ok(200)["run"] == "finished").then_some(())
    })
    .await;
    cluster.story.tell("the task is finished");
    // What is acknowledged from here on nobody would listen to: the devices end first.
    silence.store(true, Ordering::Relaxed);
    for device in living {
        device.await.expect("no panic");
    }
    wait_until_heard(&cluster, &crowd).await;
    stop.store(true, Ordering::Relaxed);
    listening.await.expect("no panic");
    judge(&cluster, &crowd, &bytes, &task).await;
}

/// Lets what was acknowledged come to the application. What does not come by itself comes on a new connection, which is
/// told.
async fn wait_until_heard(cluster: &Cluster, crowd: &Crowd) {
    let all_heard = || async {
        while !crowd.lost().is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    if timeout(DEVICE_PATIENCE * 3, all_heard()).await.is_err() {
        let late = format!("a new connection for {:?}", crowd.lost());
        cluster.story.tell(&late);
        crowd.heard.starts_over.store(true, Ordering::Relaxed);
        // What is lost is told below.
        let _lost = timeout(DEVICE_PATIENCE * 3, all_heard()).await;
    }
}

async fn judge(cluster: &Cluster, crowd: &Crowd, bytes: &[u8], task: &str) {
    let wrong = crowd.wrong(&cluster.story);
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (device, memory) in crowd.devices.iter().zip(&crowd.memories) {
        let same = *memory.have.lock() == bytes;
        assert!(same, "{}: the bytes differ", device.id);
    }
    let lost = crowd.lost();
    assert!(lost.is_empty(), "acknowledged, and not heard: {lost:#?}");
    let directory = cluster.node(2).data_dir.to_str().expect("UTF-8").to_owned();
    let of = task.to_owned();
    let judged =
        spawn_blocking(move || headgate(&["task", "check", &of, "--data-dir", &directory], &[]))
            .await
            .expect("no panic");
    let verdict = text(&judged.stdout);
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    let size = crowd.devices.len();
    let expected = format!("{size} delivered, 0 failed, 0 open");
    assert!(verdict.contains(&expected), "{verdict}");
    let count = |of: fn(&Memory) -> usize| crowd.memories.iter().map(|one| of(one)).sum::<usize>();
    let connections = count(|one| one.connections.load(Ordering::Relaxed));
    let spoken = count(|one| one.acknowledged.lock().len());
    cluster.story.tell(&format!(
        "{connections} connections, {spoken} messages acknowledged"
    ));
    assert!(connections >= size && spoken >= size);
}

/// `HEADGATE_FAULTS_SEED` has it run in another order, `HEADGATE_FAULTS_DEVICES` with more devices: `make faults`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_out_outlives_nodes_and_stores_that_fail() {
    let seed = std::env::var("HEADGATE_FAULTS_SEED").ok();
    let seed = seed
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x5eed_0001);
    let devices = std::env::var("HEADGATE_FAULTS_DEVICES").ok();
    let devices = devices.and_then(|count| count.parse().ok());
    roll_out_under_faults(seed, devices.unwrap_or(DEVICES)).await;
}
