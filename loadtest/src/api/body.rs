//! Request bodies: nothing, a text, or a multipart upload made while it is sent.

use std::fmt::Write;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::content::{Content, ContentReader};

/// A body that knows its length.
#[derive(Debug)]
pub(crate) struct ApiBody {
    head: Option<Bytes>,
    content: Option<ContentReader>,
    tail: Option<Bytes>,
    left: u64,
}

impl ApiBody {
    /// No body.
    pub(crate) const fn empty() -> Self {
        Self {
            head: None,
            content: None,
            tail: None,
            left: 0,
        }
    }

    /// A text.
    pub(crate) fn text(text: &str) -> Self {
        let head = Bytes::copy_from_slice(text.as_bytes());
        let left = head.len() as u64;
        Self {
            head: Some(head),
            content: None,
            tail: None,
            left,
        }
    }

    /// A multipart upload from its beginning.
    pub(crate) fn upload(upload: &Upload) -> Self {
        let (head, tail) = (upload.head.clone(), upload.tail.clone());
        let left = head.len() as u64 + upload.content.size() + tail.len() as u64;
        let content = Some(upload.content.reader());
        Self {
            head: Some(head),
            content,
            tail: Some(tail),
            left,
        }
    }

    fn next_part(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if let Some(content) = &mut self.content {
            let part = content.next_part(PART_BYTES)?;
            if !part.is_empty() {
                return Ok(Some(part));
            }
            self.content = None;
        }
        Ok(self.tail.take())
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = self.next_part().transpose();
        if let Some(Ok(part)) = &part {
            self.left = self.left.saturating_sub(part.len() as u64);
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A resource upload: fields first, the content last, so that the gateway can check before it reads.
#[derive(Debug)]
pub(crate) struct Upload {
    head: Bytes,
    content: Content,
    tail: Bytes,
    boundary: String,
}

impl Upload {
    /// An upload of `content` with `fields` before it.
    pub(crate) fn new(fields: &[(&str, String)], content: &Content) -> Self {
        let boundary = format!("swarm-{}", hex::encode(&content.sha256()[..16]));
        let mut head = String::new();
        for (name, value) in fields {
            // Writing to a String cannot fail.
            let _ = write!(
                head,
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        let _ = write!(
            head,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"resource.bin\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        Self {
            head: head.into(),
            content: content.clone(),
            tail: tail.into(),
            boundary,
        }
    }

    /// Value of `Content-Type`.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }
}

/// Content made and sent at a time.
const PART_BYTES: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_upload_is_as_long_as_it_says_and_ends_with_its_boundary() {
        let content = Content::generated(1, 300_000).unwrap();
        let upload = Upload::new(&[("product", "p".into()), ("name", "n".into())], &content);
        let body = ApiBody::upload(&upload);
        let announced = body.size_hint().exact().unwrap();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len() as u64, announced);
        let end = format!("\r\n--{}--\r\n", upload.boundary);
        assert!(bytes.ends_with(end.as_bytes()));
        let head = String::from_utf8_lossy(&bytes[..200]).into_owned();
        assert!(head.contains("name=\"product\"\r\n\r\np\r\n"), "{head}");
    }

    #[tokio::test]
    async fn nothing_is_nothing() {
        assert!(ApiBody::empty().is_end_stream());
        assert!(
            ApiBody::empty()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
        assert_eq!(
            ApiBody::text("{}").collect().await.unwrap().to_bytes(),
            "{}"
        );
    }
}
