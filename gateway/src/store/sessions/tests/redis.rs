//! What only Redis can do wrong: who may come in, what is found there, and two gateways at once.

#[path = "../../../../tests/it/harness/redis.rs"]
pub(super) mod server;

use std::sync::Arc;

use self::server::Redis;
use super::*;

async fn refused(url: &str, prefix: &str) -> String {
    match SessionStore::open_redis(url, prefix, b"r").await {
        Err(StoreError::Refused(sentence)) => {
            assert!(!sentence.contains("hunter"), "{sentence}");
            sentence
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_in_a_sentence() {
    let server = Redis::start();
    assert_eq!(
        refused(&server.url_with("hunter3"), "h").await,
        "sessions: Redis refuses these credentials"
    );
    let other = SessionStore::open_redis(&server.url(), "h", b"another").await;
    other.unwrap();
    assert!(
        refused(&server.url(), "h")
            .await
            .contains("belongs to another registry")
    );
    server.command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(
        refused(&server.url(), "x")
            .await
            .contains("noeviction is needed")
    );
}

#[tokio::test]
async fn the_gateway_that_came_last_is_the_one_that_writes() {
    let server = Redis::start();
    let first = SessionStore::open_redis(&server.url(), "h", b"r")
        .await
        .unwrap();
    let mail = message("d1", "x");
    let batch = Batch {
        mail: vec![(id(1), &mail, at(10))],
        ..Batch::default()
    };
    first.commit(&batch).await.unwrap();
    let second = SessionStore::open_redis(&server.url(), "h", b"r")
        .await
        .unwrap();
    let batch = Batch {
        mail: vec![(id(2), &mail, at(10))],
        ..Batch::default()
    };
    assert!(matches!(
        first.commit(&batch).await,
        Err(StoreError::Fenced)
    ));
    assert!(matches!(first.ping().await, Err(StoreError::Fenced)));
    second.ping().await.unwrap();
    let device = &mail.device.device_id;
    let found = second.mail(device, None, 10, at(1)).await.unwrap();
    assert_eq!(found.len(), 1);
    // A server that was restarted empty takes nothing, and says so.
    server.command(&["FLUSHALL"]);
    assert!(second.commit(&batch).await.is_err());
    assert!(matches!(second.ping().await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_server_that_hangs_is_no_answer_and_is_used_again() {
    let server = Redis::start();
    let store = SessionStore::open_redis(&server.url(), "h", b"r")
        .await
        .unwrap();
    server.signal(rustix::process::Signal::STOP);
    let span = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(span, store.ping()).await.is_err());
    server.signal(rustix::process::Signal::CONT);
    store.ping().await.unwrap();
    // Nor is a connection that was cut of any harm.
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while store.save_cursors(&[]).await.is_err() || store.ping().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "never again");
    }
}

#[tokio::test]
async fn every_key_is_on_one_slot_and_an_idle_session_is_small() {
    let server = Arc::new(Redis::start());
    let fixture = SERVER.scope(Arc::clone(&server), Fixture::new()).await;
    let before: u64 = memory(&server);
    for number in 1..=2_000 {
        let claim = Claim {
            key: SessionKey::Device(format!("P_d{number}").parse().unwrap()),
            id: id(number),
            is_clean: false,
            expiry_secs: 100,
        };
        fixture.claim(&claim).await.unwrap();
    }
    let each = (memory(&server) - before) / 2_000;
    assert!(each < 1_024, "{each} bytes for each session");
    let keys = server.command(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.starts_with('{')), "{keys}");
}

fn memory(server: &Redis) -> u64 {
    let info = server.command(&["INFO", "memory"]);
    let mut lines = info.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("used_memory:"));
    bytes.unwrap().trim().parse().unwrap()
}
