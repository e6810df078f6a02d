//! The listener's files are deliveries: what the delivery service grants.

use std::io;

use bytes::Bytes;

use super::{File, FileSource, Refusal};
use crate::service::delivery::{DeliveryService, FileGrant, FileRefusal};

impl FileSource for DeliveryService {
    type File = FileGrant;

    async fn open(&self, signed: &str) -> Result<FileGrant, Refusal> {
        self.open_file(signed)
            .await
            .map_err(|refusal| match refusal {
                FileRefusal::BadSignature => Refusal::BadSignature,
                FileRefusal::Expired => Refusal::Expired,
                FileRefusal::Canceled => Refusal::Canceled,
                FileRefusal::Gone => Refusal::Gone,
                FileRefusal::Unavailable => Refusal::Unavailable,
            })
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
