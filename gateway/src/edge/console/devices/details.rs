//! The page of one device: its connection, its credentials but for their values, what went to it and came from it.

use std::{collections::HashMap, sync::Arc};

use askama::Template;
use axum::{extract::State, response::Response};
use headgate_protocol::{identity::DeviceId, mqtt::ProtocolVersion};

use super::{Row, messages::MessageRows};
use crate::{
    edge::console::{
        Console,
        fault::Fault,
        form::PathOf,
        layout::{Layout, Place, render},
        paging::{ListQuery, Ways},
        session::Visit,
        show,
        text::{TEXTS, Texts, fill},
    },
    model::{DeliveryState, Id, Page},
    service::{
        DeviceSlots, UploadFilter, delivery::DeliveryView, uplink::SEEN_MESSAGES,
        upload::UploadStanding,
    },
    session::{FoundSession, SessionInfo},
};

/// Uploads that the page shows.
const UPLOADS: u32 = 10;

#[derive(Template)]
#[template(path = "console/devices/details.html")]
struct DetailsPage {
    t: &'static Texts,
    layout: Layout,
    row: Row,
    description: String,
    psk_encoding: Option<&'static str>,
    created: String,
    changed: String,
    session: Option<SessionRow>,
    /// Why a connection that there is cannot be shown.
    unanswered: bool,
    /// Which of the two, how it is written, and what it is.
    credentials: Vec<(&'static str, &'static str, String)>,
    deliveries: Vec<DeliveryRow>,
    ways: Ways,
    uploads: Vec<UploadRow>,
    /// `None`: as many devices are looked at as can be.
    messages: Option<MessageRows>,
    /// The number of the last one.
    last_message: u64,
    /// Rows that the script leaves in their table.
    most_messages: usize,
}

/// The connection.
struct SessionRow {
    node: String,
    since: String,
    address: Option<String>,
    protocol: &'static str,
    client_id: String,
    keep_alive: String,
    expiry: String,
    subscriptions: Vec<(String, String)>,
    waiting: String,
}

/// A delivery to the device.
struct DeliveryRow {
    id: String,
    task: String,
    /// Of its task.
    name: String,
    state: &'static str,
    percent: u8,
    attempt: u32,
    created: String,
    ended: String,
}

/// A file of the device.
struct UploadRow {
    name: String,
    state: &'static str,
    size: String,
    announced: String,
    content: Option<String>,
}

impl SessionRow {
    fn new(node: String, info: SessionInfo) -> Self {
        let t = &TEXTS.devices;
        let bytes = show::bytes(u64::try_from(info.outbox_bytes).unwrap_or(u64::MAX));
        let messages = u64::try_from(info.outbox_messages).unwrap_or(u64::MAX);
        let waiting = [
            (
                "messages",
                &show::grouped(messages) as &dyn std::fmt::Display,
            ),
            ("bytes", &bytes),
        ];
        Self {
            node,
            since: show::time(info.since),
            address: info.address.map(|address| address.to_string()),
            protocol: match info.version {
                Some(ProtocolVersion::V31) => "MQTT 3.1",
                Some(ProtocolVersion::V311) => "MQTT 3.1.1",
                Some(ProtocolVersion::V5) => "MQTT 5",
                None => "CoAP",
            },
            client_id: info.client_id,
            keep_alive: show::duration(info.keep_alive.as_secs()),
            expiry: show::duration(u64::from(info.session_expiry_secs)),
            subscriptions: info
                .subscriptions
                .into_iter()
                .map(|(filter, qos)| (filter, fill(t.at_qos, &[("qos", &qos.bits())])))
                .collect(),
            waiting: fill(t.waiting_of, &waiting),
        }
    }
}

impl DeliveryRow {
    fn new(view: &DeliveryView, names: &HashMap<Id, String>) -> Self {
        let delivery = &view.delivery;
        let name = names.get(&delivery.task_id);
        Self {
            id: delivery.id.to_string(),
            task: delivery.task_id.to_string(),
            name: name.cloned().unwrap_or_default(),
            state: delivery.state.as_str(),
            percent: match delivery.state {
                DeliveryState::Delivered => 100,
                _ => view.percent.unwrap_or(0),
            },
            attempt: delivery.attempt,
            created: show::time(delivery.created_at),
            ended: delivery.finished_at.map_or_else(String::new, show::time),
        }
    }
}

impl From<&UploadStanding> for UploadRow {
    fn from(standing: &UploadStanding) -> Self {
        let upload = &standing.upload;
        let content = format!("/uploads/{}/content", upload.id);
        Self {
            name: upload.name.clone(),
            state: upload.phase().as_str(),
            size: show::bytes(upload.size),
            announced: show::time(upload.created_at),
            content: upload.blob.is_some().then_some(content),
        }
    }
}

/// `GET /devices/{id}`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    visit: Visit,
    PathOf(id): PathOf<DeviceId>,
    query: ListQuery,
) -> Result<Response, Fault> {
    let services = &console.services;
    let device = services.registry.device(&id).await?;
    let slots = services.registry.credentials(&id).await?;
    let deliveries = services.delivery.deliveries_to(&id, &query.page()).await?;
    let names = services.delivery.task_names(&deliveries.items).await?;
    let filter = UploadFilter {
        device: Some(id.clone()),
        ..UploadFilter::default()
    };
    let newest = Page {
        limit: UPLOADS,
        cursor: None,
    };
    let uploads = services.uploads.uploads(&filter, &newest).await?;
    let (session, unanswered) = session(&console, &id).await;
    let is_online = session.is_some() || unanswered;
    let seen = services.uplink.look_at(&id).ok();
    let page = DetailsPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Devices, id.as_str()),
        row: Row::new(&device, is_online),
        psk_encoding: (!slots.secrets.is_empty())
            .then(|| TEXTS.kinds.of(device.psk_encoding.as_str())),
        created: show::time(device.created_at),
        changed: show::time(device.updated_at),
        description: device.description,
        session,
        unanswered,
        credentials: credentials(&slots),
        ways: query.ways(&deliveries, &[]),
        deliveries: deliveries
            .items
            .iter()
            .map(|view| DeliveryRow::new(view, &names))
            .collect(),
        uploads: uploads.items.iter().map(UploadRow::from).collect(),
        last_message: seen
            .as_ref()
            .and_then(|seen| seen.last())
            .map_or(0, |seen| seen.number),
        messages: seen.as_deref().map(MessageRows::new),
        most_messages: SEEN_MESSAGES,
    };
    Ok(render(&page))
}

/// The connection, and whether there is one that did not answer.
async fn session(console: &Console, id: &DeviceId) -> (Option<SessionRow>, bool) {
    match console.services.directory.device(id).await {
        Ok(Some(FoundSession {
            node,
            info: Some(info),
        })) => (Some(SessionRow::new(node, info)), false),
        Ok(None) => (None, false),
        // It did not answer in time, or where it is cannot be looked up.
        Ok(Some(_)) | Err(_) => (None, true),
    }
}

/// Which credentials there are: never the value of a secret; a fingerprint is none.
fn credentials(slots: &DeviceSlots) -> Vec<(&'static str, &'static str, String)> {
    let secrets = slots.secrets.iter();
    let secrets = secrets.map(|slot| (*slot, "", TEXTS.devices.a_secret.to_owned()));
    let fingerprints = slots.fingerprints.iter();
    let fingerprints = fingerprints.map(|(slot, value)| (*slot, "mono", value.to_string()));
    secrets
        .chain(fingerprints)
        .map(|(slot, form, value)| (TEXTS.kinds.of(slot.as_str()), form, value))
        .collect()
}
