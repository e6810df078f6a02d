//! Resources, versions, references to blobs and the quota.

use headgate_protocol::identity::ResourceName;

use super::*;
use crate::model::{Resource, RunState, StateCounts};

fn resource(fixture: &Fixture, name: &str, version: &NewVersion) -> Resource {
    Resource {
        id: fixture.next_id(),
        product_id: product("meter").id,
        name: ResourceName::new(name).unwrap(),
        description: String::new(),
        version: 1,
        size: version.digests.size,
        sha256: version.digests.sha256,
        md5: version.digests.md5,
        created_at: at(5),
        updated_at: at(5),
    }
}

async fn add(fixture: &Fixture, name: &str, version: &NewVersion) -> (Resource, BlobId) {
    let resource = resource(fixture, name, version);
    let blob = fixture
        .insert_resource(&resource, version, NO_LIMIT, &audit("resource.create"))
        .await
        .unwrap();
    (resource, blob)
}

pub(super) async fn resources_are_stored_and_read() {
    let fixture = Fixture::with_product("meter").await;
    let new = version(1, 7, 100);
    let (stored, blob) = add(&fixture, "固件-1", &new).await;
    assert_eq!(blob, new.blob);
    assert_eq!(
        fixture.resource(stored.id).await.unwrap(),
        Some(stored.clone())
    );
    let found = fixture
        .resource_by_name(&stored.product_id, &stored.name)
        .await
        .unwrap();
    assert_eq!(found, Some(stored.clone()));
    let read = fixture
        .resource_version(stored.id, 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.part_digests, new.digests.part_digests);
    assert_eq!((read.size, read.blob), (100, new.blob));
    assert_eq!(fixture.resource_version(stored.id, 2).await.unwrap(), None);
    assert!(fixture.has_blob(&blob).await.unwrap());
    let in_use = fixture
        .delete_product(&stored.product_id, &audit("x"))
        .await;
    assert!(matches!(in_use, Err(StoreError::InUse { .. })));
}

pub(super) async fn a_name_is_taken_once_in_a_product() {
    let fixture = Fixture::with_product("meter").await;
    let (first, _) = add(&fixture, "fw", &version(1, 1, 10)).await;
    let new = version(2, 2, 10);
    let again = resource(&fixture, "fw", &new);
    let refused = fixture
        .insert_resource(&again, &new, NO_LIMIT, &audit("x"))
        .await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict { with, .. }) if *with == format!("resource {}", first.id)),
        "{refused:?}"
    );
    assert!(!fixture.has_blob(&new.blob).await.unwrap());

    let (second, _) = add(&fixture, "fw2", &version(3, 3, 10)).await;
    let rename = ResourcePatch {
        name: Some(first.name.clone()),
        description: None,
        ..ResourcePatch::default()
    };
    let refused = fixture
        .patch_resource(second.id, &rename, at(6), &audit("x"))
        .await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    let same = fixture
        .patch_resource(first.id, &rename, at(6), &audit("x"))
        .await;
    assert_eq!(same.unwrap().updated_at, at(6));
}

pub(super) async fn equal_bytes_are_kept_once_until_the_last_goes() {
    let fixture = Fixture::with_product("meter").await;
    let (one, blob) = add(&fixture, "one", &version(1, 7, 10)).await;
    let (two, same) = add(&fixture, "two", &version(2, 7, 10)).await;
    assert_eq!(same, blob);
    assert_eq!(fixture.blobs().await.unwrap(), [blob]);
    assert_eq!(
        fixture.delete_resource(one.id, &audit("x")).await.unwrap(),
        []
    );
    assert!(fixture.has_blob(&blob).await.unwrap());
    assert_eq!(
        fixture.delete_resource(two.id, &audit("x")).await.unwrap(),
        [blob]
    );
    assert_eq!(fixture.blobs().await.unwrap(), []);
    let gone = fixture.delete_resource(two.id, &audit("x")).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}

