//! What the lists of the console cost: each reads the rows that it shows, by an index in its order.

use std::cell::RefCell;

use super::*;
use crate::{
    model::{DeliveryState, Paged, RunState, UploadPhase},
    store::registry::sql::MADE,
};

/// The plans of the statements that a list is made of.
async fn plans<T>(
    fixture: &Fixture,
    list: impl Future<Output = Result<T, StoreError>>,
) -> (T, String) {
    let asked = async {
        let found = list.await.unwrap();
        (found, MADE.with(RefCell::take))
    };
    let (found, statements) = MADE.scope(RefCell::default(), asked).await;
    assert!(!statements.is_empty(), "no statement was seen");
    let mut plan = String::new();
    for statement in statements {
        let text = format!("EXPLAIN QUERY PLAN {statement}");
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(text))
            .fetch_all(&fixture.write)
            .await
            .unwrap();
        for row in rows {
            plan.push_str(sqlx::Row::get::<&str, _>(&row, "detail"));
            plan.push('\n');
        }
    }
    (found, plan)
}

/// Fails unless a list, and its second page if it has one, is read by these indexes and never sorted.
async fn check<T, F>(fixture: &Fixture, name: &str, indexes: &[&str], list: impl Fn(Page) -> F)
where
    F: Future<Output = Result<Paged<T>, StoreError>>,
{
    let mut page = Page::new(Some(2), None).unwrap();
    for _ in 0..2 {
        let (found, plan) = plans(fixture, list(page.clone())).await;
        for index in indexes {
            assert!(plan.contains(index), "{name}: {index} is not in\n{plan}");
        }
        assert!(!plan.contains("TEMP B-TREE"), "{name} is sorted\n{plan}");
        let by_key = plan.lines().all(|line| {
            line.starts_with("SEARCH") || line.contains("USING") || !line.starts_with("SCAN")
        });
        assert!(by_key, "{name} reads a whole table\n{plan}");
        let Some(next) = found.next else { return };
        page.cursor = Some(next);
    }
}

async fn stage() -> Fixture {
    let fixture = Fixture::with_product("meter").await;
    fixture.add_devices("meter", 100).await.unwrap();
    sqlx::query("UPDATE device SET name = 'n' || id, enabled = node_id < 'n5'")
        .execute(&fixture.write)
        .await
        .unwrap();
    fixture
}

#[tokio::test]
async fn devices_are_listed_and_found_by_indexes() {
    let fixture = &stage().await;
    let none = DeviceFilter::default;
    let app = || Some("app".parse().unwrap());
    let meter = || Some("meter".parse().unwrap());
    let begins = |text: &str| Some(text.to_owned());
    let cases: [(&str, &[&str], DeviceFilter); 9] = [
        ("all", &["sqlite_autoindex_device_1"], none()),
        (
            "of a product",
            &["device_by_product"],
            DeviceFilter {
                product: meter(),
                ..none()
            },
        ),
        (
            "frozen",
            &["device_frozen"],
            DeviceFilter {
                enabled: Some(false),
                ..none()
            },
        ),
        (
            "frozen of a product",
            &["device_frozen"],
            DeviceFilter {
                enabled: Some(false),
                product: meter(),
                ..none()
            },
        ),
        (
            "of an application",
            &["sqlite_autoindex_app_device_1", "sqlite_autoindex_device_1"],
            DeviceFilter {
                app: app(),
                ..none()
            },
        ),
        (
            "that begin so",
            &["device_by_id_text (<expr>>? AND <expr><?)"],
            DeviceFilter {
                begins: begins("Meter_n1"),
                ..none()
            },
        ),
        (
            // Its second page begins in the second list.
            "that begin so at their node",
            &["device_by_node_text"],
            DeviceFilter {
                begins: begins("n1"),
                ..none()
            },
        ),
        (
            "that begin so, of a product",
            &[
                "device_by_id_text",
                "device_by_node_text",
                "device_by_name_text",
            ],
            DeviceFilter {
                begins: begins("x"),
                product: meter(),
                ..none()
            },
        ),
        (
            "that have such a name",
            &["device_by_name_text (<expr>>? AND <expr><?)"],
            DeviceFilter {
                begins: begins("nmeter"),
                ..none()
            },
        ),
    ];
    for (name, indexes, filter) in &cases {
        let list = async |page: Page| fixture.devices(filter, &page).await;
        check(fixture, name, indexes, list).await;
    }
}

