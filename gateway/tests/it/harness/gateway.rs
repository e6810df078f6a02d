//! A gateway that runs, what it is asked over HTTP, and what is set up in it.

use std::{fs, future::ready, net::SocketAddr, ops::Deref, path::PathBuf, sync::Arc};

use bytes::Bytes;
use headgate::{
    app::{self, Progress, StartError},
    config::{Config, data_dir::Ports},
    shutdown::Shutdown,
};
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use rustix::process::Signal;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::{Answer, Daemon, PATIENCE, fetch, log_of, until};

/// A device as a test knows it.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) product: String,
    pub(crate) secret: String,
}

/// An application as a test knows it.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Device {
    /// Where it talks about transfers.
    pub(crate) fn up(&self) -> String {
        format!("$resource/up/service/{}/{}", self.product, self.node)
    }

    /// Where it is told about transfers.
    pub(crate) fn down(&self) -> String {
        format!("$resource/down/service/{}/{}", self.product, self.node)
    }

    /// Where all of its chunks come.
    pub(crate) fn chunks(&self) -> String {
        format!("$resource/down/chunk/{}/{}/#", self.product, self.node)
    }
}

/// Where a gateway is found and what opens it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) data_dir: PathBuf,
    pub(crate) ports: Ports,
    pub(crate) token: String,
    pub(crate) tls: Arc<ClientConfig>,
}

/// A gateway that runs on a directory of its own.
#[derive(Debug)]
pub(crate) struct Gateway {
    site: Site,
    running: Running,
    dir: TempDir,
}

#[derive(Debug)]
enum Running {
    Here {
        shutdown: Shutdown,
        task: JoinHandle<Result<(), StartError>>,
    },
    Process(Daemon),
}

impl Deref for Gateway {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Gateway {
    /// One with the defaults, except that devices need not wait for announcements.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// One with settings of the test's own.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), change).await
    }

    /// One on a directory that another one has left.
    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let data_dir = dir.path().join("data");
        let mut config = Config::embedded(&data_dir);
        let anywhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        config.mqtt.listen = Some(anywhere);
        config.http.listen = anywhere;
        config.files.listen = Some(anywhere);
        config.metrics.listen = Some(anywhere);
        config.delivery.announce_delay = std::time::Duration::from_millis(20);
        // A failure is an end, unless a test says otherwise.
        config.delivery.max_attempts = 1;
        config.shutdown.grace = std::time::Duration::from_secs(5);
        change(&mut config);
        let (shutdown, owner) = (Shutdown::new(), Shutdown::new());
        let (ready, told) = oneshot::channel();
        let mut ready = Some(ready);
        let tell = move |progress: Progress<'_>| {
            if let Progress::Ready(ports) = progress
                && let Some(ready) = ready.take()
            {
                ready.send(ports.clone()).expect("the test waits");
            }
        };
        let mut task = owner.spawn(app::run(config, shutdown.clone(), tell));
        let starting = async {
            tokio::select! {
                Ok(ports) = told => ports,
                ended = &mut task => unreachable!("no start: {ended:?}"),
            }
        };
        let ports = timeout(PATIENCE, starting).await.expect("ready in time");
        Self {
            site: Site::new(data_dir, ports),
            running: Running::Here { shutdown, task },
            dir,
        }
    }

    /// The real program, as a process of its own.
    pub(crate) async fn process(dir: TempDir, settings: &[(&str, &str)]) -> Self {
        let data_dir = dir.path().join("data");
        let file = data_dir.join("ports.json");
        // One that was killed has left its own.
        let _absent = fs::remove_file(&file);
        let mut daemon = Daemon::start(&data_dir, settings);
        let ports: Value = until("ports.json", || {
            let ended = daemon.has_ended();
            let log = || fs::read_to_string(log_of(&data_dir)).unwrap_or_default();
            assert!(ended.is_none(), "no start: {ended:?}\n{}", log());
            let ports = fs::read(&file).ok();
            ready(ports.and_then(|ports| serde_json::from_slice(&ports).ok()))
        })
        .await;
        let address = |name: &str| ports[name].as_str().and_then(|text| text.parse().ok());
        let ports = Ports {
            mqtts: address("mqtts"),
            mqtt: None,
            listeners: ports["listeners"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|address| address.as_str()?.parse().ok())
                .collect(),
            coap: address("coap"),
            coaps: address("coaps"),
            http: address("http"),
            files: address("files"),
            metrics: address("metrics"),
        };
        Self {
            site: Site::new(data_dir, ports),
            running: Running::Process(daemon),
            dir,
        }
    }

    /// The same place, changed for some clients.
    pub(crate) fn site_with(&self, change: impl FnOnce(&mut Site)) -> Site {
        let mut site = Site {
            data_dir: self.data_dir.clone(),
            ports: self.ports.clone(),
            token: self.token.clone(),
            tls: Arc::clone(&self.tls),
        };
        change(&mut site);
        site
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Running::Process(daemon) = &self.running {
            daemon.signal(signal);
        }
    }

    /// Starts its end and does not wait for it.
    pub(crate) fn drain(&self) {
        match &self.running {
            Running::Here { shutdown, .. } => shutdown.drain(),
            Running::Process(daemon) => daemon.signal(Signal::TERM),
        }
    }

    /// Stops it as an operator does; gives the directory for the next one.
    pub(crate) async fn stop(self) -> TempDir {
        self.drain();
        self.ended().await
    }

    /// Waits for an end that something else has begun; gives the directory for the next one.
    pub(crate) async fn ended(self) -> TempDir {
        match self.running {
            Running::Here { task, .. } => timeout(PATIENCE, task)
                .await
                .expect("an end in time")
                .expect("no panic")
                .expect("a good end"),
            Running::Process(mut daemon) => assert!(daemon.ended().await.success()),
        }
        self.dir
    }

    /// Has the process die on the spot; gives the directory for the next one.
    pub(crate) async fn kill(self) -> TempDir {
        if let Running::Process(mut daemon) = self.running {
            daemon.signal(Signal::KILL);
            daemon.ended().await;
        }
        self.dir
    }
}