pub(super) async fn the_quota_is_checked_with_the_change_and_counts_current_versions() {
    let fixture = Fixture::with_product("meter").await;
    let limits = QuotaLimits {
        max_count: 2,
        max_total_bytes: 100,
    };
    let (first, _) = add(&fixture, "one", &version(1, 1, 60)).await;
    let new = version(2, 2, 41);
    let refused = fixture
        .insert_resource(&resource(&fixture, "two", &new), &new, limits, &audit("x"))
        .await;
    assert!(matches!(
        refused,
        Err(StoreError::Quota {
            unit: "bytes",
            limit: 100
        })
    ));
    assert_eq!(
        fixture.resource_usage().await.unwrap(),
        Usage {
            count: 1,
            bytes: 60
        }
    );

    // The version that is replaced does not count any more.
    let (after, _) = fixture
        .insert_version(first.id, &version(3, 3, 100), limits, &audit("x"))
        .await
        .unwrap();
    assert_eq!((after.version, after.size), (2, 100));
    let refused = fixture
        .insert_version(first.id, &version(4, 4, 101), limits, &audit("x"))
        .await;
    assert!(matches!(
        refused,
        Err(StoreError::Quota { unit: "bytes", .. })
    ));
    assert_eq!(
        fixture.resource(first.id).await.unwrap().unwrap().version,
        2
    );

    fixture
        .insert_version(first.id, &version(5, 5, 1), limits, &audit("x"))
        .await
        .unwrap();
    add(&fixture, "two", &version(6, 6, 1)).await;
    let new = version(7, 7, 1);
    let refused = fixture
        .insert_resource(
            &resource(&fixture, "three", &new),
            &new,
            limits,
            &audit("x"),
        )
        .await;
    assert!(matches!(
        refused,
        Err(StoreError::Quota {
            unit: "resources",
            limit: 2
        })
    ));
}

pub(super) async fn old_versions_stay_while_a_task_delivers_them() {
    let fixture = Fixture::with_product("meter").await;
    let (resource, first) = add(&fixture, "fw", &version(1, 1, 10)).await;
    let task = tasks::task(&fixture, &resource);
    let deliveries = tasks::deliveries(&fixture, &task, 2);
    fixture.add_devices("meter", 2).await.unwrap();
    fixture
        .insert_task(&task, &deliveries, &audit("x"))
        .await
        .unwrap();
    let (resource, second) = fixture
        .insert_version(resource.id, &version(2, 2, 10), NO_LIMIT, &audit("x"))
        .await
        .unwrap();
    // The same bytes as version 1 again: one more reference to its blob.
    let (resource, third) = fixture
        .insert_version(resource.id, &version(3, 1, 10), NO_LIMIT, &audit("x"))
        .await
        .unwrap();
    assert_eq!(third, first);
    assert_eq!(
        fixture.resources_with_old_versions().await.unwrap(),
        [resource.id]
    );
    assert_eq!(fixture.purge_versions(resource.id).await.unwrap(), [second]);
    assert!(
        fixture
            .resource_version(resource.id, 1)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        fixture.resource_version(resource.id, 2).await.unwrap(),
        None
    );

    let in_use = fixture.delete_resource(resource.id, &audit("x")).await;
    assert!(
        matches!(&in_use, Err(StoreError::InUse { by, .. }) if *by == format!("task {}", task.id)),
        "{in_use:?}"
    );
    fixture
        .change_task_run(task.id, RunState::ALL, RunState::Finished, at(9), None)
        .await
        .unwrap();
    assert_eq!(fixture.purge_versions(resource.id).await.unwrap(), []);
    assert_eq!(
        fixture.resource_version(resource.id, 1).await.unwrap(),
        None
    );
    assert!(fixture.has_blob(&first).await.unwrap());
    assert_eq!(fixture.resources_with_old_versions().await.unwrap(), []);
    assert_eq!(
        fixture
            .delete_resource(resource.id, &audit("x"))
            .await
            .unwrap(),
        [first]
    );
    let counts = fixture.resource_statistics(resource.id).await.unwrap();
    assert_eq!(
        counts,
        StateCounts {
            pending: 2,
            ..StateCounts::default()
        }
    );
}

pub(super) async fn resources_are_listed_newest_first_and_filtered() {
    let fixture = Fixture::with_product("meter").await;
    for (index, name) in (1..).zip(["alpha", "beta", "gamma"]) {
        add(&fixture, name, &version(index, index, 10)).await;
    }
    let names = async |filter: ResourceFilter, limit| {
        let page = Page::new(Some(limit), None).unwrap();
        let found = fixture.resources(&filter, &page).await.unwrap();
        let names = found.items.iter().map(|r| r.name.to_string());
        (names.collect::<Vec<_>>(), found.next.is_some())
    };
    assert_eq!(
        names(ResourceFilter::default(), 2).await,
        (vec!["gamma".to_owned(), "beta".to_owned()], true)
    );
    let filter = ResourceFilter {
        product: Some(product("meter").id),
        text: Some("ET".to_owned()),
    };
    assert_eq!(names(filter, 5).await, (vec!["beta".to_owned()], false));
}
