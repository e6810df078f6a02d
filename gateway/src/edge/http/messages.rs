//! `/apps/{app}/messages`, a stream of server-sent events, and `/devices/{device}/messages`.
//!
//! A stream ends when its client goes, when the application may not read any more, and when the node
//! drains.  Spec: HTML, "Server-sent events".

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{TopicFilter, TopicName},
};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    auth::{Caller, Operator, Viewer, check_role},
    extract::{JsonBody, PathOf, QueryOf},
    problem::{Kind, Problem},
    view::{
        DroppedView, MessageView, NewMessageBody, PageQuery, PageView, SentView, WaitingView,
        invalid_page,
    },
};
use crate::{
    model::{DeviceName, Id, InvalidPage, Message, Millis, Paged, Role},
    service::uplink::{Ended, EventStream, NotSent, Origin, Sending, Sent, StreamEvent},
    shutdown::Shutdown,
};

/// The event that a stream that was cut off read last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells a proxy in front not to hold events back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The longest that a request waits for a device's response.
const MAX_WAIT_SECS: u64 = 60;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(subscribe))
        .routes(routes!(send, list, clear))
}

/// Which messages a stream has.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// A topic filter, with wildcards as in MQTT; default: all messages.
    filter: Option<String>,
}

/// Streams the messages of an application's devices as server-sent events.
///
/// `message` has the message; `lost` says how many went by unread; `end` says why the stream is over.
#[utoipa::path(get, path = "/apps/{app}/messages", tag = "messages",
    params(("app" = String, Path, description = "The application's id"), StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Goes on behind this event")),
    security(("token" = []), ("application" = [])),
    responses((status = 200, body = MessageView<'static>, content_type = "text/event-stream")))]
async fn subscribe(
    caller: Caller,
    State(state): State<ApiState>,
    PathOf(id): PathOf<AppId>,
    QueryOf(query): QueryOf<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let reader = caller.may_read_of(&id)?;
    let filter = query.filter.map(|text| filter(&state, &text)).transpose()?;
    // One that is no id of ours is as good as one that is not kept any more: the client is told of a loss.
    let after = match headers.get(LAST_EVENT_ID) {
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let known = text.parse().map_err(|error| {
                Problem::new(Kind::InvalidHeader, format!("Last-Event-ID: {error}"))
                    .with_field("last-event-id")
            });
            Some(known?)
        }
        None => None,
    };
    if !state.apps.app(&id).await?.enabled {
        let detail = "the application is disabled";
        return Err(Problem::new(Kind::WrongState, detail));
    }
    let stream = state.uplink.open_stream(&id, reader, filter, after)?;
    let keep_alive = state.limits.stream_keep_alive;
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (ACCEL_BUFFERING, "no"),
    ];
    Ok((headers, events(stream, keep_alive, state.shutdown.clone())).into_response())
}

fn filter(state: &ApiState, text: &str) -> Result<TopicFilter, Problem> {
    let invalid = |detail: String| Problem::new(Kind::InvalidQuery, detail).with_field("filter");
    let filter = TopicFilter::try_from(text).map_err(|error| invalid(error.to_string()))?;
    if filter.is_shared() {
        return Err(invalid("a stream cannot be shared".to_owned()));
    }
    let levels = text.bytes().filter(|byte| *byte == b'/').count() + 1;
    if text.len() > state.limits.max_topic_bytes || levels > state.limits.max_topic_levels {
        return Err(invalid("the filter is too long".to_owned()));
    }
    Ok(filter)
}

/// What is left to write of a stream.
struct Writing {
    stream: EventStream,
    keep_alive: Duration,
    shutdown: Shutdown,
    is_over: bool,
}

fn events(stream: EventStream, keep_alive: Duration, shutdown: Shutdown) -> Body {
    let writing = Writing {
        stream,
        keep_alive,
        shutdown,
        is_over: false,
    };
    // At once, so that the client sees the head of the answer.
    let opening = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b": open\n\n"))]);
    let events = stream::unfold(writing, async |mut writing| {
        if writing.is_over {
            return None;
        }
        let text = tokio::select! {
            biased;
            () = writing.shutdown.draining() => return None,
            event = writing.stream.next() => match event {
                Ok(event) => spell(&event),
                Err(reason) => {
                    writing.is_over = true;
                    format!("event: end\ndata: {{\"reason\":\"{}\"}}\n\n", reason_of(reason))
                }
            },
            () = tokio::time::sleep(writing.keep_alive) => ": keep-alive\n\n".to_owned(),
        };
        Some((Ok(Bytes::from(text)), writing))
    });
    Body::from_stream(futures_util::StreamExt::chain(opening, events))
}

