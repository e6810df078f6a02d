//! The listener's files are deliveries and uploads: what their services grant.

use std::io;

use bytes::Bytes;

use super::{File, FileSource, Receiver, Refusal, UploadFile};
use crate::service::{
    delivery::{DeliveryService, FileGrant, FileRefusal},
    upload::{Put, PutRefusal, UploadGrant, UploadService},
};

/// What devices fetch and what they send.
#[derive(Debug, Clone)]
pub struct DeviceFiles {
    delivery: DeliveryService,
    uploads: UploadService,
}

impl DeviceFiles {
    /// The files of these services.
    pub const fn new(delivery: DeliveryService, uploads: UploadService) -> Self {
        Self { delivery, uploads }
    }
}

impl FileSource for DeviceFiles {
    type File = FileGrant;
    type Upload = UploadGrant;

    async fn open(&self, signed: &str) -> Result<FileGrant, Refusal> {
        Ok(self.delivery.open_file(signed).await?)
    }

    async fn open_upload(&self, signed: &str) -> Result<UploadGrant, Refusal> {
        Ok(self.uploads.open_upload(signed).await?)
    }
}

impl From<FileRefusal> for Refusal {
    fn from(refusal: FileRefusal) -> Self {
        match refusal {
            FileRefusal::BadSignature => Self::BadSignature,
            FileRefusal::Expired => Self::Expired,
            FileRefusal::Canceled => Self::Canceled,
            FileRefusal::Gone => Self::Gone,
            FileRefusal::Unavailable => Self::Unavailable,
        }
    }
}

impl UploadFile for UploadGrant {
    type Receiver = Put;

    fn begin(&self, length: u64, md5: Option<[u8; 16]>) -> Result<Put, PutRefusal> {
        self.begin(length, md5)
    }
}

impl Receiver for Put {
    async fn write(&mut self, bytes: Bytes) -> Result<(), PutRefusal> {
        self.write(bytes).await
    }

    async fn finish(self) -> Result<(), PutRefusal> {
        self.finish().await
    }
}

impl File for FileGrant {
    fn size_bytes(&self) -> u64 {
        self.size()
    }

    fn md5(&self) -> [u8; 16] {
        self.md5()
    }

    fn sha256(&self) -> [u8; 32] {
        self.sha256()
    }

    async fn read(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        // Cancelled while it is under way: what was sent stays sent, nothing follows.
        if !self.is_open() {
            let ended = "the delivery has ended";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, ended));
        }
        self.read(offset, max_bytes).await.map_err(io::Error::other)
    }

    fn sent(&self, start: u64, end: u64) {
        self.sent(start, end);
    }
}
