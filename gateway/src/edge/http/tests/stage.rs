//! The API over stores in a temporary directory, and a client for it.

use std::path::Path;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header, request::Builder},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::super::*;
use crate::{
    config::{
        AuthConfig, FilesConfig, MailboxConfig, RegistrationConfig, RetainedConfig,
        RetentionConfig, UploadConfig,
    },
    service::{
        auth::{AppAuthenticator, DeviceAuthenticator},
        delivery::DeliveryParts,
        link::{FileUrls, LinkSigner},
        registration::RegistrationParts,
        seal::Sealer,
        uplink::UplinkParts,
        upload::UploadParts,
    },
    session::{ApplicationTable, InboxLimits},
    store::{
        blobs::BlobStore,
        registry::{Registry, sqlite_url},
        sessions::SessionStore,
    },
    telemetry::{health::Readiness, metrics::Metrics},
};

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Asserts a problem and gives it.
    pub(super) fn problem(&self, status: u16, slug: &str) -> Value {
        let json = self.json();
        assert_eq!(self.status.as_u16(), status, "{json}");
        assert_eq!(
            json["type"],
            format!("urn:headgate:problem:{slug}"),
            "{json}"
        );
        assert_eq!(json["status"], status);
        assert_eq!(self.headers[header::CONTENT_TYPE], problem::MEDIA_TYPE);
        let id = self.header("x-request-id");
        assert_eq!(json["instance"], format!("urn:headgate:request:{id}"));
        json
    }

    /// Asserts success and gives the body.
    pub(super) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        if self.body.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// A header that must be there.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("ascii")
    }
}

async fn registration(
    registry: &Registry,
    sealer: &Sealer,
    path: &Path,
    shutdown: &Shutdown,
) -> RegistrationService {
    let config = RegistrationConfig {
        max_batch_bytes: 100_000,
        max_batch_rows: 2_000,
        ..RegistrationConfig::default()
    };
    let parts = RegistrationParts {
        registry: registry.clone(),
        sealer: sealer.clone(),
        spool: path.join("device-batches"),
        config,
        metrics: Metrics::new(),
    };
    let started = RegistrationService::start(parts, shutdown).await;
    started.expect("batches")
}

/// The API, its services and an administrator's token.
pub(super) struct Stage {
    pub(super) router: Router,
    pub(super) shutdown: Shutdown,
    pub(super) token: String,
    _directory: TempDir,
}

fn device_authenticator(registry: &Registry, sealer: &Sealer) -> DeviceAuthenticator {
    let (registry, sealer) = (registry.clone(), sealer.clone());
    let made = DeviceAuthenticator::new(registry, sealer, &AuthConfig::default(), &Metrics::new());
    made.expect("made")
}

/// Nobody is connected.
fn nobody() -> Directory {
    let applications = Arc::new(ApplicationTable::new(InboxLimits::default()));
    Directory::new("here".to_owned(), Arc::default(), applications, None)
}

/// Tests ask as fast as they can.
fn unlimited() -> Rates {
    Rates::new(&HttpConfig {
        requests_per_sec: 1_000_000,
        request_burst: 1_000_000,
        ..HttpConfig::default()
    })
}

