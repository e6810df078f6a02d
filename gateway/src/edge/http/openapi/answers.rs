//! What every operation may answer besides what its handler says: errors, headers, what ids look like.
//!
//! Derived from the operation itself, so that no handler has to repeat it: what has a body can have a wrong one, what
//! names a thing in its path can name one that is not there, what changes something can find it in a state that does
//! not allow that.

use serde_json::{Map, Value, json};
use utoipa::ToSchema as _;

use super::super::problem::{MEDIA_TYPE, ProblemBody};

/// An error's status, the name of its answer, and what it means.
type Answer = (&'static str, &'static str, &'static str);

const ERRORS: &[Answer] = &[
    ("400", "BadRequest", "The request cannot be understood."),
    (
        "401",
        "Unauthorized",
        "There is no token, or none that is valid.",
    ),
    ("403", "Forbidden", "The token's role does not allow this."),
    ("404", "NotFound", "There is no such thing."),
    ("408", "RequestTimeout", "The body did not come in time."),
    (
        "409",
        "Conflict",
        "What there is does not allow this; `type` says why.",
    ),
    (
        "412",
        "PreconditionFailed",
        "It was changed since it was read.",
    ),
    ("413", "ContentTooLarge", "The body is larger than may be."),
    (
        "415",
        "UnsupportedMediaType",
        "The body has another media type than this path reads.",
    ),
    (
        "416",
        "RangeNotSatisfiable",
        "The range lies outside the content.",
    ),
    (
        "422",
        "UnprocessableContent",
        "A field has a value that may not be; `field` names it.",
    ),
    (
        "429",
        "TooManyRequests",
        "Too many requests, or too much waits; `Retry-After` says how long to wait.",
    ),
    (
        "500",
        "InternalServerError",
        "The gateway failed; its log says why.",
    ),
    (
        "503",
        "ServiceUnavailable",
        "Too much is under way; `Retry-After` says how long to wait.",
    ),
];

/// Adds to the description what can be told from it.
pub(super) fn complete(document: &mut Value) {
    let components = &mut document["components"];
    components["headers"] = headers();
    components["responses"] = ERRORS.iter().map(error).collect::<Map<_, _>>().into();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        let Some(operations) = item.as_object_mut() else {
            continue;
        };
        let has_tag = operations
            .values()
            .any(|operation| has_header(operation, "If-Match"));
        for (method, operation) in operations {
            describe_ids(operation);
            add_errors(path, method, operation);
            add_headers(operation, has_tag);
        }
    }
}

fn headers() -> Value {
    let text = |description: &str| json!({"description": description, "required": true, "schema": {"type": "string"}});
    let seconds = json!({"type": "integer", "minimum": 1});
    json!({
        "RequestId": text("The request's name in the log; one that was sent is taken over."),
        "Location": text("Where the thing that was made is."),
        "ETag": text("This state of the thing, for `If-Match`."),
        "WWW-Authenticate": text("How to come in."),
        "Content-Disposition": text("What to call the file."),
        "Accept-Ranges": text("`bytes`."),
        "Content-Range": text("Which bytes of how many."),
        "Repr-Digest": text("SHA-256 and MD5 of the whole (RFC 9530)."),
        "Retry-After": {"description": "Seconds to wait.", "required": true, "schema": seconds},
        "Idempotency-Replayed": {
            "description": "The answer is one that was given to this key before.",
            "schema": {"type": "string", "enum": ["true"]},
        },
    })
}

/// One error as a part of the description that operations refer to.
fn error(&(status, name, description): &Answer) -> (String, Value) {
    let mut headers = json!({"X-Request-Id": reference("headers", "RequestId")});
    match status {
        "401" => headers["WWW-Authenticate"] = reference("headers", "WWW-Authenticate"),
        "416" => headers["Content-Range"] = reference("headers", "Content-Range"),
        "429" | "503" => headers["Retry-After"] = reference("headers", "Retry-After"),
        _ => {}
    }
    let schema = reference("schemas", &ProblemBody::name());
    let answer = json!({
        "description": description,
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": schema}},
    });
    (name.to_owned(), answer)
}

fn add_errors(path: &str, method: &str, operation: &mut Value) {
    let parameters = operation["parameters"].as_array().cloned();
    let parameters = parameters.unwrap_or_default();
    let has = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let has_body = operation.get("requestBody").is_some();
    let is_change = method != "get";
    let mut may = vec!["401", "403", "429", "500", "503"];
    if has_body || has("query") || has("header") {
        may.push("400");
    }
    if has("path") || has_body {
        may.push("404");
    }
    if has_body {
        may.extend(["408", "413", "415", "422"]);
    }
    // Some can only be read once they are whole, or only while they are open.
    if is_change || path.contains("/content") || path.ends_with("/messages") {
        may.push("409");
    }
    if has_header(operation, "If-Match") {
        may.push("412");
    }
    if has_header(operation, "Range") {
        may.push("416");
    }
    for (status, name, _) in ERRORS {
        if may.contains(status) {
            operation["responses"][status] = reference("responses", name);
        }
    }
}

/// Says which headers the good answers have, and what these mean where the handler does not.
fn add_headers(operation: &mut Value, has_tag: bool) {
    let is_repeatable = has_header(operation, "Idempotency-Key");
    let responses = operation["responses"].as_object_mut();
    for (status, response) in responses.into_iter().flatten() {
        if !status.starts_with('2') {
            continue;
        }
        let content = response["content"].as_object();
        let is_of = |kind: &str| content.is_some_and(|content| content.contains_key(kind));
        let (is_bytes, is_csv) = (is_of("application/octet-stream"), is_of("text/csv"));
        let mut names = vec![("X-Request-Id", "RequestId")];
        let mut add = |name: &'static str| names.push((name, name));
        if status == "201" {
            add("Location");
        }
        if is_bytes || has_tag && status == "200" {
            add("ETag");
        }
        if is_bytes || is_csv {
            add("Content-Disposition");
        }
        if is_bytes {
            add("Accept-Ranges");
            add("Repr-Digest");
        }
        if status == "206" {
            add("Content-Range");
        }
        if is_repeatable {
            add("Idempotency-Replayed");
        }
        for (header, component) in names {
            response["headers"][header] = reference("headers", component);
        }
        if response["description"].as_str().is_none_or(str::is_empty) {
            response["description"] = described(status).into();
        }
    }
}

fn described(status: &str) -> &'static str {
    match status {
        "201" => "It was made; `Location` says where it is.",
        "202" => "It was taken.",
        "204" => "It is gone.",
        "206" => "The bytes of the range.",
        _ => "What was asked for, as it is now.",
    }
}

/// Says what the ids in a path look like.
fn describe_ids(operation: &mut Value) {
    let parameters = operation.get_mut("parameters");
    for parameter in parameters
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if parameter["in"] != "path" {
            continue;
        }
        let is_made = matches!(
            parameter["name"].as_str(),
            Some("task" | "resource" | "delivery" | "upload" | "batch" | "token")
        );
        parameter["schema"] = if is_made {
            serde_json::to_value(super::super::schema::id()).unwrap_or_default()
        } else {
            json!({"type": "string", "minLength": 1, "maxLength": 256})
        };
    }
}

fn has_header(operation: &Value, name: &str) -> bool {
    let parameters = operation["parameters"].as_array();
    parameters
        .into_iter()
        .flatten()
        .any(|parameter| parameter["in"] == "header" && parameter["name"] == name)
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}
