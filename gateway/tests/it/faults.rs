//! A roll-out over three nodes whose nodes are killed and paused, and whose stores are cut off and slowed, in an order
//! that a seed gives: in the end every device has the bytes, once, and every history is in order.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use headgate::shutdown::Shutdown;
use headgate_protocol::mqtt::QoS;
use hyper::Method;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use super::{
    cli::{headgate, text},
    elsewhere::{Stores, equip},
    harness::{Client, Device, Gateway, Login, Proxy, Site, Target, chunk_of, content, until_in},
};

const NODES: usize = 3;
const DEVICES: usize = 24;
const SIZE: usize = 400_000;
/// Kinds of faults: [`Cluster::suffer`].
const KINDS: u64 = 5;
/// Faults of one run: each kind, and one of them again.
const FAULTS: u64 = KINDS + 1;
/// What a device waits for anything before it looks for another node.
const DEVICE_PATIENCE: Duration = Duration::from_secs(4);
/// The whole of a run.
const PATIENCE: Duration = Duration::from_secs(150);

/// Three nodes behind a balancer, with something to cut between them and their stores.
struct Cluster {
    stores: Stores,
    to_postgres: Proxy,
    to_redis: Proxy,
    balancer: Proxy,
    nodes: Vec<Option<Gateway>>,
}

impl Cluster {
    async fn start() -> Self {
        let stores = Stores::start();
        let to_postgres = Proxy::start(vec![socket_of(&stores.database)]).await;
        let redis = stores.redis.url();
        let (_, redis) = redis.rsplit_once('@').expect("an address");
        let redis = redis.parse().expect("an address");
        let to_redis = Proxy::start(vec![Target::Tcp(redis)]).await;
        let mut cluster = Self {
            balancer: Proxy::start(Vec::new()).await,
            stores,
            to_postgres,
            to_redis,
            nodes: Vec::new(),
        };
        for index in 0..NODES {
            let dir = tempfile::tempdir().expect("a directory");
            if index > 0 {
                equip(&cluster.node(0).data_dir, &dir.path().join("data"));
            }
            let node = cluster.run(index, dir).await;
            cluster.nodes.push(Some(node));
        }
        cluster.balance();
        cluster
    }

    fn node(&self, index: usize) -> &Gateway {
        self.nodes[index].as_ref().expect("it runs")
    }

    async fn run(&self, index: usize, dir: tempfile::TempDir) -> Gateway {
        let mut settings = self.stores.settings();
        for (name, value) in &mut settings {
            let proxy = match *name {
                "HEADGATE__REGISTRY__URL" => &self.to_postgres,
                "HEADGATE__SESSIONS__URL" => &self.to_redis,
                _ => continue,
            };
            *value = by_way_of(proxy, value);
        }
        settings.push(("HEADGATE__CLUSTER__NODE", format!("n{index}")));
        settings.push(("HEADGATE__CLUSTER__LEASE", "2s".to_owned()));
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Gateway::process(dir, &settings).await
    }

    fn balance(&self) {
        let nodes = self.nodes.iter().flatten();
        let addresses = nodes.filter_map(|node| node.ports.mqtts);
        self.balancer.lead_to(addresses.map(Target::Tcp).collect());
    }

    /// Where devices are let in, whichever node that is.
    fn site(&self) -> Site {
        self.node(0)
            .site_with(|site| site.ports.mqtts = Some(self.balancer.address()))
    }

    /// One fault of a kind, and its end.
    async fn suffer(&mut self, kind: u64, seed: &mut u64) {
        let index = usize::try_from(next(seed) % 3).expect("small");
        match kind {
            0 => {
                let node = self.nodes[index].take().expect("it runs");
                self.balance();
                let dir = node.kill().await;
                let node = self.run(index, dir).await;
                self.nodes[index] = Some(node);
                self.balance();
            }
            1 => {
                // Longer than its lease: others take what it had.
                self.node(index).signal(Signal::STOP);
                sleep(Duration::from_millis(3_500)).await;
                self.node(index).signal(Signal::CONT);
            }
            2 => {
                self.to_postgres.cut(true);
                sleep(Duration::from_millis(1_500)).await;
                self.to_postgres.mend();
            }
            3 => {
                self.to_redis.cut(true);
                sleep(Duration::from_millis(1_500)).await;
                self.to_redis.mend();
            }
            _ => {
                self.to_redis.delay(Duration::from_millis(100));
                self.to_postgres.delay(Duration::from_millis(100));
                sleep(Duration::from_secs(1)).await;
                self.to_redis.delay(Duration::ZERO);
                self.to_postgres.delay(Duration::ZERO);
            }
        }
    }
}

