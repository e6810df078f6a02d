//! The description of the API, made from the same routes that serve it.

use std::collections::BTreeMap;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::{
    IntoResponses, PartialSchema as _, ToSchema as _,
    openapi::{
        ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
        ServerBuilder,
        response::Response as ResponseDoc,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::problem::{MEDIA_TYPE, ProblemBody, RowProblem};

/// What every path of the API starts with.
pub(super) const BASE: &str = "/api/v1";

const DESCRIPTION: &str = "\
Lists give up to `limit` entries and, if there are more, `next`: give it as `cursor`. Errors are problem details \
(RFC 9457) whose `type` is stable. A POST with an `Idempotency-Key` that is sent again within 24 hours, to the same \
node and without a restart between, is answered again and not carried out again.";

/// The errors that every operation may answer with.
#[derive(Debug)]
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<ResponseDoc>> {
        [
            ("4XX", "The request cannot be carried out; `type` says why."),
            ("5XX", "The gateway cannot carry it out now."),
        ]
        .into_iter()
        .map(|(status, description)| {
            let schema = Ref::from_schema_name(ProblemBody::name());
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let response = ResponseBuilder::new()
                .description(description)
                .content(MEDIA_TYPE, content)
                .build();
            (status.to_owned(), response.into())
        })
        .collect()
    }
}

/// The description without its paths.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Headgate")
        .description(Some(DESCRIPTION))
        .version("1")
        .build();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let application = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
    let components = utoipa::openapi::ComponentsBuilder::new()
        .security_scheme("token", token)
        .security_scheme("application", application)
        .schema(ProblemBody::name(), ProblemBody::schema())
        .schema(RowProblem::name(), RowProblem::schema())
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url(BASE).build()]))
        .components(Some(components))
        .security(Some(["token", "application"].map(|scheme| {
            SecurityRequirement::new(scheme, Vec::<String>::new())
        })))
        .build()
}

/// Gives every operation a name of its own, and every answer the description that the format asks
/// for: handlers are named by what they do, the same word in every file.
pub(super) fn finish(openapi: &mut OpenApi) {
    for item in openapi.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            let tag = operation.tags.iter().flatten().next().cloned();
            if let (Some(tag), Some(name)) = (tag, &operation.operation_id) {
                operation.operation_id = Some(format!("{tag}_{name}"));
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    described(status).clone_into(&mut response.description);
                }
            }
        }
    }
}

fn described(status: &str) -> &'static str {
    match status {
        "201" => "It was made; `Location` says where it is.",
        "204" => "It is gone.",
        "206" => "The bytes of the range.",
        _ => "What was asked for, as it is now.",
    }
}

/// The description as it is served.
#[derive(Debug, Clone)]
pub(super) struct Document(Bytes);

impl Document {
    /// Writes the description down once.
    pub(super) fn of(openapi: &OpenApi) -> Self {
        // A tree of strings and numbers always serializes.
        Self(openapi.to_json().unwrap_or_default().into())
    }

    /// The answer to whoever asks for it.
    pub(super) fn response(&self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.clone()).into_response()
    }
}
