//! `/t` and `/r`: what waits for a device, its bytes block by block, and how the device says it went.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use headgate_protocol::{
    coap::{Code, ContentFormat, OptionNumber, Response, Slice, Szx},
    transfer::{
        message::{DownloadReport, TransferErrorCode, UpMessage},
        window::Chunk,
    },
};
use serde_json::{Value, json};

use super::{
    Asked, CoapServer, Done, Tag,
    body::{self, asked_block, beyond_end, entity_tag},
    registration::{Observation, RdId, Reading},
    unavailable,
};
use crate::service::delivery::{LiveDelivery, Offer, Offered, Refusal, Reserved, StoreError};

impl CoapServer {
    /// `GET /t`: what waits, as `download` says it by MQTT, without the address of the files listener.
    pub(super) fn get_delivery(&mut self, now: Instant, asked: Asked, id: RdId) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let accept = asked.message.accept();
        let watch = asked.message.uint(OptionNumber::OBSERVE);
        match watch {
            Some(0) if asked.peer == registration.address => {
                registration.deliveries = Some(Observation::new(asked.message.token, accept));
            }
            Some(_) => registration.deliveries = None,
            None => {}
        }
        let offer = self
            .node
            .delivery
            .offer(&registration.device.device_id, None);
        let (object, delivery) = match offer {
            Offer::Ready(offered) => (shown(&offered), Some(offered.delivery)),
            Offer::Waiting | Offer::Nothing => (json!({}), None),
        };
        let Some((format, whole)) = body::encode(accept, &object) else {
            return self.answer(now, &asked, Response::new(Code::NOT_ACCEPTABLE));
        };
        let mut response = match body::part(&asked.message, format, &whole) {
            Ok((response, _)) => response.repeatable(),
            Err(response) => response,
        };
        if watch == Some(0)
            && let Some(watched) = &mut registration.deliveries
        {
            watched.told.clone_from(&delivery);
            response = response.with_uint(OptionNumber::OBSERVE, watched.next());
        }
        let Some(delivery) = delivery else {
            return self.answer(now, &asked, response);
        };
        let service = self.node.delivery.clone();
        self.spawn(async move {
            service.on_announced(&delivery).await;
            Done::Answer(asked, response)
        });
    }

    /// Tells a device that watches `/t` what it has not been told.
    pub(super) fn tell_delivery(&mut self, now: Instant, id: RdId) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let Some(watched) = registration
            .deliveries
            .as_mut()
            .filter(|_| registration.awake.is_some())
        else {
            return;
        };
        let offer = self
            .node
            .delivery
            .offer(&registration.device.device_id, None);
        let (object, delivery) = match offer {
            Offer::Ready(offered) => (shown(&offered), Some(offered.delivery)),
            Offer::Waiting => return,
            Offer::Nothing => (json!({}), None),
        };
        let is_same = match (&watched.told, &delivery) {
            (Some(told), Some(delivery)) => Arc::ptr_eq(told, delivery),
            (None, None) => true,
            _ => false,
        };
        let reads = registration
            .reading
            .as_ref()
            .map(|reading| &reading.delivery);
        let is_read = reads
            .zip(delivery.as_ref())
            .is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        if is_same || is_read {
            return;
        }
        let Some((format, whole)) = body::encode(watched.accept, &object) else {
            return;
        };
        let payload = whole.slice(..whole.len().min(Szx::MAX.bytes_usize()));
        let response = Response::new(Code::CONTENT)
            .with_uint(OptionNumber::OBSERVE, watched.next())
            .with_content(format, payload);
        watched.told.clone_from(&delivery);
        let tag = match delivery {
            Some(delivery) => {
                self.announcing.insert(id);
                Tag::Announced(id, delivery)
            }
            None => Tag::Told(id),
        };
        let (address, token) = (registration.address, watched.token);
        if let Err(error) = self
            .endpoint
            .notify(now, address, token, response, Some(tag))
        {
            tracing::debug!(device_id = %registration.device.device_id, %error, "a notification was dropped");
            watched.told = None;
            self.announcing.remove(&id);
        }
    }

    /// The device knows of the delivery.
    pub(super) fn on_announced(&mut self, id: RdId, delivery: Arc<LiveDelivery>) {
        self.announcing.remove(&id);
        let service = self.node.delivery.clone();
        self.spawn(async move {
            service.on_announced(&delivery).await;
            Done::Nothing
        });
    }

    /// Whoever has been told and has not acknowledged owes nothing yet.
    pub(super) fn look_after_announced(&self) {
        for id in &self.announcing {
            let watched = self
                .registrations
                .get(*id)
                .and_then(|all| all.deliveries.as_ref());
            if let Some(delivery) = watched.and_then(|watched| watched.told.as_ref()) {
                self.node.delivery.on_announcing(delivery);
            }
        }
    }

    /// `GET /r/{transfer}`: a block.
    pub(super) fn get_block(&mut self, now: Instant, asked: Asked, id: RdId, transfer: String) {
        let block = match asked_block(&asked.message) {
            Ok(block) => block,
            Err(response) => return self.answer(now, &asked, response),
        };
        let accept = asked.message.accept();
        if accept.is_some_and(|format| format != ContentFormat::OCTETS) {
            return self.answer(now, &asked, Response::new(Code::NOT_ACCEPTABLE));
        }
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        let service = &self.node.delivery;
        let reads = registration.reading.as_ref().filter(|reading| {
            *reading.delivery.transfer == *transfer && service.goes_on(&reading.delivery)
        });
        let restarts = |reading: &Reading| {
            block.number == 0 && reading.last.is_some_and(|last| last.offset > 0)
        };
        if reads.is_some_and(|reading| !restarts(reading)) {
            return self.serve_block(now, asked, id);
        }
        let (service, device) = (service.clone(), registration.device.device_id.clone());
        let offset = block.offset();
        self.spawn(async move {
            let begun = async {
                let delivery = service.find(&device, &transfer).await?;
                if offset > 0 && offset >= delivery.content.size {
                    // Nothing begins beyond the end.
                    return Ok(delivery);
                }
                service.begin_blocks(&delivery, offset).await?;
                Ok(delivery)
            };
            let begun = begun.await;
            Done::Begun(asked, id, begun)
        });
    }

    pub(super) fn on_begun(
        &mut self,
        now: Instant,
        asked: Asked,
        id: RdId,
        begun: Result<Arc<LiveDelivery>, Refusal>,
    ) {
        match begun {
            Ok(delivery) => {
                let Some(registration) = self.registrations.get_mut(id) else {
                    return self.endpoint.ignore(asked.exchange);
                };
                registration.reading = Some(Reading {
                    delivery,
                    last: None,
                });
                self.serve_block(now, asked, id);
            }
            Err(refusal) => self.answer(now, &asked, refused(&refusal)),
        }
    }

    /// Serves a block of the delivery that the device reads.
    fn serve_block(&mut self, now: Instant, asked: Asked, id: RdId) {
        let reading = self
            .registrations
            .get(id)
            .and_then(|all| all.reading.as_ref());
        let Some(delivery) = reading.map(|reading| Arc::clone(&reading.delivery)) else {
            return self.answer(now, &asked, unavailable(1));
        };
        let slice = match wanted(&asked, &delivery) {
            Ok(slice) => slice,
            Err(response) => return self.answer(now, &asked, response),
        };
        self.note_arrival(id, slice.offset);
        let service = self.node.delivery.clone();
        let reserved = service.limits_rate(&delivery).then(|| {
            let bytes = u64::try_from(slice.len).unwrap_or(u64::MAX);
            service.reserve(&delivery, bytes, now)
        });
        let waits = |reserved: &Reserved| !service.wait_of(&delivery, reserved, now).is_zero();
        let waits = reserved.as_ref().is_some_and(waits);
        let cached = service.cached(&delivery, slice.offset, slice.len);
        if let Some(bytes) = cached.filter(|_| !waits) {
            reserved.into_iter().for_each(Reserved::settle_whole);
            return self.send_block(now, &asked, id, slice, bytes);
        }
        self.spawn(async move {
            if let Some(reserved) = reserved {
                service.turn_of(&delivery, reserved).await;
            }
            let read = service.read(&delivery, slice.offset, slice.len).await;
            Done::Read(asked, id, read)
        });
    }

    pub(super) fn on_read(
        &mut self,
        now: Instant,
        asked: &Asked,
        id: RdId,
        read: Result<Bytes, StoreError>,
    ) {
        let reading = self
            .registrations
            .get(id)
            .and_then(|all| all.reading.as_ref());
        let slice = reading.map(|reading| wanted(asked, &reading.delivery));
        match (slice, read) {
            (Some(Ok(slice)), Ok(bytes)) => self.send_block(now, asked, id, slice, bytes),
            (_, Err(error)) => {
                tracing::error!(%error, "a resource could not be read");
                self.answer(now, asked, unavailable(10));
            }
            // It fell asleep, or reads something else by now.
            _ => self.answer(now, asked, unavailable(1)),
        }
    }

    fn send_block(&mut self, now: Instant, asked: &Asked, id: RdId, slice: Slice, bytes: Bytes) {
        let Some(reading) = self
            .registrations
            .get_mut(id)
            .and_then(|all| all.reading.as_mut())
        else {
            return self.answer(now, asked, unavailable(1));
        };
        let delivery = Arc::clone(&reading.delivery);
        if bytes.len() != slice.len {
            tracing::error!(delivery = %delivery.id, "a segment does not hold whole blocks");
            return self.answer(now, asked, unavailable(10));
        }
        let size = u32::try_from(delivery.content.size).unwrap_or(u32::MAX);
        let response = Response::new(Code::CONTENT)
            .with(OptionNumber::ETAG, entity_tag(&delivery.content.sha256))
            .with_uint(OptionNumber::BLOCK2, slice.block.value())
            .with_uint(OptionNumber::SIZE2, size)
            .with_content(ContentFormat::OCTETS, bytes)
            .repeatable();
        let chunk = Chunk {
            offset: slice.offset,
            len: u32::try_from(slice.len).unwrap_or(u32::MAX),
        };
        reading.last = Some(chunk);
        if chunk.len > 0 {
            self.node.delivery.on_block_sent(&delivery, chunk);
        }
        if !slice.block.more && delivery.confirm_by_acknowledgement {
            // Nothing follows by which the device would say that it has this one: its acknowledgement does.
            let tag = Tag::LastBlock(id);
            let sent = self
                .endpoint
                .respond_confirmable(now, asked.exchange, response, tag);
            if let Err(error) = sent {
                tracing::debug!(delivery = %delivery.id, %error, "a block was dropped");
            }
            return;
        }
        self.answer(now, asked, response);
    }

    /// The request for what follows a block says that the block arrived.
    fn note_arrival(&mut self, id: RdId, offset: u64) {
        let reading = self
            .registrations
            .get_mut(id)
            .and_then(|all| all.reading.as_mut());
        if let Some(reading) = reading
            && let Some(last) = reading.last.take_if(|last| last.end() == offset)
        {
            let delivery = Arc::clone(&reading.delivery);
            self.note_acknowledged(&delivery, last);
        }
    }

    pub(super) fn on_last_block(&mut self, id: RdId) {
        let reading = self
            .registrations
            .get_mut(id)
            .and_then(|all| all.reading.as_mut());
        if let Some(reading) = reading
            && let Some(last) = reading.last.take()
        {
            let delivery = Arc::clone(&reading.delivery);
            self.note_acknowledged(&delivery, last);
        }
    }

    fn note_acknowledged(&self, delivery: &Arc<LiveDelivery>, block: Chunk) {
        let service = self.node.delivery.clone();
        if service.on_block_acknowledged(delivery, block) {
            let delivery = Arc::clone(delivery);
            self.spawn(async move {
                service.confirm(&delivery).await;
                Done::Nothing
            });
        }
    }

    /// `POST /t/{transfer}`: how far the device is, or how it ended.
    pub(super) fn report(&mut self, now: Instant, asked: Asked, id: RdId, transfer: &str) {
        let report = body::decode(&asked.message).and_then(|said| read_report(transfer, &said));
        let report = match report {
            Ok(report) => report,
            Err(response) => return self.answer(now, &asked, response),
        };
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        let (service, device) = (
            self.node.delivery.clone(),
            registration.device.device_id.clone(),
        );
        self.spawn(async move {
            let receipt = service.report(&device, &report).await;
            let response = if receipt.result_code == 0 {
                Response::new(Code::CHANGED)
            } else {
                Response::error(Code::CONFLICT, &receipt.result_msg)
            };
            Done::Answer(asked, response)
        });
    }
}