/// The socket of a database, from its address.
fn socket_of(database: &str) -> Target {
    let (_, host) = database.split_once("host=").expect("a host");
    let (directory, _) = host.split_once('&').expect("more");
    let directory = directory.replace("%2F", "/");
    Target::Unix(Path::new(&directory).join(".s.PGSQL.5432"))
}

/// A store's address for whoever goes there through a proxy.
fn by_way_of(proxy: &Proxy, url: &str) -> String {
    let (who, place) = url.split_once('@').expect("credentials");
    let path = place.split_once('/').map_or("", |(_, path)| path);
    let name = path.split('?').next().expect("a name");
    let plain = if url.starts_with("postgres") {
        "?sslmode=disable"
    } else {
        ""
    };
    let slash = if name.is_empty() { "" } else { "/" };
    format!("{who}@{}{slash}{name}{plain}", proxy.address())
}

/// The next of a row of numbers that look like chance.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 8
}

/// What a device knows, whatever becomes of its connections.
#[derive(Debug, Default)]
struct Memory {
    have: Mutex<Vec<u8>>,
    /// The gateway said that it knows that the device is done.
    is_done: AtomicBool,
    /// Announcements after that.
    told_again: AtomicUsize,
    /// Chunks that were not the bytes that came before, or left some out.
    wrong: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// Messages of its own that were acknowledged.
    spoken: AtomicU64,
}

impl Memory {
    /// Keeps bytes that came, which are those that it has where it has some; says whether it has all.
    fn take(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut have = self.have.lock();
        let at = usize::try_from(offset).expect("small");
        let Some(before) = have.get(at..) else {
            let gap = format!("{at} after {}", have.len());
            self.wrong.lock().push(gap);
            return false;
        };
        let known = before.len().min(bytes.len());
        if before[..known] != bytes[..known] {
            self.wrong.lock().push(format!("other bytes at {at}"));
            return false;
        }
        have.extend_from_slice(&bytes[known..]);
        have.len() == SIZE
    }
}

/// A device that comes again, wherever it is let in, until it has everything.
fn live(site: Site, device: Device, memory: Arc<Memory>, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let site = Arc::new(site);
    let tasks = Shutdown::new();
    let connections = tasks.clone();
    tasks.spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            memory.connections.fetch_add(1, Ordering::Relaxed);
            let (site, device) = (Arc::clone(&site), device.clone());
            let (of, stop) = (Arc::clone(&memory), Arc::clone(&stop));
            // What breaks a connection ends this task of it, as it ends a test elsewhere.
            let _broken = connections
                .spawn(async move { connected(&site, &device, &of, &stop).await })
                .await;
            sleep(Duration::from_millis(100)).await;
        }
    })
}

async fn connected(site: &Site, device: &Device, memory: &Memory, stop: &AtomicBool) {
    let opening = async {
        let mut client = Client::may_open(site, Arc::clone(&site.tls)).await?;
        let connack = client.introduce(&Login::of(device)).await;
        (!connack.reason.is_error()).then_some(client)
    };
    let Ok(Some(mut client)) = timeout(DEVICE_PATIENCE, opening).await else {
        return;
    };
    let topics = [device.down(), device.chunks()];
    let filters = [topics[0].as_str(), topics[1].as_str()];
    let listening = client.subscribe(&filters, QoS::AtLeastOnce);
    if timeout(DEVICE_PATIENCE, listening).await.is_err() {
        return;
    }
    let mut transfer = String::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(message) = timeout(DEVICE_PATIENCE, client.message()).await else {
            // Nothing came: it says something, to see whether there is anybody.
            let data = format!("{}/{}/data", device.product, device.node);
            match timeout(DEVICE_PATIENCE, client.publish(&data, b"x")).await {
                Ok(reason) if !reason.is_error() => {
                    memory.spoken.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                _ => return,
            }
        };
        if let Some((offset, bytes)) = chunk_of(&message) {
            let is_whole = memory.take(offset, bytes);
            if is_whole {
                let report = json!({
                    "type": "report_download_progress", "transfer": transfer,
                    "progress": {"state": "done", "percent": 100, "result_code": 0, "result_msg": ""},
                });
                client.tell(device, &report).await;
            }
            continue;
        }
        let message: Value = serde_json::from_slice(&message.payload).expect("JSON");
        match message["type"].as_str() {
            Some("download") => {
                if memory.is_done.load(Ordering::Relaxed) {
                    memory.told_again.fetch_add(1, Ordering::Relaxed);
                }
                transfer = message["transfer"].as_str().expect("an id").to_owned();
                let at = u64::try_from(memory.have.lock().len()).expect("small");
                if at == u64::try_from(SIZE).expect("small") {
                    let report = json!({
                        "type": "report_download_progress", "transfer": transfer,
                        "progress": {"state": "done", "percent": 100, "result_code": 0, "result_msg": ""},
                    });
                    client.tell(device, &report).await;
                } else {
                    client.want(device, &transfer, at, 8).await;
                }
            }
            Some("report_download_progress_rsp") if message["result_code"] == 0 => {
                memory.is_done.store(true, Ordering::Relaxed);
            }
            Some("transfer_error") => {
                sleep(Duration::from_millis(300)).await;
                return;
            }
            _ => {}
        }
    }
}

