//! Replacing what a device proves itself with, one of two at a time.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use headgate_protocol::identity::DeviceId;
use zeroize::Zeroizing;

use super::given::{self, MAX_FILE_BYTES};
use crate::{
    edge::console::{
        Console,
        fault::Fault,
        form::{Choice, Errors, PathOf, Posted, Upload, choices, sentence, word},
        layout::{Layout, Place, render_with, see},
        session::Operator,
        shown_once::ShownOnce,
        text::{TEXTS, Texts, fill},
    },
    model::{AuthKind, CredentialSlot, Device},
    service::registry::RegistryError,
};

/// The fields that a form about a credential shows.
const SHOWN: &[&str] = &["which", "secret", "secret_again", "fingerprint", "file"];
/// The fields of the form with a certificate, before its file.
const FIELDS: &[&str] = &["which", "fingerprint", "disconnect"];

#[derive(Template)]
#[template(path = "console/devices/credentials.html")]
struct CredentialsPage {
    t: &'static Texts,
    layout: Layout,
    id: String,
    auth: &'static str,
    which: Vec<Choice>,
    fingerprint: String,
    has_second: bool,
    errors: Errors,
}

/// What was filled in, but for secrets.
#[derive(Default)]
struct Draft {
    which: String,
    fingerprint: String,
    errors: Errors,
}

/// `GET /devices/{id}/credentials`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Response, Fault> {
    let device = console.services.registry.device(&id).await?;
    form_of(&console, &visit, StatusCode::OK, &device, Draft::default()).await
}

async fn form_of(
    console: &Console,
    Operator(visit): &Operator,
    status: StatusCode,
    device: &Device,
    draft: Draft,
) -> Result<Response, Fault> {
    let slots = console.services.registry.credentials(&device.id).await?;
    let second = CredentialSlot::Secondary;
    let has_second = slots.secrets.contains(&second)
        || slots.fingerprints.iter().any(|(slot, _)| *slot == second);
    let both = [CredentialSlot::Primary, second].map(|slot| {
        let name = slot.as_str();
        (name, TEXTS.kinds.of(name))
    });
    let page = CredentialsPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Devices, TEXTS.credentials.title),
        id: device.id.to_string(),
        auth: device.auth.as_str(),
        which: choices(both, |name| name == draft.which),
        fingerprint: draft.fingerprint,
        has_second,
        errors: draft.errors,
    };
    Ok(render_with(status, &page))
}

/// The slot that a form names: the first where it names none.
fn slot(name: &str) -> CredentialSlot {
    word(name).unwrap_or(CredentialSlot::Primary)
}

/// `POST /devices/{id}/secret`
pub(super) async fn secret(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
    form: Posted,
) -> Result<Response, Fault> {
    let registry = &console.services.registry;
    let device = registry.device(&id).await?;
    let mut draft = Draft {
        which: form.text("which").to_owned(),
        ..Draft::default()
    };
    let given = given::secret(
        &Zeroizing::new(form.raw("secret").to_owned()),
        &Zeroizing::new(form.raw("secret_again").to_owned()),
        &mut draft.errors,
    );
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    if !draft.errors.is_empty() {
        return form_of(&console, &visit, refused, &device, draft).await;
    }
    let disconnect = !form.text("disconnect").is_empty();
    let actor = &visit.0.session.actor;
    let which = slot(&draft.which);
    match registry
        .reset_secret(actor, &id, which, given, disconnect)
        .await
    {
        Ok(secret) => {
            let t = &TEXTS.credentials;
            let shown = (t.done_label, secret.reveal());
            let done = fill(t.done, &[("id", &id)]);
            let next = (format!("/devices/{id}"), TEXTS.register.open);
            let page = ShownOnce::new(&visit.0, Place::Devices, shown, done, next);
            let page = page.with(t.which, TEXTS.kinds.of(which.as_str()));
            Ok(page.response())
        }
        Err(RegistryError::Invalid(error)) => {
            draft.errors = Errors::invalid(SHOWN, &error);
            form_of(&console, &visit, refused, &device, draft).await
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /devices/{id}/fingerprint`
pub(super) async fn fingerprint(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
    request: Request,
) -> Result<Response, Fault> {
    let registry = &console.services.registry;
    let device = registry.device(&id).await?;
    let mut draft = Draft::default();
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let mut form = match Upload::read(request, &visit.0, FIELDS, MAX_FILE_BYTES).await? {
        Ok(form) => form,
        Err(problem) => {
            draft.errors = Errors::one("", sentence(problem.detail()));
            return form_of(&console, &visit, problem.status(), &device, draft).await;
        }
    };
    let mut take = |name| form.fields.optional(name).unwrap_or_default();
    let disconnect = !take("disconnect").is_empty();
    draft.which = take("which");
    draft.fingerprint = take("fingerprint");
    let given = given::fingerprint(&draft.fingerprint, form.file, &mut draft.errors).await?;
    let Some(given) = given else {
        if draft.errors.is_empty() {
            draft.errors.add("fingerprint", TEXTS.credentials.missing);
        }
        return form_of(&console, &visit, refused, &device, draft).await;
    };
    let actor = &visit.0.session.actor;
    let which = slot(&draft.which);
    match registry
        .reset_fingerprint(actor, &id, which, given.fingerprint, disconnect)
        .await
    {
        Ok(()) => Ok(see(&format!("/devices/{id}"), "fingerprint-replaced")),
        Err(RegistryError::Invalid(error)) => {
            draft.errors = Errors::invalid(SHOWN, &error);
            form_of(&console, &visit, refused, &device, draft).await
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /devices/{id}/clear`
pub(super) async fn clear(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<DeviceId>,
    form: Posted,
) -> Result<Response, Fault> {
    let registry = &console.services.registry;
    let device = registry.device(&id).await?;
    if device.auth == AuthKind::None {
        return Err(Fault::conflict(TEXTS.credentials.not_this_kind));
    }
    let disconnect = !form.text("disconnect").is_empty();
    let actor = &visit.session.actor;
    registry
        .clear_secondary(actor, &id, device.auth, disconnect)
        .await?;
    Ok(see(&format!("/devices/{id}"), "credential-cleared"))
}
