//! The registry on real SQLite files.

mod devices;
mod resources;
mod tasks;
mod uploads;

use super::*;
use crate::model::{
    Actor, AuditEntry, BlobId, Confirm, Digests, Millis, Paged, Product, product::tests::product,
};

/// A registry in a directory of its own.
struct Fixture {
    registry: Registry,
    dir: tempfile::TempDir,
}

impl std::ops::Deref for Fixture {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&sqlite_url(&dir.path().join("r.db")), 2)
            .await
            .unwrap();
        Self { registry, dir }
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
async fn a_database_is_opened_again_and_migrated_once() {
    let fixture = Fixture::with_product("meter").await;
    fixture.ping().await.unwrap();
    fixture.close().await;
    let url = sqlite_url(&fixture.dir.path().join("r.db"));
    let again = Registry::open(&url, 1).await.unwrap();
    assert_eq!(
        again.products(&Page::default()).await.unwrap().items.len(),
        1
    );
}

#[tokio::test]
async fn a_path_may_hold_any_character() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b?c#d%e é.db");
    Registry::open(&sqlite_url(&path), 1).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn another_kind_of_database_is_refused_without_its_password() {
    let error = Registry::open("postgres://user:hunter2@host/db", 1)
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::Unsupported(scheme) if scheme == "postgres"));
    assert!(!error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused() {
    let fixture = Fixture::new().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, $1, 0)",
    )
    .bind(vec![0_u8])
    .execute(&fixture.write)
    .await
    .unwrap();
    fixture.close().await;
    let url = sqlite_url(&fixture.dir.path().join("r.db"));
    let error = Registry::open(&url, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Migration(_)), "{error}");
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

#[tokio::test]
async fn readers_cannot_write() {
    let fixture = Fixture::with_product("meter").await;
    let written = sqlx::query("DELETE FROM product")
        .execute(&fixture.read)
        .await;
    assert!(written.is_err());
}

#[tokio::test]
async fn products_are_stored_as_they_are() {
    let fixture = Fixture::new().await;
    let mut stored = product("meter");
    stored.topic_policy.publish.push("x/{device}".to_owned());
    stored.trust_done = true;
    stored.reachable_after_uplink_secs = Some(10);
    stored.confirm = Confirm::Acked;
    fixture.add_product(&stored).await;
    assert_eq!(
        fixture.product(&stored.id).await.unwrap(),
        Some(stored.clone())
    );

    stored.name = "Water".to_owned();
    stored.reachable_after_uplink_secs = None;
    stored.updated_at = at(9);
    fixture
        .update_product(&stored, &audit("product.update"))
        .await
        .unwrap();
    assert_eq!(
        fixture.product(&stored.id).await.unwrap(),
        Some(stored.clone())
    );

    let again = fixture
        .insert_product(&stored, &audit("product.create"))
        .await;
    assert!(matches!(
        again,
        Err(StoreError::Conflict {
            what: "product id",
            ..
        })
    ));
    fixture
        .delete_product(&stored.id, &audit("product.delete"))
        .await
        .unwrap();
    assert_eq!(fixture.product(&stored.id).await.unwrap(), None);
    for result in [
        fixture.delete_product(&stored.id, &audit("x")).await,
        fixture.update_product(&stored, &audit("x")).await,
    ] {
        assert!(matches!(
            result,
            Err(StoreError::NotFound { what: "product" })
        ));
    }
}

#[tokio::test]
async fn lists_go_from_page_to_page() {
    let fixture = Fixture::new().await;
    for id in ["a", "b", "c", "d", "e"] {
        fixture.add_product(&product(id)).await;
    }
    let mut seen = Vec::new();
    let mut page = Page::new(Some(2), None).unwrap();
    loop {
        let part = fixture.products(&page).await.unwrap();
        assert!(part.items.len() <= 2);
        seen.extend(part.items.into_iter().map(|product| product.id.to_string()));
        let Some(next) = part.next else { break };
        page.cursor = Some(next);
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_change_and_its_audit_entry_are_one() {
    let fixture = Fixture::with_product("meter").await;
    let refused = fixture
        .insert_product(&product("meter"), &audit("refused"))
        .await;
    assert!(refused.is_err());
    fixture.record(&audit("operator.login")).await.unwrap();
    let entries = fixture
        .audit(&Page::new(Some(1), None).unwrap())
        .await
        .unwrap();
    assert_eq!(entries.items[0].action, "operator.login");
    let next = Page::new(None, entries.next).unwrap();
    let entries = fixture.audit(&next).await.unwrap();
    let actions: Vec<&str> = entries.items.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(actions, ["product.create"]);
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let fixture = Fixture::with_product("meter").await;
    let products = fixture.products(&Page::default()).await.unwrap();
    let cursor = Paged::cut(vec![products.items[0].clone(); 2], 1, |p| p.id.to_string());
    let page = Page::new(None, cursor.next).unwrap();
    let refused = fixture.audit(&page).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::Page(InvalidPage::Cursor)),
        "{refused}"
    );
}

#[tokio::test]
async fn settings_keep_their_first_value_or_are_set() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.setting("k").await.unwrap(), None);
    assert_eq!(fixture.setting_or_insert("k", b"1").await.unwrap(), b"1");
    assert_eq!(fixture.setting_or_insert("k", b"2").await.unwrap(), b"1");
    fixture.set_setting("k", b"3").await.unwrap();
    assert_eq!(
        fixture.setting("k").await.unwrap().as_deref(),
        Some(&b"3"[..])
    );
}
