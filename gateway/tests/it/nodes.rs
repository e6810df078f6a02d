//! Several nodes of one gateway, each a process, on the same stores.

mod clients;
mod clock;
mod failures;
mod messages;
mod operators;
mod refused;
mod shared;
mod stores;
mod uploads;
mod wires;

use std::path::PathBuf;

use hyper::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::{
    elsewhere::{Stores, equip},
    harness::{Daemon, Gateway, until},
};

/// The stores, and the nodes that were started on them.
struct Cluster {
    stores: Stores,
    /// The first node's directory: what the others are equipped from.
    first: Option<PathBuf>,
}

impl Cluster {
    fn new() -> Self {
        Self {
            stores: Stores::start(),
            first: None,
        }
    }

    fn settings(&self, name: &str) -> Vec<(&'static str, String)> {
        let mut settings = self.stores.settings();
        settings.push(("HEADGATE__CLUSTER__NODE", name.to_owned()));
        settings.push(("HEADGATE__CLUSTER__LEASE", "2s".to_owned()));
        settings.push(("HEADGATE__WILL__AFTER_RESTART", "0s".to_owned()));
        settings.push(("HEADGATE__COAP__LISTEN", "127.0.0.1:0".to_owned()));
        settings
    }

    /// Has devices and applications be as if they had been made long ago: what is changed at about the time at which
    /// something is missed is taken for missed, too.
    fn age(&self) {
        for table in ["device", "application"] {
            let sql = format!("UPDATE {table} SET updated_at = updated_at - 60000");
            self.stores.postgres.query(&self.stores.database, &sql);
        }
    }

    async fn node(&mut self, name: &str) -> Gateway {
        self.node_with(name, &[]).await
    }

    /// A node with settings of the test's own.
    async fn node_with(&mut self, name: &str, more: &[(&'static str, String)]) -> Gateway {
        let dir = tempfile::tempdir().expect("a directory");
        match &self.first {
            Some(first) => equip(first, &dir.path().join("data")),
            None => self.first = Some(dir.path().join("data")),
        }
        let mut settings = self.settings(name);
        settings.extend(more.iter().cloned());
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        Gateway::process(dir, &settings).await
    }
}

/// The nodes that a node lists: their ids and states.
async fn listed(node: &Gateway) -> Vec<(String, String)> {
    let page = node.get("/nodes").await;
    let text = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
    let items = page["items"].as_array().expect("items");
    items
        .iter()
        .map(|node| (text(node, "id"), text(node, "state")))
        .collect()
}

/// Waits until a node says that another one has so many clients of a kind.
async fn has(node: &Gateway, other: &str, clients: &str, count: u64) {
    until("its clients", || async {
        let page = node.get("/nodes").await;
        let items = page["items"].as_array().expect("items");
        let found = items.iter().find(|one| one["id"] == other)?;
        (found[clients] == count).then_some(())
    })
    .await;
}

/// Waits until a node lists just these.
async fn lists(node: &Gateway, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(id, state)| ((*id).to_owned(), (*state).to_owned()))
        .collect();
    until("the list of nodes", || async {
        (listed(node).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_know_each_other_and_notice_who_is_gone() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    for node in [&a, &b] {
        lists(node, &[("a", "ready"), ("b", "ready")]).await;
    }
    a.metric_is("headgate_cluster_nodes", 2.0).await;
    // One name, two nodes: the second one is told so.
    let dir = tempfile::tempdir().expect("a directory");
    equip(&a.data_dir, &dir.path().join("data"));
    let settings = cluster.settings("b");
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let mut twice = Daemon::start(&dir.path().join("data"), &settings);
    assert_eq!(twice.ended().await.code(), Some(78));
    // An operator asks one node to have another one stop.
    let drained = a.api(Method::POST, "/nodes/b/drain", None).await;
    assert_eq!(drained.ok(202)["state"], "draining");
    b.ended().await;
    lists(&a, &[("a", "ready")]).await;
    // One that is killed is noticed, and its name is free at once for whoever starts in its place.
    let c = cluster.node("c").await;
    lists(&a, &[("a", "ready"), ("c", "ready")]).await;
    c.signal(Signal::STOP);
    lists(&a, &[("a", "ready")]).await;
    c.signal(Signal::CONT);
    lists(&a, &[("a", "ready"), ("c", "ready")]).await;
    c.metric_is("headgate_cluster_leases_lost_total", 1.0).await;
    let _dir = c.kill().await;
    lists(&a, &[("a", "ready")]).await;
    a.stop().await;
}
