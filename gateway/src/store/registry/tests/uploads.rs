//! Uploads: quotas, the rule for names, references to blobs, pages.

use super::*;
use crate::model::{Upload, UploadPhase};

const LIMITS: UploadLimits = UploadLimits {
    max_count_per_device: 3,
    max_bytes_per_device: 1_000,
    max_count: 5,
    max_total_bytes: 1_500,
};

fn upload(fixture: &Fixture, device: &str, name: &str, size: u64) -> Upload {
    Upload {
        id: fixture.next_id(),
        device_id: device.parse().unwrap(),
        product_id: "meter".parse().unwrap(),
        node_id: "n".parse().unwrap(),
        name: name.to_owned(),
        version: 0,
        size,
        md5: Some([7; 16]),
        sha256: None,
        blob: None,
        created_at: at(5),
        finished_at: None,
    }
}

async fn announce(fixture: &Fixture, upload: &Upload, instead_of: Option<Id>) -> bool {
    let change = UploadChange::Announce {
        upload: upload.clone(),
        instead_of,
        limits: LIMITS,
    };
    match one(fixture, change).await {
        Ok(outcome) => outcome.found,
        Err(StoreError::Quota { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn one(fixture: &Fixture, change: UploadChange) -> Result<StoredUpload, StoreError> {
    let mut outcomes = fixture.change_uploads(&[change]).await.unwrap();
    outcomes.pop().unwrap()
}

async fn store(fixture: &Fixture, id: Id, blob: u8, content: u8, size: u64) -> StoredUpload {
    let version = version(blob, content, size);
    let change = UploadChange::Store {
        id,
        claim: 0,
        blob: version.blob,
        digests: version.digests,
        at: at(9),
    };
    one(fixture, change).await.unwrap()
}

async fn delete(fixture: &Fixture, id: Id) -> StoredUpload {
    let audit = Some(audit("upload.delete"));
    let change = UploadChange::Delete {
        id,
        claim: None,
        audit,
    };
    one(fixture, change).await.unwrap()
}

pub(super) async fn quotas_hold_per_device_and_in_all_and_a_refusal_holds_up_no_other() {
    let fixture = Fixture::new().await;
    let (first, large) = (
        upload(&fixture, "a", "x", 600),
        upload(&fixture, "a", "y", 401),
    );
    let small = upload(&fixture, "a", "z", 400);
    let changes = [&first, &large, &small].map(|upload| UploadChange::Announce {
        upload: upload.clone(),
        instead_of: None,
        limits: LIMITS,
    });
    let outcomes = fixture.change_uploads(&changes).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert!(matches!(
        outcomes[1],
        Err(StoreError::Quota {
            unit: "bytes",
            limit: 1_000
        })
    ));
    // What takes another's place counts for the difference; over all devices 1,500 bytes.
    let again = upload(&fixture, "a", "x", 599);
    assert!(announce(&fixture, &again, Some(first.id)).await);
    assert_eq!(fixture.upload(first.id).await.unwrap(), None);
    assert!(!announce(&fixture, &upload(&fixture, "b", "x", 502), None).await);
    assert!(announce(&fixture, &upload(&fixture, "b", "x", 501), None).await);
    assert!(delete(&fixture, again.id).await.found);
    assert!(!delete(&fixture, again.id).await.found, "once");
    assert!(announce(&fixture, &upload(&fixture, "c", "x", 599), None).await);
    for name in ["y", "z"] {
        let _taken = announce(&fixture, &upload(&fixture, "c", name, 0), None).await;
    }
    assert!(
        !announce(&fixture, &upload(&fixture, "d", "x", 0), None).await,
        "the sixth"
    );
}

pub(super) async fn a_stored_upload_takes_the_place_of_the_one_of_its_name() {
    let fixture = Fixture::new().await;
    let (first, second) = (
        upload(&fixture, "a", "x", 10),
        upload(&fixture, "a", "x", 10),
    );
    assert!(announce(&fixture, &first, None).await);
    let stored = store(&fixture, first.id, 1, 1, 10).await;
    assert_eq!((stored.found, stored.freed.len()), (true, 0));
    // It is stored: an announcement that meant it while it was not leaves it alone.
    assert!(announce(&fixture, &second, Some(first.id)).await);
    let known = fixture.upload(first.id).await.unwrap().unwrap();
    assert_eq!((known.phase(), known.version), (UploadPhase::Stored, 1));
    let replaced = store(&fixture, second.id, 2, 2, 10).await;
    assert_eq!(replaced.freed, [BlobId::from_random([1; 16])]);
    assert_eq!(fixture.upload(first.id).await.unwrap(), None);
    let found = fixture.stored_upload(&second.device_id, "x").await.unwrap();
    assert_eq!(
        found.map(|found| (found.id, found.version)),
        Some((second.id, 2))
    );
    assert!(
        !store(&fixture, first.id, 3, 3, 10).await.found,
        "it is gone"
    );
}

pub(super) async fn what_an_older_claim_wants_is_refused() {
    let fixture = Fixture::new().await;
    let upload = upload(&fixture, "a", "x", 10);
    assert!(announce(&fixture, &upload, None).await);
    let open = fixture.open_upload(upload.id).await.unwrap().unwrap();
    assert_eq!((open.claim, &open.upload), (0, &upload));
    assert_eq!(fixture.claim_upload(upload.id).await.unwrap(), Some(1));
    // The node before may neither store it, nor end it, nor say how far it is.
    assert!(!store(&fixture, upload.id, 1, 1, 10).await.found);
    let end = |claim| UploadChange::Delete {
        id: upload.id,
        claim: Some(claim),
        audit: None,
    };
    assert!(!one(&fixture, end(0)).await.unwrap().found);
    let notes = [(upload.id, 0, 7), (upload.id, 1, 5)];
    fixture.note_uploads(&notes).await.unwrap();
    let notes = fixture.upload_notes(&[upload.id]).await.unwrap();
    let note = notes[&upload.id];
    assert_eq!((note.claim, note.received), (1, 5));
    // Who noted something a moment ago has it.
    let long = std::time::Duration::from_mins(1);
    assert_eq!(fixture.abandoned_uploads(long, 9).await.unwrap(), []);
    let of_device = fixture.open_uploads_of(&upload.device_id).await.unwrap();
    assert_eq!(of_device.len(), 1);
    let version = version(1, 1, 10);
    let change = UploadChange::Store {
        id: upload.id,
        claim: 1,
        blob: version.blob,
        digests: version.digests,
        at: at(9),
    };
    assert!(one(&fixture, change.clone()).await.unwrap().found);
    // Told twice, since the first answer was lost: it stays as it is.
    assert!(!one(&fixture, change).await.unwrap().found);
    let stored = fixture.upload(upload.id).await.unwrap().unwrap();
    assert_eq!(stored.blob, Some(version.blob));
    assert_eq!(fixture.open_upload(upload.id).await.unwrap(), None);
    assert_eq!(fixture.claim_upload(upload.id).await.unwrap(), None);
    assert!(!one(&fixture, end(1)).await.unwrap().found, "it is stored");
}

pub(super) async fn equal_bytes_are_kept_once_whoever_has_them() {
    let fixture = Fixture::with_product("meter").await;
    let (first, second) = (
        upload(&fixture, "a", "x", 10),
        upload(&fixture, "b", "x", 10),
    );
    for upload in [&first, &second] {
        assert!(announce(&fixture, upload, None).await);
    }
    let blob = BlobId::from_random([1; 16]);
    assert_eq!(store(&fixture, first.id, 1, 1, 10).await.blob, Some(blob));
    assert_eq!(store(&fixture, second.id, 2, 1, 10).await.blob, Some(blob));
    assert!(delete(&fixture, first.id).await.freed.is_empty());
    assert_eq!(fixture.blobs().await.unwrap(), [blob]);
    assert_eq!(delete(&fixture, second.id).await.freed, [blob]);
    assert!(fixture.blobs().await.unwrap().is_empty());
}

pub(super) async fn lists_are_cut_by_what_is_asked_and_go_on_where_they_ended() {
    let fixture = Fixture::new().await;
    let limits = UploadLimits {
        max_count_per_device: 100,
        max_bytes_per_device: 100,
        max_count: 100,
        max_total_bytes: 100,
    };
    let mut ids = Vec::new();
    for number in 0..5_i64 {
        let mut upload = upload(&fixture, "a", &format!("n{number}"), 1);
        upload.created_at = at(number);
        ids.push(upload.id);
        let change = UploadChange::Announce {
            upload,
            instead_of: None,
            limits,
        };
        one(&fixture, change).await.unwrap();
    }
    store(&fixture, ids[0], 1, 1, 1).await;
    let of = |filter: UploadFilter| {
        let fixture = &fixture;
        async move {
            let page = fixture.uploads(&filter, &Page::default()).await.unwrap();
            page.items.iter().map(|item| item.id).collect::<Vec<_>>()
        }
    };
    let stored = UploadFilter {
        phase: Some(UploadPhase::Stored),
        ..UploadFilter::default()
    };
    assert_eq!(of(stored).await, [ids[0]]);
    let between = UploadFilter {
        since: Some(at(1)),
        until: Some(at(3)),
        product: Some("meter".parse().unwrap()),
        ..UploadFilter::default()
    };
    assert_eq!(of(between).await, [ids[2], ids[1]]);
    let first = Page::new(Some(3), None).unwrap();
    let first = fixture
        .uploads(&UploadFilter::default(), &first)
        .await
        .unwrap();
    let rest = Page::new(Some(3), first.next.clone()).unwrap();
    let rest = fixture
        .uploads(&UploadFilter::default(), &rest)
        .await
        .unwrap();
    let seen = first.items.iter().chain(&rest.items).map(|item| item.id);
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [ids[4], ids[3], ids[2], ids[1], ids[0]]
    );
    assert_eq!(fixture.open_uploads().await.unwrap().len(), 4);
    assert_eq!(
        fixture.uploads_stored_before(at(10), 9).await.unwrap(),
        [ids[0]]
    );
    assert!(
        fixture
            .uploads_stored_before(at(9), 9)
            .await
            .unwrap()
            .is_empty()
    );
}
