//! Stores that cannot be those of several nodes: said at the start, in a sentence, with exit code 78.

use std::fs;

use super::Stores;
use crate::harness::{Daemon, log_of};

type Settings = Vec<(&'static str, String)>;

/// Starts a gateway that is to refuse; gives what it said.
async fn refused(settings: &Settings) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut daemon = Daemon::start(&data_dir, &settings);
    let ended = daemon.ended().await;
    let said = fs::read_to_string(log_of(&data_dir)).expect("its log");
    assert_eq!(ended.code(), Some(78), "{said}");
    assert!(!said.contains("hunter"), "no secret: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_cannot_work_together_end_the_start_with_a_sentence() {
    let stores = Stores::start();
    let with = |name: &str, value: &str| -> Settings {
        let settings = stores.settings().into_iter();
        let changed = settings.map(|(key, before)| {
            let is_it = key == name;
            (key, if is_it { value.to_owned() } else { before })
        });
        changed.filter(|(_, value)| !value.is_empty()).collect()
    };
    let wrong = stores.database.replace("hunter2", "hunter3");
    let nowhere = stores.database.replace("registry0", "nowhere");
    let credentials = stores.redis.url_with("hunter3");
    for (name, value, sentence) in [
        // Half of it: the rest would be each node's own.
        ("HEADGATE__REGISTRY__URL", "", "needs registry.url"),
        ("HEADGATE__BLOBS__URL", "", "needs blobs.url"),
        ("HEADGATE__REGISTRY__URL", &wrong, "authentication failed"),
        ("HEADGATE__REGISTRY__URL", &nowhere, "does not exist"),
        (
            "HEADGATE__SESSIONS__URL",
            &credentials,
            "refuses these credentials",
        ),
        ("HEADGATE__BLOBS__URL", "s3://absent/x", "no such bucket"),
    ] {
        let said = refused(&with(name, value)).await;
        assert!(said.contains(sentence), "{name}: {said}");
    }
    // What belongs to another gateway, or throws away what it is to keep.
    stores
        .redis
        .command(&["SET", "{headgate}:owner", "somebody else"]);
    let said = refused(&stores.settings()).await;
    assert!(said.contains("belongs to another registry"), "{said}");
    stores.redis.command(&["FLUSHALL"]);
    stores
        .redis
        .command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
    stores.redis.command(&policy);
    let said = refused(&stores.settings()).await;
    assert!(said.contains("noeviction is needed"), "{said}");
    stores
        .redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    // Tables of a release to come.
    let newer = "UPDATE _sqlx_migrations SET version = 99 WHERE version = \
                 (SELECT MAX(version) FROM _sqlx_migrations)";
    stores.postgres.query(&stores.database, newer);
    let said = refused(&stores.settings()).await;
    assert!(said.contains("of version 99"), "{said}");
}
