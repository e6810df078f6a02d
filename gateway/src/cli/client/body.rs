//! Bodies of requests: nothing, JSON, or a file that is read as it is sent.

use std::{
    convert::Infallible,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};

use super::ClientError;

/// Bytes of a file that are read and sent at a time.
const SLICE_BYTES: usize = 64 * 1024;

/// A body of any kind.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is in memory.
pub(super) fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    let body = Full::new(bytes.into());
    body.map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A file between two texts, told piece by piece to whoever shows how far it is.
pub(crate) struct FileBody {
    head: Option<Bytes>,
    file: File,
    left: u64,
    size: u64,
    tail: Option<Bytes>,
    sent: Box<dyn FnMut(u64) + Send>,
}

impl FileBody {
    /// The bytes of a file; `sent` is told how many have gone out.
    ///
    /// # Errors
    /// [`ClientError::File`].
    pub(crate) fn of(
        path: &Path,
        sent: impl FnMut(u64) + Send + 'static,
    ) -> Result<Self, ClientError> {
        let failed = |source| ClientError::File {
            path: path.display().to_string(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "is no file",
            )));
        }
        Ok(Self {
            head: None,
            file,
            left: about.len(),
            size: about.len(),
            tail: None,
            sent: Box::new(sent),
        })
    }

    /// Bytes of the file.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The file as the last part of a form, behind `fields`.
    pub(crate) fn in_form(mut self, boundary: &str, fields: &[(&str, &str)]) -> Self {
        let mut head = String::new();
        for (name, value) in fields {
            // Writing to a string does not fail.
            let _ok = write!(
                head,
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        let _ok = write!(
            head,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\r\n"
        );
        self.head = Some(head.into());
        self.tail = Some(format!("\r\n--{boundary}--\r\n").into());
        self
    }

    pub(super) fn boxed(self) -> AnyBody {
        self.boxed_unsync()
    }

    fn len(&self) -> u64 {
        let around = |text: &Option<Bytes>| text.as_ref().map_or(0, Bytes::len) as u64;
        around(&self.head) + self.left + around(&self.tail)
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    // The one thing that runs here is this request: a blocking read holds nobody up.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.left == 0 {
            return Poll::Ready(self.tail.take().map(|tail| Ok(Frame::data(tail))));
        }
        let want = usize::try_from(self.left).map_or(SLICE_BYTES, |left| left.min(SLICE_BYTES));
        let mut slice = vec![0; want];
        match self.file.read(&mut slice) {
            Err(error) => Poll::Ready(Some(Err(error))),
            Ok(0) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Ok(read) => {
                slice.truncate(read);
                self.left -= read as u64;
                let sent = self.size - self.left;
                (self.sent)(sent);
                Poll::Ready(Some(Ok(Frame::data(slice.into()))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use super::*;

    #[tokio::test]
    async fn a_file_in_a_form_is_as_long_as_it_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, vec![7; 100_000]).expect("written");
        let told = Arc::new(AtomicU64::new(0));
        let teller = Arc::clone(&told);
        let body = FileBody::of(&path, move |sent| teller.store(sent, Ordering::Relaxed));
        let body = body.expect("opens").in_form("==", &[("name", "fw")]);
        let announced = body.len();
        let bytes = body.boxed().collect().await.expect("read").to_bytes();
        assert_eq!(bytes.len() as u64, announced);
        assert_eq!(told.load(Ordering::Relaxed), 100_000);
        assert!(bytes.starts_with(b"--==\r\n") && bytes.ends_with(b"\r\n--==--\r\n"));
        assert!(
            FileBody::of(directory.path(), |_| {}).is_err(),
            "a directory"
        );
    }
}
