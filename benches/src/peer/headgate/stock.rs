//! Devices and an application that a fleet can be: registered over the API, as an operator would.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Headgate;
use crate::error::BenchError;
use crate::fleet::ClientError;
use crate::fleet::identity::{Authority, Identity};
use crate::fleet::mqtt::Login;
use crate::http::Api;

/// Devices of one product, in the order of their numbers.
pub(crate) struct Stock {
    devices: Vec<Device>,
}

struct Device {
    id: String,
    identity: Option<Arc<Identity>>,
}

/// An application that is bound to every device of a stock.
pub(crate) struct Application {
    secret: String,
}

#[derive(Deserialize)]
struct Batch {
    id: String,
    state: String,
    counts: Counts,
}

#[derive(Deserialize)]
struct Counts {
    created: usize,
}

#[derive(Deserialize)]
struct Made {
    secret: String,
}

impl Stock {
    /// Registers `devices`: by secret, or with `authority` each by a certificate of its own.
    ///
    /// # Errors
    /// [`BenchError::Client`] when the API refuses.
    pub(crate) async fn register(
        headgate: &Headgate,
        devices: u32,
        authority: Option<&Authority>,
    ) -> Result<Self, BenchError> {
        let api = headgate.api()?;
        let registered = Self::fill(&api, devices, authority).await;
        registered.map_err(|source| headgate.client_error(source))
    }

    async fn fill(
        api: &Api,
        devices: u32,
        authority: Option<&Authority>,
    ) -> Result<Self, ClientError> {
        let kinds = ["secret", "x509"];
        let product = json!({"id": PRODUCT, "name": PRODUCT, "auth_kinds": kinds});
        let _: Value = api.post("/products", &product).await?;
        let stock = (0..devices)
            .map(|number| {
                let id = format!("{PRODUCT}_n{number}");
                let identity = authority.map(|authority| authority.sign(&id)).transpose()?;
                let identity = identity.map(Arc::new);
                Ok(Device { id, identity })
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        let mut rows = String::from("node_id,product_id,secret,fingerprint\n");
        for (number, device) in stock.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = match &device.identity {
                Some(identity) => {
                    writeln!(rows, "n{number},{PRODUCT},,{}", identity.fingerprint)
                }
                None => writeln!(rows, "n{number},{PRODUCT},{SECRET},"),
            };
        }
        let mut batch: Batch = api.post_csv("/device-batches", rows).await?;
        let path = format!("/device-batches/{}", batch.id);
        let deadline = Instant::now() + TIMEOUT;
        while batch.state != "finished" && Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
            batch = api.get(&path).await?;
        }
        if batch.counts.created == stock.len() {
            Ok(Self { devices: stock })
        } else {
            let (state, created) = (batch.state, batch.counts.created);
            let wanted = stock.len();
            let what = format!("the batch is {state}: {created} of {wanted} devices");
            Err(ClientError::Answer(what))
        }
    }

    /// Makes an application and binds all of the devices to it.
    ///
    /// # Errors
    /// [`BenchError::Client`] when the API refuses.
    pub(crate) async fn bind(&self, headgate: &Headgate) -> Result<Application, BenchError> {
        let api = headgate.api()?;
        let bound = async {
            let app = json!({"id": APP, "name": APP});
            let made: Made = api.post("/apps", &app).await?;
            let mut rows = String::from("device_id\n");
            for device in &self.devices {
                let _ = writeln!(rows, "{}", device.id);
            }
            let path = format!("/apps/{APP}/devices:csv");
            let _: Value = api.post_csv(&path, rows).await?;
            Ok(made.secret)
        };
        let secret = bound
            .await
            .map_err(|source| headgate.client_error(source))?;
        Ok(Application { secret })
    }

    /// How each of them logs in; each listens to its own topic, [`Stock::topics`].
    pub(crate) fn logins(&self) -> Vec<Login> {
        let topics = self.topics();
        let pairs = self.devices.iter().zip(topics);
        pairs
            .map(|(device, topic)| Login {
                secret: device
                    .identity
                    .is_none()
                    .then(|| (device.id.clone(), SECRET.to_owned())),
                identity: device.identity.clone(),
                ..Login::anonymous(device.id.clone(), topic)
            })
            .collect()
    }

    /// The product of all of them.
    pub(crate) const fn product() -> &'static str {
        PRODUCT
    }

    /// Their ids.
    pub(crate) fn device_ids(&self) -> Vec<&str> {
        let devices = self.devices.iter();
        devices.map(|device| device.id.as_str()).collect()
    }

    /// A topic of each.
    pub(crate) fn topics(&self) -> Vec<String> {
        let numbers = 0..self.devices.len();
        numbers
            .map(|number| format!("{PRODUCT}/n{number}/bench"))
            .collect()
    }
}

impl Application {
    /// How the session `number` of the application logs in; it listens to `filter`.
    pub(crate) fn login(&self, number: u32, filter: &str) -> Login {
        Login {
            secret: Some((APP.to_owned(), self.secret.clone())),
            ..Login::anonymous(format!("app:{APP}:{number}"), filter)
        }
    }
}

const PRODUCT: &str = "bench";
const APP: &str = "bench";
/// 16 bytes, hex, as the gateway makes them; the same for all, since nobody guesses here.
const SECRET: &str = "5eed5eed5eed5eed5eed5eed5eed5eed";
const TIMEOUT: Duration = Duration::from_mins(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