impl Stage {
    /// An empty gateway.
    pub(super) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let url = sqlite_url(&path.join("registry.db"));
        let registry = Registry::open(&url, 2).await.expect("a registry");
        let blobs = BlobStore::open(&path.join("blobs")).await.expect("blobs");
        let sessions = SessionStore::open(&path.join("sessions.db"))
            .await
            .expect("sessions");
        let sealer = Sealer::open_or_create(&path.join("sealing.key")).expect("a key");
        let devices = device_authenticator(&registry, &sealer);
        let tokens = TokenAuthenticator::new(registry.clone(), 1);
        let first = tokens
            .bootstrap(|_| Ok(()))
            .await
            .expect("bootstrap")
            .expect("first start");
        let resource_config = ResourceConfig {
            max_size_bytes: 3_000_000,
            max_total_bytes: 4_000_000,
            ..ResourceConfig::default()
        };
        let shutdown = Shutdown::new();
        let files = FilesConfig::default();
        let app_authenticator = AppAuthenticator::new(registry.clone());
        let uplink = UplinkParts {
            registry: registry.clone(),
            sessions: sessions.clone(),
            authenticator: app_authenticator.clone(),
            applications: ApplicationsConfig::default(),
            mailbox: MailboxConfig::default(),
            retained: RetainedConfig::default(),
            max_persistent: 100,
            metrics: Metrics::new(),
        };
        let uplink = Uplink::start(uplink, &shutdown).await.expect("an uplink");
        let apps = AppService::new(
            registry.clone(),
            app_authenticator,
            uplink.clone(),
            ApplicationsConfig::default(),
            shutdown.clone(),
        );
        let urls = FileUrls::new(
            LinkSigner::new([7; 32]),
            None,
            files.listen,
            files.url_lifetime,
        );
        let parts = DeliveryParts {
            registry: registry.clone(),
            sessions,
            blobs: blobs.clone(),
            urls: urls.clone(),
            config: DeliveryConfig::default(),
            retention: RetentionConfig::default(),
            metrics: Metrics::new(),
        };
        let limits = Limits::new(
            &HttpConfig::default(),
            &MqttConfig::default(),
            &resource_config,
            &DeliveryConfig::default(),
            &ApplicationsConfig::default(),
        );
        let uploads = uploads(&registry, &blobs, urls, path, &shutdown).await;
        let registration = registration(&registry, &sealer, path, &shutdown).await;
        let resources = ResourceService::open(registry.clone(), blobs, resource_config);
        let state = ApiState {
            accounts: AccountService::new(registry.clone(), tokens.clone()),
            nodes: NodeService::new(registry.clone(), Readiness::new(), shutdown.clone()).0,
            authenticator: devices.clone(),
            rates: unlimited(),
            registry: RegistryService::new(registry, sealer, devices).with_uplink(uplink.clone()),
            registration,
            resources: resources.await.expect("resources"),
            uploads,
            delivery: DeliveryService::start(parts, &shutdown)
                .await
                .expect("deliveries"),
            sessions: Arc::default(),
            directory: nobody(),
            requests: Requests::new(8),
            apps,
            uplink,
            tokens,
            limits,
            shutdown,
            answers: Answers::default(),
        };
        Self {
            shutdown: state.shutdown.clone(),
            router: router(state),
            token: first.token.to_string(),
            _directory: directory,
        }
    }

    /// A gateway with the product `p`, its devices `p_d1` to `p_d3` and the device `q_d1` of
    /// another product.
    pub(super) async fn furnished() -> Self {
        let stage = Self::new().await;
        for product in ["p", "q"] {
            let body = json!({"id": product, "name": product});
            stage.post("/api/v1/products", &body).await.ok(201);
        }
        for (product, node) in [("p", "d1"), ("p", "d2"), ("p", "d3"), ("q", "d1")] {
            let body = json!({"product_id": product, "node_id": node});
            stage.post("/api/v1/devices", &body).await.ok(201);
        }
        stage
    }

    /// Sends a request as it is.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// A request with the administrator's token.
    pub(super) fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.bare(Method::GET, path).await
    }

    /// A request without a body.
    pub(super) async fn bare(&self, method: Method, path: &str) -> Answer {
        let request = self.request(method, path).body(Body::empty());
        self.send(request.expect("a request")).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.with_json(Method::POST, path, body).await
    }

    /// Changes a thing, with `If-Match` where there is a tag.
    pub(super) async fn patch(&self, path: &str, body: &Value, tag: Option<&str>) -> Answer {
        let mut request = self
            .request(Method::PATCH, path)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = request.body(Body::from(body.to_string()));
        self.send(request.expect("a request")).await
    }

    pub(super) async fn with_json(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self
            .request(method, path)
            .header(header::CONTENT_TYPE, "application/json");
        self.send(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        )
        .await
    }

    /// A POST of a form with `fields` and `file`.
    pub(super) fn form(&self, path: &str, fields: &[(&str, &str)], file: &[u8]) -> Request<Body> {
        self.request(Method::POST, path)
            .header(
                header::CONTENT_TYPE,
                "multipart/form-data; boundary=\"==B\"",
            )
            .body(Body::from(form(fields, file)))
            .expect("a request")
    }

    /// Uploads a resource of product `p` and gives it.
    pub(super) async fn upload(&self, name: &str, content: &[u8]) -> Value {
        let fields = [("product", "p"), ("name", name)];
        let request = self.form("/api/v1/resources", &fields, content);
        self.send(request).await.ok(201)
    }
}

/// The body of a form; its boundary is `==B`.
pub(super) fn form(fields: &[(&str, &str)], file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head = format!("--==B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    let head = "--==B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--==B--\r\n");
    body
}

async fn uploads(
    registry: &Registry,
    blobs: &BlobStore,
    urls: FileUrls,
    directory: &Path,
    shutdown: &Shutdown,
) -> UploadService {
    let parts = UploadParts {
        registry: registry.clone(),
        blobs: blobs.clone(),
        urls,
        config: UploadConfig::default(),
        metrics: Metrics::new(),
    };
    UploadService::start(parts, &directory.join("spool"), shutdown)
        .await
        .expect("uploads")
}
