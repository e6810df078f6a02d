//! `headgate keys rotate`: a new sealing key, with the gateway stopped.

use crate::{
    app::{start::StartError, stores::open_registry},
    config::{Config, data_dir::DataDir},
    service::seal::{self, Rotated},
};

/// Seals everything again with a new key.
///
/// `progress` is told how many secrets were sealed again so far.
///
/// # Errors
/// [`StartError`]; a gateway that runs on the data directory is one, and nothing was changed then. After any other the
/// same command goes on where this one ended.
pub async fn rotate(config: &Config, progress: impl FnMut(u64)) -> Result<Rotated, StartError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let registry = open_registry(config, &data_dir).await?;
    let key = data_dir.join(SEALING_KEY);
    let rotated = seal::rotate(&key, &registry, progress).await;
    registry.close().await;
    Ok(rotated?)
}

/// The sealing key, below the data directory.
pub(super) const SEALING_KEY: &str = "keys/sealing.key";
