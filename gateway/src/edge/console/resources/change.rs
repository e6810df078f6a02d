//! Adding, editing, replacing and deleting a resource.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use headgate_protocol::identity::{ProductId, ResourceName};

use super::Console;
use crate::{
    edge::{
        console::{
            fault::Fault,
            form::{Errors, PathOf, Posted, Upload},
            layout::{Layout, Place, render_with, see},
            session::Operator,
            show,
            text::{TEXTS, Texts, fill},
        },
        http::{
            problem::{Kind, Problem},
            upload::{self, Announced},
        },
    },
    model::{Id, Page, Resource, RunState},
    service::{
        ResourcePatch, TaskFilter,
        resource::{Expected, NewResource, ResourceError},
    },
};

/// The fields of the form for a new resource, before its file.
const FIELDS: &[&str] = &["product", "name", "description", "size"];

/// What was filled in, and what is wrong with it.
#[derive(Debug, Default)]
struct Draft {
    product: String,
    name: String,
    description: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "console/resources/new.html")]
struct NewPage {
    t: &'static Texts,
    layout: Layout,
    draft: Draft,
    products: Vec<String>,
    max_size: String,
}

#[derive(Template)]
#[template(path = "console/resources/edit.html")]
struct EditPage {
    t: &'static Texts,
    layout: Layout,
    id: String,
    revision: i64,
    draft: Draft,
}

#[derive(Template)]
#[template(path = "console/resources/delete.html")]
struct DeletePage {
    t: &'static Texts,
    layout: Layout,
    id: String,
    name: String,
    open_tasks: Vec<(String, String)>,
    errors: Errors,
}

impl NewPage {
    fn file_hint(&self) -> String {
        fill(self.t.resources.file_hint, &[("max", &self.max_size)])
    }
}

impl DeletePage {
    fn question(&self) -> String {
        fill(self.t.resources.delete_question, &[("name", &self.name)])
    }
}

/// `GET /resources/new`
pub(super) async fn add_page(
    State(console): State<Arc<Console>>,
    visit: Operator,
) -> Result<Response, Fault> {
    new_page(&console, &visit, StatusCode::OK, Draft::default()).await
}

/// The form, with what is wrong with it.
async fn new_page(
    console: &Console,
    Operator(visit): &Operator,
    status: StatusCode,
    draft: Draft,
) -> Result<Response, Fault> {
    let page = NewPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Resources, TEXTS.resources.add),
        draft,
        products: super::products(console).await?,
        max_size: show::bytes(console.services.limits.max_resource_bytes),
    };
    Ok(render_with(status, &page))
}

/// `POST /resources`
pub(super) async fn add(
    State(console): State<Arc<Console>>,
    visit: Operator,
    request: Request,
) -> Result<Response, Fault> {
    let max_bytes = console.services.limits.max_resource_bytes;
    let read = Upload::read(request, &visit.0, FIELDS, max_bytes).await?;
    let mut form = match read {
        Ok(form) => form,
        Err(problem) => {
            let draft = Draft {
                errors: errors_of(&problem),
                ..Draft::default()
            };
            return new_page(&console, &visit, problem.status(), draft).await;
        }
    };
    let mut take = |name| form.fields.optional(name).unwrap_or_default();
    let size: Option<u64> = take("size").parse().ok();
    let mut draft = Draft {
        product: take("product"),
        name: take("name"),
        description: take("description").replace("\r\n", "\n"),
        errors: Errors::default(),
    };
    let Some(new) = checked(&mut draft, size) else {
        return new_page(&console, &visit, StatusCode::UNPROCESSABLE_ENTITY, draft).await;
    };
    let (stream, slot) = upload::of_part(form.file, Announced::default());
    let actor = &visit.0.session.actor;
    match console.services.resources.upload(actor, new, stream).await {
        Ok(resource) => Ok(see(
            &format!("/resources/{}", resource.id),
            "resource-added",
        )),
        Err(error) => {
            let problem = refused(error, &slot)?;
            draft.errors = errors_of(&problem);
            new_page(&console, &visit, problem.status(), draft).await
        }
    }
}

