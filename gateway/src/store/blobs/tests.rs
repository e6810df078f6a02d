//! Blobs in a real directory, and in a bucket of a real service.

#[path = "../../../tests/it/harness/s3.rs"]
mod s3;

use self::s3::S3;
use super::*;
use crate::{config::Secret, model::PART_BYTES};

/// What every store of blobs must do: each case in a directory, and in a bucket.
macro_rules! contract {
    ($($case:ident,)*) => {
        mod in_a_directory {
            $(#[tokio::test]
            async fn $case() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::BlobStore::open(dir.path()).await.unwrap();
                super::$case(store).await;
            })*
        }

        #[tokio::test]
        async fn a_bucket_does_the_same() {
            let service = S3::start();
            $($case(bucket(&service, stringify!($case), b"r").await.unwrap()).await;)*
        }
    };
}

contract! {
    what_is_written_is_read_in_any_range,
    what_is_larger_than_a_part_is_whole,
    nothing_is_visible_before_it_is_whole,
    a_write_that_was_cut_off_ends_the_writer,
    a_deleted_blob_is_gone_and_deleting_again_is_fine,
}

async fn bucket(service: &S3, prefix: &str, registry: &[u8]) -> Result<BlobStore, StoreError> {
    let endpoint = service.endpoint();
    let key = Secret::new("hunter2".to_owned());
    let bucket = Bucket {
        url: &format!("s3://firmware/a/{prefix}"),
        endpoint: Some(&endpoint),
        region: "us-east-1",
        access_key_id: Some("key"),
        secret_access_key: Some(&key),
    };
    BlobStore::open_bucket(&bucket, registry).await
}

#[tokio::test]
async fn a_prefix_belongs_to_one_registry() {
    let service = S3::start();
    let first = bucket(&service, "x", b"first").await.unwrap();
    let blob = write(&first, &content(10), 10).await;
    let refused = bucket(&service, "x", b"second").await;
    assert!(
        matches!(&refused, Err(StoreError::Refused(told)) if told.contains("another registry"))
    );
    let again = bucket(&service, "x", b"first").await.unwrap();
    assert_eq!(again.list().await.unwrap(), [blob.id]);
    let other = bucket(&service, "y", b"second").await.unwrap();
    assert_eq!(other.list().await.unwrap(), []);
    again.ping().await.unwrap();
    assert_eq!(again.adopt(Path::new("/etc/hostname")).unwrap(), None);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_in_a_sentence() {
    let service = S3::start();
    let endpoint = service.endpoint();
    let nowhere = Bucket {
        url: "s3://nowhere",
        endpoint: Some(&endpoint),
        region: "us-east-1",
        access_key_id: Some("key"),
        secret_access_key: Some(&Secret::new("hunter2".to_owned())),
    };
    let refused = BlobStore::open_bucket(&nowhere, b"r").await.unwrap_err();
    assert_eq!(refused.to_string(), "blobs: there is no such bucket");
    // One that knows nobody.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _asked = stream.read(&mut [0; 4_096]).unwrap();
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    });
    let endpoint = format!("http://{address}");
    let wrong = Bucket {
        endpoint: Some(&endpoint),
        ..nowhere
    };
    let refused = BlobStore::open_bucket(&wrong, b"r").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "blobs: the service refuses these credentials"
    );
    answering.join().unwrap();
}

#[tokio::test]
async fn a_service_that_hangs_is_no_answer() {
    let service = S3::start();
    let store = bucket(&service, "x", b"r").await.unwrap();
    service.signal(rustix::process::Signal::STOP);
    let span = Duration::from_millis(200);
    assert!(tokio::time::timeout(span, store.ping()).await.is_err());
    service.signal(rustix::process::Signal::CONT);
    store.ping().await.unwrap();
}

#[tokio::test]
async fn parts_of_an_object_that_was_given_up_are_removed() {
    let service = S3::start();
    let store = bucket(&service, "x", b"r").await.unwrap();
    for drop_it in [false, true] {
        let mut writer = store.writer().await.unwrap();
        writer.write(content(9 * 1024 * 1024)).await.unwrap();
        let parts = || service.ask("GET", "/firmware?uploads").unwrap();
        assert!(parts().contains("<UploadId>"), "{}", parts());
        let activity = writer.activity();
        if drop_it {
            drop(writer);
        } else {
            writer.abort().await.unwrap();
        }
        while activity.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!parts().contains("<UploadId>"), "{}", parts());
    }
    assert_eq!(store.list().await.unwrap(), []);
}

async fn what_is_larger_than_a_part_is_whole(store: BlobStore) {
    let bytes = content(20 * 1024 * 1024 + 3);
    let blob = write(&store, &bytes, 3_000_001).await;
    let size = bytes.len() as u64;
    assert!(store.read(&blob.id, 0..size).await.unwrap() == bytes);
    let around = 8 * 1024 * 1024 - 5..8 * 1024 * 1024 + 5;
    let read = store.read(&blob.id, around.clone()).await.unwrap();
    let [start, end] = [around.start, around.end].map(|at| usize::try_from(at).unwrap());
    assert!(read == bytes.slice(start..end));
    let sha256: [u8; 32] =
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&bytes)).into();
    assert_eq!(blob.digests.sha256, sha256);
}

