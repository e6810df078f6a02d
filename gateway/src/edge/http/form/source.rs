//! The bytes of a form on their way to the parser, a little at a time.
//!
//! The parser takes whatever its source has ready and looks for the end of a part's head for as
//! long as bytes come. This source hands it one slice per turn, and only so many before the file
//! was found; a sender that is faster than the disk waits in its socket, not in our memory.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};

/// Most bytes handed over at a time, once the file was found.
const SLICE_BYTES: usize = 64 * 1024;

/// Most bytes handed over at a time before that: the parser takes a slice for every step, also
/// when it has enough for it.
const FIELDS_SLICE_BYTES: usize = 4 * 1024;

/// Most bytes of a form before its file begins: fields, heads, and what the parser takes
/// ahead of them.
const MAX_FIELDS_BYTES: u64 = 256 * 1024;

/// Why the source ended early.
#[derive(Debug, thiserror::Error)]
pub(in crate::edge::http) enum SourceError {
    /// More bytes came than the form may have.
    #[error("the form is larger than this path takes")]
    TooLarge,
    /// No file began within the bytes that the fields may take.
    #[error("the fields before the file are too large")]
    FieldsTooLarge,
    /// The connection failed or fell silent.
    #[error(transparent)]
    Connection(#[from] axum::Error),
}

/// A body, in slices.
#[derive(Debug)]
pub(super) struct Source {
    body: BodyDataStream,
    slice: Bytes,
    taken_bytes: u64,
    max_bytes: u64,
    bound: Bound,
    has_given: bool,
}

/// How many bytes may come for now; shared with the reader of the form.
#[derive(Debug, Clone)]
pub(super) struct Bound(Arc<AtomicU64>);

impl Bound {
    /// The file was found: only the bound of the whole form is left.
    pub(super) fn lift(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Source {
    /// A source over `body`, of at most `max_bytes` in all.
    pub(super) fn new(body: Body, max_bytes: u64) -> (Self, Bound) {
        let bound = Bound(Arc::new(AtomicU64::new(MAX_FIELDS_BYTES)));
        let source = Self {
            body: body.into_data_stream(),
            slice: Bytes::new(),
            taken_bytes: 0,
            max_bytes,
            bound: bound.clone(),
            has_given: false,
        };
        (source, bound)
    }
}

impl Stream for Source {
    type Item = Result<Bytes, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // One slice a turn: the parser loops until it is told to wait.
        if std::mem::take(&mut self.has_given) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.slice.is_empty() {
            match ready!(self.body.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(bytes)) => self.slice = bytes,
            }
        }
        let bound = self.bound.0.load(Ordering::Relaxed);
        let max_slice = if bound == u64::MAX {
            SLICE_BYTES
        } else {
            FIELDS_SLICE_BYTES
        };
        let len = self.slice.len().min(max_slice);
        let slice = self.slice.split_to(len);
        self.taken_bytes = self
            .taken_bytes
            .saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        if self.taken_bytes > self.max_bytes {
            return Poll::Ready(Some(Err(SourceError::TooLarge)));
        }
        if self.taken_bytes > bound {
            return Poll::Ready(Some(Err(SourceError::FieldsTooLarge)));
        }
        self.has_given = true;
        Poll::Ready(Some(Ok(slice)))
    }
}
