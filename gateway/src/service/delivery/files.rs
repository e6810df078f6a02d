//! The same bytes by HTTPS: what the holder of a signed address may fetch.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use headgate_protocol::transfer::window::Chunk;

use super::{DeliveryService, live::LiveDelivery};
use crate::{
    model::{Millis, task::was_ended_by_us},
    service::link::Purpose,
    store::StoreError,
};

/// Why an address opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileRefusal {
    /// It was not signed by this gateway.
    #[error("the address is not valid")]
    BadSignature,
    /// Its time is over.
    #[error("the address has expired")]
    Expired,
    /// The delivery was cancelled.
    #[error("the delivery was cancelled")]
    Canceled,
    /// The delivery has ended.
    #[error("the delivery has ended")]
    Gone,
    /// It cannot be looked up now.
    #[error("not available now")]
    Unavailable,
}

/// The right to fetch one delivery's bytes in one request.
#[derive(Debug, Clone)]
pub struct FileGrant {
    service: DeliveryService,
    delivery: Arc<LiveDelivery>,
    /// The device is at another node, which is told what went out.
    is_visited: bool,
}

impl DeliveryService {
    /// What the signed address opens; the expiry counts when a request starts.
    ///
    /// # Errors
    /// [`FileRefusal`] where it opens nothing.
    pub async fn open_file(&self, signed: &str) -> Result<FileGrant, FileRefusal> {
        let link = self
            .inner
            .urls
            .signer()
            .verify(Purpose::Download, signed)
            .ok_or(FileRefusal::BadSignature)?;
        if link.expires_at <= Millis::now() {
            return Err(FileRefusal::Expired);
        }
        if let Some(delivery) = self.inner.book.by_id(link.id) {
            if delivery.task.is_held() {
                return Err(FileRefusal::Unavailable);
            }
            return Ok(FileGrant {
                service: self.clone(),
                delivery,
                is_visited: false,
            });
        }
        match self.visited(link.id).await {
            Ok(Some(delivery)) if delivery.task.is_held() => return Err(FileRefusal::Unavailable),
            Ok(Some(delivery)) => {
                return Ok(FileGrant {
                    service: self.clone(),
                    delivery,
                    is_visited: true,
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "a delivery could not be looked up");
                return Err(FileRefusal::Unavailable);
            }
        }
        match self.inner.registry.delivery(link.id).await {
            Ok(Some(closed)) if was_ended_by_us(closed.reason.as_deref()) => {
                Err(FileRefusal::Canceled)
            }
            Ok(_) => Err(FileRefusal::Gone),
            Err(error) => {
                tracing::error!(%error, "a delivery could not be looked up");
                Err(FileRefusal::Unavailable)
            }
        }
    }
}

impl FileGrant {
    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.delivery.content.size
    }

    /// MD5 of all bytes.
    pub fn md5(&self) -> [u8; 16] {
        self.delivery.content.md5
    }

    /// SHA-256 of all bytes.
    pub fn sha256(&self) -> [u8; 32] {
        self.delivery.content.sha256
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        self.delivery.content.name.as_str()
    }

    /// Whether the delivery is still open and not held: a response under way ends when it is not.
    pub fn is_open(&self) -> bool {
        !self.delivery.state().is_final() && !self.delivery.task.is_held()
    }

    /// Bytes from `offset` on: a slice of the shared cache, at most `max`, fewer at the end of a
    /// segment. The first read of a request is what makes the delivery `delivering`.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes, StoreError> {
        if !self.is_visited {
            self.service.begin_sending(&self.delivery).await;
        }
        if self.service.limits_rate(&self.delivery) {
            let bytes = u64::try_from(max).unwrap_or(u64::MAX);
            let reserved = self.service.reserve(&self.delivery, bytes, Instant::now());
            self.service.turn_of(&self.delivery, reserved).await;
        }
        self.service
            .inner
            .cache
            .read(&self.delivery.content, offset, max)
            .await
    }

    /// Takes note that the bytes from `offset` to `end` (exclusive) went out.
    pub fn sent(&self, offset: u64, end: u64) {
        let mut from = offset;
        while from < end {
            let len = u32::try_from(end - from).unwrap_or(u32::MAX);
            let chunk = Chunk { offset: from, len };
            self.delivery.on_sent(chunk);
            if self.is_visited {
                self.service.tell_sent(&self.delivery, chunk);
            }
            from += u64::from(len);
        }
    }
}
