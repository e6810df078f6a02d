//! A gateway that keeps nothing on its machine but its key: another machine goes on where it ended.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::json;

use super::{
    harness::{Client, Gateway, Login, Postgres, Redis, S3, content, until},
    transfer::Scene,
};

const SIZE: usize = 1_000_000;

pub(super) struct Stores {
    pub(super) postgres: Postgres,
    pub(super) database: String,
    pub(super) redis: Redis,
    pub(super) s3: S3,
}

impl Stores {
    pub(super) fn start() -> Self {
        Self::with(Redis::start())
    }

    /// The same with a Redis of the test's own.
    pub(super) fn with(redis: Redis) -> Self {
        let postgres = Postgres::start();
        Self {
            database: postgres.database(),
            postgres,
            redis,
            s3: S3::start(),
        }
    }

    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HEADGATE__REGISTRY__URL", self.database.clone()),
            ("HEADGATE__SESSIONS__URL", self.redis.url()),
            ("HEADGATE__BLOBS__URL", "s3://firmware/gateway".to_owned()),
            ("HEADGATE__BLOBS__ENDPOINT", self.s3.endpoint()),
            ("HEADGATE__BLOBS__ACCESS_KEY_ID", "key".to_owned()),
            ("HEADGATE__BLOBS__SECRET_ACCESS_KEY", "hunter2".to_owned()),
            ("HEADGATE__DELIVERY__ANNOUNCE_DELAY", "20ms".to_owned()),
        ]
    }

    async fn gateway(&self, dir: tempfile::TempDir) -> Gateway {
        let settings = self.settings();
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Gateway::process(dir, &settings).await
    }
}

/// What a second machine is given of the first.
pub(super) fn equip(from: &Path, to: &Path) {
    for name in ["keys/sealing.key", "tls", "api.token"] {
        let (from, to) = (from.join(name), to.join(name));
        let files = if from.is_dir() {
            let entries = fs::read_dir(&from).expect("a directory");
            entries
                .map(|entry| entry.expect("an entry").file_name())
                .map(|name| (from.join(&name), to.join(&name)))
                .collect()
        } else {
            vec![(from, to)]
        };
        for (from, to) in files {
            fs::create_dir_all(to.parent().expect("a directory")).expect("made");
            fs::copy(from, to).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_goes_on_where_one_was_killed() {
    let stores = Stores::start();
    let bytes = content(SIZE);
    let gateway = stores
        .gateway(tempfile::tempdir().expect("a directory"))
        .await;
    let mut scene = Scene::in_gateway(gateway, &bytes).await;
    let transfer = scene.transfer().to_owned();
    let ask = json!({"type": "get_chunks", "transfer": transfer, "offset": 0, "count": 20});
    scene.client.tell(&scene.device, &ask).await;
    let mut have = Vec::new();
    scene.client.take_until(&mut have, 20 * 15_360).await;
    scene.client.ping().await;
    // How far it is is written down when its connection is gone.
    drop(scene.client);
    until("a checkpoint", || async {
        (stores.redis.command(&["HLEN", "{headgate}:cursor"]) == "1").then_some(())
    })
    .await;
    scene
        .gateway
        .delivery_in("delivering", &scene.task, &scene.device)
        .await;
    let next = tempfile::tempdir().expect("a directory");
    equip(&scene.gateway.data_dir, &next.path().join("data"));
    let first = scene.gateway.kill().await;
    assert!(!first.path().join("data/sessions.db").exists());

    let gateway = stores.gateway(next).await;
    let mut client = Client::listening(&gateway, &scene.device).await;
    let announced = client.announced().await;
    assert_eq!(announced.transfer, transfer);
    assert_eq!(announced.message["acked"], 20 * 15_360);
    let ask = json!({"type": "get_chunks", "transfer": transfer, "window": 16});
    client.tell(&scene.device, &ask).await;
    client.take_until(&mut have, SIZE).await;
    assert!(have == bytes, "the bytes differ");
    let receipt = client.report(&scene.device, &transfer, "done").await;
    assert_eq!(receipt["result_code"], 0, "{receipt}");
    let state = stores
        .postgres
        .query(&stores.database, "SELECT state FROM delivery");
    assert_eq!(state, "3");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_away_are_told_and_used_again_when_they_are_back() {
    let stores = Stores::start();
    let gateway = stores
        .gateway(tempfile::tempdir().expect("a directory"))
        .await;
    let [device] = gateway.devices(["d1"]).await;
    stores.redis.signal(Signal::STOP);
    until("not ready", || async {
        let told = gateway.ops("/readyz").await;
        (told.status == 503 && told.text().contains("sessions")).then_some(())
    })
    .await;
    stores.redis.signal(Signal::CONT);
    until("ready", || async {
        (gateway.ops("/readyz").await.status == 200).then_some(())
    })
    .await;
    let mut client = Client::log_in(&gateway, &Login::of(&device)).await;
    client.ping().await;
    gateway.stop().await;
}
