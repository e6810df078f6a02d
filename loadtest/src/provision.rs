//! Makes over the API what a run needs, and removes what it made.
//!
//! Everything is found again by name or digest: product by id, devices by the ids drawn from the
//! seed, the resource by its SHA-256, so that `--keep` makes the next run short.
//! Invariants: only what this run made is deleted; a failed clean-up never hides the run's result.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::api::{Api, ApiError, Upload};
use crate::cli::{Form, Proto};
use crate::content::Content;
use crate::device::identity::{Identity, secret};
use crate::device::login::fingerprint;

/// What a run made, for its clean-up.
pub(crate) struct Provision {
    api: Arc<Api>,
    kind: Kind,
    product: String,
    made_product: bool,
    made_devices: Vec<String>,
    made_resource: Option<String>,
    made_app: Option<String>,
    tasks: Vec<String>,
}

/// The product of a run, and what its devices are.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Its id.
    pub(crate) product: String,
    /// What devices speak.
    pub(crate) proto: Proto,
    /// How devices say who they are, by MQTT.
    pub(crate) form: Form,
    /// For so long after an uplink a device can be reached; `None`: always.
    pub(crate) reachable_secs: Option<u64>,
}

/// What the gateway counts of a task's deliveries, by state.
pub(crate) type Counts = BTreeMap<String, u64>;

#[derive(Deserialize)]
struct Made {
    id: String,
}

#[derive(Deserialize)]
struct MadeApp {
    secret: String,
}

#[derive(Deserialize)]
struct BatchItem {
    id: String,
    state: String,
    done: usize,
    counts: BatchCounts,
}

#[derive(Deserialize)]
struct BatchCounts {
    failed: u64,
}

#[derive(Deserialize)]
struct DeviceItem {
    device_id: String,
}

#[derive(Deserialize)]
struct ResourceItem {
    id: String,
    name: String,
    sha256: String,
}

#[derive(Deserialize)]
struct TaskItem {
    counts: Counts,
}

impl Provision {
    /// Nothing made yet.
    pub(crate) fn new(api: Arc<Api>, kind: Kind) -> Self {
        Self {
            api,
            product: kind.product.clone(),
            kind,
            made_product: false,
            made_devices: Vec::new(),
            made_resource: None,
            made_app: None,
            tasks: Vec::new(),
        }
    }

