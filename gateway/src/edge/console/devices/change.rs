//! Editing, freezing, kicking and deleting a device.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use headgate_protocol::identity::DeviceId;

use crate::{
    edge::console::{
        Console,
        fault::Fault,
        form::{Errors, PathOf, Posted},
        layout::{Layout, Place, render_with, see},
        question::Question,
        session::Operator,
        text::{TEXTS, Texts, fill},
    },
    model::{Device, Millis},
    service::{DevicePatch, registry::RegistryError},
    session::CloseReason,
};

#[derive(Template)]
#[template(path = "console/devices/edit.html")]
struct EditPage {
    t: &'static Texts,
    layout: Layout,
    id: String,
    revision: i64,
    shown_name: String,
    description: String,
    errors: Errors,
}

fn form_of(
    Operator(visit): &Operator,
    status: StatusCode,
    device: &Device,
    draft: Option<(String, String)>,
    errors: Errors,
) -> Response {
    let (shown_name, description) =
        draft.unwrap_or_else(|| (device.name.clone(), device.description.clone()));
    let page = EditPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Devices, TEXTS.devices.edit_title),
        id: device.id.to_string(),
        revision: device.updated_at.as_i64(),
        shown_name,
        description,
        errors,
    };
    render_with(status, &page)
}

/// `GET /devices/{id}/edit`
pub(super) async fn edit_page(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Response, Fault> {
    let device = console.services.registry.device(&id).await?;
    Ok(form_of(
        &visit,
        StatusCode::OK,
        &device,
        None,
        Errors::default(),
    ))
}

/// `POST /devices/{id}/edit`
pub(super) async fn edit(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
    form: Posted,
) -> Result<Response, Fault> {
    let registry = &console.services.registry;
    let name = form.text("name").to_owned();
    let description = form.text("description").replace("\r\n", "\n");
    let patch = DevicePatch {
        name: Some(name.clone()),
        description: Some(description.clone()),
        enabled: None,
        revision: form.text("revision").parse().ok().map(Millis::from_i64),
    };
    let actor = &visit.0.session.actor;
    match registry.patch_device(actor, &id, &patch).await {
        Ok(_) => Ok(see(&format!("/devices/{id}"), "saved")),
        Err(RegistryError::Stale { .. }) => {
            let device = registry.device(&id).await?;
            let errors = Errors::one("", TEXTS.common.changed_meanwhile);
            Ok(form_of(&visit, StatusCode::CONFLICT, &device, None, errors))
        }
        Err(RegistryError::Invalid(error)) => {
            let device = registry.device(&id).await?;
            let errors = Errors::invalid(&["name", "description"], &error);
            let (status, draft) = (StatusCode::UNPROCESSABLE_ENTITY, (name, description));
            Ok(form_of(&visit, status, &device, Some(draft), errors))
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /devices/{id}/freeze`
pub(super) async fn freeze(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
    _form: Posted,
) -> Result<Response, Fault> {
    enable(&console, &visit, &id, false).await?;
    Ok(see(&format!("/devices/{id}"), "device-frozen"))
}

/// `POST /devices/{id}/unfreeze`
pub(super) async fn unfreeze(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<DeviceId>,
    _form: Posted,
) -> Result<Response, Fault> {
    enable(&console, &visit, &id, true).await?;
    Ok(see(&format!("/devices/{id}"), "device-unfrozen"))
}

async fn enable(
    console: &Console,
    Operator(visit): &Operator,
    id: &DeviceId,
    enabled: bool,
) -> Result<(), Fault> {
    let patch = DevicePatch {
        enabled: Some(enabled),
        ..DevicePatch::default()
    };
    let actor = &visit.session.actor;
    let registry = &console.services.registry;
    registry.patch_device(actor, id, &patch).await?;
    Ok(())
}

/// `POST /devices/{id}/kick`
pub(super) async fn kick(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<DeviceId>,
    _form: Posted,
) -> Result<Response, Fault> {
    let registry = &console.services.registry;
    registry.device(&id).await?;
    let own = format!("/devices/{id}");
    let Some(session) = console.services.sessions.of(&id) else {
        let is_kicked = registry.kick_elsewhere(&visit.session.actor, &id).await?;
        let code = if is_kicked {
            "device-kicked"
        } else {
            "device-absent"
        };
        return Ok(see(&own, code));
    };
    registry.record_kick(&visit.session.actor, &id).await?;
    session.close(CloseReason::Administrative);
    Ok(see(&own, "device-kicked"))
}

/// `GET /devices/{id}/delete`
pub(super) async fn delete_page(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Response, Fault> {
    let device = console.services.registry.device(&id).await?;
    Ok(question(&device.id).ask(&visit))
}

fn question(id: &DeviceId) -> Question {
    let t = &TEXTS.devices;
    Question {
        place: Place::Devices,
        title: t.delete_title,
        text: fill(t.delete_question, &[("id", id)]),
        list: ("/devices", t.title),
        thing: Some((format!("/devices/{id}"), id.to_string())),
        action: format!("/devices/{id}/delete"),
        yes: TEXTS.common.delete,
    }
}

/// `POST /devices/{id}/delete`
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    Operator(visit): Operator,
    PathOf(id): PathOf<DeviceId>,
    _form: Posted,
) -> Result<Response, Fault> {
    let actor = &visit.session.actor;
    let deleted = console.services.registry.delete_device(actor, &id).await;
    question(&id).answer(&visit, deleted, TEXTS.devices.in_use)
}