fn spell(event: &StreamEvent) -> String {
    match event {
        StreamEvent::Message(id, message) => {
            // A struct of strings and numbers always serializes, on one line.
            let data = serde_json::to_string(&MessageView::of(message)).unwrap_or_default();
            format!("id: {id}\nevent: message\ndata: {data}\n\n")
        }
        StreamEvent::Lost(Some(count)) => format!("event: lost\ndata: {{\"count\":{count}}}\n\n"),
        StreamEvent::Lost(None) => "event: lost\ndata: {\"count\":null}\n\n".to_owned(),
    }
}

const fn reason_of(ended: Ended) -> &'static str {
    match ended {
        Ended::Disabled => "disabled",
        Ended::Deleted => "deleted",
        Ended::SecretReset => "secret_reset",
        // Of MQTT sessions alone.
        Ended::SessionEnded => "session_ended",
    }
}

/// How a message is sent.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SendQuery {
    /// Seconds to wait for the device's response, 1 to 60. The response is known by the request id in the topic (of
    /// Huawei's commands and properties and Tencent's `$rrpc`) or comes on `response_topic`.
    #[param(minimum = 1, maximum = 60)]
    wait: Option<u64>,
}

/// Sends a message to a device: now, or when it comes. With `wait` the answer is 200 and has the device's response,
/// or 202 where none came in time.
#[utoipa::path(post, path = "/devices/{device}/messages", tag = "messages", request_body = NewMessageBody,
    params(("device" = String, Path, description = "The device's id in the whole gateway"), SendQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 ASCII characters")),
    security(("token" = []), ("application" = [])),
    responses((status = 200, body = SentView<'_>), (status = 202, body = SentView<'_>)))]
async fn send(
    caller: Caller,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    QueryOf(query): QueryOf<SendQuery>,
    JsonBody(body): JsonBody<NewMessageBody>,
) -> Result<Response, Problem> {
    let origin = match &caller {
        Caller::App(app) => Origin::App(&app.id, None),
        Caller::Actor(actor) => {
            check_role(actor, Role::Operator)?;
            Origin::Operator
        }
    };
    let message = message_of(&state, &id, &body).await?;
    let waiting = match query.wait {
        None => None,
        Some(secs @ 1..=MAX_WAIT_SECS) => {
            // Before it is sent: the response may come at once.
            let response_topic = message.properties.response_topic.as_deref();
            let waiting =
                state
                    .requests
                    .expect(&message.device.device_id, &message.topic, response_topic)?;
            Some((waiting, Duration::from_secs(secs)))
        }
        Some(_) => {
            let detail = format!("wait is not 1 to {MAX_WAIT_SECS}");
            return Err(Problem::new(Kind::InvalidQuery, detail).with_field("wait"));
        }
    };
    let (status, message_id) = match state
        .uplink
        .publish_to_device(origin, message, Sending::default())
        .await?
    {
        Sent::Online(message_id) => ("sent", message_id),
        Sent::Queued(message_id) => ("queued", Some(message_id)),
    };
    let response = match waiting {
        Some((mut waiting, limit)) => tokio::select! {
            biased;
            response = waiting.response() => Some(response),
            () = tokio::time::sleep(limit) => None,
            () = state.shutdown.draining() => None,
        },
        None => None,
    };
    // The application may have lost the device while it waited.
    let response = match (&caller, response) {
        (Caller::App(app), Some(response)) => {
            let device = &response.device.device_id;
            let is_bound = state.uplink.is_bound(&app.id, device).await;
            is_bound.map_err(NotSent::from)?.then_some(response)
        }
        (_, response) => response,
    };
    let code = if response.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let view = SentView {
        status,
        message_id,
        response: response.as_ref().map(MessageView::of),
    };
    Ok((code, Json(view)).into_response())
}

