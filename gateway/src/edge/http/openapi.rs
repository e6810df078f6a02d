//! The description of the API, made from the same routes that serve it.

mod answers;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        InfoBuilder, OpenApi, OpenApiBuilder, ServerBuilder,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::problem::{ProblemBody, RowProblem};

/// What every path of the API starts with.
pub(super) const BASE: &str = "/api/v1";

const DESCRIPTION: &str = "\
Lists give up to `limit` entries and, if there are more, `next`: give it as `cursor`. Errors are problem details \
(RFC 9457) whose `type` is stable; every answer has an `X-Request-Id`. A token's role \
says what it may: a viewer reads, an operator changes devices, resources, applications and tasks, an admin everything. \
Applications come in with their own secret, where it is said, and reach their own devices alone. A POST with an `Idempotency-Key` that is sent again within 24 hours, to the same \
node and without a restart between, is answered again and not carried out again.";

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
        .security(Some([SecurityRequirement::new(
            "token",
            Vec::<String>::new(),
        )]))
        .build()
}

/// Gives every operation a name of its own: handlers are named by what they do, the same word in every file.
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
        }
    }
}

/// The description as it is served.
#[derive(Debug, Clone)]
pub(super) struct Document(Bytes);

impl Document {
    /// Writes the description down once.
    pub(super) fn of(openapi: &OpenApi) -> Self {
        // A tree of strings and numbers always serializes.
        let mut document = serde_json::to_value(openapi).unwrap_or_default();
        answers::complete(&mut document);
        Self(document.to_string().into())
    }

    /// The answer to whoever asks for it.
    pub(super) fn response(&self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.clone()).into_response()
    }
}
