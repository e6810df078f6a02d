//! The registry on real databases: one contract, on SQLite and on PostgreSQL.

mod contract;
mod devices;
mod plans;
pub(crate) mod postgres;
mod records;
mod resources;
mod tasks;
mod uploads;

use self::contract::SERVER;
use super::*;
use crate::model::{Actor, AuditEntry, BlobId, Digests, Millis, Product, product::tests::product};

/// A registry on a database of its own.
struct Fixture {
    registry: Registry,
    place: Place,
}

/// Where the database is.
enum Place {
    File(tempfile::TempDir),
    Server(String),
}

impl Place {
    /// A file, or a database of the server that the contract runs on.
    fn new() -> Self {
        match SERVER.try_with(|server| server.database()) {
            Ok(url) => Self::Server(url),
            Err(_) => Self::File(tempfile::tempdir().unwrap()),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::File(dir) => sqlite_url(&dir.path().join("r.db")),
            Self::Server(url) => url.clone(),
        }
    }
}

impl std::ops::Deref for Fixture {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl Fixture {
    async fn new() -> Self {
        let place = Place::new();
        let registry = Registry::open(&place.url(), 2).await.unwrap();
        Self { registry, place }
    }

    fn url(&self) -> String {
        self.place.url()
    }

    /// With a product of the given id.
    async fn with_product(id: &str) -> Self {
        let fixture = Self::new().await;
        fixture.add_product(&product(id)).await;
        fixture
    }

    async fn add_product(&self, product: &Product) {
        self.insert_product(product, &audit("product.create"))
            .await
            .unwrap();
    }
}

fn audit(action: &'static str) -> AuditEntry {
    Actor::gateway().did(action, "x", "")
}

fn at(millis: i64) -> Millis {
    Millis::from_i64(millis)
}

fn version(blob: u8, content: u8, size: u64) -> NewVersion {
    NewVersion {
        blob: BlobId::from_random([blob; 16]),
        digests: Digests {
            size,
            sha256: [content; 32],
            md5: [content; 16],
            part_digests: bytes::Bytes::from(vec![content; 32]),
        },
        at: at(5),
    }
}

const NO_LIMIT: QuotaLimits = QuotaLimits {
    max_count: 1_000_000,
    max_total_bytes: u64::MAX,
};

#[tokio::test]
async fn a_path_may_hold_any_character() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b?c#d%e é.db");
    Registry::open(&sqlite_url(&path), 1).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn another_kind_of_database_is_refused_without_its_password() {
    let error = Registry::open("mysql://user:hunter2@host/db", 1)
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::Unsupported(scheme) if scheme == "mysql"));
    assert!(!error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn the_journal_is_a_wal_and_commits_reach_the_disk() {
    let fixture = Fixture::new().await;
    for (pragma, expected) in [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1)] {
        let value: i64 = sqlx::query_scalar(pragma)
            .fetch_one(&fixture.write)
            .await
            .unwrap();
        assert_eq!(value, expected, "{pragma}");
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&fixture.write)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
}
