//! An upload's bytes by `PUT`: what the holder of a signed address may send.
//!
//! A `PUT` begins at the first byte whatever came before, and holds at most [`PORTION_BYTES`] in memory. One that
//! breaks off leaves what it brought: the device may go on by chunks, or begin again.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use headgate_protocol::transfer::upload::UploadResultCode;

use super::{
    Inner, Refusal, UploadService,
    live::{LiveUpload, Phase},
};
use crate::{
    model::{Millis, Upload},
    service::{delivery::FileRefusal, link::Purpose},
    store::spool::SpoolState,
};

/// Bytes that are gathered for one write.
const PORTION_BYTES: usize = 256 * 1024;

/// Why a `PUT` is not taken, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutRefusal {
    /// The body is not as long as what was announced.
    #[error("the length is not the announced size")]
    WrongSize,
    /// The header's digest is not what was announced.
    #[error("Content-MD5 is not the announced md5sum")]
    WrongDigest,
    /// Another request sends it just now.
    #[error("the upload is being sent already")]
    Busy,
    /// It was ended meanwhile.
    #[error("the upload was ended")]
    Ended,
    /// The bytes are not what was announced; nothing of them is left.
    #[error("{0}")]
    Mismatch(&'static str),
    /// There is no room for it.
    #[error("no room to store it")]
    NoSpace,
    /// It cannot be stored now.
    #[error("not available now, try again")]
    Unavailable,
}

/// The right to send one upload's bytes.
#[derive(Debug, Clone)]
pub struct UploadGrant {
    inner: Arc<Inner>,
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    Open(Arc<LiveUpload>),
    /// It is stored: a request that comes again because its answer was lost.
    Stored(Box<Upload>),
}

/// A `PUT` under way; dropped before its end it leaves what it brought.
#[derive(Debug)]
pub struct Put {
    inner: Arc<Inner>,
    /// `None`: the bytes are known already and are let pass.
    upload: Option<Arc<LiveUpload>>,
    size: u64,
    received: u64,
    written: u64,
    portion: BytesMut,
}

impl UploadService {
    /// What the signed address opens; the expiry counts when a request starts.
    ///
    /// # Errors
    /// [`FileRefusal`] where it opens nothing.
    pub async fn open_upload(&self, signed: &str) -> Result<UploadGrant, FileRefusal> {
        let link = self.inner.urls.signer().verify(Purpose::Upload, signed);
        let link = link.ok_or(FileRefusal::BadSignature)?;
        if link.expires_at <= Millis::now() {
            return Err(FileRefusal::Expired);
        }
        let grant = |target| UploadGrant {
            inner: Arc::clone(&self.inner),
            target,
        };
        let held = self.inner.hold(link.id, None).await;
        if let Some(upload) = held.map_err(|_refused| FileRefusal::Unavailable)? {
            return Ok(grant(Target::Open(upload)));
        }
        match self.inner.registry.upload(link.id).await {
            Ok(Some(stored)) if stored.blob.is_some() => {
                Ok(grant(Target::Stored(Box::new(stored))))
            }
            Ok(_) => Err(FileRefusal::Gone),
            Err(error) => {
                tracing::error!(%error, "an upload could not be looked up");
                Err(FileRefusal::Unavailable)
            }
        }
    }
}

impl UploadGrant {
    /// Begins to take the bytes, from the first one on.
    ///
    /// # Errors
    /// [`PutRefusal`] where length or digest are not what was announced, or it is being sent already.
    pub fn begin(&self, length: u64, md5: Option<[u8; 16]>) -> Result<Put, PutRefusal> {
        let upload: &Upload = match &self.target {
            Target::Open(upload) => upload,
            Target::Stored(upload) => upload,
        };
        if length != upload.size {
            return Err(PutRefusal::WrongSize);
        }
        if upload
            .md5
            .zip(md5)
            .is_some_and(|(announced, sent)| announced != sent)
        {
            return Err(PutRefusal::WrongDigest);
        }
        let upload = match &self.target {
            Target::Open(upload) => match upload.begin_put() {
                Ok(()) => Some(Arc::clone(upload)),
                Err(Phase::Closed) => return Err(PutRefusal::Ended),
                Err(_) => return Err(PutRefusal::Busy),
            },
            Target::Stored(_) => None,
        };
        Ok(Put {
            inner: Arc::clone(&self.inner),
            upload,
            size: length,
            received: 0,
            written: 0,
            portion: BytesMut::new(),
        })
    }
}

impl Put {
    /// Takes bytes; returns when they may be followed by more.
    ///
    /// # Errors
    /// [`PutRefusal`] where they cannot be stored.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), PutRefusal> {
        self.received += bytes.len() as u64;
        if self.received > self.size {
            return Err(PutRefusal::WrongSize);
        }
        if self.upload.is_none() {
            return Ok(());
        }
        self.portion.extend_from_slice(&bytes);
        if self.portion.len() >= PORTION_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends the body: the bytes are checked and stored when this returns.
    ///
    /// # Errors
    /// [`PutRefusal`] where they are too few or not what was announced, or cannot be stored now.
    pub async fn finish(mut self) -> Result<(), PutRefusal> {
        if self.received != self.size {
            return Err(PutRefusal::WrongSize);
        }
        if !self.portion.is_empty() {
            self.flush().await?;
        }
        let Some(upload) = self.upload.take() else {
            return Ok(());
        };
        let ended = upload.wait_for_end();
        if !upload.finish_put() {
            return Err(PutRefusal::Ended);
        }
        self.inner.enqueue(Arc::clone(&upload));
        match ended.await {
            Ok(UploadResultCode::Stored) => Ok(()),
            Ok(UploadResultCode::FileNotExist | UploadResultCode::TimeOut) => {
                Err(PutRefusal::Ended)
            }
            Ok(mismatch) => Err(PutRefusal::Mismatch(mismatch.text())),
            // It is there, and its check is tried again: the device learns of the end.
            Err(_postponed) => Err(PutRefusal::Unavailable),
        }
    }

    async fn flush(&mut self) -> Result<(), PutRefusal> {
        let Some(upload) = &self.upload else {
            return Ok(());
        };
        let _thread = self.inner.put_threads.acquire().await;
        let portion = self.portion.split().freeze();
        let (inner, upload, at) = (Arc::clone(&self.inner), Arc::clone(upload), self.written);
        self.written += portion.len() as u64;
        let counted = u64::try_from(portion.len()).unwrap_or(u64::MAX);
        let writing = super::blocking(&self.inner.shutdown, move || {
            Ok(upload.with_file(|state| inner.put(&upload, state, at, portion)))
        });
        match writing.await {
            Ok(written) => written?,
            Err(error) => {
                tracing::error!(%error, "a PUT could not be written");
                return Err(PutRefusal::Unavailable);
            }
        }
        self.inner.metrics.uploads.bytes_files.inc_by(counted);
        Ok(())
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.end_put();
        }
    }
}

impl Inner {
    fn put(
        &self,
        upload: &LiveUpload,
        state: &mut SpoolState,
        at: u64,
        portion: Bytes,
    ) -> Result<(), PutRefusal> {
        if upload.phase() != Phase::Putting {
            return Err(PutRefusal::Ended);
        }
        let before = state.clone();
        if at == 0 {
            state.forget();
        }
        let written = self.spool(upload, state, &[(at, portion)]);
        if written.is_err() {
            *state = before;
        }
        written.map_err(|refusal| {
            if refusal == Refusal::NO_SPACE {
                PutRefusal::NoSpace
            } else {
                PutRefusal::Unavailable
            }
        })
    }
}
