//! What only PostgreSQL can do wrong: who may come in, what is found there, and a server that goes away.

#[path = "../../../../tests/it/harness/postgres.rs"]
pub(crate) mod server;

use std::time::Duration;

use self::server::Postgres;
use super::*;

async fn refused(url: &str) -> String {
    match Registry::open(url, 1).await {
        Err(StoreError::Refused(sentence)) => {
            assert!(!sentence.contains("hunter2"), "{sentence}");
            sentence
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_in_a_sentence() {
    let server = Postgres::start();
    let url = server.database();
    assert_eq!(
        refused(&server.url("headgate", "hunter2hunter2", "registry0")).await,
        "registry: PostgreSQL refused: password authentication failed for user \"headgate\""
    );
    assert_eq!(
        refused(&server.url("headgate", "hunter2", "nowhere")).await,
        "registry: PostgreSQL refused: database \"nowhere\" does not exist"
    );
    server.query(
        "postgres",
        "CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    );
    let told = refused(&server.url("headgate", "hunter2", "old")).await;
    assert_eq!(
        told,
        "registry: the database's encoding is LATIN1: UTF8 is needed"
    );

    let registry = Registry::open(&url, 1).await.unwrap();
    assert_eq!(
        refused(&url).await,
        "registry: another gateway is at work on this database: stop it, or give each a database of its own"
    );
    registry.close().await;

    // Tables of another release.
    let newest = server.query(&url, "SELECT MAX(version) FROM _sqlx_migrations");
    let sql = format!("UPDATE _sqlx_migrations SET version = 99 WHERE version = {newest}");
    server.query(&url, &sql);
    let told = refused(&url).await;
    assert!(
        told.contains("of version 99 and this headgate knows"),
        "{told}"
    );
    server.query(
        &url,
        "UPDATE _sqlx_migrations SET checksum = '' WHERE version = 1",
    );
    let sql = format!("UPDATE _sqlx_migrations SET version = {newest} WHERE version = 99");
    server.query(&url, &sql);
    let told = refused(&url).await;
    assert!(told.contains("made by another build"), "{told}");
}

#[tokio::test]
async fn tables_of_an_older_release_are_changed_when_somebody_says_so() {
    let server = Postgres::start();
    let url = server.database();
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&url).await.unwrap();
    let older = migrations::migrator(Dialect::Postgres, 6);
    older.run(&pool).await.unwrap();
    pool.close().await;
    let told = refused(&url).await;
    assert!(told.contains("run `headgate registry migrate`"), "{told}");
    let (before, after) = Registry::migrate(&url).await.unwrap();
    assert_eq!((before, after), (6, migrations::NEWEST));
    Registry::open(&url, 1).await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_no_answer() {
    let server = Arc::new(Postgres::start());
    let fixture = SERVER.scope(Arc::clone(&server), Fixture::new()).await;
    server.signal(rustix::process::Signal::STOP);
    let waited = tokio::time::timeout(Duration::from_millis(200), fixture.ping()).await;
    assert!(waited.is_err());
    server.signal(rustix::process::Signal::CONT);
    fixture.ping().await.unwrap();
}

#[tokio::test]
async fn a_server_that_went_away_is_used_again_when_it_is_back() {
    let server = Arc::new(Postgres::start());
    let fixture = SERVER
        .scope(Arc::clone(&server), Fixture::with_product("meter"))
        .await;
    fixture.ping().await.unwrap();
    server.query(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'registry0'",
    );
    // What was running is lost; what comes then finds new connections, and the lock.
    let again = async || {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while fixture.add_again().await.is_err() || fixture.ping().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "never again");
            tokio::task::yield_now().await;
        }
    };
    again().await;
    // So after a crash, from which the server starts with what was committed.
    server.crash();
    again().await;
    assert!(refused(&fixture.url()).await.contains("another gateway"));
}

impl Fixture {
    async fn add_again(&self) -> Result<(), StoreError> {
        self.record(&audit("again")).await
    }
}