/// What is to be stored, unless a field breaks a rule; then every one that does is marked.
fn checked(draft: &mut Draft, size: Option<u64>) -> Option<NewResource> {
    let t = &TEXTS.resources;
    let product = ProductId::new(&draft.product);
    if product.is_err() {
        draft.errors.add("product", t.product_missing);
    }
    let name = ResourceName::new(&draft.name);
    if name.is_err() {
        draft.errors.add("name", t.name_rule);
    }
    if draft.description.chars().count() > crate::model::text::MAX_DESCRIPTION_CHARS {
        draft.errors.add("description", t.description_rule);
    }
    if size == Some(0) {
        draft.errors.add("file", t.file_empty);
    }
    if !draft.errors.is_empty() {
        return None;
    }
    Some(NewResource {
        product_id: product.ok()?,
        name: name.ok()?,
        description: draft.description.clone(),
        expected: Expected { sha256: None, size },
    })
}

/// `GET /resources/{id}/edit`
pub(super) async fn edit_page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    let resource = console.services.resources.resource(id).await?;
    Ok(form_of(&visit, StatusCode::OK, &resource, None))
}

/// The form as the resource is, or as it was filled in.
fn form_of(
    Operator(visit): &Operator,
    status: StatusCode,
    resource: &Resource,
    draft: Option<Draft>,
) -> Response {
    let page = EditPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Resources, TEXTS.resources.edit_title),
        id: resource.id.to_string(),
        revision: resource.updated_at.as_i64(),
        draft: draft.unwrap_or_else(|| Draft {
            product: resource.product_id.to_string(),
            name: resource.name.to_string(),
            description: resource.description.clone(),
            errors: Errors::default(),
        }),
    };
    render_with(status, &page)
}

/// `POST /resources/{id}/edit`
pub(super) async fn edit(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    form: Posted,
) -> Result<Response, Fault> {
    let resource = console.services.resources.resource(id).await?;
    let mut draft = Draft {
        product: resource.product_id.to_string(),
        name: form.text("name").to_owned(),
        description: form.text("description").replace("\r\n", "\n"),
        errors: Errors::default(),
    };
    let Some(new) = checked(&mut draft, None) else {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Ok(form_of(&visit, status, &resource, Some(draft)));
    };
    if form.text("revision") != resource.updated_at.as_i64().to_string() {
        return Ok(overtaken(&visit, &resource));
    }
    let patch = ResourcePatch {
        name: Some(new.name),
        description: Some(new.description),
        revision: Some(resource.updated_at),
    };
    let actor = &visit.0.session.actor;
    match console.services.resources.patch(actor, id, &patch).await {
        Ok(_) => Ok(see(&format!("/resources/{id}"), "saved")),
        Err(ResourceError::Stale { .. }) => {
            let resource = console.services.resources.resource(id).await?;
            Ok(overtaken(&visit, &resource))
        }
        Err(error) => {
            let problem = refused(error, &upload::Slot::default())?;
            draft.errors = errors_of(&problem);
            Ok(form_of(&visit, problem.status(), &resource, Some(draft)))
        }
    }
}

/// The form as someone else has left the resource.
fn overtaken(visit: &Operator, resource: &Resource) -> Response {
    let draft = Draft {
        product: resource.product_id.to_string(),
        name: resource.name.to_string(),
        description: resource.description.clone(),
        errors: Errors::one("", TEXTS.common.changed_meanwhile),
    };
    form_of(visit, StatusCode::CONFLICT, resource, Some(draft))
}

