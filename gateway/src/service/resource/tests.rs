//! Uploads against a real registry and a real directory of blobs.

mod unfinished;

use std::{convert::Infallible, path::Path};

use futures_util::{Stream, stream};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    model::{CreationState, Role, RunState, Task, TaskPolicy, product::tests::product},
    store::registry::{AuditFilter, sqlite_url},
};

struct Fixture {
    service: ResourceService,
    registry: Registry,
    actor: Actor,
    dir: tempfile::TempDir,
}

impl Fixture {
    async fn new(limits: ResourceConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&sqlite_url(&dir.path().join("r.db")), 2)
            .await
            .unwrap();
        let actor = Actor::new("ann".to_owned(), Role::Operator);
        let entry = actor.did("product.create", "meter", "");
        registry
            .insert_product(&product("meter"), &entry)
            .await
            .unwrap();
        let service = open(&registry, dir.path(), limits).await;
        Self {
            service,
            registry,
            actor,
            dir,
        }
    }

    async fn upload(&self, name: &str, bytes: &Bytes) -> Result<Resource, ResourceError> {
        let expected = Expected {
            sha256: None,
            size: Some(bytes.len() as u64),
        };
        self.service
            .upload(&self.actor, new(name, expected), body(bytes))
            .await
    }

    /// Names of the files in the blob directory.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("blobs")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Waits for the files that blocking threads remove after a writer was dropped.
    async fn files_settle_at(&self, count: usize) {
        for _ in 0..400 {
            if self.files().len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?} instead of {count} files", self.files());
    }
}

async fn open(registry: &Registry, dir: &Path, limits: ResourceConfig) -> ResourceService {
    let blobs = BlobStore::open(&dir.join("blobs")).await.unwrap();
    ResourceService::open(registry.clone(), blobs, limits)
        .await
        .unwrap()
}

fn limits(max_size_bytes: u64, max_count: u64, max_total_bytes: u64) -> ResourceConfig {
    ResourceConfig {
        max_size_bytes,
        max_count,
        max_total_bytes,
    }
}

fn new(name: &str, expected: Expected) -> NewResource {
    NewResource {
        product_id: ProductId::new("meter").unwrap(),
        name: ResourceName::new(name).unwrap(),
        description: "d".to_owned(),
        expected,
    }
}

fn content(seed: u8, len: usize) -> Bytes {
    (0..251_u8)
        .cycle()
        .map(|byte| byte ^ seed)
        .take(len)
        .collect()
}

fn body(bytes: &Bytes) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let parts: Vec<_> = bytes
        .chunks(65_536)
        .map(Bytes::copy_from_slice)
        .map(Ok)
        .collect();
    stream::iter(parts)
}

/// A body that must not be asked.
fn untouched() -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::poll_fn(|_| panic!("the body was read"))
}

#[tokio::test]
async fn an_upload_becomes_a_resource_with_its_digests() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let bytes = content(1, 3_000_000);
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let expected = Expected {
        sha256: Some(sha256),
        size: None,
    };
    let resource = fixture
        .service
        .upload(&fixture.actor, new("fw", expected), body(&bytes))
        .await
        .unwrap();
    assert_eq!(
        (resource.version, resource.size, resource.sha256),
        (1, 3_000_000, sha256)
    );
    assert_eq!(
        fixture.service.resource(resource.id).await.unwrap(),
        resource
    );
    let version = fixture.service.version(resource.id, 1).await.unwrap();
    assert_eq!(
        version.part_digests.len(),
        3_000_000_usize.div_ceil(61_440) * 32
    );
    let read = fixture
        .service
        .read(&version.blob, 61_440..122_880)
        .await
        .unwrap();
    assert_eq!(
        <[u8; 32]>::from(Sha256::digest(&read)),
        version.part_digests[32..64]
    );
    assert_eq!(
        fixture
            .service
            .statistics(resource.id)
            .await
            .unwrap()
            .total(),
        0
    );
}

#[tokio::test]
async fn what_can_be_refused_without_the_body_is() {
    let fixture = Fixture::new(limits(1_000, 2, 1_500)).await;
    fixture.upload("one", &content(1, 900)).await.unwrap();
    let size = |size| Expected {
        sha256: None,
        size: Some(size),
    };
    let upload = async |new| {
        fixture
            .service
            .upload(&fixture.actor, new, untouched())
            .await
            .unwrap_err()
    };
    let mut described = new("two", size(1));
    described.description = "é".repeat(101);
    assert!(
        matches!(upload(described).await, ResourceError::Invalid(i) if i.field == "description")
    );
    let mut elsewhere = new("two", size(1));
    elsewhere.product_id = ProductId::new("nowhere").unwrap();
    assert!(matches!(
        upload(elsewhere).await,
        ResourceError::NotFound { what: "product" }
    ));
    assert!(matches!(
        upload(new("one", size(1))).await,
        ResourceError::Conflict { .. }
    ));
    assert!(matches!(
        upload(new("two", size(1_001))).await,
        ResourceError::TooLarge { limit: 1_000 }
    ));
    assert!(matches!(
        upload(new("two", size(0))).await,
        ResourceError::Invalid(_)
    ));
    assert!(matches!(
        upload(new("two", size(601))).await,
        ResourceError::QuotaExceeded {
            unit: "bytes",
            limit: 1_500
        }
    ));
    fixture.upload("two", &content(2, 600)).await.unwrap();
    assert!(matches!(
        upload(new("three", size(1))).await,
        ResourceError::QuotaExceeded {
            unit: "resources",
            limit: 2
        }
    ));
    let first = fixture
        .service
        .resources(&ResourceFilter::default(), &Page::default())
        .await;
    let first = first.unwrap().items.pop().unwrap();
    let refused = fixture
        .service
        .replace_content(&fixture.actor, first.id, size(901), untouched())
        .await;
    assert!(matches!(
        refused,
        Err(ResourceError::QuotaExceeded { unit: "bytes", .. })
    ));
}

