//! An upload by CoAP: block after block by Block1, each answered when the gateway has stored it.
//!
//! Outlives the registration: another one asks where the upload stands and goes on from there.  Spec: RFC 7959 s3.2.

use std::sync::Arc;

use headgate_protocol::coap::{Block, Code, OptionNumber, Szx};
use serde::Deserialize;
use tokio::time::Instant;

use super::line::{Line, text_of};
use super::taking::Step;
use crate::content::Content;
use crate::device::error::DeviceError;
use crate::device::identity::Identity;
use crate::device::sending::SendPlan;

/// Where an unfinished upload stands.
#[derive(Deserialize)]
struct Standing {
    offset: u64,
}

/// The upload of one device.
pub(crate) struct Sending {
    plan: Arc<SendPlan>,
    block: Szx,
    index: u32,
    content: Option<Content>,
    drop_at: Option<u64>,
    stored: u64,
    /// When its first block was sent for the first time.
    pub(super) announced_at: Option<Instant>,
}

impl Sending {
    /// One of which nothing was sent.
    pub(super) fn new(
        plan: Arc<SendPlan>,
        block: Szx,
        identity: &Identity,
        drop_at: Option<u64>,
    ) -> Self {
        Self {
            plan,
            block,
            index: identity.index,
            content: None,
            drop_at,
            stored: 0,
            announced_at: None,
        }
    }

    /// Sends what the gateway has not got.
    ///
    /// # Errors
    /// [`DeviceError`]: the line is lost, or the gateway does not take the file.
    pub(super) async fn run(&mut self, line: &mut Line) -> Result<Step, DeviceError> {
        self.announced_at.get_or_insert_with(Instant::now);
        if self.content.is_none() {
            let made = self.plan.content(self.index).map_err(DeviceError::Io)?;
            self.content = Some(made);
        }
        let mut offset = self.standing(line).await?;
        loop {
            if self.drop_at.take_if(|at| offset >= *at).is_some() {
                return Ok(Step::Drop);
            }
            let end = (offset + u64::from(self.block.bytes())).min(self.plan.size);
            let response = self.put(line, offset, end).await?;
            match response.code {
                Code::CREATED => {
                    self.note(line, end);
                    return Ok(Step::Done);
                }
                Code::CONTINUE => {
                    self.note(line, end);
                    offset = end;
                }
                Code::REQUEST_ENTITY_INCOMPLETE => {
                    line.swarm.stats.stalls.add(1);
                    offset = self.standing(line).await?;
                }
                _ => return Err(DeviceError::UploadRefused(text_of(&response))),
            }
        }
    }

    /// Asks where the upload stands: at the first byte where the gateway does not know it.
    async fn standing(&self, line: &mut Line) -> Result<u64, DeviceError> {
        let request = line.request(Code::GET, &format!("u/{}", self.plan.name));
        let response = line.exchange(request).await?;
        let offset = match response.code {
            Code::NOT_FOUND => 0,
            Code::CONTENT => {
                let standing: Standing = serde_json::from_slice(&response.payload)
                    .map_err(|error| DeviceError::Unexpected(format!("the upload: {error}")))?;
                standing.offset
            }
            _ => return Err(DeviceError::Unexpected(text_of(&response))),
        };
        let bytes = u64::from(self.block.bytes());
        Ok(offset / bytes * bytes)
    }

    async fn put(
        &self,
        line: &mut Line,
        offset: u64,
        end: u64,
    ) -> Result<headgate_protocol::coap::Message, DeviceError> {
        let content = self
            .content
            .as_ref()
            .ok_or_else(|| DeviceError::Unexpected("no content".into()))?;
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let part = content.part(offset, len).map_err(DeviceError::Io)?;
        let block = Block::at(offset, self.block)
            .ok_or_else(|| DeviceError::Unexpected(format!("no block begins at {offset}")))?;
        let block = Block {
            more: end < self.plan.size,
            ..block
        };
        let size = u32::try_from(self.plan.size).unwrap_or(u32::MAX);
        let request = line
            .request(Code::PUT, &format!("u/{}", self.plan.name))
            .with_query("sha256", &hex::encode(content.sha256()))
            .with_uint(OptionNumber::BLOCK1, block.value())
            .with_uint(OptionNumber::SIZE1, size)
            .with_payload(part.freeze());
        line.swarm.stats.chunks.add(1);
        line.exchange(request).await
    }

    fn note(&mut self, line: &Line, end: u64) {
        line.swarm.stats.bytes.add(end.saturating_sub(self.stored));
        self.stored = self.stored.max(end);
    }
}
