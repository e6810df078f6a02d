//! A delivery by CoAP: the device hears of it, asks for block after block, checks every byte, and says how it went.
//!
//! Outlives the registration: another one goes on with the first byte that is missing.

use std::sync::Arc;
use std::time::Duration;

use headgate_protocol::coap::{Block, Code, Message, OptionNumber, Szx};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::line::{Line, text_of};
use crate::device::error::DeviceError;
use crate::device::identity::Fate;
use crate::device::message::{Announced, MaybeAnnounced};
use crate::device::transfer::Plan;
use crate::stats::Timing;
use crate::verify::Verifier;

/// How a turn of work on a line ended.
pub(super) enum Step {
    /// It is over.
    Done,
    /// The drop schedule wants the device to start again.
    Drop,
}

/// The delivery of one device.
pub(crate) struct Taking {
    plan: Arc<Plan>,
    block: Szx,
    verifier: Verifier,
    fate: Fate,
    drop_at: Option<u64>,
    /// When it was heard of for the first time.
    pub(super) announced_at: Option<Instant>,
    has_first_byte: bool,
    reported_half: bool,
}

impl Taking {
    /// One that the device has not heard of.
    pub(super) fn new(plan: Arc<Plan>, block: Szx, fate: Fate) -> Self {
        let verifier = Verifier::new(Arc::clone(&plan.expected), plan.verify);
        Self {
            plan,
            block,
            verifier,
            fate,
            drop_at: fate.drop_at,
            announced_at: None,
            has_first_byte: false,
            reported_half: false,
        }
    }

    /// Takes it, however often the gateway has to offer it.
    ///
    /// # Errors
    /// [`DeviceError`]: the line is lost, or the bytes are not the resource's.
    pub(super) async fn run(&mut self, line: &mut Line) -> Result<Step, DeviceError> {
        loop {
            let announced = self.hear(line).await?;
            match self.fetch(line, &announced).await {
                Ok(Some(step)) => return Ok(step),
                // It was taken back: another attempt follows, or nothing.
                Ok(None) => line.swarm.stats.stalls.add(1),
                Err(error) => {
                    if error.is_wrong() {
                        self.report(line, &announced, "fail").await?;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits until the resource is offered.
    async fn hear(&mut self, line: &mut Line) -> Result<Announced, DeviceError> {
        let mut told = line.look().await?;
        loop {
            if let Some(announced) = self.read(&told)? {
                self.announced_at.get_or_insert_with(Instant::now);
                return Ok(announced);
            }
            told = match line.told().await? {
                Some(notified) => notified,
                None => line.look().await?,
            };
        }
    }

    fn read(&self, told: &Message) -> Result<Option<Announced>, DeviceError> {
        if told.code != Code::CONTENT {
            return Err(DeviceError::Unexpected(text_of(told)));
        }
        let read: MaybeAnnounced = serde_json::from_slice(&told.payload)
            .map_err(|error| DeviceError::Unexpected(format!("what waits: {error}")))?;
        let announced = read.into_announced();
        let announced = announced.filter(|all| self.plan.wants(&all.name));
        let expected = &self.plan.expected;
        match &announced {
            Some(said) if said.size != expected.size => {
                let text = format!("{} bytes, expected {}", said.size, expected.size);
                Err(DeviceError::Announcement(text))
            }
            Some(said) if said.sha256 != hex::encode(expected.sha256) => {
                Err(DeviceError::Announcement(format!("sha256 {}", said.sha256)))
            }
            _ => Ok(announced),
        }
    }

    /// Fetches what is missing and says that it is there; `None` where the delivery is over before.
    async fn fetch(
        &mut self,
        line: &mut Line,
        announced: &Announced,
    ) -> Result<Option<Step>, DeviceError> {
        let path = format!("r/{}", announced.transfer);
        while !self.verifier.is_complete() {
            let offset = self.verifier.offset();
            if self.drop_at.take_if(|at| offset >= *at).is_some() {
                return Ok(Some(Step::Drop));
            }
            let block = Block::at(offset, self.block)
                .ok_or_else(|| DeviceError::Unexpected(format!("no block begins at {offset}")))?;
            let asked_at = Instant::now();
            let request = line
                .request(Code::GET, &path)
                .with_uint(OptionNumber::BLOCK2, block.value());
            let response = line.exchange(request).await?;
            if response.code == Code::NOT_FOUND {
                return Ok(None);
            }
            let fresh = self.accept(&response)?;
            let stats = &line.swarm.stats;
            stats.chunks.add(1);
            stats.bytes.add(fresh);
            stats
                .duplicate_bytes
                .add(response.payload.len() as u64 - fresh);
            if !std::mem::replace(&mut self.has_first_byte, true) {
                stats.record(Timing::FirstByte, asked_at.elapsed());
            }
            if let Some(bps) = self.fate.read_bps {
                let micros = response.payload.len() as u64 * 1_000_000 / bps.max(1);
                sleep(Duration::from_micros(micros)).await;
            }
            self.report_half(line, announced).await?;
        }
        self.verifier.finish()?;
        let answer = self.report(line, announced, "done").await?;
        match answer.code {
            Code::CHANGED => Ok(Some(Step::Done)),
            _ => Err(DeviceError::ReportRefused(text_of(&answer))),
        }
    }

    /// Takes a block; gives how many of its bytes were new.
    fn accept(&mut self, response: &Message) -> Result<u64, DeviceError> {
        if response.code != Code::CONTENT {
            return Err(DeviceError::Unexpected(text_of(response)));
        }
        let expected = &self.plan.expected;
        if response.first(OptionNumber::ETAG) != expected.sha256.get(..8) {
            return Err(DeviceError::Announcement("another entity tag".into()));
        }
        if response.uint(OptionNumber::SIZE2).map(u64::from) != Some(expected.size) {
            return Err(DeviceError::Announcement("another Size2".into()));
        }
        let value = response.first(OptionNumber::BLOCK2).unwrap_or_default();
        let block = Block::decode(value)
            .map_err(|error| DeviceError::Unexpected(format!("Block2: {error}")))?;
        Ok(self.verifier.accept(block.offset(), &response.payload)?)
    }

    /// Says once how far it is.
    async fn report_half(
        &mut self,
        line: &mut Line,
        announced: &Announced,
    ) -> Result<(), DeviceError> {
        let percent = self.verifier.offset() * 100 / self.plan.expected.size.max(1);
        if !(50..100).contains(&percent) || std::mem::replace(&mut self.reported_half, true) {
            return Ok(());
        }
        let body = json!({"state": "downloading", "percent": percent});
        let path = format!("t/{}", announced.transfer);
        line.post(&path, &body).await.map(drop)
    }

    async fn report(
        &self,
        line: &mut Line,
        announced: &Announced,
        state: &str,
    ) -> Result<Message, DeviceError> {
        let path = format!("t/{}", announced.transfer);
        line.post(&path, &json!({ "state": state })).await
    }
}