#[tokio::test]
async fn equal_bytes_are_stored_once() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let bytes = content(1, 10_000);
    let one = fixture.upload("one", &bytes).await.unwrap();
    let two = fixture.upload("two", &bytes).await.unwrap();
    assert_eq!(fixture.files().len(), 1);
    fixture
        .service
        .delete(&fixture.actor, one.id)
        .await
        .unwrap();
    let version = fixture.service.version(two.id, 1).await.unwrap();
    assert_eq!(
        fixture
            .service
            .read(&version.blob, 0..10_000)
            .await
            .unwrap(),
        bytes
    );
    fixture
        .service
        .delete(&fixture.actor, two.id)
        .await
        .unwrap();
    assert_eq!(fixture.files(), Vec::<String>::new());
    let gone = fixture.service.delete(&fixture.actor, two.id).await;
    assert!(matches!(gone, Err(ResourceError::NotFound { .. })));
}

#[tokio::test]
async fn new_bytes_are_a_new_version_and_the_old_go_when_nobody_delivers_them() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let resource = fixture.upload("fw", &content(1, 1_000)).await.unwrap();
    let task = Task {
        id: fixture.registry.next_id(),
        name: "t".to_owned(),
        resource_id: resource.id,
        resource_version: 1,
        product_id: resource.product_id.clone(),
        creation: CreationState::Created,
        run: RunState::Running,
        policy: TaskPolicy::default(),
        filter: None,
        creation_error: None,
        promoted_at: None,
        total: 0,
        created_at: Millis::now(),
        finished_at: None,
        created_by: "ann".to_owned(),
    };
    let entry = fixture.actor.did("task.create", task.id, "");
    fixture
        .registry
        .insert_task(&task, &[], &entry)
        .await
        .unwrap();
    let replace = async |seed: u8| {
        let bytes = content(seed, 2_000);
        let replaced = fixture.service.replace_content(
            &fixture.actor,
            resource.id,
            Expected::default(),
            body(&bytes),
        );
        replaced.await.unwrap()
    };
    assert_eq!(replace(2).await.version, 2);
    assert_eq!(fixture.files().len(), 2);
    let in_use = fixture.service.delete(&fixture.actor, resource.id).await;
    assert!(matches!(in_use, Err(ResourceError::InUse { .. })));
    fixture
        .registry
        .change_task_run(
            task.id,
            RunState::ALL,
            RunState::Finished,
            Millis::now(),
            None,
        )
        .await
        .unwrap();
    assert_eq!(replace(3).await.version, 3);
    assert_eq!(fixture.files().len(), 1);
    for gone in [1, 2] {
        let gone = fixture.service.version(resource.id, gone).await;
        assert!(matches!(gone, Err(ResourceError::NotFound { .. })));
    }
}

#[tokio::test]
async fn names_and_descriptions_change_within_their_rules() {
    let fixture = Fixture::new(ResourceConfig::default()).await;
    let one = fixture.upload("one", &content(1, 10)).await.unwrap();
    fixture.upload("two", &content(2, 10)).await.unwrap();
    let patch = |name: Option<&str>, description: Option<&str>| ResourcePatch {
        name: name.map(|name| ResourceName::new(name).unwrap()),
        description: description.map(str::to_owned),
        ..ResourcePatch::default()
    };
    let patch_one = async |patch| fixture.service.patch(&fixture.actor, one.id, &patch).await;
    let changed = patch_one(patch(Some("三"), Some("new"))).await.unwrap();
    assert_eq!(
        (changed.name.as_str(), changed.description.as_str()),
        ("三", "new")
    );
    let taken = patch_one(patch(Some("two"), None)).await;
    assert!(matches!(taken, Err(ResourceError::Conflict { .. })));
    let long = patch_one(patch(None, Some(&"é".repeat(101)))).await;
    assert!(matches!(long, Err(ResourceError::Invalid(_))));
    let actions: Vec<String> = fixture
        .registry
        .audit(&AuditFilter::default(), &Page::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|entry| entry.action)
        .collect();
    let expected = [
        "resource.update",
        "resource.create",
        "resource.create",
        "product.create",
    ];
    assert_eq!(actions, expected);
}