/// The message that a body describes.
async fn message_of(
    state: &ApiState,
    id: &DeviceId,
    body: &NewMessageBody,
) -> Result<Message, Problem> {
    let device = name_of(state, id).await?;
    let at = Millis::now();
    let default = || format!("{}/{}/down", device.product_id, device.node_id);
    let topic = body.topic.clone().unwrap_or_else(default);
    let levels = topic.bytes().filter(|byte| *byte == b'/').count() + 1;
    if topic.len() > state.limits.max_topic_bytes || levels > state.limits.max_topic_levels {
        return Err(Problem::field("topic", "is too long"));
    }
    Ok(Message {
        device,
        topic: TopicName::try_from(topic)
            .map_err(|error| Problem::field("topic", error.to_string()))?,
        payload: body.payload()?.into(),
        qos: body.qos()?,
        retain: body.retain,
        properties: body.properties(at)?,
        at,
    })
}

/// Lists the messages that wait for a device, oldest first, without their payloads.
#[utoipa::path(get, path = "/devices/{device}/messages", tag = "messages",
    params(("device" = String, Path, description = "The device's id in the whole gateway"), PageQuery),
    responses((status = 200, body = PageView<WaitingView>)))]
async fn list(
    _viewer: Viewer,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PageView<WaitingView>>, Problem> {
    let device = name_of(&state, &id).await?;
    let page = query.page()?;
    let after: Option<Id> = match page.after().map_err(invalid_page)? {
        Some(text) => Some(
            text.parse()
                .map_err(|_| invalid_page(InvalidPage::Cursor))?,
        ),
        None => None,
    };
    let mailbox = state.uplink.mailbox();
    // One more than asked for says whether there is another page.
    let limit = usize::try_from(page.limit)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let waiting = mailbox.pending(&device.device_id, after, limit).await;
    let waiting = waiting.map_err(NotSent::from)?;
    let views = waiting.iter().filter_map(|stored| {
        let message = &stored.message;
        Some(WaitingView {
            message_id: stored.id?,
            topic: message.topic.to_string(),
            qos: message.qos.bits(),
            size: message.payload.len(),
            content_type: message
                .properties
                .content_type
                .as_deref()
                .map(str::to_owned),
            at: message.at,
            expires_at: mailbox.expiry_of(message),
        })
    });
    let page = Paged::cut(views.collect(), page.limit, |view: &WaitingView| {
        view.message_id.to_string()
    });
    Ok(Json(PageView::of(page)))
}

/// Drops the messages that wait for a device.
#[utoipa::path(delete, path = "/devices/{device}/messages", tag = "messages",
    params(("device" = String, Path, description = "The device's id in the whole gateway")),
    responses((status = 200, body = DroppedView)))]
async fn clear(
    Operator(actor): Operator,
    State(state): State<ApiState>,
    PathOf(id): PathOf<DeviceId>,
) -> Result<Json<DroppedView>, Problem> {
    let device = name_of(&state, &id).await?;
    let dropped = state.apps.empty_mailbox(&actor, &device.device_id).await?;
    Ok(Json(DroppedView { dropped }))
}

async fn name_of(state: &ApiState, id: &DeviceId) -> Result<DeviceName, Problem> {
    let device = state.uplink.device(id).await.map_err(NotSent::from)?;
    let device = device.ok_or(NotSent::UnknownDevice)?;
    Ok(DeviceName::clone(&device))
}
