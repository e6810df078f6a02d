//! Blobs in a bucket that speaks Amazon S3's protocol.
//!
//! Each blob is an object below a prefix of the bucket, written once: a small one by a put that fails where there is
//! one already, a large one in parts, which nobody sees before the last. An object beside them says which registry they
//! belong to, so that no other one takes them for rubbish. Invariants: nothing is read before that object was seen.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload,
    RetryConfig, aws::AmazonS3Builder, path::Path as Key, prefix::PrefixStore,
};

use crate::{config::Secret, store::StoreError};

/// Where a bucket is and what opens it.
#[derive(Clone, Debug)]
pub struct Bucket<'c> {
    /// `s3://bucket` or `s3://bucket/a/prefix`.
    pub url: &'c str,
    /// Where the service is, for one that is not Amazon's.
    pub endpoint: Option<&'c str>,
    /// The bucket's region.
    pub region: &'c str,
    /// The key's id; without one, what the environment has: `AWS_*`, or the machine's own role.
    pub access_key_id: Option<&'c str>,
    /// The key.
    pub secret_access_key: Option<&'c Secret>,
}

/// Opens the bucket for the registry of a name, which becomes the owner of what is below the prefix.
pub(super) async fn open(
    bucket: &Bucket<'_>,
    registry: &[u8],
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let store = connect(bucket).map_err(refusal)?;
    own(&*store, registry).await?;
    Ok(store)
}

fn connect(bucket: &Bucket<'_>) -> Result<Arc<dyn ObjectStore>, Error> {
    let place = bucket.url.split_once("://").map_or("", |(_, place)| place);
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    let builder = match (bucket.access_key_id, bucket.secret_access_key) {
        (Some(id), Some(key)) => AmazonS3Builder::new()
            .with_access_key_id(id)
            .with_secret_access_key(key.expose()),
        _ => AmazonS3Builder::from_env(),
    };
    let is_plain = bucket
        .endpoint
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(is_plain);
    let mut builder = builder
        .with_bucket_name(name)
        .with_region(bucket.region)
        .with_retry(retries())
        .with_client_options(client);
    if let Some(endpoint) = bucket.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let store = builder.build()?;
    Ok(Arc::new(PrefixStore::new(store, Key::parse(prefix)?)))
}

/// Writes down whose the prefix is, or makes sure that it is this registry's.
async fn own(store: &dyn ObjectStore, registry: &[u8]) -> Result<(), StoreError> {
    let owner = Key::from(OWNER);
    let payload = PutPayload::from(Bytes::copy_from_slice(registry));
    match store
        .put_opts(&owner, payload, PutMode::Create.into())
        .await
    {
        Ok(_) => return Ok(()),
        Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(refusal(error)),
    }
    let found = store.get(&owner).await.map_err(refusal)?;
    if found.bytes().await? == registry {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "blobs: what is below this prefix belongs to another registry: give this one a prefix of its own, or \
         remove {OWNER} there if that registry is no more"
    )))
}

/// Whether the service answers and still knows the prefix.
pub(super) async fn ping(store: &dyn ObjectStore) -> Result<(), StoreError> {
    store.head(&Key::from(OWNER)).await?;
    Ok(())
}

/// Tells an error that only another configuration ends from one that may pass.
fn refusal(error: Error) -> StoreError {
    let reason = match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "the service refuses these credentials"
        }
        Error::NotFound { .. } => "there is no such bucket",
        Error::InvalidPath { .. } => "the prefix cannot be that of an object",
        _ => return error.into(),
    };
    StoreError::Refused(format!("blobs: {reason}"))
}

/// A request that failed on its way is repeated, for less time than a device waits.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(20),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a part of 8 MiB, too.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The object that says whose the prefix is.
const OWNER: &str = "headgate-owner";
