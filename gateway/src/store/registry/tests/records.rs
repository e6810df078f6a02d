//! Products, settings, the audit trail, pages; and a database that is opened again.

use super::*;
use crate::model::{Confirm, InvalidPage, Paged};

pub(super) async fn a_database_is_opened_again_and_migrated_once() {
    let fixture = Fixture::with_product("meter").await;
    fixture.ping().await.unwrap();
    fixture.close().await;
    let url = fixture.url();
    let again = Registry::open(&url, 1).await.unwrap();
    assert_eq!(
        again.products(&Page::default()).await.unwrap().items.len(),
        1
    );
}

pub(super) async fn a_database_of_a_later_version_is_refused() {
    let fixture = Fixture::new().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1 = 1, $1, 0)",
    )
    .bind(vec![0_u8])
    .execute(&fixture.write)
    .await
    .unwrap();
    fixture.close().await;
    let url = fixture.url();
    let error = Registry::open(&url, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    assert!(error.to_string().contains("version 9999"), "{error}");
}

pub(super) async fn readers_cannot_write() {
    let fixture = Fixture::with_product("meter").await;
    let written = sqlx::query("DELETE FROM product")
        .execute(&fixture.read)
        .await;
    assert!(written.is_err());
}

pub(super) async fn products_are_stored_as_they_are() {
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
        .update_product(&stored, None, &audit("product.update"))
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
        fixture.update_product(&stored, None, &audit("x")).await,
    ] {
        assert!(matches!(
            result,
            Err(StoreError::NotFound { what: "product" })
        ));
    }
}

pub(super) async fn lists_go_from_page_to_page() {
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

pub(super) async fn a_change_and_its_audit_entry_are_one() {
    let fixture = Fixture::with_product("meter").await;
    let refused = fixture
        .insert_product(&product("meter"), &audit("refused"))
        .await;
    assert!(refused.is_err());
    fixture.record(&audit("operator.login")).await.unwrap();
    let entries = fixture
        .audit(&AuditFilter::default(), &Page::new(Some(1), None).unwrap())
        .await
        .unwrap();
    assert_eq!(entries.items[0].action, "operator.login");
    let next = Page::new(None, entries.next).unwrap();
    let entries = fixture.audit(&AuditFilter::default(), &next).await.unwrap();
    let actions: Vec<&str> = entries.items.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(actions, ["product.create"]);
}

pub(super) async fn a_cursor_of_another_list_is_refused() {
    let fixture = Fixture::with_product("meter").await;
    let products = fixture.products(&Page::default()).await.unwrap();
    let cursor = Paged::cut(vec![products.items[0].clone(); 2], 1, |p| p.id.to_string());
    let page = Page::new(None, cursor.next).unwrap();
    let refused = fixture
        .audit(&AuditFilter::default(), &page)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::Page(InvalidPage::Cursor)),
        "{refused}"
    );
}

pub(super) async fn settings_keep_their_first_value_or_are_set() {
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