fn content(len: usize) -> Bytes {
    (0..253_u8).cycle().take(len).collect()
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn write(store: &BlobStore, bytes: &Bytes, portion: usize) -> StoredBlob {
    let mut writer = store.writer().await.unwrap();
    for start in (0..bytes.len()).step_by(portion) {
        let end = bytes.len().min(start + portion);
        writer.write(bytes.slice(start..end)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

async fn what_is_written_is_read_in_any_range(store: BlobStore) {
    let bytes = content(3 * 1024 * 1024 + 17);
    let blob = write(&store, &bytes, 65_537).await;
    assert_eq!(blob.digests.size, bytes.len() as u64);
    assert_eq!(
        blob.digests.part_digests.len(),
        bytes.len().div_ceil(PART_BYTES) * 32
    );
    let size = bytes.len() as u64;
    for range in [0..size, 0..1, 15_360..30_720, size - 1..size, 5..5] {
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
        let read = store.read(&blob.id, range.clone()).await.unwrap();
        assert!(read == bytes.slice(start..end), "{range:?}");
    }
    assert!(store.read(&blob.id, size - 1..size + 1).await.is_err());
    assert!(store.read(&blob.id, size + 5..size + 9).await.is_err());
}

async fn nothing_is_visible_before_it_is_whole(store: BlobStore) {
    let mut writer = store.writer().await.unwrap();
    writer.write(content(2 * 1024 * 1024)).await.unwrap();
    assert_eq!(store.list().await.unwrap(), []);
    let id = writer.id();
    let error = store.read(&id, 0..1).await.unwrap_err();
    assert!(
        matches!(error, StoreError::NotFound { what: "blob" }),
        "{error}"
    );
    let blob = writer.finish().await.unwrap();
    assert_eq!(store.list().await.unwrap(), [blob.id]);
}

#[tokio::test]
async fn an_aborted_or_dropped_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).await.unwrap();
    for drop_it in [false, true] {
        let mut writer = store.writer().await.unwrap();
        writer.write(content(2 * 1024 * 1024)).await.unwrap();
        assert_eq!(files(dir.path()).len(), 1);
        if drop_it {
            drop(writer);
        } else {
            writer.abort().await.unwrap();
        }
        // A dropped writer's file is removed by a blocking thread.
        for _ in 0..200 {
            if files(dir.path()).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(files(dir.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_start_removes_what_a_killed_process_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).await.unwrap();
    let blob = write(&store, &content(10), 10).await;
    let left = dir.path().join(format!("{}#1", "ab".repeat(16)));
    std::fs::write(&left, b"half").unwrap();
    std::fs::write(dir.path().join("notes#1"), b"not ours").unwrap();
    let store = BlobStore::open(dir.path()).await.unwrap();
    assert!(!left.exists());
    assert!(dir.path().join("notes#1").exists());
    assert_eq!(store.list().await.unwrap(), [blob.id]);
}

async fn a_write_that_was_cut_off_ends_the_writer(store: BlobStore) {
    let mut writer = store.writer().await.unwrap();
    {
        let mut write = Box::pin(writer.write(content(9 * 1024 * 1024)));
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(write.as_mut().poll(&mut context).is_pending());
    }
    let again = writer.write(content(1)).await;
    assert!(matches!(again, Err(StoreError::Interrupted)));
    assert!(matches!(
        writer.finish().await,
        Err(StoreError::Interrupted)
    ));
    assert_eq!(store.list().await.unwrap(), []);
}

async fn a_deleted_blob_is_gone_and_deleting_again_is_fine(store: BlobStore) {
    let blob = write(&store, &content(10), 3).await;
    store.delete(&blob.id).await.unwrap();
    store.delete(&blob.id).await.unwrap();
    assert!(store.read(&blob.id, 0..1).await.is_err());
    assert_eq!(store.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_whole_file_becomes_a_blob_without_a_copy() {
    use std::os::unix::fs::MetadataExt as _;

    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(&dir.path().join("blobs")).await.unwrap();
    let file = dir.path().join("whole");
    let bytes = content(100_000);
    std::fs::write(&file, &bytes).unwrap();
    let id = store.adopt(&file).unwrap().unwrap();
    let blob = std::fs::metadata(dir.path().join("blobs").join(id.to_string())).unwrap();
    assert_eq!(blob.ino(), std::fs::metadata(&file).unwrap().ino());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(store.read(&id, 0..100_000).await.unwrap(), bytes);
    store.delete(&id).await.unwrap();
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_of_another_file_system_is_left_to_be_copied() {
    use std::os::unix::fs::MetadataExt as _;

    let dir = tempfile::tempdir().unwrap();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    if device(dir.path()) == device(other.path()) {
        return;
    }
    let store = BlobStore::open(dir.path()).await.unwrap();
    let file = other.path().join("whole");
    std::fs::write(&file, b"bytes").unwrap();
    assert_eq!(store.adopt(&file).unwrap(), None);
    assert!(store.list().await.unwrap().is_empty());
}
