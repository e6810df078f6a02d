//! Three nodes behind a balancer, with something to cut between each of them and its stores.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use crate::{
    elsewhere::{Stores, equip},
    harness::{Gateway, Proxy, Redis, Site, Target, log_of},
};

const NODES: usize = 3;
/// How long a node's lease lasts.
const LEASE: &str = "2s";
/// Longer than that: others take what a node had that is away for so long.
const AWAY: Duration = Duration::from_millis(3_500);
/// How long a store is away.
const SHORT: Duration = Duration::from_millis(1_500);

/// What is done to the cluster, each with its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A node is killed, and started again.
    NodeKilled,
    /// A node stands still for longer than its lease.
    NodePaused,
    /// A node reaches none of its stores for longer than its lease, while devices reach it.
    NodeCutOff,
    RegistryCutOff,
    /// The database dies with what it had not written, and starts again.
    RegistryCrashed,
    SessionsCutOff,
    /// Redis is killed, and starts again with what it kept.
    SessionsCrashed,
    BlobsAway,
    StoresSlow,
}

impl Fault {
    pub(super) const ALL: [Self; 9] = [
        Self::NodeKilled,
        Self::NodePaused,
        Self::NodeCutOff,
        Self::RegistryCutOff,
        Self::RegistryCrashed,
        Self::SessionsCutOff,
        Self::SessionsCrashed,
        Self::BlobsAway,
        Self::StoresSlow,
    ];
}

/// What happened, told last.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) seed: u64,
    begun: Instant,
    events: Mutex<Vec<(Instant, String)>>,
}

impl Story {
    pub(super) fn tell(&self, what: &str) {
        self.tell_at(Instant::now(), what);
    }

    pub(super) fn tell_at(&self, when: Instant, what: &str) {
        self.events.lock().push((when, what.to_owned()));
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.begun.elapsed().as_secs_f64();
        writeln!(f, "seed {:#x}, {seconds:.1} s in all:", self.seed)?;
        let mut events = self.events.lock();
        events.sort_by_key(|(when, _)| *when);
        events.iter().try_for_each(|(when, what)| {
            let seconds = when.duration_since(self.begun).as_secs_f64();
            writeln!(f, "  {seconds:>7.3} s  {what}")
        })
    }
}

/// What one node goes through to its stores.
struct Ways {
    registry: Proxy,
    sessions: Proxy,
    blobs: Proxy,
}

impl Ways {
    fn each(&self, act: impl Fn(&Proxy)) {
        [&self.registry, &self.sessions, &self.blobs]
            .into_iter()
            .for_each(act);
    }
}

pub(super) struct Cluster {
    pub(super) story: Story,
    stores: Stores,
    ways: Vec<Ways>,
    balancer: Proxy,
    nodes: Vec<Option<Gateway>>,
    directories: Vec<PathBuf>,
}

impl Cluster {
    pub(super) async fn start(seed: u64) -> Self {
        // What it said to have stored is on the disk, so that a crash loses nothing.
        let keeps = ["--appendonly", "yes", "--appendfsync", "always"];
        let stores = Stores::with(Redis::with(&keeps));
        let redis = stores.redis.url();
        let (_, redis) = redis.rsplit_once('@').expect("an address");
        let redis = Target::Tcp(redis.parse().expect("an address"));
        let blobs = stores.s3.endpoint();
        let blobs = blobs.trim_start_matches("http://");
        let blobs = Target::Tcp(blobs.parse().expect("an address"));
        let mut ways = Vec::new();
        for _ in 0..NODES {
            ways.push(Ways {
                registry: Proxy::start(vec![socket_of(&stores.database)]).await,
                sessions: Proxy::start(vec![redis.clone()]).await,
                blobs: Proxy::start(vec![blobs.clone()]).await,
            });
        }
        let story = Story {
            seed,
            begun: Instant::now(),
            events: Mutex::default(),
        };
        let mut cluster = Self {
            story,
            balancer: Proxy::start(Vec::new()).await,
            stores,
            ways,
            nodes: Vec::new(),
            directories: Vec::new(),
        };
        for index in 0..NODES {
            let dir = tempfile::tempdir().expect("a directory");
            if index > 0 {
                equip(&cluster.node(0).data_dir, &dir.path().join("data"));
            }
            let node = cluster.run(index, dir).await;
            cluster.directories.push(node.data_dir.clone());
            cluster.nodes.push(Some(node));
        }
        cluster.balance();
        cluster.story.tell("three nodes run");
        cluster
    }

