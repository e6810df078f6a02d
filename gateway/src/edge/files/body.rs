//! Bodies of the files listener: nothing, a short text, or a file slice by slice.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use hyper::body::{Body, Frame, SizeHint};
use prometheus::IntCounter;

use super::File;

/// Most bytes taken from the cache at a time; the socket is offered one such slice while the next
/// is not yet read.
const SLICE_BYTES: usize = 128 * 1024;

/// The body of an answer; its length is known from the start.
pub struct FileBody {
    remaining_bytes: u64,
    slices: BoxStream<'static, io::Result<Bytes>>,
    counter: Option<IntCounter>,
}

impl FileBody {
    /// No byte.
    pub(super) fn empty() -> Self {
        Self {
            remaining_bytes: 0,
            slices: futures_util::stream::empty().boxed(),
            counter: None,
        }
    }

    /// A short text.
    pub(super) fn text(text: &'static str) -> Self {
        let slice = Bytes::from_static(text.as_bytes());
        Self {
            remaining_bytes: len_of(&slice),
            slices: futures_util::stream::once(async { Ok(slice) }).boxed(),
            counter: None,
        }
    }

    /// The bytes of `file` from `start` up to and without `end`.
    pub(super) fn of<F: File>(file: F, start: u64, end: u64) -> Self {
        let reader = Reader {
            file,
            reported: start,
            next: start,
            end,
        };
        Self {
            remaining_bytes: end - start,
            slices: unfold(reader, Reader::step).boxed(),
            counter: None,
        }
    }

    /// The same body; its bytes are counted as they are handed to the socket.
    pub(super) fn counted_by(self, counter: IntCounter) -> Self {
        Self {
            counter: Some(counter),
            ..self
        }
    }
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBody")
            .field("remaining_bytes", &self.remaining_bytes)
            .finish_non_exhaustive()
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let slice = ready!(self.slices.poll_next_unpin(cx));
        if let Some(Ok(slice)) = &slice {
            self.remaining_bytes = self.remaining_bytes.saturating_sub(len_of(slice));
            if let Some(counter) = &self.counter {
                counter.inc_by(len_of(slice));
            }
        }
        Poll::Ready(slice.map(|slice| slice.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_bytes)
    }
}

/// Where one request stands in its file.
struct Reader<F> {
    file: F,
    /// Bytes before this were reported as sent.
    reported: u64,
    next: u64,
    end: u64,
}

impl<F: File> Reader<F> {
    /// The next slice.
    ///
    /// It is asked for once the one before was taken by the socket, so that one is reported then;
    /// the last is reported when it is handed over, since nobody asks again.
    async fn step(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let left = self.end.checked_sub(self.next).filter(|left| *left > 0)?;
        self.report();
        let max_bytes = usize::try_from(left).map_or(SLICE_BYTES, |left| left.min(SLICE_BYTES));
        let slice = match self.file.read(self.next, max_bytes).await {
            Ok(slice) if slice.is_empty() || slice.len() > max_bytes => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the content is shorter than its size",
            )),
            read => read,
        };
        match &slice {
            Ok(bytes) => {
                self.next += len_of(bytes);
                if self.next == self.end {
                    self.report();
                }
            }
            // Nothing can follow an error: the connection ends short of its announced length.
            Err(error) => {
                tracing::debug!(%error, offset = self.next, "file body ended early");
                self.next = self.end;
            }
        }
        Some((slice, self))
    }

    fn report(&mut self) {
        if self.reported < self.next {
            self.file.sent(self.reported, self.next);
            self.reported = self.next;
        }
    }
}

fn len_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
