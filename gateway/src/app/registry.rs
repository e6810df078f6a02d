//! The registry's tables, between two releases.

use super::{start::StartError, stores::registry_url};
use crate::{
    config::{Config, data_dir::DataDir},
    store::registry::Registry,
};

/// Brings the tables up to date while no gateway runs; says from which version (0: none) to which.
///
/// # Errors
/// [`StartError`]; nothing has changed then.
pub async fn migrate(config: &Config) -> Result<(i64, i64), StartError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    Ok(Registry::migrate(&registry_url(config, &data_dir)).await?)
}
