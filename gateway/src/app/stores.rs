//! Opening the stores that the configuration names.
//!
//! Invariants: what another gateway's registry belongs to is refused before anything is written to it.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::cluster;
use crate::{
    config::{Config, Secret, data_dir::DataDir},
    model,
    store::{
        StoreError,
        blobs::{BlobStore, Bucket},
        registry::{Registry, sqlite_url},
        sessions::SessionStore,
    },
};

/// Name of the registry's setting by which other stores know whose they are.
const REGISTRY_NAME: &str = "registry_name";

/// The stores, open.
pub(super) struct Stores {
    pub(super) registry: Registry,
    pub(super) sessions: SessionStore,
    pub(super) blobs: BlobStore,
}

/// All of them.
pub(super) async fn open_stores(config: &Config, data_dir: &DataDir) -> Result<Stores, StoreError> {
    let registry = open_registry(config, data_dir).await?;
    Ok(Stores {
        blobs: open_blobs(config, data_dir, &registry).await?,
        sessions: open_sessions(config, data_dir, &registry).await?,
        registry,
    })
}

/// The name by which other stores know whose they are.
pub(super) async fn registry_name(registry: &Registry) -> Result<Vec<u8>, StoreError> {
    let fresh: [u8; 16] = model::random()?;
    let name = hex::encode(fresh);
    registry
        .setting_or_insert(REGISTRY_NAME, name.as_bytes())
        .await
}

async fn open_sessions(
    config: &Config,
    data_dir: &DataDir,
    registry: &Registry,
) -> Result<SessionStore, StoreError> {
    let sessions = &config.sessions;
    let url = sessions.url.as_ref().map_or("", Secret::expose);
    if !url.starts_with("redis") {
        let path = store_path(sessions.url.as_ref(), data_dir, "sessions.db");
        return SessionStore::open(&path).await;
    }
    let name = registry_name(registry).await?;
    let node = cluster::entry(config, data_dir)?;
    SessionStore::open_redis(url, &sessions.prefix, &name, node).await
}

async fn open_blobs(
    config: &Config,
    data_dir: &DataDir,
    registry: &Registry,
) -> Result<BlobStore, StoreError> {
    let blobs = &config.blobs;
    let url = blobs.url.as_ref().map(Secret::expose);
    let Some(url) = url.filter(|url| url.starts_with("s3://")) else {
        return BlobStore::open(&store_path(blobs.url.as_ref(), data_dir, "blobs")).await;
    };
    let bucket = Bucket {
        url,
        endpoint: blobs.endpoint.as_deref(),
        region: &blobs.region,
        access_key_id: blobs.access_key_id.as_deref(),
        secret_access_key: blobs.secret_access_key.as_ref(),
    };
    BlobStore::open_bucket(&bucket, &registry_name(registry).await?).await
}

/// The registry alone.
pub(super) async fn open_registry(
    config: &Config,
    data_dir: &DataDir,
) -> Result<Registry, StoreError> {
    let url = registry_url(config, data_dir);
    let read_connections = config.registry.read_connections;
    if cluster::is_cluster(config) {
        return Registry::open_shared(&url, read_connections).await;
    }
    Registry::open(&url, read_connections).await
}

/// The registry's address, which may carry a password.
pub(super) fn registry_url(config: &Config, data_dir: &DataDir) -> Zeroizing<String> {
    match &config.registry.url {
        Some(url) if !url.expose().starts_with("sqlite:") => {
            Zeroizing::new(url.expose().to_owned())
        }
        url => Zeroizing::new(sqlite_url(&store_path(
            url.as_ref(),
            data_dir,
            "registry.db",
        ))),
    }
}

/// Where a store is kept, whose address the configuration has checked to be a local one.
fn store_path(url: Option<&Secret>, data_dir: &DataDir, name: &str) -> PathBuf {
    url.map_or_else(
        || data_dir.join(name),
        |url| {
            let url = url.expose();
            PathBuf::from(url.split_once("://").map_or(url, |(_, path)| path))
        },
    )
}