#[tokio::test]
async fn every_device_that_begins_so_is_found_once() {
    let fixture = &stage().await;
    for (text, wanted) in [
        ("meter_n1", 11),
        ("N1", 11),
        ("nMETER", 100),
        ("x", 0),
        ("", 100),
    ] {
        let filter = DeviceFilter {
            begins: Some(text.to_owned()),
            ..DeviceFilter::default()
        };
        let mut page = Page::new(Some(3), None).unwrap();
        let mut found = Vec::new();
        loop {
            let part = fixture.devices(&filter, &page).await.unwrap();
            found.extend(part.items.into_iter().map(|device| device.id));
            let Some(next) = part.next else { break };
            page.cursor = Some(next);
        }
        let all = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!((all, found.len()), (wanted, wanted), "{text}");
    }
    for cursor in ["", "x", "9n\u{1f}m", "0n"] {
        let made = Paged::cut(vec![0, 1], 1, |_| cursor.to_owned());
        let page = Page::new(Some(3), made.next).unwrap();
        let filter = DeviceFilter {
            begins: Some("n".to_owned()),
            ..DeviceFilter::default()
        };
        let wrong = fixture.devices(&filter, &page).await;
        assert!(matches!(wrong, Err(StoreError::Page(_))), "{cursor}");
    }
}

#[tokio::test]
async fn tasks_deliveries_and_files_are_listed_by_indexes() {
    let fixture = &stage().await;
    let id = fixture.next_id();
    let tasks: [(&str, &[&str], TaskFilter); 4] = [
        ("tasks", &["sqlite_autoindex_task_1"], TaskFilter::default()),
        (
            "tasks in a state",
            &["task_by_run"],
            TaskFilter {
                run: Some(RunState::Running),
                ..TaskFilter::default()
            },
        ),
        (
            "tasks of a product",
            &["task_by_product"],
            TaskFilter {
                product: Some("meter".parse().unwrap()),
                ..TaskFilter::default()
            },
        ),
        (
            "tasks of a resource",
            &["task_by_resource"],
            TaskFilter {
                resource: Some(id),
                ..TaskFilter::default()
            },
        ),
    ];
    for (name, indexes, filter) in &tasks {
        let list = async |page: Page| fixture.tasks(filter, &page).await;
        check(fixture, name, indexes, list).await;
    }
    let by_task = &["delivery_by_task"][..];
    for state in [None, Some(DeliveryState::Failed)] {
        let list = async |page: Page| fixture.deliveries(id, state, &page).await;
        check(fixture, "deliveries of a task", by_task, list).await;
    }
    let device = "meter_n1".parse().unwrap();
    let list = async |page: Page| fixture.deliveries_to(&device, &page).await;
    check(
        fixture,
        "deliveries to a device",
        &["delivery_by_device"],
        list,
    )
    .await;
    let (_, plan) = plans(fixture, fixture.resource_statistics(id)).await;
    assert_eq!(
        plan.trim(),
        "SEARCH task USING INDEX task_by_resource (resource_id=?)"
    );
    let (_, plan) = plans(fixture, fixture.task(id)).await;
    assert!(
        !plan.contains("delivery"),
        "the counts are the task's\n{plan}"
    );
    let none = UploadFilter::default;
    let uploads: [(&str, &[&str], UploadFilter); 4] = [
        (
            "files of a device",
            &["device_resource_by_device"],
            UploadFilter {
                device: Some(device.clone()),
                ..none()
            },
        ),
        (
            "files of a product",
            &["device_resource_by_product"],
            UploadFilter {
                product: Some("meter".parse().unwrap()),
                ..none()
            },
        ),
        (
            "files of a name",
            &["device_resource_by_name"],
            UploadFilter {
                name: Some("log".to_owned()),
                ..none()
            },
        ),
        (
            "files that are coming",
            &["device_resource_open"],
            UploadFilter {
                phase: Some(UploadPhase::Receiving),
                ..none()
            },
        ),
    ];
    for (name, indexes, filter) in &uploads {
        let list = async |page: Page| fixture.uploads(filter, &page).await;
        check(fixture, name, indexes, list).await;
    }
}

#[tokio::test]
async fn the_audit_is_listed_by_indexes() {
    let fixture = &stage().await;
    let none = AuditFilter::default;
    let some = |text: &str| Some(text.to_owned());
    let cases: [(&str, &[&str], AuditFilter); 6] = [
        ("all", &["sqlite_autoindex_audit_1"], none()),
        (
            "by someone",
            &["audit_by_actor"],
            AuditFilter {
                actor: some("admin"),
                ..none()
            },
        ),
        (
            "to something",
            &["audit_by_subject"],
            AuditFilter {
                subject: some("x"),
                ..none()
            },
        ),
        (
            "of an action",
            &["audit_by_action"],
            AuditFilter {
                action: some("device.freeze"),
                ..none()
            },
        ),
        (
            "of a noun",
            &["audit_by_noun"],
            AuditFilter {
                action: some("device"),
                ..none()
            },
        ),
        (
            "of a time",
            &["sqlite_autoindex_audit_1 (id>? AND id<?)"],
            AuditFilter {
                since: Some(Millis::now()),
                until: Some(Millis::now()),
                ..none()
            },
        ),
    ];
    for (name, indexes, filter) in &cases {
        let list = async |page: Page| fixture.audit(filter, &page).await;
        check(fixture, name, indexes, list).await;
    }
}