async fn roll_out_under_faults(mut seed: u64) {
    let mut cluster = Cluster::start().await;
    let first = cluster.node(0);
    first.product("P", &Value::Null).await;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(first.device("P", &format!("d{number}")).await);
    }
    let bytes = content(SIZE);
    let resource = first.resource("P", "r", &bytes).await;
    let ids: Vec<_> = devices.iter().map(|device| &device.id).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let memories: Vec<Arc<Memory>> = devices.iter().map(|_| Arc::default()).collect();
    let running: Vec<_> = devices
        .iter()
        .zip(&memories)
        .map(|(device, memory)| {
            live(
                cluster.site(),
                device.clone(),
                Arc::clone(memory),
                Arc::clone(&stop),
            )
        })
        .collect();
    let body = json!({
        "resource_id": resource, "device_ids": ids,
        "policy": {"bytes_per_sec": 900_000, "max_in_progress": 16},
    });
    let made = cluster.node(1).post("/tasks", &body).await;
    let task = made["id"].as_str().expect("an id").to_owned();

    let begun = Instant::now();
    // The number of kinds is prime: every step leads to each of them.
    let (first, step) = (next(&mut seed) % KINDS, 1 + next(&mut seed) % (KINDS - 1));
    for number in 0..FAULTS {
        let kind = (first + number * step) % KINDS;
        cluster.suffer(kind, &mut seed).await;
        sleep(Duration::from_millis(500)).await;
    }
    let node = cluster.node(2);
    until_in(PATIENCE, "the end of the task", || async {
        let path = format!("/tasks/{task}");
        let answer = node.api(Method::GET, &path, None).await;
        (answer.status == 200 && answer.ok(200)["run"] == "finished").then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let taken = begun.elapsed();

    for (device, memory) in devices.iter().zip(&memories) {
        assert!(
            *memory.have.lock() == bytes,
            "{}: the bytes differ",
            device.id
        );
        let wrong = memory.wrong.lock();
        assert!(wrong.is_empty(), "{}: {wrong:?}", device.id);
        let again = memory.told_again.load(Ordering::Relaxed);
        assert_eq!(
            again, 0,
            "{} was told again of what it had said to be done",
            device.id
        );
    }
    for one in running {
        let _ended = timeout(DEVICE_PATIENCE * 3, one).await;
    }
    let directory = cluster.node(2).data_dir.to_str().expect("UTF-8").to_owned();
    let of = task.clone();
    let judged =
        spawn_blocking(move || headgate(&["task", "check", &of, "--data-dir", &directory], &[]))
            .await
            .expect("no panic");
    let verdict = text(&judged.stdout);
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    assert!(
        verdict.contains(&format!("{DEVICES} delivered, 0 failed, 0 open")),
        "{verdict} after {taken:?}"
    );
    let spoken: u64 = memories
        .iter()
        .map(|memory| memory.spoken.load(Ordering::Relaxed))
        .sum();
    let connections: usize = memories
        .iter()
        .map(|memory| memory.connections.load(Ordering::Relaxed))
        .sum();
    assert!(
        connections >= DEVICES,
        "{connections} connections, {spoken} messages"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_out_outlives_nodes_and_stores_that_fail() {
    roll_out_under_faults(0x5eed_0001).await;
}
