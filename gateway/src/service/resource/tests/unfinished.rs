//! Uploads that are refused, cut off or dropped: what they leave.

use std::{io, time::Duration};

use futures_util::StreamExt as _;

use super::*;

#[tokio::test]
async fn a_body_that_is_not_what_was_announced_leaves_nothing() {
    let fixture = Fixture::new(limits(2_000_000, 10, 3_000_000)).await;
    let bytes = content(1, 1_500_000);
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let upload = async |expected: Expected, bytes: &Bytes| {
        let new = new("fw", expected);
        let result = fixture
            .service
            .upload(&fixture.actor, new, body(bytes))
            .await;
        fixture.files_settle_at(0).await;
        assert_eq!(fixture.registry.blobs().await.unwrap(), []);
        result.unwrap_err()
    };
    let size = |size| Expected {
        sha256: None,
        size: Some(size),
    };
    let wrong = Expected {
        sha256: Some([7; 32]),
        size: None,
    };
    let error = upload(wrong, &bytes).await;
    assert!(
        matches!(&error, ResourceError::DigestMismatch { expected, actual }
            if *expected == "07".repeat(32) && *actual == hex::encode(sha256)),
        "{error}"
    );
    let error = upload(size(1_500_001), &bytes).await;
    assert!(matches!(
        error,
        ResourceError::SizeMismatch {
            expected: 1_500_001,
            actual: 1_500_000
        }
    ));
    let error = upload(size(1_499_999), &bytes).await;
    assert!(matches!(
        error,
        ResourceError::SizeMismatch {
            expected: 1_499_999,
            ..
        }
    ));
    let error = upload(Expected::default(), &Bytes::new()).await;
    assert!(matches!(error, ResourceError::Invalid(i) if i.field == "content"));
    let error = upload(Expected::default(), &content(1, 2_000_001)).await;
    assert!(matches!(
        error,
        ResourceError::TooLarge { limit: 2_000_000 }
    ));
}

#[tokio::test]
async fn a_body_that_ends_early_or_is_dropped_leaves_nothing() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let broken = stream::iter([
        Ok(content(1, 2_000_000)),
        Err(io::Error::from(io::ErrorKind::ConnectionReset)),
    ]);
    let result = fixture
        .service
        .upload(&fixture.actor, new("fw", Expected::default()), broken)
        .await;
    assert!(matches!(result, Err(ResourceError::Body(_))));
    fixture.files_settle_at(0).await;

    let endless =
        stream::iter([Ok::<_, Infallible>(content(1, 2_000_000))]).chain(stream::pending());
    let upload = fixture
        .service
        .upload(&fixture.actor, new("fw", Expected::default()), endless);
    let cut = tokio::time::timeout(Duration::from_millis(200), upload).await;
    assert!(cut.is_err());
    fixture.files_settle_at(0).await;
    assert!(fixture.upload("fw", &content(1, 10)).await.is_ok());
}

#[tokio::test]
async fn an_upload_dropped_at_any_await_leaves_a_resource_or_nothing() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let bytes = content(9, 100_000);
    let mut dropped = 0;
    for turns in 1..200 {
        let name = format!("fw{turns}");
        let mut upload = Box::pin(fixture.upload(&name, &bytes));
        let mut is_done = false;
        for _ in 0..turns {
            if futures_util::poll!(&mut upload).is_ready() {
                is_done = true;
                break;
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        drop(upload);
        if is_done {
            break;
        }
        dropped += 1;
    }
    assert!(dropped > 3, "the upload was never dropped half-way");
    // The next uploads clear away what the dropped ones left.
    let mut uploads = 0;
    while uploads == 0 || !fixture.service.inner.strays.lock().is_empty() {
        uploads += 1;
        assert!(uploads < 400, "a dropped upload is never settled");
        let expected = Expected::default();
        let refused = new(&format!("none{uploads}"), expected);
        let empty = body(&Bytes::new());
        let refused = fixture.service.upload(&fixture.actor, refused, empty).await;
        assert!(matches!(refused, Err(ResourceError::Invalid(_))));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let known = fixture.registry.blobs().await.unwrap().len();
    fixture.files_settle_at(known).await;
    let resources = fixture
        .service
        .resources(&ResourceFilter::default(), &Page::default())
        .await
        .unwrap();
    for resource in resources.items {
        let version = fixture.service.version(resource.id, 1).await.unwrap();
        assert!(
            fixture
                .service
                .read(&version.blob, 0..resource.size)
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn concurrent_uploads_cannot_exceed_the_quota_together() {
    let fixture = Fixture::new(limits(1_000, 100, 2_500)).await;
    let contents: Vec<Bytes> = (0..10).map(|seed| content(seed, 1_000)).collect();
    let names: Vec<String> = (0..10).map(|index| format!("fw{index}")).collect();
    let uploads = names
        .iter()
        .zip(&contents)
        .map(|(name, bytes)| fixture.upload(name, bytes));
    let results = futures_util::future::join_all(uploads).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(
            matches!(error, ResourceError::QuotaExceeded { unit: "bytes", .. }),
            "{error}"
        );
    }
    fixture.files_settle_at(2).await;
    assert_eq!(
        fixture.registry.resource_usage().await.unwrap().bytes,
        2_000
    );
}

#[tokio::test]
async fn an_upload_of_unknown_size_stops_at_the_quota() {
    let fixture = Fixture::new(limits(1_000_000, 100, 100_000)).await;
    let result = fixture
        .service
        .upload(
            &fixture.actor,
            new("fw", Expected::default()),
            body(&content(1, 200_000)),
        )
        .await;
    assert!(matches!(
        result,
        Err(ResourceError::QuotaExceeded { unit: "bytes", .. })
    ));
    fixture.files_settle_at(0).await;
}

#[tokio::test]
async fn a_start_clears_what_a_killed_process_left() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let resource = fixture.upload("fw", &content(1, 1_000)).await.unwrap();
    let blobs = fixture.dir.path().join("blobs");
    std::fs::write(blobs.join("ab".repeat(16)), b"whole, but no resource's").unwrap();
    std::fs::write(blobs.join(format!("{}#1", "cd".repeat(16))), b"half").unwrap();
    let service = open(
        &fixture.registry,
        fixture.dir.path(),
        ResourceConfig::default(),
    )
    .await;
    assert_eq!(fixture.files().len(), 1);
    let version = service.version(resource.id, 1).await.unwrap();
    assert!(service.read(&version.blob, 0..1_000).await.is_ok());
}
