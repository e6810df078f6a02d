//! One upload in progress: which of its bytes are there, and who may add to them.
//!
//! Two locks. `progress` is held for moments, by anyone; `file` is held while the disk is written and only on
//! threads for blocking work. Where both are held, `file` was taken first.

use std::{
    ops::Deref,
    sync::atomic::{AtomicI64, Ordering},
};

use headgate_protocol::transfer::{message::UploadState, ranges::Ranges, upload::UploadResultCode};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    model::{Millis, Upload},
    store::spool::{SpoolState, Spooled},
};

/// An upload whose bytes are still coming, or are being checked.
#[derive(Debug)]
pub struct LiveUpload {
    upload: Upload,
    transfer: Box<str>,
    progress: Mutex<Progress>,
    file: Mutex<SpoolState>,
    /// The last taking of it that this node knows of.
    claim: AtomicI64,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    have: Ranges,
    moved_at: Millis,
    /// Bytes a chunk, as it was told to the device last.
    chunk_size: u32,
    /// Waits for the end on behalf of a `PUT`.
    waiter: Option<oneshot::Sender<UploadResultCode>>,
}

/// What may happen to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Chunks are taken, and a `PUT` may begin.
    Receiving,
    /// A `PUT` is under way: no chunks are taken.
    Putting,
    /// All bytes are there and wait to be checked, or are being checked.
    Checking,
    /// The check could not be carried out: it is tried again.
    Postponed,
    /// It is over; nothing is written any more.
    Closed,
}

impl Deref for LiveUpload {
    type Target = Upload;

    fn deref(&self) -> &Upload {
        &self.upload
    }
}

impl LiveUpload {
    /// An upload with what the spool has of it.
    pub(super) fn new(upload: Upload, spooled: Option<Spooled>) -> Self {
        let (state, moved_at) = match spooled {
            Some(spooled) => (spooled.state, spooled.at.max(upload.created_at)),
            None => (SpoolState::default(), upload.created_at),
        };
        Self {
            transfer: upload.id.to_string().into(),
            progress: Mutex::new(Progress {
                phase: Phase::Receiving,
                have: state.have().clone(),
                moved_at,
                chunk_size: headgate_protocol::transfer::DEFAULT_CHUNK_BYTES,
                waiter: None,
            }),
            file: Mutex::new(state),
            claim: AtomicI64::new(0),
            upload,
        }
    }

    /// Its id as text.
    pub fn transfer(&self) -> &str {
        &self.transfer
    }

    /// By which taking of it this node has it.
    pub(super) fn claim(&self) -> i64 {
        self.claim.load(Ordering::Acquire)
    }

    /// This node has taken it.
    pub(super) fn claimed(&self, claim: i64) {
        self.claim.fetch_max(claim, Ordering::AcqRel);
    }

    /// Bytes that are in the spool.
    pub fn received(&self) -> u64 {
        self.progress.lock().have.total()
    }

    /// When the last byte came, or it was announced.
    pub fn moved_at(&self) -> Millis {
        self.progress.lock().moved_at
    }

    /// Every byte before this is in the spool.
    pub fn offset(&self) -> u64 {
        self.progress.lock().have.low()
    }

    /// What the device is told of it.
    pub fn state(&self) -> UploadState {
        let progress = self.progress.lock();
        UploadState::of(
            &self.transfer,
            &progress.have,
            self.size,
            progress.chunk_size,
        )
    }

    pub(super) fn phase(&self) -> Phase {
        self.progress.lock().phase
    }

    pub(super) fn set_chunk_size(&self, bytes: u32) {
        self.progress.lock().chunk_size = bytes;
    }

    /// Works with the file; blocks while someone else does.
    pub(super) fn with_file<T>(&self, work: impl FnOnce(&mut SpoolState) -> T) -> T {
        work(&mut self.file.lock())
    }

    /// Takes note of what the file has now; gives the bytes that are new.
    pub(super) fn note(&self, state: &SpoolState, at: Millis) -> i64 {
        let mut progress = self.progress.lock();
        let total = |have: &Ranges| i64::try_from(have.total()).unwrap_or(i64::MAX);
        let new = total(state.have()) - total(&progress.have);
        progress.have = state.have().clone();
        progress.moved_at = at;
        new
    }

    /// Says that all bytes are there, once.
    pub(super) fn take_whole(&self) -> bool {
        let mut progress = self.progress.lock();
        let whole = progress.phase == Phase::Receiving && progress.have.covers(self.size);
        if whole {
            progress.phase = Phase::Checking;
        }
        whole
    }

    /// Lets a `PUT` begin, unless one is under way or everything is there already.
    pub(super) fn begin_put(&self) -> Result<(), Phase> {
        let mut progress = self.progress.lock();
        if progress.phase == Phase::Receiving {
            progress.phase = Phase::Putting;
            Ok(())
        } else {
            Err(progress.phase)
        }
    }

    /// Ends a `PUT`: chunks are taken again.
    pub(super) fn end_put(&self) {
        let mut progress = self.progress.lock();
        if progress.phase == Phase::Putting {
            progress.phase = Phase::Receiving;
        }
    }

    /// Ends a `PUT` that brought everything; says whether it did and the upload is still open.
    pub(super) fn finish_put(&self) -> bool {
        let mut progress = self.progress.lock();
        let whole = progress.phase == Phase::Putting && progress.have.covers(self.size);
        if whole {
            progress.phase = Phase::Checking;
        }
        whole
    }

    /// Puts the check off; whoever waits for its outcome waits no more.
    pub(super) fn postpone(&self) {
        let mut progress = self.progress.lock();
        if progress.phase == Phase::Checking {
            progress.phase = Phase::Postponed;
        }
        progress.waiter = None;
    }

    /// Whether a check that was put off is to be tried again.
    pub(super) fn take_postponed(&self) -> bool {
        let mut progress = self.progress.lock();
        let postponed = progress.phase == Phase::Postponed;
        if postponed {
            progress.phase = Phase::Checking;
        }
        postponed
    }

    /// Ends it; says whether it had not ended before.
    pub(super) fn close(&self) -> bool {
        let mut progress = self.progress.lock();
        let open = progress.phase != Phase::Closed;
        progress.phase = Phase::Closed;
        open
    }

    /// Whether it was ended.
    pub(super) fn is_closed(&self) -> bool {
        self.phase() == Phase::Closed
    }

    /// Waits for how it ends; of two that wait the first waits no more.
    pub(super) fn wait_for_end(&self) -> oneshot::Receiver<UploadResultCode> {
        let (sender, receiver) = oneshot::channel();
        self.progress.lock().waiter = Some(sender);
        receiver
    }

    /// Tells who waits.
    pub(super) fn answer(&self, code: UploadResultCode) {
        if let Some(waiter) = self.progress.lock().waiter.take() {
            // Whoever waited may be gone.
            let _gone = waiter.send(code);
        }
    }
}

/// Whether an upload is of this size and these digests, as far as both sides know them; one must be known to both.
pub(super) fn same_content(
    upload: &Upload,
    size: u64,
    md5: Option<[u8; 16]>,
    sha256: Option<[u8; 32]>,
) -> bool {
    let sha256_same = upload
        .sha256
        .zip(sha256)
        .map(|(ours, theirs)| ours == theirs);
    let md5_same = upload.md5.zip(md5).map(|(ours, theirs)| ours == theirs);
    upload.size == size
        && sha256_same != Some(false)
        && md5_same != Some(false)
        && (sha256_same.is_some() || md5_same.is_some())
}
