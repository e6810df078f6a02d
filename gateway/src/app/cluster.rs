//! This node among others: its name, its lease, and who is told what other nodes say.

use std::{fs, io, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    start::StartError,
    stores::{Stores, registry_name},
};
use crate::{
    config::{
        Config, ShutdownConfig,
        data_dir::{DataDir, write_private},
    },
    model,
    service::{
        auth::{self, OperatorSessions},
        changes::{self, ChangeParts},
        cluster::Cluster,
        node::{Evacuation, Load, NodeService, Reload, host_name},
    },
    session::{CloseReason, Directory, Node, SessionTable},
    shutdown::Shutdown,
    store::{StoreError, registry::Registry, sessions::NodeEntry},
    telemetry::{health::Readiness, metrics::Metrics},
};

/// The file with what tells this data directory's node from others of its name.
const INSTANCE: &str = "node.instance";

/// Whether the stores are those of several nodes.
pub(super) fn is_cluster(config: &Config) -> bool {
    let url = config.sessions.url.as_ref();
    url.is_some_and(|url| url.expose().starts_with("redis"))
}

/// The node that this process is to be.
pub(super) fn entry(config: &Config, data_dir: &DataDir) -> Result<NodeEntry, StoreError> {
    let cluster = &config.cluster;
    Ok(NodeEntry {
        name: name(config),
        instance: instance(data_dir)?,
        lease: cluster.lease,
        inbox_messages: cluster.inbox_messages,
    })
}

fn name(config: &Config) -> String {
    config.cluster.node.clone().unwrap_or_else(host_name)
}

/// Of two processes with one name, the one that has the same data directory has died: its directory is locked.
fn instance(data_dir: &DataDir) -> Result<String, StoreError> {
    let path = data_dir.join(INSTANCE);
    let failed = |source| StoreError::Io {
        path: path.display().to_string(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let fresh: [u8; 16] = model::random()?;
    let text = hex::encode(fresh);
    let written = write_private(&path, text.as_bytes());
    written.map_err(|error| failed(io::Error::other(error)))?;
    Ok(text)
}

/// The service of nodes, and the cluster where there is one, whose lease is renewed from here on.
pub(super) async fn open(
    config: &Config,
    stores: &Stores,
    readiness: &Readiness,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(Option<Cluster>, NodeService, mpsc::Receiver<Reload>), StartError> {
    let cluster = stores.sessions.nodes().map(|store| {
        let settings = config.cluster.clone();
        Cluster::new(store, name(config), settings, readiness, metrics)
    });
    let (nodes, reloads) = NodeService::among(
        cluster.clone(),
        config.cluster.address.clone(),
        stores.registry.clone(),
        readiness.clone(),
        shutdown.clone(),
    );
    if let Some(cluster) = &cluster {
        let this = nodes.clone();
        let registry = stores.registry.clock().await?;
        cluster
            .start(move || this.record(), registry, shutdown)
            .await?;
    }
    Ok((cluster, nodes, reloads))
}

/// Who is connected to any node; this one answers the others.
fn directory(
    cluster: Option<&Cluster>,
    nodes: &NodeService,
    node: &Node,
    shutdown: &Shutdown,
) -> Directory {
    let (devices, applications) = (Arc::clone(&node.table), Arc::clone(&node.applications));
    let name = nodes.id().to_owned();
    let directory = Directory::new(name, devices, applications, cluster.cloned());
    directory.connect(shutdown);
    directory
}

/// Has others' words heard: everything that takes them is there. Gives who is connected, to any node.
///
/// # Errors
/// What the store says.
pub(super) async fn hear(
    (cluster, nodes, node, operators): (
        Option<&Cluster>,
        &NodeService,
        &Arc<Node>,
        &OperatorSessions,
    ),
    registry: &Registry,
    config: &ShutdownConfig,
    shutdown: &Shutdown,
) -> Result<Directory, StoreError> {
    let directory = directory(cluster, nodes, node, shutdown);
    let (table, applications) = (Arc::clone(&node.table), Arc::clone(&node.applications));
    nodes.connect_load(move || Load {
        devices: table.len(),
        applications: applications.count(),
    });
    let (sessions, tasks) = (Arc::clone(node), shutdown.clone());
    let usual_rate = config.disconnect_rate;
    nodes.connect_evacuation(move |evacuation| {
        let (node, stop) = (Arc::clone(&sessions), tasks.token().clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(evacuate(&node, evacuation, usual_rate))
                .await
        });
    });
    if let Some(cluster) = cluster {
        node.uplink.connect_cluster(cluster, shutdown);
        node.connect_cluster(cluster);
        let heard = ChangeParts {
            authenticator: node.authenticator.clone(),
            app_authenticator: node.app_authenticator.clone(),
            uplink: node.uplink.clone(),
            watch: Arc::<SessionTable>::clone(&node.table),
            registry: registry.clone(),
        };
        changes::connect(heard, cluster, shutdown);
        let key = registry_name(registry).await?;
        auth::share_logins(&node.authenticator, key.clone(), cluster, shutdown);
        operators.share(key, cluster, shutdown);
        cluster.spawn(shutdown);
        // Before the first device is let in, which may have something to say to them.
        node.uplink.ask_for_sessions().await?;
    }
    Ok(directory)
}

/// Tells some of this node's clients to go to another one, at a rate: devices, then applications.
async fn evacuate(node: &Node, evacuation: Evacuation, usual_rate: u32) {
    let rate = evacuation.per_second.unwrap_or(usual_rate);
    let per_tick = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
    let share = |count: usize| {
        count
            .saturating_mul(usize::from(evacuation.percent))
            .div_ceil(100)
    };
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (devices, applications) = (node.table.all(), node.applications.all());
    let (few_devices, few_applications) = (share(devices.len()), share(applications.len()));
    let devices = devices.get(..few_devices).unwrap_or_default();
    for sessions in devices.chunks(per_tick) {
        tick.tick().await;
        for session in sessions {
            session.close(CloseReason::Evacuated);
        }
    }
    let applications = applications.get(..few_applications).unwrap_or_default();
    for sessions in applications.chunks(per_tick) {
        tick.tick().await;
        for session in sessions {
            session.end(CloseReason::Evacuated);
        }
    }
}