    /// Makes the product unless it is there.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn ensure_product(&mut self) -> Result<(), ApiError> {
        let path = format!("/api/v1/products/{}", self.product);
        if self.api.find::<IgnoredAny>(&path).await?.is_some() {
            return Ok(());
        }
        let mut body = json!({ "id": self.product, "name": self.product });
        if self.kind.proto != Proto::Mqtt {
            body["transports"] = json!({ "mqtt": false, "coap": true });
            body["reachable_after_uplink_secs"] = json!(self.kind.reachable_secs);
        }
        match self.kind.form {
            Form::Native => {}
            Form::Certificate => body["auth_kinds"] = json!(["x509"]),
            Form::Huawei => body["credential_forms"] = json!(["huawei"]),
            Form::Tencent => body["credential_forms"] = json!(["tencent"]),
        }
        if self.kind.proto == Proto::Coap {
            body["auth_kinds"] = json!(["none"]);
        }
        let made = self.api.post::<IgnoredAny>("/api/v1/products", &body).await;
        match made {
            Ok(_) => self.made_product = true,
            // Another swarm made it since; what is there is as it would be here.
            Err(error) if error.status() == Some(StatusCode::CONFLICT) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes those of `identities` that are missing, a few at a time or as a batch; `done` counts them.
    ///
    /// # Errors
    /// [`ApiError`] of the first device that could not be made.
    pub(crate) async fn ensure_devices(
        &mut self,
        identities: &[Identity],
        seed: u64,
        done: &Arc<AtomicUsize>,
    ) -> Result<(), ApiError> {
        let present: HashSet<String> = if self.made_product {
            HashSet::new()
        } else {
            let path = format!("/api/v1/devices?product={}", self.product);
            self.api
                .list::<DeviceItem>(&path)
                .await?
                .into_iter()
                .map(|d| d.device_id)
                .collect()
        };
        let missing: Vec<Identity> = identities
            .iter()
            .filter(|i| !present.contains(&i.device_id))
            .cloned()
            .collect();
        done.store(identities.len() - missing.len(), Ordering::Relaxed);
        self.made_devices = missing.iter().map(|i| i.device_id.clone()).collect();
        if missing.len() >= BATCH_FROM {
            return self.register_batch(&missing, seed, done).await;
        }
        let bodies = missing.into_iter().map(|identity| {
            let mut body = json!({
                "product_id": self.product,
                "node_id": identity.node_id,
                "device_id": identity.device_id,
            });
            match self.kind.proto {
                Proto::Mqtt if self.kind.form == Form::Certificate => {
                    body["auth"] = json!("x509");
                    body["fingerprint"] = json!(print_of(seed, &identity.device_id));
                }
                Proto::Mqtt | Proto::Coaps => {
                    body["secret"] = json!(secret(seed, &identity.device_id));
                }
                Proto::Coap => body["auth"] = json!("none"),
            }
            body
        });
        each(&self.api, bodies.collect(), done, |api, body| async move {
            match api.post::<IgnoredAny>("/api/v1/devices", &body).await {
                // Made by an attempt whose answer was lost.
                Err(error) if error.status() == Some(StatusCode::CONFLICT) => Ok(()),
                other => other.map(drop),
            }
        })
        .await
    }

    /// Registers many devices by one CSV, whose rows the gateway carries out by itself.
    async fn register_batch(
        &self,
        missing: &[Identity],
        seed: u64,
        done: &Arc<AtomicUsize>,
    ) -> Result<(), ApiError> {
        const PATH: &str = "/api/v1/device-batches";
        for part in missing.chunks(MAX_BATCH_ROWS) {
            let text = self.rows(part, seed);
            let before = done.load(Ordering::Relaxed);
            let mut batch: BatchItem = self.api.post_csv(PATH, &text).await?;
            let path = format!("{PATH}/{}", batch.id);
            while batch.state == "waiting" || batch.state == "running" {
                sleep(BATCH_INTERVAL).await;
                batch = self.api.get(&path).await?;
                done.store(before + batch.done, Ordering::Relaxed);
            }
            if batch.state != "finished" || batch.counts.failed > 0 {
                return Err(ApiError::Batch {
                    path,
                    failed: batch.counts.failed,
                });
            }
            done.store(before + part.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The CSV of some devices.
    fn rows(&self, part: &[Identity], seed: u64) -> String {
        let certified = self.kind.proto == Proto::Mqtt && self.kind.form == Form::Certificate;
        let mut text = String::from(match self.kind.proto {
            _ if certified => "node_id,product_id,fingerprint\n",
            Proto::Mqtt | Proto::Coaps => "node_id,product_id,secret\n",
            Proto::Coap => "node_id,product_id,auth_type\n",
        });
        for identity in part {
            let last = match self.kind.proto {
                _ if certified => print_of(seed, &identity.device_id),
                Proto::Mqtt | Proto::Coaps => secret(seed, &identity.device_id),
                Proto::Coap => "none".to_owned(),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{},{},{last}", identity.node_id, self.product);
        }
        text
    }

    /// Makes an application to which all `identities` are bound; gives its secret.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn make_app(
        &mut self,
        app: &str,
        identities: &[Identity],
    ) -> Result<String, ApiError> {
        let body = json!({ "id": app, "name": app });
        let made: MadeApp = self.api.post("/api/v1/apps", &body).await?;
        self.made_app = Some(app.to_owned());
        for part in identities.chunks(MAX_BATCH_ROWS) {
            let mut text = String::from("device_id\n");
            for identity in part {
                text.push_str(&identity.device_id);
                text.push('\n');
            }
            let path = format!("/api/v1/apps/{app}/devices:csv");
            self.api.post_csv::<IgnoredAny>(&path, &text).await?;
        }
        Ok(made.secret)
    }

    /// Deletes the application, which a later run does not find again.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn remove_app(&mut self) -> Result<(), ApiError> {
        match self.made_app.take() {
            Some(app) => self.api.delete(&format!("/api/v1/apps/{app}")).await,
            None => Ok(()),
        }
    }

    /// Finds the resource with `content`'s digest in the product, or uploads it; gives its id and
    /// name.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn ensure_resource(
        &mut self,
        content: &Content,
    ) -> Result<(String, String), ApiError> {
        let sha256 = hex::encode(content.sha256());
        let path = format!("/api/v1/resources?product={}", self.product);
        let present = self.api.list::<ResourceItem>(&path).await?;
        if let Some(found) = present.into_iter().find(|item| item.sha256 == sha256) {
            return Ok((found.id, found.name));
        }
        let name = content.resource_name();
        let fields = [
            ("product", self.product.clone()),
            ("name", name.clone()),
            ("description", content.description()),
            ("sha256", sha256),
            ("size", content.size().to_string()),
        ];
        let upload = Upload::new(&fields, content);
        let made: Made = self.api.upload("/api/v1/resources", &upload).await?;
        self.made_resource = Some(made.id.clone());
        Ok((made.id, name))
    }

    /// Makes tasks that deliver `resource` to all `identities`.
    ///
    /// # Errors
    /// [`ApiError`]; tasks made before it stay for the clean-up.
    pub(crate) async fn create_tasks(
        &mut self,
        resource: &str,
        identities: &[Identity],
    ) -> Result<(), ApiError> {
        for part in identities.chunks(MAX_TASK_ROWS) {
            let devices: Vec<&str> = part.iter().map(|i| i.device_id.as_str()).collect();
            let body = json!({ "resource_id": resource, "device_ids": devices });
            let made: Made = self.api.post("/api/v1/tasks", &body).await?;
            self.tasks.push(made.id);
        }
        Ok(())
    }

    /// What the gateway says of all deliveries of this run.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn counts(&self) -> Result<Counts, ApiError> {
        let mut all = Counts::new();
        for task in &self.tasks {
            let item: TaskItem = self.api.get(&format!("/api/v1/tasks/{task}")).await?;
            for (state, count) in item.counts {
                *all.entry(state).or_default() += count;
            }
        }
        Ok(all)
    }

    /// Cancels what still runs.
    ///
    /// # Errors
    /// [`ApiError`] of the first task that could not be cancelled.
    pub(crate) async fn cancel_tasks(&self) -> Result<(), ApiError> {
        for task in &self.tasks {
            match self
                .api
                .command(&format!("/api/v1/tasks/{task}/cancel"))
                .await
            {
                // It ended by itself meanwhile.
                Err(error) if error.status() == Some(StatusCode::CONFLICT) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Deletes what this run made; `done` counts devices.
    ///
    /// # Errors
    /// [`ApiError`] of the first thing that could not be deleted; the rest stays then.
    pub(crate) async fn remove(self, done: &Arc<AtomicUsize>) -> Result<(), ApiError> {
        if let Some(resource) = &self.made_resource {
            delete_when_free(&self.api, &format!("/api/v1/resources/{resource}")).await?;
        }
        each(
            &self.api,
            self.made_devices,
            done,
            |api, device| async move {
                delete_when_free(&api, &format!("/api/v1/devices/{device}")).await
            },
        )
        .await?;
        if self.made_product {
            self.api
                .delete(&format!("/api/v1/products/{}", self.product))
                .await?;
        }
        Ok(())
    }

    /// Deletes what devices of the product sent under `name`.
    ///
    /// # Errors
    /// [`ApiError`] of the first one that could not be deleted.
    pub(crate) async fn remove_uploads(&self, name: &str) -> Result<(), ApiError> {
        let path = format!("/api/v1/uploads?product={}&name={name}", self.product);
        let uploads = self.api.list::<Made>(&path).await?;
        let done = Arc::new(AtomicUsize::new(0));
        each(&self.api, uploads, &done, |api, upload| async move {
            api.delete(&format!("/api/v1/uploads/{}", upload.id)).await
        })
        .await
    }

    /// Size and SHA-256 of what `device` sent under `name`, of the bytes that the gateway gives back.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(crate) async fn uploaded(
        api: &Api,
        device: &str,
        name: &str,
    ) -> Result<Option<(u64, [u8; 32])>, ApiError> {
        let path = format!("/api/v1/uploads?device={device}&name={name}&state=stored");
        let Some(upload) = api.list::<Made>(&path).await?.pop() else {
            return Ok(None);
        };
        let content = format!("/api/v1/uploads/{}/content", upload.id);
        api.digest(&content).await.map(Some)
    }

    /// How many devices a clean-up would delete.
    pub(crate) const fn made_devices(&self) -> usize {
        self.made_devices.len()
    }
}

/// The fingerprint of a device's certificate; keys from a seed always make one.
fn print_of(seed: u64, device_id: &str) -> String {
    fingerprint(seed, device_id).unwrap_or_default()
}

/// Deletes what a task that is just ending may still hold for a moment.
async fn delete_when_free(api: &Api, path: &str) -> Result<(), ApiError> {
    let until = Instant::now() + FREE_TIMEOUT;
    loop {
        match api.delete(path).await {
            Err(error)
                if error.status() == Some(StatusCode::CONFLICT) && Instant::now() < until =>
            {
                sleep(FREE_INTERVAL).await;
            }
            other => return other,
        }
    }
}

/// Does `work` for every item, [`CONCURRENT_REQUESTS`] at a time.
async fn each<T, F, Fut>(
    api: &Arc<Api>,
    items: Vec<T>,
    done: &Arc<AtomicUsize>,
    work: F,
) -> Result<(), ApiError>
where
    T: Send + 'static,
    F: Fn(Arc<Api>, T) -> Fut,
    Fut: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut items = items.into_iter();
    loop {
        while running.len() < CONCURRENT_REQUESTS {
            let Some(item) = items.next() else { break };
            running.spawn(work(Arc::clone(api), item));
        }
        match running.join_next().await {
            None => return Ok(()),
            Some(Ok(result)) => result?,
            // A panic of one of them is a fault of the swarm, and is told as one.
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Ok(()),
            },
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Devices from which on a batch is faster than one request for each.
const BATCH_FROM: usize = 500;
/// Rows that one batch takes.
const MAX_BATCH_ROWS: usize = 100_000;
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Requests under way at once: enough to fill the gateway's group commits.
const CONCURRENT_REQUESTS: usize = 32;
/// Devices that one task takes.
const MAX_TASK_ROWS: usize = 10_000;
/// How long a task may take to end after its last device did.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);
const FREE_INTERVAL: Duration = Duration::from_millis(200);
