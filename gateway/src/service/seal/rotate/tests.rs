//! Rotations over a real registry, whole and cut off.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf};

use tokio::sync::Notify;

use super::*;
use crate::{
    model::{CredentialSlot, Millis, device::tests::device, product::tests::product},
    store::registry::{DeviceCredentials, SealedCredential, sqlite_url},
};

const DEVICES: u64 = 1_200;

struct Stage {
    registry: Registry,
    key: PathBuf,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// A registry with a secret for each device and a sealed setting.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = sqlite_url(&dir.path().join("r.db"));
        let registry = Registry::open(&url, 1).await.unwrap();
        let key = dir.path().join("sealing.key");
        let sealer = Sealer::open_or_create(&key).unwrap();
        sealer.bind(&registry).await.unwrap();
        let audit = || Actor::gateway().did("test", "", "");
        registry
            .insert_product(&product("meter"), &audit())
            .await
            .unwrap();
        for index in 0..DEVICES {
            let mut device = device("meter", &format!("n{index}"));
            device.created_at = Millis::now();
            let secrets = vec![SealedCredential {
                slot: CredentialSlot::Primary,
                key_id: sealer.key_id(),
                sealed: sealer
                    .seal(device.id.as_str(), secret(index).as_bytes())
                    .unwrap(),
            }];
            let credentials = DeviceCredentials {
                secrets,
                ..DeviceCredentials::default()
            };
            registry
                .insert_device(
                    &device,
                    &device.aliases(&product("meter")),
                    &credentials,
                    &audit(),
                )
                .await
                .unwrap();
        }
        for (name, value) in [
            ("some_key", sealer.seal("some_key", b"topsecret").unwrap()),
            ("plain", vec![1; 64]),
        ] {
            registry.setting_or_insert(name, &value).await.unwrap();
        }
        Self {
            registry,
            key,
            _dir: dir,
        }
    }

    /// Asserts that everything opens with the keys that are there; gives the id of the one that seals.
    async fn all_opens(&self) -> String {
        let sealer = Sealer::read(&self.key).unwrap();
        sealer.bind(&self.registry).await.unwrap();
        let names: Vec<String> = (0..DEVICES)
            .map(|index| format!("meter_n{index}"))
            .collect();
        let rows = self.registry.devices_by_alias(&names).await.unwrap();
        assert_eq!(rows.len() as u64, DEVICES);
        for (name, row) in rows {
            let index = name.trim_start_matches("meter_n").parse().unwrap();
            let opened = sealer.open(&name, row.primary.as_deref().unwrap()).unwrap();
            assert_eq!(*opened, secret(index).as_bytes());
        }
        let setting = self.registry.setting("some_key").await.unwrap().unwrap();
        assert_eq!(*sealer.open("some_key", &setting).unwrap(), b"topsecret");
        let plain = self.registry.setting("plain").await.unwrap().unwrap();
        assert_eq!(plain, [1; 64]);
        sealer.key_id()
    }

    fn next(&self) -> PathBuf {
        next_key_path(&self.key)
    }
}

fn secret(index: u64) -> String {
    format!("secret-{index}")
}

#[tokio::test]
async fn everything_is_sealed_again_and_the_old_key_is_gone() {
    let stage = Stage::new().await;
    let old = fs::read(&stage.key).unwrap();
    let before = stage.all_opens().await;
    let mut told = Vec::new();
    let rotated = rotate(&stage.key, &stage.registry, |so_far| told.push(so_far))
        .await
        .unwrap();
    assert_eq!(
        (rotated.secrets, rotated.settings, rotated.resumed),
        (DEVICES, 1, false)
    );
    assert_eq!(told, [500, 1_000, 1_200]);
    assert_eq!(stage.all_opens().await, rotated.key_id);
    assert_ne!(rotated.key_id, before);
    assert_ne!(fs::read(&stage.key).unwrap(), old);
    assert_eq!(fs::metadata(&stage.key).unwrap().mode() & 0o777, 0o600);
    assert!(!stage.next().exists());
    // Whoever still has the old key opens nothing.
    fs::write(&stage.key, old).unwrap();
    let lost = Sealer::read(&stage.key)
        .unwrap()
        .bind(&stage.registry)
        .await;
    assert!(matches!(lost, Err(SealError::OtherKey { .. })));
    let refused = rotate(&stage.key, &stage.registry, |_| ()).await;
    assert!(matches!(refused, Err(SealError::OtherKey { .. })));
    assert!(!stage.next().exists());
}

#[tokio::test]
async fn a_rotation_that_was_cut_off_is_read_with_both_keys_and_carried_on() {
    let stage = Stage::new().await;
    let block_done = Notify::new();
    tokio::select! {
        biased;
        () = block_done.notified() => {}
        _ = rotate(&stage.key, &stage.registry, |_| block_done.notify_one()) => unreachable!("cut off"),
    }
    assert!(stage.next().exists());
    let under_way = stage.all_opens().await;
    let rotated = rotate(&stage.key, &stage.registry, |_| ()).await.unwrap();
    assert!(rotated.resumed);
    assert!((1..DEVICES).contains(&rotated.secrets), "{rotated:?}");
    assert_eq!(rotated.key_id, under_way);
    assert_eq!(stage.all_opens().await, under_way);
    assert!(!stage.next().exists());
}

#[tokio::test]
async fn killed_between_the_registry_and_the_file_both_keys_still_open() {
    let stage = Stage::new().await;
    let old = fs::read(&stage.key).unwrap();
    rotate(&stage.key, &stage.registry, |_| ()).await.unwrap();
    fs::rename(&stage.key, stage.next()).unwrap();
    fs::write(&stage.key, &old).unwrap();
    fs::set_permissions(
        &stage.key,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let key_id = stage.all_opens().await;
    let rotated = rotate(&stage.key, &stage.registry, |_| ()).await.unwrap();
    assert_eq!(
        (rotated.secrets, rotated.settings, rotated.resumed),
        (0, 0, true)
    );
    assert_eq!(stage.all_opens().await, key_id);
}

#[tokio::test]
async fn without_a_key_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(&sqlite_url(&dir.path().join("r.db")), 1)
        .await
        .unwrap();
    let key = dir.path().join("sealing.key");
    let refused = rotate(&key, &registry, |_| ()).await;
    assert!(matches!(refused, Err(SealError::File { .. })));
    assert!(!key.exists() && !next_key_path(&key).exists());
}
