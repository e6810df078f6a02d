//! The messages of one device, as they pass: those of before with its page, and each batch of new ones as a
//! server-sent event that has the rows of their table.

use std::{convert::Infallible, sync::Arc, time::Duration};

use askama::Template;
use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream::{Stream, unfold};
use headgate_protocol::identity::DeviceId;
use tokio::time::{Instant, sleep_until};

use crate::{
    edge::console::{
        Console,
        fault::Fault,
        form::PathOf,
        paging::ListQuery,
        session::{STREAM_LASTS, Visit},
        show,
        text::{TEXTS, Texts, fill},
    },
    service::uplink::{DeviceWatch, Seen},
    shutdown::Shutdown,
};

/// A comment is sent when nothing else was for so long: our own listener closes what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes that no text can be made of and are shown.
const SHOWN_BYTES: usize = 256;

/// Rows of the table, the newest first.
#[derive(Debug, Template)]
#[template(path = "console/devices/messages.html")]
pub(super) struct MessageRows {
    t: &'static Texts,
    rows: Vec<MessageRow>,
}

/// A message.
#[derive(Debug)]
struct MessageRow {
    at: String,
    is_from_device: bool,
    topic: String,
    about: String,
    payload: String,
}

impl From<&Seen> for MessageRow {
    fn from(seen: &Seen) -> Self {
        let t = &TEXTS.devices;
        let size = show::bytes(u64::try_from(seen.size).unwrap_or(u64::MAX));
        let about = fill(
            if seen.retain {
                t.message_retained
            } else {
                t.message_about
            },
            &[("qos", &seen.qos.bits()), ("size", &size)],
        );
        Self {
            at: show::time(seen.at),
            is_from_device: seen.is_from_device,
            topic: seen.topic.to_string(),
            about,
            payload: payload(&seen.start, seen.size),
        }
    }
}

/// A payload as people read it: text, or else its bytes.
fn payload(start: &[u8], size: usize) -> String {
    let text = match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        // Cut within a character.
        Err(error) if size > start.len() && error.error_len().is_none() => {
            let whole = start.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).ok()
        }
        Err(_) => None,
    };
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let text = text.filter(|text| text.chars().all(is_plain));
    let (mut shown, is_cut) = if let Some(text) = text {
        (text.to_owned(), size > start.len())
    } else {
        let bytes = start.get(..SHOWN_BYTES).unwrap_or(start);
        (hex::encode(bytes), size > bytes.len())
    };
    if is_cut {
        shown.push('…');
    }
    shown
}

impl MessageRows {
    /// Rows of messages, which come the oldest first.
    pub(super) fn new(seen: &[Arc<Seen>]) -> Self {
        Self {
            t: &TEXTS,
            rows: seen
                .iter()
                .rev()
                .map(|seen| MessageRow::from(&**seen))
                .collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// `GET /devices/{id}/live`
pub(super) async fn events(
    State(console): State<Arc<Console>>,
    _visit: Visit,
    PathOf(id): PathOf<DeviceId>,
    headers: HeaderMap,
    query: ListQuery,
) -> Result<Response, Fault> {
    let services = &console.services;
    services.registry.device(&id).await?;
    // A stream that was cut off goes on behind what it told.
    let told = headers.get("last-event-id");
    let told = told.and_then(|id| id.to_str().ok()?.parse().ok());
    let after = told.or_else(|| query.value("after").parse().ok());
    let watch = services.uplink.watch_device(&id, after.unwrap_or(0));
    let watch = watch.map_err(|error| Fault::overloaded(error.to_string()))?;
    Ok(Sse::new(stream(watch, services.shutdown.clone()))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

fn stream(
    watch: DeviceWatch,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let end = Instant::now() + STREAM_LASTS;
    unfold(
        (watch, shutdown, end),
        async |(mut watch, shutdown, end)| {
            let seen = tokio::select! {
                biased;
                () = shutdown.draining() => return None,
                () = sleep_until(end) => return None,
                seen = watch.next() => seen,
            };
            let number = seen.last().map_or(0, |seen| seen.number);
            // Templates write to memory, and what they show never fails.
            let rows = MessageRows::new(&seen).render().unwrap_or_default();
            let event = Event::default().id(number.to_string()).data(rows);
            Some((Ok(event), (watch, shutdown, end)))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shown_as_text_where_it_is_one() {
        for (start, size, shown) in [
            (&b"{\"a\": 1}\n"[..], 9, "{\"a\": 1}\n"),
            (b"", 0, ""),
            (b"ab", 9, "ab…"),
            ("aé".as_bytes(), 3, "aé"),
            (&"aé".as_bytes()[..2], 3, "a…"),
            (&"aé".as_bytes()[..2], 2, "61c3"),
            (b"\x00\xff", 2, "00ff"),
            (b"a\x1b[31m", 6, "611b5b33316d"),
        ] {
            assert_eq!(payload(start, size), shown, "{start:?}");
        }
        assert_eq!(payload(&[0; 300], 300), format!("{}…", "00".repeat(256)));
    }
}
