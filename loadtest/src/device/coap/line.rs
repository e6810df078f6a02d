//! A registered device: requests that name its registration, and what it does where they are not served at once.
//!
//! A gateway asks a device to show that it is at its address (Echo), to come again later (5.03) or to register again;
//! the first two are met here, the last ends the line.  Spec: RFC 7252 s5.9, RFC 9175 s2.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headgate_protocol::coap::{Code, ContentFormat, Message, OptionNumber, Request};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::CoapPlan;
use super::dialogue::Dialogue;
use crate::device::error::DeviceError;
use crate::device::identity::Identity;
use crate::rng::Rng;
use crate::swarm::Swarm;

/// A device that the gateway knows.
pub(super) struct Line {
    pub(super) swarm: Arc<Swarm>,
    plan: Arc<CoapPlan>,
    dialogue: Dialogue,
    /// The number of its registration.
    rd: String,
    /// It was asked to show where it is since it said so itself.
    has_moved: bool,
    awake_since: Instant,
    rng: Rng,
}

impl Line {
    /// Registers.
    ///
    /// # Errors
    /// [`DeviceError`]: the gateway does not answer, or not with a registration.
    pub(super) async fn register(
        swarm: Arc<Swarm>,
        plan: Arc<CoapPlan>,
        mut dialogue: Dialogue,
        identity: &Identity,
    ) -> Result<Self, DeviceError> {
        let request = || {
            Request::new(Code::POST, "rd")
                .with_query("ep", &identity.node_id)
                .with_query("pid", &swarm.product)
                .with_query("lt", LIFETIME_SECS)
        };
        let response = loop {
            let response = dialogue.ask(request()).await?;
            match busy(&response) {
                Some(pause) => sleep(pause).await,
                None => break response,
            }
        };
        let mut location = response.all(OptionNumber::LOCATION_PATH);
        let rd = match (response.code, location.next(), location.next()) {
            (Code::CREATED, Some(b"rd"), Some(id)) => String::from_utf8_lossy(id).into_owned(),
            _ => return Err(DeviceError::RegistrationRefused(text_of(&response))),
        };
        drop(location);
        let rng = Rng::new(swarm.seed, POLL_STREAM + u64::from(identity.index));
        Ok(Self {
            swarm,
            plan,
            dialogue,
            rd,
            has_moved: false,
            awake_since: Instant::now(),
            rng,
        })
    }

    /// A request that names the registration.
    pub(super) fn request(&self, method: Code, path: &str) -> Request {
        Request::new(method, path).with_query("rd", &self.rd)
    }

    /// Asks until the gateway serves it, or says why it does not.
    ///
    /// # Errors
    /// [`DeviceError::Unregistered`] and those of the network.
    pub(super) async fn exchange(&mut self, request: Request) -> Result<Message, DeviceError> {
        self.persist(request, false).await
    }

    /// Posts a JSON object.
    ///
    /// # Errors
    /// As [`Line::exchange`].
    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Result<Message, DeviceError> {
        let body = Bytes::from(body.to_string());
        let request = self
            .request(Code::POST, path)
            .with_content(ContentFormat::JSON, body);
        self.exchange(request).await
    }

    /// Looks at what waits for the device, and watches it from then on.
    ///
    /// # Errors
    /// As [`Line::exchange`].
    pub(super) async fn look(&mut self) -> Result<Message, DeviceError> {
        if std::mem::take(&mut self.has_moved) {
            // What it watches is told where it said that it is.
            let renewal = Request::new(Code::POST, &format!("rd/{}", self.rd));
            let renewed = self
                .exchange(renewal.with_query("lt", LIFETIME_SECS))
                .await?;
            if renewed.code != Code::CHANGED {
                return Err(DeviceError::Unregistered);
            }
            return self.persist(self.request(Code::GET, "t"), true).await;
        }
        let watches = !self.dialogue.is_watching();
        self.persist(self.request(Code::GET, "t"), watches).await
    }

