//! Extractors whose refusals are problems: JSON bodies, queries, paths.
//!
//! They wrap axum's and serde's so that no plain-text rejection ever leaves the API, and so that an
//! error names the field and, for JSON, the position.

use std::time::Duration;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::problem::{Kind, Problem};

/// How long a buffered body may take to arrive.
pub(in crate::edge) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body; unknown fields are refused where the type says so, and every type of this API does.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                Kind::UnsupportedMediaType,
                "send the body as application/json",
            ));
        }
        let bytes = buffer(request, state).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads a body whole, within the limit of its route and [`BODY_TIMEOUT`].
pub(in crate::edge) async fn buffer<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, Problem> {
    let reading = Bytes::from_request(request, state);
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Err(_elapsed) => Err(Problem::new(
            Kind::RequestTimeout,
            format!("the body was not whole after {} s", BODY_TIMEOUT.as_secs()),
        )),
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => {
            Err(Problem::new(
                Kind::TooLarge,
                "the body is larger than this path takes",
            ))
        }
        Ok(Err(_)) => Err(Problem::new(
            Kind::Incomplete,
            "the connection ended within the body",
        )),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

/// Parses `bytes` as exactly one JSON value of type `T`.
pub(in crate::edge) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| json_problem(&error.path().to_string(), error.inner()))?;
    deserializer
        .end()
        .map_err(|error| json_problem(".", &error))?;
    Ok(value)
}

fn json_problem(path: &str, error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let message = match text.rfind(" at line ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    };
    match error.classify() {
        Category::Data => {
            let name = field_name(path, &message);
            let problem = Problem::new(Kind::InvalidField, message).with_position(line, column);
            match name {
                Some(name) => problem.with_field(name),
                None => problem,
            }
        }
        Category::Syntax | Category::Eof | Category::Io => {
            let problem = Problem::new(Kind::MalformedJson, message).with_position(line, column);
            // Where a syntax error lies inside a field, the field helps as much as the position.
            if path == "." || path.contains('?') {
                problem
            } else {
                problem.with_field(path)
            }
        }
    }
}

/// The field an error speaks of: the path to it, with the name that serde quotes when it is one
/// that is missing, unknown or there twice.
fn field_name(path: &str, message: &str) -> Option<String> {
    let quoted = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    let parent = match path {
        "." | "?" => None,
        path => Some(path),
    };
    match (parent, quoted) {
        // The path already ends in a field that is unknown or there twice, never in one that is
        // missing.
        (Some(path), Some(name)) if path == name || path.ends_with(&format!(".{name}")) => {
            Some(path.to_owned())
        }
        (Some(path), Some(name)) => Some(format!("{path}.{name}")),
        (Some(path), None) => Some(path.to_owned()),
        (None, name) => name.map(str::to_owned),
    }
}

/// `application/json`, or a type that is written as JSON.
fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|essence| {
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

/// The media type of the body in lower case, without its parameters.
pub(in crate::edge) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
}

/// A query string; unknown parameters are refused where the type says so.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let error = std::error::Error::source(&rejection)
                    .map_or_else(|| rejection.to_string(), ToString::to_string);
                Err(query_problem(&error))
            }
        }
    }
}

/// axum reports `parameter: what is wrong`, or only what is wrong with the name in it.
fn query_problem(error: &str) -> Problem {
    let (name, message) = match error.split_once(": ") {
        Some((name, message)) if !name.contains(' ') => (Some(name), message),
        _ => (None, error),
    };
    let field = field_name(name.unwrap_or("."), message);
    let problem = Problem::new(Kind::InvalidQuery, message.to_owned());
    match field {
        Some(field) => problem.with_field(field),
        None => problem,
    }
}

/// The variable parts of the path; what cannot be an id names nothing, so it is not found.
#[derive(Debug)]
pub struct PathOf<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::new(
                Kind::NotFound,
                "the path names no id that could exist",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "name")]
        _name: String,
        #[serde(rename = "inner", default)]
        _inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "limit")]
        _limit: u32,
    }

    #[test]
    fn json_errors_name_field_and_position() {
        let cases = [
            (
                r#"{"name": "a", "colour": 1}"#,
                Kind::InvalidField,
                "colour",
                1,
                22,
            ),
            (r"{}", Kind::InvalidField, "name", 1, 2),
            (r#"{"name": 3}"#, Kind::InvalidField, "name", 1, 10),
            (
                "{\"name\": \"a\",\n \"inner\": [{\"limit\": -1}]}",
                Kind::InvalidField,
                "inner[0].limit",
                2,
                23,
            ),
            (
                r#"{"name": "a", "inner": [{}]}"#,
                Kind::InvalidField,
                "inner[0].limit",
                1,
                26,
            ),
            (
                r#"{"name": "a", "name": "b"}"#,
                Kind::InvalidField,
                "name",
                1,
                20,
            ),
            (r#"{"name": "a""#, Kind::MalformedJson, "", 1, 12),
            (r#"{"name": "a"} x"#, Kind::MalformedJson, "", 1, 15),
            ("", Kind::MalformedJson, "", 1, 0),
        ];
        for (text, kind, field, line, column) in cases {
            let problem = parse_json::<Outer>(text.as_bytes()).expect_err(text);
            let body = problem.to_json();
            assert_eq!(problem.kind(), kind, "{text}");
            assert_eq!(
                body["field"].as_str().unwrap_or(""),
                field,
                "{text}: {body}"
            );
            assert_eq!(body["line"], line, "{text}: {body}");
            assert_eq!(body["column"], column, "{text}: {body}");
            assert!(
                !body["detail"].as_str().unwrap_or("").contains(" at line "),
                "{body}"
            );
        }
        parse_json::<Outer>(br#"{"name": "a", "inner": [{"limit": 1}]}"#).expect("well-formed");
    }

    #[tokio::test]
    async fn query_errors_name_the_parameter() {
        let cases = [
            ("/?limit=x", "limit"),
            ("/?limit=1&colour=2", "colour"),
            ("/?", "limit"),
        ];
        for (uri, field) in cases {
            let request = Request::builder()
                .uri(Uri::from_static(uri))
                .body(())
                .expect("a request");
            let (mut parts, ()) = request.into_parts();
            let problem = QueryOf::<Inner>::from_request_parts(&mut parts, &())
                .await
                .expect_err(uri);
            assert_eq!(problem.kind(), Kind::InvalidQuery);
            assert_eq!(
                problem.to_json()["field"],
                field,
                "{uri}: {}",
                problem.to_json()
            );
        }
    }
}
