//! Registering one device.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{StatusCode, Uri},
    response::Response,
};
use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use zeroize::Zeroizing;

use super::given::{self, Given, MAX_FILE_BYTES};
use crate::{
    edge::{
        console::{
            Console,
            fault::Fault,
            form::{Choice, Errors, Upload, choices, query_value, sentence, word},
            layout::{Layout, Place, render, render_with},
            products::auth_kinds,
            resources::products,
            session::{Operator, Visit},
            show,
            shown_once::ShownOnce,
            text::{TEXTS, Texts, fill},
        },
        http::problem::Problem,
    },
    model::{AuthKind, PskEncoding, Secret},
    service::registry::{CreatedDevice, NewDevice, RegistryError},
};

/// The fields before the file.
const FIELDS: &[&str] = &[
    "product",
    "node_id",
    "name",
    "description",
    "auth",
    "secret",
    "secret_again",
    "device_id",
    "psk_encoding",
    "fingerprint",
];

/// What was filled in, but for secrets, and what is wrong with it.
#[derive(Debug, Default)]
struct Draft {
    product: String,
    node_id: String,
    name: String,
    description: String,
    auth: String,
    device_id: String,
    psk_encoding: String,
    fingerprint: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "console/devices/new.html")]
struct NewPage {
    t: &'static Texts,
    layout: Layout,
    draft: Draft,
    products: Vec<Choice>,
    auths: Vec<Choice>,
    encodings: Vec<Choice>,
}

/// The answer to a registration that made no secret.
#[derive(Template)]
#[template(path = "console/devices/registered.html")]
struct RegisteredPage {
    t: &'static Texts,
    layout: Layout,
    done: String,
    id: String,
    facts: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

impl NewPage {
    /// Whether something is wrong with what is hidden at first.
    fn is_more_wrong(&self) -> bool {
        let errors = &self.draft.errors;
        errors.of("device_id").is_some() || errors.of("psk_encoding").is_some()
    }
}

/// `GET /devices/new`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    uri: Uri,
) -> Result<Response, Fault> {
    let draft = Draft {
        product: query_value(&uri, "product").unwrap_or_default(),
        ..Draft::default()
    };
    form_of(&console, &visit, StatusCode::OK, draft).await
}

async fn form_of(
    console: &Console,
    Operator(visit): &Operator,
    status: StatusCode,
    draft: Draft,
) -> Result<Response, Fault> {
    let t = &TEXTS.register;
    let known = products(console).await?;
    let none = (known.len() != 1).then(|| (String::new(), t.choose_product.to_owned()));
    let known = known.into_iter().map(|id| (id.clone(), id));
    // As there are more products than a choice shows, one that was come with is offered all the same.
    let came_with = (!draft.product.is_empty()).then(|| draft.product.clone());
    let mut products = choices(none.into_iter().chain(known), |id| id == draft.product);
    if let Some(id) = came_with.filter(|_| products.iter().all(|one| !one.is_chosen)) {
        products.extend(choices([(id.clone(), id)], |_| true));
    }
    let usual = [("", t.usual)];
    let encodings = PskEncoding::ALL.iter().map(|one| one.as_str());
    let encodings = encodings.map(|name| (name, TEXTS.kinds.of(name)));
    let page = NewPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Devices, t.title),
        products,
        auths: choices(usual.into_iter().chain(auth_kinds()), |name| {
            name == draft.auth
        }),
        encodings: choices(usual.into_iter().chain(encodings), |name| {
            name == draft.psk_encoding
        }),
        draft,
    };
    Ok(render_with(status, &page))
}

/// `POST /devices`
pub(super) async fn add(
    State(console): State<Arc<Console>>,
    visit: Operator,
    request: Request,
) -> Result<Response, Fault> {
    let read = Upload::read(request, &visit.0, FIELDS, MAX_FILE_BYTES).await?;
    let mut form = match read {
        Ok(form) => form,
        Err(problem) => {
            let draft = Draft {
                errors: errors_of(&problem),
                ..Draft::default()
            };
            return form_of(&console, &visit, problem.status(), draft).await;
        }
    };
    let mut take = |name| form.fields.optional(name).unwrap_or_default();
    let (secret, again) = (
        Zeroizing::new(take("secret")),
        Zeroizing::new(take("secret_again")),
    );
    let mut text = |name| take(name).trim().to_owned();
    let mut draft = Draft {
        product: text("product"),
        node_id: text("node_id"),
        name: text("name"),
        description: text("description").replace("\r\n", "\n"),
        auth: text("auth"),
        device_id: text("device_id"),
        psk_encoding: text("psk_encoding"),
        fingerprint: text("fingerprint"),
        errors: Errors::default(),
    };
    let secret = given::secret(&secret, &again, &mut draft.errors);
    let given = given::fingerprint(&draft.fingerprint, form.file, &mut draft.errors).await?;
    let fingerprint = given.as_ref().map(|given| given.fingerprint);
    let Some(mut new) = checked(&mut draft, secret) else {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return form_of(&console, &visit, status, draft).await;
    };
    new.fingerprint = fingerprint;
    new.auth = new.auth.or_else(|| fingerprint.map(|_| AuthKind::X509));
    let actor = &visit.0.session.actor;
    match console.services.registry.create_device(actor, new).await {
        Ok(created) => Ok(registered(&visit.0, &created, given)),
        Err(error) => {
            let has_id = !draft.device_id.is_empty();
            let (status, errors) = refused(error, has_id)?;
            draft.errors = errors;
            form_of(&console, &visit, status, draft).await
        }
    }
}