    /// Waits for a notification, and no longer than a device waits that looks by itself.
    ///
    /// # Errors
    /// [`DeviceError::Io`].
    pub(super) async fn told(&mut self) -> Result<Option<Message>, DeviceError> {
        let poll = u64::try_from(self.plan.poll.as_millis()).unwrap_or(u64::MAX);
        let wait = self.plan.poll + Duration::from_millis(self.rng.below(poll));
        let until = Instant::now() + wait;
        let Some(sleep) = self.plan.sleep else {
            return self.dialogue.notification(until).await;
        };
        let tired = self.awake_since + self.plan.awake;
        let told = self.dialogue.notification(until.min(tired)).await?;
        if told.is_none() && until > tired {
            self.fall_asleep(sleep).await;
        }
        Ok(told)
    }

    /// Hears and acknowledges what it is told, for as long as it is there.
    ///
    /// # Errors
    /// [`DeviceError::Io`].
    pub(super) async fn stay(&mut self) -> Result<(), DeviceError> {
        loop {
            self.told().await?;
        }
    }

    /// Sleeps, where it was awake for long enough.
    pub(super) async fn rest(&mut self) {
        if let Some(sleep) = self.plan.sleep
            && self.awake_since.elapsed() >= self.plan.awake
        {
            self.fall_asleep(sleep).await;
        }
    }

    /// Says that it leaves, and does not wait for the answer.
    pub(super) fn leave(&mut self) {
        let request = Request::new(Code::DELETE, &format!("rd/{}", self.rd));
        self.dialogue.say(request);
        self.count();
    }

    /// Adds what the message layer counted to the run's counters.
    pub(super) fn count(&mut self) {
        let counted = self.dialogue.take_counters();
        let counts = &self.swarm.stats.datagrams;
        counts.retransmissions.add(counted.retransmissions);
        counts.timeouts.add(counted.timeouts);
    }

    async fn persist(&mut self, request: Request, watches: bool) -> Result<Message, DeviceError> {
        let mut echo: Option<Vec<u8>> = None;
        for _ in 0..MAX_ECHOES {
            let response = loop {
                self.rest().await;
                let mut request = request.clone();
                if let Some(echo) = &echo {
                    request = request.with(OptionNumber::ECHO, echo.clone());
                }
                let asked = if watches {
                    self.dialogue.watch(request).await
                } else {
                    self.dialogue.ask(request).await
                };
                self.count();
                self.swarm.stats.datagrams.exchanges.add(1);
                let response = asked?;
                match busy(&response) {
                    Some(pause) => {
                        self.swarm.stats.stalls.add(1);
                        sleep(pause).await;
                    }
                    None => break response,
                }
            };
            if response.code != Code::UNAUTHORIZED {
                return Ok(response);
            }
            let Some(value) = response.first(OptionNumber::ECHO) else {
                return Err(DeviceError::Unregistered);
            };
            self.has_moved = true;
            echo = Some(value.to_vec());
        }
        Err(DeviceError::Unexpected(
            "it asks for Echo again and again".into(),
        ))
    }

    async fn fall_asleep(&mut self, time: Duration) {
        self.dialogue.sleep(time).await;
        self.awake_since = Instant::now();
    }
}

/// How long a gateway that is busy wants to be left alone.
fn busy(response: &Message) -> Option<Duration> {
    if response.code != Code::SERVICE_UNAVAILABLE {
        return None;
    }
    let secs = response
        .uint(OptionNumber::MAX_AGE)
        .unwrap_or(DEFAULT_PAUSE_SECS);
    Some(Duration::from_secs(u64::from(secs.min(MAX_PAUSE_SECS))))
}

/// A response as a person reads it.
pub(super) fn text_of(response: &Message) -> String {
    let words = String::from_utf8_lossy(&response.payload);
    format!("{} {words}", response.code)
}

/// Longer than a run.
const LIFETIME_SECS: &str = "86400";
/// Times that a device shows where it is for one request: it may move meanwhile.
const MAX_ECHOES: usize = 5;
const DEFAULT_PAUSE_SECS: u32 = 5;
const MAX_PAUSE_SECS: u32 = 60;
/// Keeps the times of looking apart from the other uses of the seed.
const POLL_STREAM: u64 = 1 << 50;