/// What a device is told of a delivery.
fn shown(offered: &Offered) -> Value {
    let mut shown = serde_json::to_value(&offered.announcement).unwrap_or_default();
    if let Some(fields) = shown.as_object_mut() {
        // Signed anew each time, so that two blocks of this would not fit together; the bytes are at `/r`.
        fields.remove("url");
    }
    shown
}

/// The part of a delivery's content that is asked for.
fn wanted(asked: &Asked, delivery: &LiveDelivery) -> Result<Slice, Response> {
    let content = &delivery.content;
    let mut wanted = asked.message.all(OptionNumber::IF_MATCH).peekable();
    let has_condition = wanted.peek().is_some();
    if has_condition && !wanted.any(|tag| tag.is_empty() || tag == entity_tag(&content.sha256)) {
        return Err(Response::new(Code::PRECONDITION_FAILED));
    }
    let block = asked_block(&asked.message)?;
    block.slice(content.size, Szx::MAX).map_err(beyond_end)
}

fn refused(refusal: &Refusal) -> Response {
    let code = match refusal.code {
        TransferErrorCode::UnknownTransfer | TransferErrorCode::Canceled => Code::NOT_FOUND,
        TransferErrorCode::StaleVersion => Code::PRECONDITION_FAILED,
        TransferErrorCode::Busy | TransferErrorCode::NoSpace => {
            return unavailable(refusal.retry_after.unwrap_or(10));
        }
        _ => Code::BAD_REQUEST,
    };
    Response::error(code, refusal.message)
}

/// Reads {`state`, `percent`, `result_code`, `result_msg`}, by the rules of the message by MQTT that holds the same.
fn read_report(transfer: &str, said: &Value) -> Result<DownloadReport, Response> {
    let message = json!({
        "type": "report_download_progress",
        "transfer": transfer,
        "progress": said,
    });
    match UpMessage::parse(message.to_string().as_bytes()) {
        Ok(UpMessage::ReportDownloadProgress(report)) => Ok(report),
        Ok(_) => Err(Response::new(Code::BAD_REQUEST)),
        Err(malformed) => Err(Response::error(Code::BAD_REQUEST, &malformed.reason)),
    }
}
