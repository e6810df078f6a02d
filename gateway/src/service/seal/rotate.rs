//! A new sealing key: everything is sealed again with it, then the old one is dropped.
//!
//! The new key stands beside the old one, as `sealing.next`, until nothing is left that the old one sealed; then it takes
//! its place. Killed at any moment, what is there can be read with the two of them, by the gateway, too, and the next
//! rotation goes on where this one ended.

use std::{fs, path::Path};

use super::{KEY_SETTING, SealError, Sealer, create_key, next_key_path, sync_directory_of};
use crate::{
    model::Actor,
    store::registry::{Registry, SealedSecret},
};

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The id of the key that is used from now on.
    pub key_id: String,
    /// Secrets of devices that were sealed again.
    pub secrets: u64,
    /// Settings that were.
    pub settings: u64,
    /// Whether an earlier rotation that had not come to its end was carried on.
    pub resumed: bool,
}

/// Puts a new key in the place of the one at `path`. Nobody else may use the registry meanwhile.
///
/// `progress` is told of the secrets that were sealed again so far, after each block.
///
/// # Errors
/// [`SealError::File`] when there is no key yet; [`SealError::OtherKey`] and [`SealError::Broken`] when the keys that are
/// there do not open what is stored. Both keys are kept then.
pub async fn rotate(
    path: &Path,
    registry: &Registry,
    mut progress: impl FnMut(u64),
) -> Result<Rotated, SealError> {
    // A missing key is not made here: what it had sealed would be lost without a word.
    Sealer::read(path)?.bind(registry).await?;
    let next = next_key_path(path);
    let resumed = next.exists();
    if !resumed {
        create_key(&next)?;
    }
    let sealer = Sealer::read(path)?;
    let key_id = sealer.key_id();
    let mut secrets = 0;
    loop {
        let block = registry.secrets_under_other_keys(&key_id).await?;
        if block.is_empty() {
            break;
        }
        let again = block
            .iter()
            .map(|secret| again(&sealer, secret))
            .collect::<Result<Vec<_>, _>>()?;
        registry.replace_sealed(&key_id, &again).await?;
        secrets += again.len() as u64;
        progress(secrets);
    }
    let mut settings = Vec::new();
    for (name, value) in registry.settings().await? {
        if name == KEY_SETTING {
            settings.push((name, key_id.clone().into_bytes()));
        } else if sealer.is_sealed_before(&value) {
            let sealed = sealer.seal(&name, &sealer.open(&name, &value)?)?;
            settings.push((name, sealed));
        }
    }
    let count = settings.len() as u64 - 1;
    let audit = Actor::gateway().did("keys.rotate", &key_id, format!("{secrets} secrets"));
    registry.replace_settings(&settings, &audit).await?;
    let io = |source| SealError::File {
        path: path.display().to_string(),
        source,
    };
    fs::rename(&next, path).map_err(io)?;
    sync_directory_of(path)?;
    Ok(Rotated {
        key_id,
        secrets,
        settings: count,
        resumed,
    })
}

fn again(sealer: &Sealer, secret: &SealedSecret) -> Result<SealedSecret, SealError> {
    let opened = sealer.open(&secret.device_id, &secret.sealed)?;
    Ok(SealedSecret {
        device_id: secret.device_id.clone(),
        slot: secret.slot.clone(),
        sealed: sealer.seal(&secret.device_id, &opened)?,
    })
}

#[cfg(test)]
mod tests;