    pub(super) fn node(&self, index: usize) -> &Gateway {
        self.nodes[index].as_ref().expect("it runs")
    }

    async fn run(&self, index: usize, dir: TempDir) -> Gateway {
        let ways = &self.ways[index];
        let mut settings = self.stores.settings();
        for (name, value) in &mut settings {
            *value = match *name {
                "HEADGATE__REGISTRY__URL" => by_way_of(&ways.registry, value),
                "HEADGATE__SESSIONS__URL" => by_way_of(&ways.sessions, value),
                "HEADGATE__BLOBS__ENDPOINT" => format!("http://{}", ways.blobs.address()),
                _ => continue,
            };
        }
        settings.push(("HEADGATE__CLUSTER__NODE", format!("n{index}")));
        settings.push(("HEADGATE__CLUSTER__LEASE", LEASE.to_owned()));
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
    pub(super) fn site(&self) -> Site {
        self.node(0)
            .site_with(|site| site.ports.mqtts = Some(self.balancer.address()))
    }

    /// One fault, and its end; a node, where it is about one, is this one.
    pub(super) async fn suffer(&mut self, fault: Fault, index: usize) {
        self.story.tell(&format!("{fault:?}, n{index}"));
        match fault {
            Fault::NodeKilled => {
                let node = self.nodes[index].take().expect("it runs");
                self.balance();
                let dir = node.kill().await;
                let node = self.run(index, dir).await;
                self.nodes[index] = Some(node);
                self.balance();
            }
            Fault::NodePaused => {
                self.node(index).signal(Signal::STOP);
                sleep(AWAY).await;
                self.node(index).signal(Signal::CONT);
            }
            Fault::NodeCutOff => {
                self.ways[index].each(|way| way.cut(true));
                sleep(AWAY).await;
                self.ways[index].each(Proxy::mend);
            }
            Fault::RegistryCutOff => {
                self.ways.iter().for_each(|ways| ways.registry.cut(true));
                sleep(SHORT).await;
                self.ways.iter().for_each(|ways| ways.registry.mend());
            }
            Fault::RegistryCrashed => block_in_place(|| self.stores.postgres.crash()),
            Fault::SessionsCutOff => {
                self.ways.iter().for_each(|ways| ways.sessions.cut(true));
                sleep(SHORT).await;
                self.ways.iter().for_each(|ways| ways.sessions.mend());
            }
            Fault::SessionsCrashed => block_in_place(|| self.stores.redis.restart(true)),
            Fault::BlobsAway => {
                self.stores.s3.signal(Signal::STOP);
                sleep(SHORT).await;
                self.stores.s3.signal(Signal::CONT);
            }
            Fault::StoresSlow => {
                let slow = Duration::from_millis(100);
                for delay in [slow, Duration::ZERO] {
                    self.ways
                        .iter()
                        .for_each(|ways| ways.each(|way| way.delay(delay)));
                    sleep(SHORT).await;
                }
            }
        }
        self.story.tell("mended");
    }
}

impl Drop for Cluster {
    #[expect(
        clippy::print_stderr,
        reason = "a test's output: what was done, and why it failed"
    )]
    fn drop(&mut self) {
        if thread::panicking() {
            for (index, directory) in self.directories.iter().enumerate() {
                let log = fs::read_to_string(log_of(directory)).unwrap_or_default();
                let telling: Vec<_> = log
                    .lines()
                    .filter(|line| line.contains("WARN") || line.contains("ERROR"))
                    .collect();
                let last = &telling[telling.len().saturating_sub(20)..];
                eprintln!("n{index} said last:\n{}", last.join("\n"));
            }
        }
        eprintln!("{}", self.story);
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
pub(crate) fn by_way_of(proxy: &Proxy, url: &str) -> String {
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