/// `POST /resources/{id}/content`
pub(super) async fn replace(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    request: Request,
) -> Result<Response, Fault> {
    let max_bytes = console.services.limits.max_resource_bytes;
    let form = Upload::read(request, &visit.0, &["size"], max_bytes).await?;
    let failed = async |problem: Problem| {
        let errors = errors_of(&problem);
        super::details(&console, &visit.0, id, problem.status(), errors).await
    };
    let mut form = match form {
        Ok(form) => form,
        Err(problem) => return failed(problem).await,
    };
    let size = form.fields.optional("size");
    let expected = Expected {
        sha256: None,
        size: size.and_then(|size| size.parse().ok()),
    };
    let (stream, slot) = upload::of_part(form.file, Announced::default());
    let resources = &console.services.resources;
    let actor = &visit.0.session.actor;
    match resources.replace_content(actor, id, expected, stream).await {
        Ok(_) => Ok(see(&format!("/resources/{id}"), "content-replaced")),
        Err(error) => failed(refused(error, &slot)?).await,
    }
}

/// `GET /resources/{id}/delete`
pub(super) async fn delete_page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
) -> Result<Response, Fault> {
    let resource = console.services.resources.resource(id).await?;
    delete_form(
        &console,
        &visit,
        StatusCode::OK,
        &resource,
        Errors::default(),
    )
    .await
}

/// The question, with the tasks that stand in the way.
async fn delete_form(
    console: &Console,
    Operator(visit): &Operator,
    status: StatusCode,
    resource: &Resource,
    errors: Errors,
) -> Result<Response, Fault> {
    let mut open_tasks = Vec::new();
    for run in [RunState::Running, RunState::Scheduled, RunState::Paused] {
        let filter = TaskFilter {
            resource: Some(resource.id),
            run: Some(run),
            ..TaskFilter::default()
        };
        let found = console
            .services
            .delivery
            .tasks(&filter, &Page::default())
            .await?;
        let tasks = found.items.into_iter().map(|view| view.task);
        open_tasks.extend(tasks.map(|task| (task.id.to_string(), task.name)));
    }
    let page = DeletePage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Resources, TEXTS.resources.delete_title),
        id: resource.id.to_string(),
        name: resource.name.to_string(),
        open_tasks,
        errors,
    };
    Ok(render_with(status, &page))
}

/// `POST /resources/{id}/delete`
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<Id>,
    _form: Posted,
) -> Result<Response, Fault> {
    let resources = &console.services.resources;
    match resources.delete(&visit.0.session.actor, id).await {
        Ok(()) => Ok(see("/resources", "deleted")),
        Err(ResourceError::InUse { .. }) => {
            let resource = resources.resource(id).await?;
            let errors = Errors::one("", TEXTS.resources.in_use);
            delete_form(&console, &visit, StatusCode::CONFLICT, &resource, errors).await
        }
        Err(error) => Err(error.into()),
    }
}

/// What is wrong with what was sent; a fault where that is not the operator's to mend.
fn refused(error: ResourceError, slot: &upload::Slot) -> Result<Problem, Fault> {
    match error {
        ResourceError::Store(_) => Err(error.into()),
        error => {
            let problem = slot.or(error);
            match problem.kind() {
                Kind::Internal => Err(Fault::from(problem)),
                _ => Ok(problem),
            }
        }
    }
}

/// A problem beside the field that it is about.
fn errors_of(problem: &Problem) -> Errors {
    let t = &TEXTS.resources;
    match (problem.kind(), problem.wrong_field()) {
        (Kind::AlreadyExists, _) => Errors::one("name", t.name_taken),
        (Kind::TooLarge, _) => Errors::one("file", t.file_too_large),
        (Kind::QuotaExceeded, _) => Errors::one("file", problem.detail()),
        (Kind::NotFound, _) => Errors::one("product", t.product_missing),
        (Kind::MalformedMultipart, Some("file")) => Errors::one("file", t.file_missing),
        (Kind::Incomplete | Kind::ContentMismatch | Kind::MalformedMultipart, _) => {
            Errors::one("file", t.file_cut)
        }
        (_, Some("content" | "file")) => Errors::one("file", t.file_empty),
        (_, Some("description")) => Errors::one("description", t.description_rule),
        _ => Errors::one("", problem.detail()),
    }
}
