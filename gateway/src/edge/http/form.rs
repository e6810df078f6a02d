//! Multipart forms: a few short text fields, then one file that is streamed.
//!
//! The fields stand before the file, so that everything that can be wrong with them is said before
//! a gigabyte was sent. What follows the file is not read. Spec: RFC 7578.

mod source;

use std::collections::BTreeMap;

use axum::{
    extract::Request,
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::{Bytes, BytesMut};
use multer::{Field, Multipart};

pub(super) use self::source::SourceError;
use self::source::{Bound, Source};
use super::{
    extract::BODY_TIMEOUT,
    problem::{Kind, Problem},
};

/// The part that holds the file.
pub(in crate::edge) const FILE: &str = "file";

/// What a form may have besides its file: boundaries, heads and fields.
pub(in crate::edge) const MAX_OVERHEAD_BYTES: u64 = 64 * 1024;

/// Most bytes of a text field.
const MAX_FIELD_BYTES: usize = 4_096;

/// Text fields by name.
#[derive(Debug, Default)]
pub(in crate::edge) struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    /// Takes a field that must be there.
    pub(in crate::edge) fn needed(&mut self, name: &'static str) -> Result<String, Problem> {
        let value = self.0.remove(name);
        value.ok_or_else(|| {
            let detail = format!("the field {name} must stand before the part {FILE}");
            Problem::field(name, detail)
        })
    }

    /// Takes a field that may be there; an empty one is as good as none.
    pub(in crate::edge) fn optional(&mut self, name: &'static str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }
}

/// A form of which nothing has been read.
#[derive(Debug)]
pub(in crate::edge) struct Form {
    multipart: Multipart<'static>,
    bound: Bound,
}

impl Form {
    /// Takes the body of a request whose file may have `max_file_bytes`.
    pub(in crate::edge) fn of(request: Request, max_file_bytes: u64) -> Result<Self, Problem> {
        let max_bytes = max_file_bytes.saturating_add(MAX_OVERHEAD_BYTES);
        let headers = request.headers();
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok());
        if announced.is_some_and(|announced| announced > max_bytes) {
            return Err(too_large(max_file_bytes));
        }
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let boundary = match multer::parse_boundary(content_type.unwrap_or_default()) {
            Ok(boundary) => boundary,
            Err(multer::Error::NoBoundary) => {
                return Err(malformed("the Content-Type names no boundary"));
            }
            Err(_) => {
                return Err(Problem::new(
                    Kind::UnsupportedMediaType,
                    "send the body as multipart/form-data",
                ));
            }
        };
        let (source, bound) = Source::new(request.into_body(), max_bytes);
        let multipart = Multipart::new(source, boundary);
        Ok(Self { multipart, bound })
    }

    /// Reads the fields up to the file; `allowed` are the names that may be there.
    pub(in crate::edge) async fn fields(
        mut self,
        allowed: &[&'static str],
    ) -> Result<(Fields, Field<'static>), Problem> {
        let mut fields = Fields::default();
        loop {
            let field = timely(self.multipart.next_field()).await?;
            let Some(field) = field else {
                let detail = format!("the part {FILE} is missing");
                return Err(malformed(detail).with_field(FILE));
            };
            let name = field.name().unwrap_or_default();
            if name == FILE {
                self.bound.lift();
                return Ok((fields, field));
            }
            let Some(known) = allowed.iter().find(|known| **known == name) else {
                let known = allowed.join(", ");
                let detail = format!("there is no such field; there are {known} and {FILE}");
                return Err(Problem::field(name, detail));
            };
            let bytes = whole(field, MAX_FIELD_BYTES).await;
            let bytes = bytes.map_err(|problem| problem.with_field(*known))?;
            let value = String::from_utf8(bytes.into())
                .map_err(|_| Problem::field(*known, format!("{known} is not UTF-8")))?;
            if fields.0.insert(known, value).is_some() {
                return Err(Problem::field(*known, format!("{known} is there twice")));
            }
        }
    }
}

/// Reads a part whole; more than `max_bytes` are refused.
pub(in crate::edge) async fn whole(
    mut part: Field<'static>,
    max_bytes: usize,
) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = timely(part.chunk()).await? {
        if whole.len() + bytes.len() > max_bytes {
            let detail = format!("the part is larger than {max_bytes} bytes");
            return Err(Problem::new(Kind::TooLarge, detail).with_field(FILE));
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

async fn timely<T>(reading: impl Future<Output = multer::Result<T>>) -> Result<T, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(read) => read.map_err(|error| problem_of(&error)),
        Err(_elapsed) => Err(Problem::new(
            Kind::RequestTimeout,
            "the form stopped coming",
        )),
    }
}

/// What is wrong with a form, or with the connection that it comes over.
pub(in crate::edge) fn problem_of(error: &multer::Error) -> Problem {
    let multer::Error::StreamReadFailed(cause) = error else {
        return malformed(error.to_string());
    };
    match cause.downcast_ref::<SourceError>() {
        Some(error @ (SourceError::TooLarge | SourceError::FieldsTooLarge)) => {
            Problem::new(Kind::TooLarge, error.to_string())
        }
        Some(SourceError::Connection(_)) | None => {
            Problem::new(Kind::Incomplete, "the connection ended within the form")
        }
    }
}

/// A file that is larger than it may be.
pub(in crate::edge) fn too_large(max_bytes: u64) -> Problem {
    Problem::new(
        Kind::TooLarge,
        format!("the file is larger than {max_bytes} bytes"),
    )
    .with_field(FILE)
}

fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Kind::MalformedMultipart, detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    fn request(body: &str) -> Request {
        // In slices of 7 bytes, so that every boundary is cut somewhere.
        let slices: Vec<_> = body
            .as_bytes()
            .chunks(7)
            .map(|slice| Ok::<_, std::io::Error>(slice.to_vec()))
            .collect();
        Request::builder()
            .header(CONTENT_TYPE, "multipart/form-data; boundary=X")
            .body(Body::from_stream(stream::iter(slices)))
            .expect("a request")
    }

    fn part(name: &str, value: &str) -> String {
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    fn file(value: &str) -> String {
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"f\"";
        format!("--X\r\n{head}\r\nContent-Type: text/csv\r\n\r\n{value}\r\n--X--\r\n")
    }

    async fn read(body: &str) -> Result<(String, Option<String>, Bytes), Problem> {
        let form = Form::of(request(body), 1_000_000)?;
        let (mut fields, file) = form.fields(&["name", "note"]).await?;
        let name = fields.needed("name")?;
        Ok((name, fields.optional("note"), whole(file, 10).await?))
    }

    #[tokio::test]
    async fn fields_and_file_are_read() {
        let body = part("name", "ä") + &part("note", "") + &file("content");
        let (name, note, content) = read(&body).await.expect("well-formed");
        assert_eq!((name.as_str(), note), ("ä", None));
        assert_eq!(content, "content");
    }

    #[tokio::test]
    async fn wrong_forms_are_refused_by_field() {
        let name = part("name", "a");
        let cases = [
            (file("x"), Kind::InvalidField, Some("name")),
            (
                name.clone() + &part("colour", "red") + &file("x"),
                Kind::InvalidField,
                Some("colour"),
            ),
            (
                name.clone() + &name + &file("x"),
                Kind::InvalidField,
                Some("name"),
            ),
            (
                name.clone() + "--X--\r\n",
                Kind::MalformedMultipart,
                Some("file"),
            ),
            (
                name.clone() + &file("more than ten"),
                Kind::TooLarge,
                Some("file"),
            ),
            (
                part("name", &"a".repeat(5_000)) + &file("x"),
                Kind::TooLarge,
                Some("name"),
            ),
            (
                name.clone() + "--X\r\nContent-Disposition: form-data; na",
                Kind::MalformedMultipart,
                None,
            ),
            (
                name + "--X\r\n" + &"h".repeat(500_000),
                Kind::TooLarge,
                None,
            ),
            (String::new(), Kind::MalformedMultipart, None),
        ];
        for (body, kind, field) in cases {
            let start: String = body.chars().take(200).collect();
            let problem = read(&body).await.expect_err(&start);
            let json = problem.to_json();
            assert_eq!(problem.kind(), kind, "{start}: {json}");
            assert_eq!(json["field"].as_str(), field, "{start}: {json}");
        }
    }

    #[test]
    fn announced_size_and_media_type_are_checked_first() {
        let mut large = request("");
        large.headers_mut().insert(CONTENT_LENGTH, 2_000_000.into());
        let problem = Form::of(large, 1_000_000).expect_err("too large");
        assert_eq!(problem.kind(), Kind::TooLarge);
        for (media_type, kind) in [
            ("application/json", Kind::UnsupportedMediaType),
            ("multipart/form-data", Kind::MalformedMultipart),
        ] {
            let mut wrong = request("");
            let value = axum::http::HeaderValue::from_static(media_type);
            wrong.headers_mut().insert(CONTENT_TYPE, value);
            let problem = Form::of(wrong, 1_000_000).expect_err(media_type);
            assert_eq!(problem.kind(), kind);
        }
    }
}