/// What is to be registered, unless a field breaks a rule; then every one that does is marked.
fn checked(draft: &mut Draft, secret: Option<Secret>) -> Option<NewDevice> {
    let product = ProductId::new(&draft.product);
    if product.is_err() {
        draft.errors.add("product", TEXTS.register.product_missing);
    }
    let node_id = NodeId::new(&draft.node_id);
    if let Err(error) = &node_id {
        draft.errors.add("node_id", sentence(&error.to_string()));
    }
    let device_id = match draft.device_id.as_str() {
        "" => Ok(None),
        id => DeviceId::new(id).map(Some),
    };
    if let Err(error) = &device_id {
        draft.errors.add("device_id", sentence(&error.to_string()));
    }
    if !draft.errors.is_empty() {
        return None;
    }
    Some(NewDevice {
        device_id: device_id.ok()?,
        name: draft.name.clone(),
        description: draft.description.clone(),
        auth: word(&draft.auth),
        psk_encoding: word(&draft.psk_encoding),
        secret,
        ..NewDevice::of(product.ok()?, node_id.ok()?)
    })
}

/// What is wrong with what was sent, an id of the device among it or not; a fault where that is not the operator's to
/// mend.
fn refused(error: RegistryError, has_id: bool) -> Result<(StatusCode, Errors), Fault> {
    let t = &TEXTS.register;
    match error {
        RegistryError::Invalid(error) => {
            let errors = Errors::invalid(FIELDS, &error);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, errors))
        }
        RegistryError::NotFound { what: "product" } => {
            let errors = Errors::one("product", t.product_missing);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, errors))
        }
        RegistryError::Conflict { what, with } => {
            // An id that was made out of the node id is mended there.
            let field = if has_id && what == "device id" {
                "device_id"
            } else {
                "node_id"
            };
            let errors = Errors::one(field, fill(t.taken, &[("with", &with)]));
            Ok((StatusCode::CONFLICT, errors))
        }
        error => Err(error.into()),
    }
}

/// A problem of the form itself, beside the field that it is about.
fn errors_of(problem: &Problem) -> Errors {
    let field = problem.wrong_field().unwrap_or_default();
    let field = FIELDS
        .iter()
        .chain(&["file"])
        .find(|known| **known == field);
    Errors::one(
        field.copied().unwrap_or_default(),
        sentence(problem.detail()),
    )
}

/// The answer: the secret this once, and what the certificate says.
fn registered(visit: &Visit, created: &CreatedDevice, given: Option<Given>) -> Response {
    let t = &TEXTS.register;
    let device = &created.device;
    let done = fill(t.done, &[("id", &device.id)]);
    let address = format!("/devices/{}", device.id);
    if let Some(secret) = &created.secret {
        let shown = (t.done_label, secret.reveal());
        return ShownOnce::new(visit, Place::Devices, shown, done, (address, t.open))
            .with(TEXTS.devices.id, device.id.as_str())
            .with(TEXTS.devices.product, device.product_id.as_str())
            .with(TEXTS.devices.node_id, device.node_id.as_str())
            .response();
    }
    let mut facts = Vec::new();
    let mut warnings = Vec::new();
    if let Some(given) = given {
        facts.push((t.fingerprint_is, given.fingerprint.to_string()));
        if let Some(info) = given.certificate {
            let (from, until) = (show::time(info.not_before), show::time(info.not_after));
            let valid = fill(t.valid_between, &[("from", &from), ("until", &until)]);
            facts.push((t.subject, info.subject));
            facts.push((t.valid, valid));
            warnings.extend(info.warnings.iter().map(|one| sentence(&one.to_string())));
        }
    }
    render(&RegisteredPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Devices, t.title),
        done,
        id: device.id.to_string(),
        facts,
        warnings,
    })
}