impl Site {
    fn new(data_dir: PathBuf, ports: Ports) -> Self {
        let token = fs::read_to_string(data_dir.join("api.token")).expect("a token");
        let mut roots = RootCertStore::empty();
        // A gateway with a certificate of an operator's makes none: its tests say whom they trust.
        if let Ok(ca) = CertificateDer::from_pem_file(data_dir.join("tls/ca.pem")) {
            roots.add(ca).expect("a good CA");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            data_dir,
            ports,
            token: token.trim().to_owned(),
            tls: Arc::new(tls),
        }
    }

    /// Asks the API as the administrator.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        self.ask(method, path, "application/json", body).await
    }

    /// Asks the API with a body of any type.
    pub(crate) async fn ask(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Answer {
        let address = self.ports.http.expect("an HTTP listener");
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(HOST, address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, kind)
            .body(Full::new(body))
            .expect("a request");
        fetch(address, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.api(Method::GET, path, None).await.ok(200)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.api(Method::POST, path, Some(body)).await.ok(201)
    }

    /// Carries out an action that takes no body.
    pub(crate) async fn act(&self, path: &str) -> Value {
        self.api(Method::POST, path, None).await.ok(200)
    }

    /// Makes a product with the defaults, or with more.
    pub(crate) async fn product(&self, id: &str, more: &Value) {
        let mut body = json!({"id": id, "name": id});
        let fields = more.as_object().into_iter().flatten();
        fields.for_each(|(key, value)| body[key] = value.clone());
        self.post("/products", &body).await;
    }

    /// Makes a device of a product that exists.
    pub(crate) async fn device(&self, product: &str, node: &str) -> Device {
        let body = json!({"product_id": product, "node_id": node});
        let made = self.post("/devices", &body).await;
        let text = |key: &str| made[key].as_str().expect(key).to_owned();
        Device {
            id: text("device_id"),
            node: node.to_owned(),
            product: product.to_owned(),
            secret: text("secret"),
        }
    }

    /// Makes the product `P` and these devices in it.
    pub(crate) async fn devices<const N: usize>(&self, nodes: [&str; N]) -> [Device; N] {
        self.product("P", &Value::Null).await;
        let mut made = Vec::with_capacity(N);
        for node in nodes {
            made.push(self.device("P", node).await);
        }
        made.try_into().expect("as many as asked for")
    }

    /// Makes an application that sees these devices.
    pub(crate) async fn app(&self, id: &str, devices: &[&Device]) -> App {
        let made = self.post("/apps", &json!({"id": id})).await;
        let ids: Vec<_> = devices.iter().map(|device| &device.id).collect();
        if !ids.is_empty() {
            let path = format!("/apps/{id}/devices");
            let body = json!({"device_ids": ids});
            self.api(Method::POST, &path, Some(&body)).await.ok(200);
        }
        App {
            id: id.to_owned(),
            secret: made["secret"].as_str().expect("a secret").to_owned(),
        }
    }

    /// Uploads a form with one file.
    pub(crate) async fn upload(&self, path: &str, fields: &[(&str, &str)], file: &[u8]) -> Answer {
        const BOUNDARY: &str = "x-headgate-x";
        let mut form = Vec::with_capacity(file.len() + 1024);
        for (name, value) in fields {
            let part = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            form.extend_from_slice(part.as_bytes());
        }
        let part = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n"
        );
        form.extend_from_slice(part.as_bytes());
        form.extend_from_slice(file);
        form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.ask(Method::POST, path, &kind, form.into()).await
    }

    /// Makes a resource of the product; gives its id.
    pub(crate) async fn resource(&self, product: &str, name: &str, bytes: &[u8]) -> String {
        let fields = [("product", product), ("name", name)];
        let made = self.upload("/resources", &fields, bytes).await.ok(201);
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Has the resource delivered to these devices; gives the task's id.
    pub(crate) async fn task(&self, resource: &str, devices: &[&Device]) -> String {
        let ids: Vec<_> = devices.iter().map(|device| &device.id).collect();
        let body = json!({"resource_id": resource, "device_ids": ids});
        let made = self.post("/tasks", &body).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// The task's delivery to this device as the API shows it.
    pub(crate) async fn delivery(&self, task: &str, device: &Device) -> Value {
        let page = self
            .get(&format!("/tasks/{task}/deliveries?limit=500"))
            .await;
        let items = page["items"].as_array().expect("items");
        let found = items.iter().find(|item| item["device_id"] == *device.id);
        found.expect("a delivery to this device").clone()
    }

    /// The task's delivery to this device, once it is in this state.
    pub(crate) async fn delivery_in(&self, state: &str, task: &str, device: &Device) -> Value {
        until(state, || async {
            let delivery = self.delivery(task, device).await;
            (delivery["state"] == state).then_some(delivery)
        })
        .await
    }

    /// What the metrics listener answers.
    pub(crate) async fn ops(&self, path: &str) -> Answer {
        let address = self.ports.metrics.expect("a metrics listener");
        let request = Request::builder()
            .uri(path)
            .header(HOST, address.to_string())
            .body(Full::default())
            .expect("a request");
        fetch(address, request).await
    }

    /// One sample, by its name and labels as they stand; 0 where there is none.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let page = self.ops("/metrics").await;
        let line = page.text().lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == sample).then(|| value.parse().expect("a number"))
        });
        line.unwrap_or(0.0)
    }

    /// Waits until a sample has this value.
    pub(crate) async fn metric_is(&self, sample: &str, value: f64) {
        until(sample, || async {
            let is = self.metric(sample).await;
            ((is - value).abs() < 0.5).then_some(())
        })
        .await;
    }

    /// Waits until a sample is above this value.
    pub(crate) async fn metric_is_more_than(&self, sample: &str, value: f64) {
        until(sample, || async {
            (self.metric(sample).await > value).then_some(())
        })
        .await;
    }
}
