//! A file on its way from a request to the resource service, checked as it passes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use md5::{Digest as _, Md5};
use multer::Field;
use parking_lot::Mutex;

use super::{
    form::{self, SourceError},
    problem::{Kind, Problem},
};

/// A stream of bytes ended early; why is in the [`Slot`] that goes with it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the upload ended early")]
pub(in crate::edge) struct EndedEarly;

/// Keeps the problem that ended a stream, while only [`EndedEarly`] travels through the service.
#[derive(Debug, Clone, Default)]
pub(in crate::edge) struct Slot(Arc<Mutex<Option<Problem>>>);

impl Slot {
    /// The problem that ended the stream, or else what the service said.
    pub(in crate::edge) fn or(&self, service: impl Into<Problem>) -> Problem {
        let found = self.0.lock().take();
        found.unwrap_or_else(|| service.into())
    }

    fn end(&self, problem: Problem) -> EndedEarly {
        self.0.lock().get_or_insert(problem);
        EndedEarly
    }
}

/// What the bytes are announced to be; what is `None` is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::edge) struct Announced {
    /// SHA-256 of all bytes; checked by the service, which computes it anyway.
    pub(in crate::edge) sha256: Option<[u8; 32]>,
    /// MD5 of all bytes; checked here.
    pub(in crate::edge) md5: Option<[u8; 16]>,
    /// How many bytes; checked by the service.
    pub(in crate::edge) size: Option<u64>,
}

/// The bytes that the service reads.
pub(in crate::edge) type Upload = BoxStream<'static, Result<Bytes, EndedEarly>>;

/// The file of a form.
pub(in crate::edge) fn of_part(part: Field<'static>, announced: Announced) -> (Upload, Slot) {
    checked(
        part.map(|read| read.map_err(|error| form::problem_of(&error))),
        announced,
    )
}

/// A body that is the file.
pub(in crate::edge) fn of_body(body: axum::body::Body, announced: Announced) -> (Upload, Slot) {
    let slices = body.into_data_stream().map(|read| {
        read.map_err(|error| {
            let error = SourceError::from(error);
            tracing::debug!(%error, "an upload ended early");
            Problem::new(Kind::Incomplete, "the connection ended within the body")
        })
    });
    checked(slices, announced)
}

/// The same bytes; after the last one the stream fails where they are not what was announced, so
/// that the service drops what it stored.
fn checked(
    slices: impl Stream<Item = Result<Bytes, Problem>> + Send + 'static,
    announced: Announced,
) -> (Upload, Slot) {
    let slot = Slot::default();
    let checker = Checker {
        slices: slices.boxed(),
        md5: announced.md5.map(|expected| (expected, Md5::new())),
        slot: slot.clone(),
    };
    (
        futures_util::stream::unfold(checker, Checker::step).boxed(),
        slot,
    )
}

struct Checker {
    slices: BoxStream<'static, Result<Bytes, Problem>>,
    md5: Option<([u8; 16], Md5)>,
    slot: Slot,
}

impl Checker {
    async fn step(mut self) -> Option<(Result<Bytes, EndedEarly>, Self)> {
        let item = match self.slices.next().await {
            Some(Ok(slice)) => {
                if let Some((_, md5)) = &mut self.md5 {
                    md5.update(&slice);
                }
                Ok(slice)
            }
            Some(Err(problem)) => Err(self.slot.end(problem)),
            None => {
                let (expected, md5) = self.md5.take()?;
                let actual: [u8; 16] = md5.finalize().into();
                if actual == expected {
                    return None;
                }
                let detail = format!(
                    "the content's MD5 is {}, announced was {}",
                    hex::encode(actual),
                    hex::encode(expected)
                );
                let problem = Problem::new(Kind::ContentMismatch, detail).with_field("md5");
                Err(self.slot.end(problem))
            }
        };
        Some((item, self))
    }
}

/// Reads a digest in hexadecimal, in either case.
pub(in crate::edge) fn digest<const N: usize>(
    name: &'static str,
    text: &str,
) -> Result<[u8; N], Problem> {
    let mut digest = [0; N];
    match hex::decode_to_slice(text, &mut digest) {
        Ok(()) => Ok(digest),
        Err(_) => Err(Problem::field(
            name,
            format!("{name} must be {} hexadecimal digits", N * 2),
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn run(md5: Option<[u8; 16]>) -> (Vec<u8>, Result<(), Problem>) {
        let body = Body::from("hello");
        let (mut upload, slot) = of_body(
            body,
            Announced {
                md5,
                ..Announced::default()
            },
        );
        let mut bytes = Vec::new();
        while let Some(item) = upload.next().await {
            let Ok(slice) = item else {
                let other = Problem::new(Kind::Internal, "not this");
                return (bytes, Err(slot.or(other)));
            };
            bytes.extend_from_slice(&slice);
        }
        (bytes, Ok(()))
    }

    #[tokio::test]
    async fn announced_md5_must_be_the_content_s() {
        let right = hex_literal::hex!("5d41402abc4b2a76b9719d911017c592");
        for md5 in [None, Some(right)] {
            let (bytes, outcome) = run(md5).await;
            assert_eq!(bytes, b"hello");
            outcome.expect("accepted");
        }
        let (_, outcome) = run(Some([0; 16])).await;
        let problem = outcome.expect_err("another digest");
        assert_eq!(problem.kind(), Kind::ContentMismatch);
        assert_eq!(problem.to_json()["field"], "md5");
    }

    #[test]
    fn digests_are_hexadecimal() {
        assert_eq!(digest::<2>("md5", "0aFF").expect("a digest"), [10, 255]);
        for text in ["", "0aF", "0aFFF", "zzzz", "0aFF00"] {
            let problem = digest::<2>("md5", text).expect_err(text);
            assert_eq!(problem.to_json()["field"], "md5");
        }
    }
}
